"""Is each specialist better at its category than the teacher it was made of? Models that are there already, drawn with
80 evaluations: 1,200 prompts a category, as differences of two points do not show on the 300 of other studies.

    flashjax prepare --out data/specialists --split heldout --count 1200 --categories landscape portrait --seed 2
    flashjax study configs/studies/specialists.py --docs docs/studies

The specialist of signs is clear on 300 prompts (configs/studies/following.py), that of edits on 300 edits
(configs/studies/mixture.py). How they were made: configs/studies/guidance.py; cost and result: docs/studies/README.md.
"""

from flashjax.studies.grid import Study

TEACHER, LANDSCAPES, PORTRAITS = "teacher", "specialist of landscapes", "specialist of portraits"

study = Study(
    title="Specialists of landscapes and portraits",
    question="Is each better than the teacher it was made of at its own category, and what has it lost?",
    contrasts=((LANDSCAPES, TEACHER), (PORTRAITS, TEACHER)),
    measure=dict(data="data/specialists/heldout.arrayrecord"),
    drawn={
        TEACHER: "weights/postcards_teacher",
        LANDSCAPES: "weights/postcards_landscape",
        PORTRAITS: "weights/postcards_portrait",
    },
)
