"""Study b again, of students that follow the teachers' trajectories (configs/postcards_trajectory.py): they take over
in minutes what a teacher knows, where distribution matching (configs/studies/guidance.py) moves too little to tell.

    flashjax study configs/studies/following.py --docs docs/studies

It needs the prompts and the held-out set that configs/studies/composition.py names. Cost and result:
docs/studies/README.md.
"""

from flashjax.studies.grid import Study

HELDOUT, JUDGE = "data/heldout/heldout.arrayrecord", "weights/postcards_classifier"
TEACHERS = {
    "base": {"weights": "weights/postcards_teacher/transformer"},
    "portraits": {"weights": "weights/postcards_portrait/transformer"},
    "signs": {"weights": "weights/postcards_text/transformer"},
}


def both(shape: str) -> dict:
    return {"distill.guidance_table": {"portrait": {"portraits": shape}, "text": {"signs": shape}}}


study = Study(
    title="Step-wise multi-teacher guidance, of trajectories",
    question="Does a student take over what specialists know, from which of its steps, and does it lose the rest?",
    base="configs/postcards_trajectory.py",
    settings={
        "student_updates": 120,
        "batch_size": 16,
        "distill.teachers": TEACHERS,
        "distill.ema_decay": 0.98,
        "watch": {"data": HELDOUT, "edit_data": "", "count": 150, "classifier": JUDGE},
        "sample_every": 30,
    },
    cells={
        "base only": {"distill.guidance_table": {}},
        "specialists only": both("constant:1"),
        "base, then specialists": both("base_then_specialist"),
        "specialists, then base": both("specialist_then_base"),
        "last step only": both("last_step"),
        "constant 0.5": both("constant:0.5"),
        "signs everywhere": {
            "distill.guidance_table": {c: {"signs": "constant:1"} for c in ("landscape", "portrait", "text")}
        },
    },
    contrasts=(
        ("specialists only", "base only"), ("base, then specialists", "base only"),
        ("specialists, then base", "base only"), ("last step only", "base only"), ("constant 0.5", "base only"),
        ("base, then specialists", "specialists only"), ("base, then specialists", "specialists, then base"),
        ("signs everywhere", "base only"),
        ("specialist of portraits, 80 NFE", "teacher, 80 NFE"), ("specialist of signs, 80 NFE", "teacher, 80 NFE"),
    ),
    measure=dict(data=HELDOUT, teacher="weights/postcards_teacher"),
    drawn={
        "teacher, 80 NFE": "weights/postcards_teacher",
        "specialist of portraits, 80 NFE": "weights/postcards_portrait",
        "specialist of signs, 80 NFE": "weights/postcards_text",
    },
)  # fmt: skip
