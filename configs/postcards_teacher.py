"""The teacher of the postcards: a small Qwen-Image-2.1 network trained by flow matching on 48,000 pictures of 32 px.

    flashjax prepare --out data/teacher --split teacher --count 12000 --categories landscape portrait text text
    flashjax train --config=configs/postcards_teacher.py --workdir=runs/teacher

Half of the pictures are signs, because words take longest to learn. The weights in the repository were made in three
such runs, each going on from the one before with ``--config.init=weights/postcards_teacher/transformer``: 3 h 47 min in
all (card.json there has the settings of each). Cost: 5,000 steps are 75 minutes on two free cores. Result at 80 NFE (40
Euler steps with guidance): sharp pictures, 89 % of what a prompt names is right, two thirds of the words can be read
(docs/results.md). On four steps its pictures are paler and blurred, which is what distillation mends.

``:res=64`` is for a GPU: pictures of 64 px, a network of 24 million parameters in place of 2.6, batches of 256.

    flashjax prepare --out data/teacher_64 --split teacher --count 30000 --size 64 \
        --categories landscape portrait text text
    flashjax train --config=configs/postcards_teacher.py:res=64,steps=20000 --workdir=runs/teacher_64
    flashjax export --workdir runs/teacher_64 --out weights/postcards_teacher_64

By `flashjax plan --devices gpu:1xh100` that takes 0.16 chip-hours at 40 % of the peak. Rates are starting points: it
has not been trained yet. configs/postcards.py tells how to go on.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying

LARGE = dict(width=384, layers=12, heads=12, dtype="bfloat16")  # of :res=64, where an accelerator computes


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, steps=5000, res=32)
    large = args.res > 32
    config = ConfigDict()
    config.objective = "flow_matching"
    config.seed = 0
    config.steps = args.steps
    config.batch_size = 256 if large else 64
    config.image_size = args.res
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, context=1, tensor=1))  # devices; -1: all that are left
    config.model = ConfigDict(
        dict(architecture="qwen_image_21", preset="postcards") | (LARGE if large else dict(products="bfloat16"))
    )
    config.init = ""
    data = f"data/teacher{'_64' if large else ''}/teacher.arrayrecord"
    config.sources = ConfigDict(dict(pictures=dict(path=data, task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.0)
    config.max_text_tokens = 32
    config.times = ConfigDict(dict(kind="logit_normal", mean=0.4, std=1.2, shift=1.0))
    config.drop_rate = 0.1
    config.optim = ConfigDict(
        dict(kind="muon", lr=1.5e-3, warmup=100, schedule="cosine", b1=0.9, b2=0.99, weight_decay=0.01, clip=1.0)
    )
    config.ema_decay = 0.998
    config.log_every = 20
    config.sample_every = 500
    config.sample = ConfigDict(dict(steps=40, shift=1.0, guidance_scale=2.0, mode="euler"))
    config.checkpoint_every = 250
    config.keep_checkpoints = 2
    return config
