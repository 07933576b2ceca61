"""What the compiler sets aside beside weights and result for pictures of 2048 px: whole, and in tiles of 1024 px.

    python benchmarks/autoencoder_memory.py

Compiles encoding and decoding of the released autoencoders, each by itself; nothing is computed, and no weights are
needed. A backend may set aside more or less than another: the ratios are what carries over.
"""

import functools

import jax
import numpy as np

from flashjax.models import vae_kl, vae_qwen_image, vae_qwen_image_21
from flashjax.models.autoencoder import decode_tiled, encode_tiled
from flashjax.released.drawing import OVERLAP, TILE

MODELS = {
    "Qwen-Image-2.1": (vae_qwen_image_21, "qwen_image_21"),
    "Qwen-Image": (vae_qwen_image, "qwen_image"),
    "FLUX.2": (vae_kl, "flux2"),
}
STRIDE = 16  # pixels a side of a packed latent, in all of them


def memory(function, params, shape) -> float:
    """GB of temporary memory of the program for one float32 array."""
    compiled = jax.jit(function).lower(params, jax.ShapeDtypeStruct(shape, np.float32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e9


def main() -> None:
    print(f"{jax.devices()[0].device_kind}: GB for one picture")
    print(f"{'':16}{'':8}{'1024 px':>10}{'2048 px':>10}{'in tiles':>10}")
    for name, (module, preset) in MODELS.items():
        config = getattr(module.Config, preset)()
        params, autoencoder = module.abstract(config), module.autoencoder(config)
        latents = jax.eval_shape(autoencoder.encode, params, jax.ShapeDtypeStruct((1, 64, 64, config.channels), "f4"))
        how = dict(tile=TILE // STRIDE, overlap=OVERLAP // STRIDE)
        for way, tiled, each, channels in (
            ("encode", encode_tiled, 1, config.channels), ("decode", decode_tiled, STRIDE, latents.shape[-1]),
        ):  # fmt: skip
            whole, tiled = getattr(autoencoder, way), functools.partial(tiled, autoencoder, **how)
            sizes = ((whole, 1024), (whole, 2048), (tiled, 2048))
            found = (memory(f, params, (1, side // each, side // each, channels)) for f, side in sizes)
            print(f"{name:16}{way:8}" + "".join(f"{gb:10.1f}" for gb in found), flush=True)


if __name__ == "__main__":
    main()
