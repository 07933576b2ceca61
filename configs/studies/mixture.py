"""Study c: how much of the work should be editing? One student for both tasks, by the share of its rows that are edits.

    flashjax prepare --out data/prompts --split train --count 4000 --prompts-only
    flashjax prepare --out data/prompts --split train --count 4000 --edits
    flashjax prepare --out data/heldout --split heldout --count 300
    flashjax prepare --out data/heldout --split heldout --count 100 --edits
    flashjax study configs/studies/mixture.py --docs docs/studies

The student begins as the edit teacher (weights/postcards_editor, of configs/postcards_editor.py), which guides it too.
Cost and result: docs/studies/README.md.
"""

from flashjax.studies.grid import Study

SOURCES = {
    "prompts": {"path": "data/prompts/train.arrayrecord", "task": "t2i", "weight": 1.0},
    "edits": {"path": "data/prompts/train_edits.arrayrecord", "task": "edit", "weight": 1.0},
}
HELD_OUT_EDITS = "data/heldout/heldout_edits.arrayrecord"

study = Study(
    title="Task mixture",
    question="Which share of edits is best for edits, and what does it cost, or bring, pictures from prompts?",
    base="configs/postcards.py:study",
    settings={
        "distill.teachers": {"base": {"weights": "weights/postcards_editor/transformer"}}, "sources": SOURCES,
        "watch.edit_data": HELD_OUT_EDITS,
    },
    cells={
        "T2I only": {"edit_share": 0.0},
        "9:1": {"edit_share": 0.1},
        "7:3": {"edit_share": 0.3},
        "5:5": {"edit_share": 0.5},
        "3:7": {"edit_share": 0.7},
        "edits only": {"edit_share": 1.0},
    },
    contrasts=(
        ("9:1", "T2I only"), ("7:3", "T2I only"), ("5:5", "T2I only"), ("edits only", "T2I only"), ("5:5", "9:1"),
        ("5:5", "edits only"), ("T2I only", "zero-shot, 4 NFE"),
        ("edit teacher, 80 NFE", "zero-shot, 4 NFE"), ("edit teacher, 80 NFE", "base teacher, 80 NFE"),
    ),
    measure=dict(
        data="data/heldout/heldout.arrayrecord", edit_data=HELD_OUT_EDITS, limit=450,
        teacher="weights/postcards_editor",
    ),
    drawn={
        "edit teacher, 80 NFE": "weights/postcards_editor",
        "base teacher, 80 NFE": "weights/postcards_teacher",  # the edit teacher was it, before it saw edits
        # T2I only begins as the edit teacher too; this one, of configs/postcards.py, has never seen an edit.
        "zero-shot, 4 NFE": "weights/postcards_student",
    },
)  # fmt: skip
