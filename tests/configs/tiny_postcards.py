"""The postcards' runs in miniature: one layer, eight steps. ``teacher`` trains by flow matching,
``trajectory`` follows a teacher, else it is DMD."""

from ml_collections import ConfigDict

from flashjax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    data = "data/tiny/train.arrayrecord"
    args = parse_arg(arg, teacher=False, trajectory=False, data=data, weights="random", edits="")
    config = ConfigDict()
    config.objective = "flow_matching" if args.teacher else "trajectory" if args.trajectory else "dmd"
    config.seed = 0
    config.init = ""
    config.batch_size = 8
    config.mesh = ConfigDict(dict(data=1, fsdp=1, context=1, tensor=1))
    config.image_size = 8
    size = dict(width=32, layers=1, heads=2, axes_dims=(4, 6, 6))
    config.model = ConfigDict(dict(architecture="qwen_image_21", preset="postcards") | size)
    config.sources = ConfigDict(dict(cards=dict(path=args.data, task="t2i", weight=1.0)))
    config.edit_share = 0.0
    if args.edits:
        config.sources.edits = dict(path=args.edits, task="edit", weight=1.0)
        config.edit_share = 0.5
    config.max_text_tokens = 28
    kind = "muon" if args.teacher else "adamw"
    optim = ConfigDict(
        dict(kind=kind, lr=1e-3, warmup=2, schedule="constant", b1=0.5, b2=0.99, weight_decay=0.01, clip=1.0)
    )
    if args.teacher:
        config.steps = 8
        config.times = ConfigDict(dict(kind="logit_normal", mean=0.0, std=1.2, shift=1.0))
        config.drop_rate = 0.1
        config.optim = optim
        config.ema_decay = 0.9
        config.sample = ConfigDict(dict(steps=1, shift=1.0, guidance_scale=1.0, mode="euler"))
    else:
        config.student_updates = 8 if args.trajectory else 3
        times = dict(kind="uniform", low=0.02, high=0.98)
        config.distill = ConfigDict(
            dict(
                teachers=dict(base=dict(weights=args.weights)), guidance_table={},
                classes=("landscape", "portrait", "text"), nfe=2, shift=1.0,
                guidance=dict(times=(0.0,), scales=(2.0,)), rollout_mode="euler",
                student_times=times, critic_times=dict(times), critic_rows=1,
                critic_updates_per_rollout=1, share_sample=True, critic_warmup=2, ema_decay=0.9, substeps=2,
            )
        )  # fmt: skip
        config.student_optim = optim
        config.critic_optim = optim.copy_and_resolve_references()
    config.log_every = 2
    config.sample_every = 1000
    config.checkpoint_every = 4
    config.keep_checkpoints = 10
    return config
