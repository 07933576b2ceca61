"""A specialist of a released model: its network trained further on pictures of one category (``of``) by supervised
fine-tuning, as an adapter (``rank`` numbers a kernel's row and column) or, with ``rank=0``, whole. ``model`` is
qwen_image_21, qwen_image, klein (whose encoder is flux2_klein) or z_image.

Rows have ``prompt``, ``category`` and ``image``, the path of a picture; of several categories one is learnt:

    flashjax prepare --from pictures.jsonl --encoder qwen_image_21 --encoder-weights Qwen-Image-2.1 \\
      --out data/qwen_image_21 --name pictures --size 1024
    flashjax train --config=configs/specialist.py:of=portrait --workdir=runs/portrait
    flashjax export --workdir runs/portrait --out weights/portrait --lora flashjax

It is a teacher beside the one that it was made of, held as its factors; the pictures' prompts serve there too:

    flashjax train --config=configs/qwen_image_21.py:lora --workdir=runs/qwen_image_21_lora \\
      --config.distill.teachers="{'base': {'weights': 'Qwen-Image-2.1/transformer'},
        'portraits': {'weights': 'weights/portrait'}}" \\
      --config.distill.guidance_table="{'portrait': {'portraits': (0, 0, 0.5, 1)}}" \\
      --config.sources.prompts.path=data/qwen_image_21/pictures.arrayrecord

On a laptop with random weights, from the postcards; nothing is learnt, everything runs:

    flashjax prepare --out data/tiny_pictures --split train --count 64
    flashjax train --config=configs/specialist.py:tiny --workdir=runs/tiny_specialist

Cost: state, base and batch take 28 GiB in all, 107 with rank=0, and the run 5.3 H200-hours at the chips' peak, says
`flashjax plan --config=configs/specialist.py --devices gpu:8xh200` (qwen_image 75 GiB and 5.6, klein 16 and 2.5,
z_image 23 and 4.5). Drawing samples is not counted.
Expected: a few points more of what prompts of the category name, and less elsewhere, as the postcards' specialists
(docs/studies/README.md). Rates and shifts are starting points: the run has not been made yet.
"""

from ml_collections import ConfigDict

from flashjax.config import parse_arg, varying

# Folder of the pipeline, denoiser and autoencoder (architecture, preset), guidance with which it draws.
MODELS = {
    "qwen_image_21": ("Qwen-Image-2.1", ("qwen_image_21",) * 2, ("vae_qwen_image_21", "qwen_image_21"), 1.0),
    "qwen_image": ("Qwen-Image", ("qwen_image",) * 2, ("vae_qwen_image", "qwen_image"), 4.0),
    "klein": ("FLUX.2-klein-base-4B", ("flux2", "klein_4b"), ("vae_kl", "flux2"), 4.0),
    "z_image": ("Z-Image", ("z_image",) * 2, ("vae_kl", "z_image"), 6.0),
}


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(arg, model="qwen_image_21", of="portrait", rank=64, tiny=False)
    if args.model not in MODELS:
        raise ValueError(f"there is no model {args.model!r} here; choose {', '.join(MODELS)}")
    folder, denoiser, autoencoder, guidance = MODELS[args.model]
    config = ConfigDict()
    config.objective = "flow_matching"
    config.seed = 0
    config.steps = 6 if args.tiny else 1000
    config.batch_size = 8 if args.tiny else 64
    config.image_size = 32 if args.tiny else 1024
    config.mesh = ConfigDict(dict(data=1, fsdp=-1, context=1, tensor=1))
    # The base of an adapter is kept as it is released.
    dtype = "bfloat16" if args.rank and not args.tiny else "float32"
    sizes = dict(zip(("architecture", "preset"), denoiser, strict=True))
    config.model = ConfigDict(sizes | dict(param_dtype=dtype, remat="full"))
    config.init = f"{folder}/transformer"
    rules = ((r"blocks/((img|txt)/mod|modulation)/kernel", False), (r"blocks/.*/kernel", True), (r".*", False))
    if args.rank:
        config.lora = ConfigDict(dict(rank=min(args.rank, 4) if args.tiny else args.rank, alpha=64.0, rules=rules))
    sizes = dict(zip(("architecture", "preset"), autoencoder, strict=True))
    config.autoencoder = ConfigDict(sizes | dict(weights=f"{folder}/vae"))
    data = f"data/{args.model}/pictures.arrayrecord"
    config.sources = ConfigDict(dict(pictures=dict(path=data, task="t2i", weight=varying({args.of: 1.0}))))
    config.edit_share = varying(0.0)
    config.max_text_tokens = 512
    config.times = ConfigDict(dict(kind="logit_normal", mean=0.0, std=1.0, shift=3.0))
    config.drop_rate = 0.1 if guidance > 1 else 0.0  # captions, for a network that draws with guidance
    optim = dict(kind="adamw", warmup=50, schedule="cosine", b1=0.9, b2=0.99, weight_decay=0.0, clip=1.0)
    config.optim = ConfigDict(optim | dict(lr=1e-4 if args.rank else 1e-5))
    config.ema_decay = 0.99
    config.sample = ConfigDict(dict(steps=40, shift=3.0, guidance_scale=guidance, mode="euler"))
    config.log_every = 10
    config.sample_every = 250
    config.checkpoint_every = 250
    config.keep_checkpoints = 2
    config.watchdog_minutes = 60.0  # drawing and saves are of minutes
    return _tiny(config) if args.tiny else config


def _tiny(config: ConfigDict) -> ConfigDict:
    """The same run in miniature: random weights, and the postcards' pictures, which are no latents, and text states."""
    config.model.update(dict(preset="tiny", in_channels=48, context_dim=384, remat="none"))
    config.autoencoder.update(dict(architecture="pixels", preset="", weights=""))
    config.init = "random"
    config.sources.pictures.path = "data/tiny_pictures/train.arrayrecord"
    config.max_text_tokens = 28
    config.optim.warmup = 2
    config.sample.steps = 4
    return config
