"""Study a: which categories should the prompts come from? The paper's five compositions, at equal updates and, because
a larger set is then seen less often, at equal epochs.

    flashjax prepare --out data/prompts --split train --count 4000 --prompts-only
    flashjax prepare --out data/heldout --split heldout --count 300
    flashjax study configs/studies/composition.py --docs docs/studies

The prompts are fewer than those that configs/postcards.py names for the same folder: a study knows a set by its path,
so prepare them anew if others are there. Seven cells, three seeds. Cost and result: docs/studies/README.md.
"""

from flashjax.studies.grid import Study

UPDATES = 80  # of one category; with two or three of them, twice or three times as many are as many epochs


def composition(*categories: str, epochs: bool = False) -> dict:
    changes = {"sources.prompts.weight": dict.fromkeys(categories, 1.0)}
    return changes | ({"student_updates": UPDATES * len(categories)} if epochs else {})


ALL = ("landscape", "portrait", "text")

study = Study(
    title="Data composition",
    question="Does a student of one category draw the others, and does it help or harm to add categories?",
    base="configs/postcards.py:study",
    settings={"student_updates": UPDATES},
    cells={
        "landscape": composition("landscape"),
        "portrait": composition("portrait"),
        "text": composition("text"),
        "landscape+portrait": composition("landscape", "portrait"),
        "all": composition(*ALL),
        "landscape+portrait, equal epochs": composition("landscape", "portrait", epochs=True),
        "all, equal epochs": composition(*ALL, epochs=True),
    },
    contrasts=(
        ("landscape", "all"), ("portrait", "all"), ("text", "all"), ("text", "portrait"), ("text", "landscape"),
        ("landscape+portrait", "portrait"), ("landscape+portrait", "landscape"),
        ("landscape+portrait, equal epochs", "portrait"), ("all, equal epochs", "all"),
        ("all, equal epochs", "portrait"),
    ),
    measure=dict(
        data="data/heldout/heldout.arrayrecord", limit=450, teacher="weights/postcards_teacher",
    ),
    drawn={"teacher, 80 NFE": "weights/postcards_teacher"},
)  # fmt: skip
