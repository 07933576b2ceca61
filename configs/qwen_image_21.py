"""Qwen-Image-2.1 (7.1 B) to a student of four steps, from prompts alone: all parameters, or adapters (:lora),
from one teacher, or with teachers of portraits and of words beside it (:specialists).

    flashjax prepare --from prompts.jsonl --encoder qwen_image_21 --encoder-weights Qwen-Image-2.1 \\
      --out data/qwen_image_21
    flashjax train --config=configs/qwen_image_21.py --workdir=runs/qwen_image_21
    flashjax train --config=configs/qwen_image_21.py:lora --workdir=runs/qwen_image_21_lora

and to one that edits pictures too, half of its rows (:edit), from rows that name them:

    flashjax prepare --from edits.jsonl --encoder qwen_image_21 --encoder-weights Qwen-Image-2.1 \\
      --out data/qwen_image_21 --name edits --size 1024
    flashjax train --config=configs/qwen_image_21.py:edit,lora --workdir=runs/qwen_image_21_edit

Pictures of 1024 px, batches of 64, 2,000 updates of the student.

On a laptop with random weights, from the postcards' prompts; nothing is learnt, everything runs:

    flashjax prepare --out data/tiny --split train --count 64 --prompts-only
    flashjax train --config=configs/qwen_image_21.py:tiny --workdir=runs/tiny

Cost: state, teacher and batch take 199 GiB in all, 38 with :lora, and the run 86 H200-hours at the chips'
peak, says `flashjax plan --config=configs/qwen_image_21.py --devices gpu:8xh200`; with `--topology v5p:2x2x2` it
compiles, and knows temporaries too. With a batch of a picture a chip one of eight v5p needs 43.8 of 88.5 GiB
(:specialists), of sixteen v6e 28.3 of 31.2, of four v6e with :lora 15.1 of 31.2 (docs/plan.md); a batch of 64 on so
few needs config.micro_batches. Rates and shifts are starting points: the run has not been made yet.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, lora=False, edit=False, specialists=False, tiny=False)
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
    sizes = dict(architecture="qwen_image_21", preset="qwen_image_21")
    config.model = ConfigDict(sizes | dict(param_dtype=dtype, remat="full"))
    config.teacher_dtype = "bfloat16"  # as it is released
    sizes = dict(architecture="vae_qwen_image_21", preset="qwen_image_21")
    config.autoencoder = ConfigDict(sizes | dict(weights="Qwen-Image-2.1/vae"))
    data = "data/qwen_image_21/prompts.arrayrecord"
    config.sources = ConfigDict(dict(prompts=dict(path=data, task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.5 if args.edit else 0.0)
    if args.edit:
        config.sources.edits = dict(path="data/qwen_image_21/edits.arrayrecord", task="edit", weight=varying(1.0))
    config.max_text_tokens = 512
    config.distill = ConfigDict(
        dict(
            teachers=dict(base=dict(weights="Qwen-Image-2.1/transformer")),
            classes=("landscape", "portrait", "text"),
            # {"portrait": {"portrait_teacher": (0, 0, 0.5, 1)}}, with a portrait_teacher among the teachers
            guidance_table=varying({}),
            nfe=4,
            shift=3.0,
            guidance=dict(times=(0.0,), scales=(1.0,)),  # its guidance is distilled into it
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
    if args.specialists:
        _specialists(config.distill)
    return _tiny(config) if args.tiny else config


def _specialists(distill: ConfigDict) -> None:
    """Teachers of portraits and of words, made from the base by further training (configs/specialist.py): they speak in
    the last two steps."""
    for name in ("portrait", "text"):
        teacher = f"{name}_teacher"
        distill.teachers[teacher] = ConfigDict(dict(weights=f"Qwen-Image-2.1-{name}/transformer"))
        distill.guidance_table[name] = ConfigDict({teacher: (0.0, 0.0, 0.5, 1.0)})


def _tiny(config: ConfigDict) -> ConfigDict:
    """The same run in miniature: random weights, and the postcards' text states of 384 channels."""
    config.model.update(dict(preset="tiny", in_channels=8, context_dim=384, remat="none"))
    config.autoencoder.update(dict(preset="tiny", weights="random"))
    for teacher in config.distill.teachers.values():
        teacher.weights = "random"
    config.distill.critic_warmup = config.student_optim.warmup = config.critic_optim.warmup = 2
    config.sources.prompts.path = "data/tiny/train.arrayrecord"
    if config.edit_share:  # the postcards' pictures are no latents
        config.model.in_channels = 48
        config.autoencoder.update(dict(architecture="pixels", preset="", weights=""))
        config.sources.edits.path = "data/tiny/train_edits.arrayrecord"
    config.max_text_tokens = 28
    return config
