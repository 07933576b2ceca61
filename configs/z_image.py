"""Z-Image (6.2 B) to a student of four steps, from prompts alone: all parameters, or adapters (:lora).

    flashjax prepare --from prompts.jsonl --encoder z_image --encoder-weights Z-Image \\
      --out data/z_image
    flashjax train --config=configs/z_image.py --workdir=runs/z_image
    flashjax train --config=configs/z_image.py:lora --workdir=runs/z_image_lora

Pictures of 1024 px, batches of 64, 2,000 updates of the student.

On a laptop with random weights, from the postcards' prompts; nothing is learnt, everything runs:

    flashjax prepare --out data/tiny --split train --count 64 --prompts-only
    flashjax train --config=configs/z_image.py:tiny --workdir=runs/tiny

Cost: state, teacher and batch take 172 GiB in all, 32 with :lora, and the run 75 H200-hours at the chips'
peak, says `flashjax plan --config=configs/z_image.py --devices gpu:8xh200`; with `--topology v5p:2x2x2` it
compiles, and knows temporaries too: with a batch of a picture a chip one of four v6e needs 9.2 of 31.2 GiB with
:lora (docs/plan.md). Rates and shifts are starting points: the run has not been made yet.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, lora=False, tiny=False)
    config = ConfigDict()
    config.objective = "dmd"
    config.seed = 0
    config.student_updates = 6 if args.tiny else 2000
    config.init = ""  # as the base teacher
    config.batch_size = 8 if args.tiny else 64
    config.image_size = 32 if args.tiny else 1024
    config.mesh = ConfigDict(dict(data=1, fsdp=-1, context=1, tensor=1))
    # Of a LoRA run the base is frozen and shared by all roles, and kept as it is released.
    dtype = "bfloat16" if args.lora and not args.tiny else "float32"
    sizes = dict(architecture="z_image", preset="z_image")
    config.model = ConfigDict(sizes | dict(param_dtype=dtype, remat="full"))
    config.teacher_dtype = "bfloat16"  # as it is released
    sizes = dict(architecture="vae_kl", preset="z_image")
    config.autoencoder = ConfigDict(sizes | dict(weights="Z-Image/vae"))
    data = "data/z_image/prompts.arrayrecord"
    config.sources = ConfigDict(dict(prompts=dict(path=data, task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.0)
    config.max_text_tokens = 512
    config.distill = ConfigDict(
        dict(
            teachers=dict(base=dict(weights="Z-Image/transformer")),
            classes=("landscape", "portrait", "text"),
            # {"portrait": {"portrait_teacher": (0, 0, 0.5, 1)}}, with a portrait_teacher among the teachers
            guidance_table=varying({}),
            nfe=4,
            shift=3.0,
            guidance=dict(times=(0.0,), scales=(6.0,)),  # with which it draws, called 5 there; the student learns it
            rollout_mode="euler",
            student_times=dict(kind="uniform", low=0.02, high=0.98, shift=3.0),
            critic_times=dict(kind="uniform", low=0.02, high=0.98, shift=2.0),
            critic_rows=2,
            critic_updates_per_rollout=2,
            share_sample=True,  # with two rows of two updates: five critic updates a student update
            critic_warmup=30,
            ema_decay=0.99,
        )
    )
    rules = ((r"blocks/modulation/kernel", False), (r"blocks/.*/kernel", True), (r".*", False))
    if args.lora:
        config.lora = ConfigDict(dict(rank=4 if args.tiny else 64, alpha=64.0, rules=rules))
    optim = dict(kind="adamw", warmup=20, schedule="constant", b1=0.0, b2=0.99, weight_decay=0.0, clip=1.0)
    config.student_optim = ConfigDict(optim | dict(lr=5e-5 if args.lora else 1e-6))
    config.critic_optim = ConfigDict(optim | dict(lr=1e-4 if args.lora else 2e-6))
    config.log_every = 10
    config.sample_every = 100
    config.checkpoint_every = 100
    config.keep_checkpoints = 2
    config.watchdog_minutes = 60.0  # rows, drawing and saves are of minutes
    return _tiny(config) if args.tiny else config


def _tiny(config: ConfigDict) -> ConfigDict:
    """The same run in miniature: random weights, and the postcards' text states of 384 channels."""
    config.model.update(dict(preset="tiny", in_channels=16, context_dim=384, remat="none"))
    config.autoencoder.update(dict(preset="tiny", weights="random"))
    config.distill.teachers.base.weights = "random"
    config.distill.critic_warmup = config.student_optim.warmup = config.critic_optim.warmup = 2
    config.sources.prompts.path = "data/tiny/train.arrayrecord"
    config.max_text_tokens = 28
    return config
