"""Study b: which teacher should guide which step? A specialist for portraits and one for signs, each a run of
configs/postcards_teacher.py on its category.

    flashjax prepare --out data/portraits --split teacher --count 12000 --categories portrait
    flashjax prepare --out data/signs --split teacher --count 12000 --categories text
    for s in portraits signs; do
      flashjax train --config=configs/postcards_teacher.py:steps=1500 --workdir=runs/$s \\
        --config.init=weights/postcards_teacher/transformer --config.sources.pictures.path=data/$s/teacher.arrayrecord
    done
    flashjax study configs/studies/guidance.py --docs docs/studies/guidance.md

It needs the prompts, the held-out set and the run that configs/studies/composition.py names. Not run yet, so its time
is not measured.
"""

from flashjax.studies.grid import Study

TEACHERS = {
    "base": {"weights": "weights/postcards_teacher/transformer"},
    "portraits": {"weights": "runs/portraits"},
    "signs": {"weights": "runs/signs"},
}


def both(shape: str) -> dict:
    return {"distill.guidance_table": {"portrait": {"portraits": shape}, "text": {"signs": shape}}}


study = Study(
    title="Step-wise multi-teacher guidance",
    question="Does a specialist help, at which of the student's steps, and does it lose what it is no specialist for?",
    base="configs/postcards.py",
    settings={"distill.teachers": TEACHERS, "student_updates": 60},
    cells={
        "base only": {"distill.guidance_table": {}},
        "specialists only": both("constant:1"),
        "constant 0.25": both("constant:0.25"),
        "constant 0.5": both("constant:0.5"),
        "base, then specialists": both("base_then_specialist"),
        "last step only": both("last_step"),
        "specialists, then base": both("specialist_then_base"),
        "portraits alone, base first": {"distill.guidance_table": {"portrait": {"portraits": "base_then_specialist"}}},
        "signs everywhere": {
            "distill.guidance_table": {c: {"signs": "constant:1"} for c in ("landscape", "portrait", "text")}
        },
    },
    contrasts=(
        ("base, then specialists", "base only"), ("specialists only", "base only"), ("last step only", "base only"),
        ("base, then specialists", "specialists only"), ("specialists, then base", "base, then specialists"),
    ),
    measure=dict(data="data/heldout/heldout.arrayrecord"),
)  # fmt: skip
