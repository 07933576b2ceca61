"""Study b again, of students that follow the teachers' trajectories (configs/postcards_trajectory.py): they take over
in minutes what a teacher knows, where distribution matching (configs/studies/guidance.py) moves too little to tell.

    flashjax study configs/studies/following.py --docs docs/studies

It needs the prompts and the held-out set that configs/studies/composition.py names. Cost and result:
docs/studies/README.md.
"""

import dataclasses
from pathlib import Path

from flashjax.studies.grid import load

JUDGE = "weights/postcards_classifier"
GUIDANCE = load(str(Path(__file__).with_name("guidance.py")))  # teachers, cells, contrasts and measure are its own

study = dataclasses.replace(
    GUIDANCE,
    title="Step-wise multi-teacher guidance, of trajectories",
    question="Does a student take over what specialists know, from which of its steps, and does it lose the rest?",
    base="configs/postcards_trajectory.py:study",
    settings={
        **GUIDANCE.settings,
        "student_updates": 120,
        "batch_size": 16,
        "distill.ema_decay": 0.98,
        "watch": {"data": GUIDANCE.measure["data"], "edit_data": "", "count": 150, "classifier": JUDGE},
        "sample_every": 30,
    },
)
