"""The teacher of edits: the postcards' teacher, trained further on edits (source, instruction, result) and on pictures
in turn, so that one network does both.

    flashjax prepare --out data/teacher --split teacher --count 6000 --categories landscape portrait text text
    flashjax prepare --out data/editor --split teacher --count 8000 --edits
    flashjax train --config=configs/postcards_editor.py --workdir=runs/editor

Eight rows in ten are edits, half of these of signs. An edit's words stand behind its picture, of 64 tokens, which
makes such a row about twice as long as one of T2I, a picture of a kind that it knows already. Cost: 90 to 120 minutes
of a core. Result: weights/postcards_editor, and docs/results.md; words that an edit changes need more steps.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, steps=1600, batch=64)
    config = ConfigDict()
    config.objective = "flow_matching"
    config.seed = 0
    config.steps = args.steps
    config.batch_size = args.batch
    config.image_size = 32
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, context=1, tensor=1))
    config.model = ConfigDict(dict(architecture="qwen_image_21", preset="postcards", products="bfloat16"))
    config.init = "weights/postcards_teacher/transformer"
    config.sources = ConfigDict(
        dict(
            pictures=dict(path="data/teacher/teacher.arrayrecord", task="t2i", weight=varying(1.0)),
            edits=dict(
                path="data/editor/teacher_edits.arrayrecord",
                task="edit",
                weight=varying(dict(landscape=1.0, portrait=1.0, text=2.0)),  # words take longest to learn
            ),
        )
    )
    config.edit_share = varying(0.8)
    config.max_text_tokens = 32
    config.times = ConfigDict(dict(kind="logit_normal", mean=0.4, std=1.2, shift=1.0))
    config.drop_rate = 0.1
    config.optim = ConfigDict(
        dict(kind="muon", lr=8e-4, warmup=100, schedule="cosine", b1=0.9, b2=0.99, weight_decay=0.01, clip=1.0)
    )
    config.ema_decay = 0.998
    config.log_every = 20
    config.sample_every = 500
    config.sample = ConfigDict(dict(steps=40, shift=1.0, guidance_scale=2.0, mode="euler"))
    config.checkpoint_every = 250
    config.keep_checkpoints = 2
    return config
