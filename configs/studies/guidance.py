"""Study b: which teacher should guide which step? The specialists are in the repository, each a run of
configs/postcards_specialist.py, made so:

    for s in landscape portrait text; do
      flashjax prepare --out data/$s --split teacher --count 24000 --categories $s
      flashjax train --config=configs/postcards_specialist.py:of=$s,rank=0,steps=1200 --workdir=runs/specialist_$s
      flashjax export --workdir runs/specialist_$s --out weights/postcards_$s
    done
    flashjax study configs/studies/guidance.py --docs docs/studies

It needs the prompts and the held-out set that configs/studies/composition.py names. Cost and result:
docs/studies/README.md.
"""

from flashjax.studies.grid import Study

TEACHERS = {
    "base": {"weights": "weights/postcards_teacher/transformer"},
    "portraits": {"weights": "weights/postcards_portrait/transformer"},
    "signs": {"weights": "weights/postcards_text/transformer"},
}
THREE = TEACHERS | {"landscapes": {"weights": "weights/postcards_landscape/transformer"}}


def both(shape: str) -> dict:
    return {"distill.guidance_table": {"portrait": {"portraits": shape}, "text": {"signs": shape}}}


def three(shape: str) -> dict:
    table = both(shape)["distill.guidance_table"] | {"landscape": {"landscapes": shape}}
    return {"distill.teachers": THREE, "distill.guidance_table": table}


study = Study(
    title="Step-wise multi-teacher guidance",
    question="Does a specialist help, at which of the student's steps, and does it lose what it is no specialist for?",
    base="configs/postcards.py:study",
    settings={"distill.teachers": TEACHERS},
    cells={
        "base only": {"distill.guidance_table": {}},
        "specialists only": both("constant:1"),
        "base, then specialists": both("base_then_specialist"),
        "base, then three specialists": three("base_then_specialist"),
        "last step only": both("last_step"),
        "specialists, then base": both("specialist_then_base"),
        "constant 0.5": both("constant:0.5"),
        "constant 0.25": both("constant:0.25"),
        "portraits alone, base first": {"distill.guidance_table": {"portrait": {"portraits": "base_then_specialist"}}},
        "signs everywhere": {
            "distill.guidance_table": {c: {"signs": "constant:1"} for c in ("landscape", "portrait", "text")}
        },
    },
    contrasts=(
        ("specialists only", "base only"), ("base, then specialists", "base only"),
        ("base, then three specialists", "base only"), ("last step only", "base only"),
        ("specialists, then base", "base only"), ("constant 0.5", "base only"), ("constant 0.25", "base only"),
        ("portraits alone, base first", "base only"), ("base, then specialists", "portraits alone, base first"),
        ("base, then three specialists", "base, then specialists"),
        ("base, then specialists", "specialists only"), ("base, then specialists", "specialists, then base"),
        ("signs everywhere", "base only"),
        ("specialist of portraits, 80 NFE", "teacher, 80 NFE"), ("specialist of signs, 80 NFE", "teacher, 80 NFE"),
    ),
    measure=dict(data="data/heldout/heldout.arrayrecord", teacher="weights/postcards_teacher"),
    drawn={
        "teacher, 80 NFE": "weights/postcards_teacher",
        "specialist of portraits, 80 NFE": "weights/postcards_portrait",
        "specialist of signs, 80 NFE": "weights/postcards_text",
    },
)  # fmt: skip
