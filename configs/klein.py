"""FLUX.2-klein-base-4B (3.9 B) to a student of four steps, from prompts alone: all parameters, or adapters (:lora).

    flashjax prepare --from prompts.jsonl --encoder flux2_klein --encoder-weights FLUX.2-klein-base-4B \\
      --out data/klein
    flashjax train --config=configs/klein.py --workdir=runs/klein
    flashjax train --config=configs/klein.py:lora --workdir=runs/klein_lora

and to one that edits pictures too, half of its rows (:edit), from rows that name them:

    flashjax prepare --from edits.jsonl --encoder flux2_klein --encoder-weights FLUX.2-klein-base-4B \\
      --out data/klein --name edits --size 1024
    flashjax train --config=configs/klein.py:edit,lora --workdir=runs/klein_edit

Pictures of 1024 px, batches of 64, 2,000 updates of the student.

On a laptop with random weights, from the postcards' prompts; nothing is learnt, everything runs:

    flashjax prepare --out data/tiny --split train --count 64 --prompts-only
    flashjax train --config=configs/klein.py:tiny --workdir=runs/tiny

Cost: state, teacher and batch take 109 GiB in all, 22 with :lora, and the run 42 H200-hours at the chips'
peak, says `flashjax plan --config=configs/klein.py --devices gpu:8xh200`; with `--topology v5p:2x2x2` it
compiles, and knows temporaries too. Compiled with a sample a chip it takes, of eight v5p, 22.6 of 88.5 GiB a
chip, of four v6e with :lora 6.4 of 31.2 (docs/plan.md). Rates and shifts are starting points: the run has not
been made yet.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, lora=False, edit=False, tiny=False)
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
    sizes = dict(architecture="flux2", preset="klein_4b")
    config.model = ConfigDict(sizes | dict(param_dtype=dtype, remat="full"))
    config.teacher_dtype = "bfloat16"  # as it is released
    sizes = dict(architecture="vae_kl", preset="flux2")
    config.autoencoder = ConfigDict(sizes | dict(weights="FLUX.2-klein-base-4B/vae"))
    data = "data/klein/prompts.arrayrecord"
    config.sources = ConfigDict(dict(prompts=dict(path=data, task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.5 if args.edit else 0.0)
    if args.edit:
        config.sources.edits = dict(path="data/klein/edits.arrayrecord", task="edit", weight=varying(1.0))
    config.max_text_tokens = 512
    config.distill = ConfigDict(
        dict(
            teachers=dict(base=dict(weights="FLUX.2-klein-base-4B/transformer")),
            classes=("landscape", "portrait", "text"),
            # {"portrait": {"portrait_teacher": (0, 0, 0.5, 1)}}, with a portrait_teacher among the teachers
            guidance_table=varying({}),
            nfe=4,
            shift=9.9,
            guidance=dict(times=(0.0,), scales=(4.0,)),  # with which it draws; the student learns it
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
    rules = ((r"blocks/.*/kernel", True), (r".*", False))
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
    if config.edit_share:  # the postcards' pictures are no latents
        config.model.in_channels = 48
        config.autoencoder.update(dict(architecture="pixels", preset="", weights=""))
        config.sources.edits.path = "data/tiny/train_edits.arrayrecord"
    config.max_text_tokens = 28
    return config
