"""Study a: which categories should the prompts come from? The paper's five compositions, at equal updates and, because
a larger set is then seen less often, at equal epochs.

    flashjax prepare --out data/prompts --split train --count 4000 --prompts-only
    flashjax prepare --out data/heldout --split heldout --count 100
    flashjax train --config=configs/postcards_trajectory.py --workdir=runs/postcards_trajectory
    flashjax study configs/studies/composition.py --docs docs/studies/composition.md

Budget: seven cells, three seeds. Not run yet, so its time is not measured.
"""

from flashjax.studies.grid import Study

UPDATES = 60  # of one category; with two or three of them, twice or three times as many are as many epochs


def composition(*categories: str, epochs: bool = False) -> dict:
    changes = {"sources.prompts.weight": dict.fromkeys(categories, 1.0)}
    return changes | ({"student_updates": UPDATES * len(categories)} if epochs else {})


ALL = ("landscape", "portrait", "text")

study = Study(
    title="Data composition",
    question="Does a student of one category draw the others, and does it help or harm to add categories?",
    base="configs/postcards.py",
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
        ("text", "portrait"), ("all", "portrait"), ("landscape+portrait", "portrait"),
        ("all, equal epochs", "portrait"), ("all, equal epochs", "all"),
    ),
    measure=dict(data="data/heldout/heldout.arrayrecord"),
)  # fmt: skip
