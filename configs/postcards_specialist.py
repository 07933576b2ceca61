"""A specialist of the postcards: the teacher, trained further on one category by supervised fine-tuning, as an adapter
(``rank`` numbers a kernel's row and column) or, with ``rank=0``, whole.

    flashjax prepare --out data/portrait --split teacher --count 12000 --categories portrait
    flashjax train --config=configs/postcards_specialist.py:of=portrait --workdir=runs/specialist_portrait

The run is a teacher as it is: ``distill.teachers.portraits.weights = "runs/specialist_portrait"`` keeps an adapter
beside the base as its factors. Cost: 25 minutes of a core. Result: see docs/studies/README.md.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, of="portrait", rank=16, steps=700)
    config = ConfigDict()
    config.objective = "flow_matching"
    config.seed = 0
    config.steps = args.steps
    config.batch_size = 64
    config.image_size = 32
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, context=1, tensor=1))
    config.model = ConfigDict(dict(architecture="qwen_image_21", preset="postcards", products="bfloat16"))
    config.init = "weights/postcards_teacher/transformer"
    config.lora = ConfigDict(dict(rank=args.rank, alpha=16.0, rules=((r"blocks/.*/kernel", True), (r".*", False))))
    data = f"data/{args.of}/teacher.arrayrecord"
    config.sources = ConfigDict(dict(pictures=dict(path=data, task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.0)
    config.max_text_tokens = 32
    config.times = ConfigDict(dict(kind="logit_normal", mean=0.4, std=1.2, shift=1.0))
    config.drop_rate = 0.1
    optim = dict(kind="adamw", lr=1e-3) if args.rank else dict(kind="muon", lr=8e-4)
    config.optim = ConfigDict(
        optim | dict(warmup=50, schedule="cosine", b1=0.9, b2=0.99, weight_decay=0.0 if args.rank else 0.01, clip=1.0)
    )
    config.ema_decay = 0.995
    config.log_every = 20
    config.sample_every = 350
    config.sample = ConfigDict(dict(steps=40, shift=1.0, guidance_scale=2.0, mode="euler"))
    config.checkpoint_every = 350
    config.keep_checkpoints = 1
    return config
