"""One student of both tasks: four steps that draw from prompts and edit, by the step-wise guidance of two teachers. The
teacher of edits is the base; for prompts the postcards' teacher speaks, as it does to the student of
configs/postcards.py.

    flashjax prepare --out data/prompts --split train --count 16000 --prompts-only
    flashjax prepare --out data/prompts --split train --count 4000 --edits
    flashjax train --config=configs/postcards_joint.py:trajectory --workdir=runs/joint_trajectory
    flashjax train --config=configs/postcards_joint.py --workdir=runs/joint

Both begin with what the run before leaves. ``--config.watch.data`` and ``--config.watch.edit_data`` watch held-out
prompts and edits on the way, by either of which ``--config.keep_best`` can choose. Cost and result: docs/results.md.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying

CLASSES = ("landscape", "portrait", "text")


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, trajectory=False)
    config = ConfigDict()
    config.objective = "trajectory" if args.trajectory else "dmd"
    config.seed = 0
    config.student_updates = 700 if args.trajectory else 60
    config.init = "" if args.trajectory else "runs/joint_trajectory"  # "": as the base teacher
    config.batch_size = 24
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, context=1, tensor=1))  # devices; -1: all that are left
    config.image_size = 32
    config.model = ConfigDict(dict(architecture="qwen_image_21", preset="postcards", products="float32"))
    config.sources = ConfigDict(
        dict(
            prompts=dict(path="data/prompts/train.arrayrecord", task="t2i", weight=varying(1.0)),
            edits=dict(path="data/prompts/train_edits.arrayrecord", task="edit", weight=varying(1.0)),
        )
    )
    config.edit_share = varying(0.3)
    config.max_text_tokens = 28
    # With which a teacher draws, and what distribution matching makes of it (configs/postcards.py).
    drawn = dict(times=(0.0,), scales=(2.0,))
    matched = dict(times=(0.05, 0.2, 0.4, 0.6, 0.8), scales=(1.82, 1.74, 1.64, 1.58, 1.55))
    config.distill = ConfigDict(
        dict(
            teachers=dict(
                base=dict(weights="weights/postcards_editor/transformer"),
                pictures=dict(weights="weights/postcards_teacher/transformer"),
            ),
            classes=CLASSES,
            guidance_table=varying({name: {"pictures": "constant:1"} for name in CLASSES}),
            nfe=4,
            shift=1.0,
            guidance=drawn if args.trajectory else matched,
            rollout_mode="euler",
            ema_decay=0.99,
        )
    )
    optim = dict(kind="adamw", warmup=10, schedule="cosine", b2=0.99, weight_decay=0.0, clip=1.0)
    if args.trajectory:
        config.distill.substeps = 5
        config.student_optim = ConfigDict(optim | dict(lr=3e-4, b1=0.9))
    else:
        config.distill.update(
            student_times=dict(kind="uniform", low=0.02, high=0.98, shift=3.0),
            critic_times=dict(kind="uniform", low=0.02, high=0.98, shift=2.0),
            critic_rows=2,
            critic_updates_per_rollout=2,
            share_sample=True,
            critic_warmup=30,
        )
        config.student_optim = ConfigDict(optim | dict(lr=2e-5, b1=0.0))
        config.critic_optim = ConfigDict(optim | dict(lr=4e-4, b1=0.0))
    config.log_every = 15
    config.sample_every = 150
    config.checkpoint_every = 150
    config.keep_checkpoints = 2
    return config
