"""Study d: what the paper leaves open. One change a cell from configs/postcards.py: critic updates, where the sample is
noised to, guidance inside the loss, the student's grid, the average.

    flashjax study configs/studies/open_questions.py --docs docs/studies/open_questions.md

It needs the prompts, the held-out set and the run that configs/studies/composition.py names; cells with another grid
begin as the base teacher, since that run is of the uniform one. Not run yet, so its time is not measured.
"""

from flashjax.studies.grid import Study

FLAT = {"times": (0.0,), "scales": (2.0,)}

study = Study(
    title="What the paper leaves open",
    question="How much does each of these settings matter, one at a time?",
    base="configs/postcards.py",
    settings={"student_updates": 60},
    cells={
        "as it is": {},
        "one critic update": {"distill.critic_rows": 0},
        "nine critic updates": {"distill.critic_rows": 4},
        "noise, no shift": {"distill.student_times.shift": 1.0},
        "noise, shift 5": {"distill.student_times.shift": 5.0},
        "noise, logit-normal": {"distill.student_times": {"kind": "logit_normal", "mean": 0.0, "std": 1.0}},
        "guidance 2": {"distill.guidance": FLAT},
        "no guidance": {"distill.guidance": {"times": (0.0,), "scales": (1.0,)}},
        "grid uniform, from the teacher": {"init": ""},
        "grid shift 3, from the teacher": {"init": "", "distill.shift": 3.0},
        "grid shift 5, from the teacher": {"init": "", "distill.shift": 5.0},
        "average 0.9": {"distill.ema_decay": 0.9},
        "average 0.995": {"distill.ema_decay": 0.995},
    },
    contrasts=(
        ("one critic update", "as it is"), ("nine critic updates", "as it is"), ("noise, no shift", "as it is"),
        ("guidance 2", "as it is"), ("no guidance", "as it is"),
        ("grid shift 3, from the teacher", "grid uniform, from the teacher"),
    ),
    measure=dict(data="data/heldout/heldout.arrayrecord"),
)  # fmt: skip
