"""Where the main job's student begins: four steps that follow the teacher's own eighty evaluations, from prompts alone.

    flashjax train --config=configs/postcards_trajectory.py --workdir=runs/postcards_trajectory

``configs/postcards.py`` begins with what this run leaves. Cost and result: see docs/results.md. ``:quick`` is what
launch/quickstart.sh runs, ``:study`` what the cells of configs/studies/following.py start from, all categories and
steps alike. ``:res=64``: for the teacher of 64 px, on a GPU.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying

LARGE = dict(width=384, layers=12, heads=12, dtype="bfloat16")  # of :res=64, where an accelerator computes


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, quick=False, study=False, res=32)
    large = args.res > 32
    config = ConfigDict()
    config.objective = "trajectory"
    config.seed = 0
    config.student_updates = 140 if args.quick else 3600
    config.init = ""  # as the base teacher
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
            guidance=dict(times=(0.0,), scales=(2.0,)),  # with which the teacher draws
            rollout_mode="euler",
            substeps=5,
            ema_decay=0.98 if args.quick else 0.99,
        )
    )
    config.student_optim = ConfigDict(
        dict(
            kind="adamw", lr=3e-4, warmup=10, schedule="cosine", b1=0.9, b2=0.99,
            weight_decay=0.0, clip=1.0,
        )
    )
    if not (args.quick or args.study):  # to where the short runs are furthest from the teacher
        config.sources.prompts.weight = varying({"landscape": 1.0, "portrait": 2.0, "text": 1.0})
        config.distill.step_rows = (2, 1, 1, 1)  # of a block of rows, those that train each step
    config.log_every = 15
    config.sample_every = 150
    config.checkpoint_every = 150
    config.keep_checkpoints = 2
    return config
