"""The main job: a four-step student of the postcards' teacher, by distribution matching, from prompts alone. It begins
where configs/postcards_trajectory.py ends.

    flashjax prepare --out data/prompts --split train --count 16000 --prompts-only
    flashjax train --config=configs/postcards_trajectory.py --workdir=runs/postcards_trajectory
    flashjax train --config=configs/postcards.py --workdir=runs/postcards

``:quick`` with workdirs runs/quickstart_trajectory and runs/quickstart is what launch/quickstart.sh runs. ``:study`` is
what the cells of configs/studies start from: distribution matching alone, from the teacher, in minutes.

Cost and result: see docs/results.md.

``:res=64`` is for a GPU: pictures of 64 px, a network of 24 million parameters, batches of 128, the teacher of
configs/postcards_teacher.py:res=64, and a judge of that size. It was run for a few steps only.

    flashjax train --config=configs/postcards_trajectory.py:res=64 --workdir=runs/postcards_trajectory_64
    flashjax train --config=configs/postcards.py:res=64 --workdir=runs/postcards_64
    flashjax prepare --out data/heldout_64 --split heldout --count 300 --size 64
    python -m flashjax.evaluate.classifier --data data/teacher_64/teacher.arrayrecord \
        --heldout data/heldout_64/heldout.arrayrecord --out weights/postcards_classifier_64
    flashjax evaluate --workdir runs/postcards_64 --teacher weights/postcards_teacher_64 \
        --classifier weights/postcards_classifier_64 --data data/heldout_64/heldout.arrayrecord \
        --out runs/postcards_64/report.html
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying

# Guidance inside the loss: halfway between the teacher's own, 2, and the score of its pictures, which `flashjax
# guidance` measures. With all of it pictures are a little too sharp, and further from the teacher's (docs/results.md).
HALFWAY = dict(times=(0.05, 0.2, 0.4, 0.6, 0.8), scales=(1.82, 1.74, 1.64, 1.58, 1.55))
LARGE = dict(width=384, layers=12, heads=12, dtype="bfloat16")  # of :res=64, where an accelerator computes


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, quick=False, study=False, res=32)
    large = args.res > 32
    config = ConfigDict()
    config.objective = "dmd"
    config.seed = 0
    config.student_updates = 45 if args.quick else 120
    config.init = f"runs/{'quickstart' if args.quick else 'postcards'}_trajectory{'_64' if large else ''}"
    config.batch_size = 128 if large else 24
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, context=1, tensor=1))  # devices; -1: all that are left
    config.image_size = args.res
    config.model = ConfigDict(
        dict(architecture="qwen_image_21", preset="postcards") | (LARGE if large else dict(products="float32"))
    )
    data = f"data/{'quickstart' if args.quick else 'prompts'}"
    # weight: a number, or one by category as in {"portrait": 2.0, "text": 1.0}; ((0, 1.0), (0.5, 2.0)) over the run.
    config.sources = ConfigDict(dict(prompts=dict(path=f"{data}/train.arrayrecord", task="t2i", weight=varying(1.0))))
    config.edit_share = varying(0.0)
    config.max_text_tokens = 28
    config.distill = ConfigDict(
        dict(
            teachers=dict(base=dict(weights=f"weights/postcards_teacher{'_64' if large else ''}/transformer")),
            classes=("landscape", "portrait", "text"),
            # Which teacher speaks at which step for which class: {"portrait": {"portrait_teacher": (0, 0, 0.5, 1)}}.
            guidance_table=varying({}),
            nfe=4,
            shift=1.0,
            guidance=HALFWAY,
            rollout_mode="renoise",  # fresh noise between steps: each can mend what those before it got wrong
            # More noise than is even: there the proportions of what prompts leave open are told, and without the shift
            # the weight of the DMD gradient favours texture (docs/results.md).
            student_times=dict(kind="uniform", low=0.02, high=0.98, shift=3.0),
            critic_times=dict(kind="uniform", low=0.02, high=0.98, shift=2.0),
            critic_rows=2,
            critic_updates_per_rollout=2,
            share_sample=True,  # with two rows of two updates: five critic updates a student update
            critic_warmup=30,
            # Of few updates a long average keeps where the student began: of 45 64 % at 0.99. Of 120 it is nearer to
            # the teacher than a shorter one (docs/results.md).
            ema_decay=0.95 if args.quick else 0.99,
        )
    )
    schedule = "constant" if args.quick else "cosine"
    optim = dict(kind="adamw", warmup=10, schedule=schedule, b1=0.0, b2=0.99, weight_decay=0.0, clip=1.0)
    config.student_optim = ConfigDict(optim | dict(lr=1e-4 if args.quick else 5e-5))
    config.critic_optim = ConfigDict(optim | dict(lr=4e-4))
    config.log_every = 15
    config.sample_every = 150
    config.checkpoint_every = 150
    config.keep_checkpoints = 2
    return for_studies(config) if args.study else config


def for_studies(config: ConfigDict) -> ConfigDict:
    """Short and cheap, and from the teacher: a student that followed a trajectory has seen all categories already. Its
    pictures are watched every 20 updates."""
    config.init = ""
    config.distill.rollout_mode = "euler"
    config.student_updates = 80
    config.batch_size = 16
    config.model.products = "bfloat16"
    config.student_optim.update(lr=1e-4, schedule="constant")
    config.distill.ema_decay = 0.95
    heldout, judge = "data/heldout/heldout.arrayrecord", "weights/postcards_classifier"
    config.watch = ConfigDict(dict(data=heldout, count=150, classifier=judge))
    config.sample_every = 60
    config.checkpoint_every = 300
    config.keep_checkpoints = 1
    return config
