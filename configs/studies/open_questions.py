"""Study d: what the paper leaves open. One change a cell from configs/postcards.py:study: critic updates and what
they share with the student's, fresh noise between steps, where the sample is noised to, guidance inside the loss, the
student's grid, the average.

    flashjax study configs/studies/open_questions.py --docs docs/studies

It needs the prompts and the held-out set that configs/studies/composition.py names. Cost and result:
docs/studies/README.md.
"""

from flashjax.studies.grid import Study


def guidance(scale: float) -> dict:
    return {"distill.guidance": {"times": (0.0,), "scales": (scale,)}}


study = Study(
    title="What the paper leaves open",
    question="How much does each of these settings matter, one at a time?",
    base="configs/postcards.py:study",
    cells={
        "as it is": {},
        "one critic update": {"distill.critic_rows": 0},
        "nine critic updates": {"distill.critic_rows": 4},
        # The five critic updates of the plain cycle: each on a rollout of its own, none on the student's sample.
        "nothing shared": {
            "distill.critic_rows": 5, "distill.critic_updates_per_rollout": 1, "distill.share_sample": False,
        },
        "fresh noise": {"distill.rollout_mode": "renoise"},
        "noise, no shift": {"distill.student_times.shift": 1.0},
        "noise, shift 5": {"distill.student_times.shift": 5.0},
        "noise, logit-normal": {
            "distill.student_times": {"kind": "logit_normal", "mean": 0.0, "std": 1.0, "shift": 3.0}
        },
        "no guidance": guidance(1.0),
        "guidance 2": guidance(2.0),
        "guidance 3": guidance(3.0),
        "grid shift 3": {"distill.shift": 3.0},
        "grid shift 5": {"distill.shift": 5.0},
        "no average": {"distill.ema_decay": 0.0},
        "average 0.99": {"distill.ema_decay": 0.99},
    },
    contrasts=(
        ("one critic update", "as it is"), ("nine critic updates", "as it is"), ("nothing shared", "as it is"),
        ("fresh noise", "as it is"), ("noise, no shift", "as it is"),
        ("noise, shift 5", "as it is"), ("noise, logit-normal", "as it is"), ("no guidance", "as it is"),
        ("guidance 2", "as it is"), ("guidance 3", "as it is"), ("grid shift 3", "as it is"),
        ("grid shift 5", "as it is"), ("no average", "as it is"), ("average 0.99", "as it is"),
    ),
    measure=dict(
        data="data/heldout/heldout.arrayrecord", limit=450, teacher="weights/postcards_teacher",
    ),
    drawn={"teacher, 80 NFE": "weights/postcards_teacher"},
)  # fmt: skip
