"""Parts of the convolutional autoencoders. Everything is NHWC and computes in float32.

Products ask for ``Precision.HIGHEST``: TPU's default rounds the factors of a float32 product to bfloat16.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flashjax.models import layers
from flashjax.models.attention import attend


class Conv(nnx.Module):
    """A convolution; ``kernel`` [size, size, n_in, n_out], ``bias`` [n_out]. Stride 1 keeps the picture's size, stride
    2 halves it and pads at the right and at the bottom only."""

    def __init__(self, n_in: int, n_out: int, size: int, rngs: nnx.Rngs, stride: int = 1):
        self.kernel = _kernel((size, size, n_in, n_out), rngs)
        self.bias = nnx.Param(jnp.zeros((n_out,)))
        self.stride, self.padding = (stride, stride), ((0, 1) if stride == 2 else (size // 2, size // 2),) * 2

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x, self._of_a_picture().astype(jnp.float32), self.stride, self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return y + self.bias[...].astype(jnp.float32)

    def _of_a_picture(self) -> jax.Array:
        """The kernel [size, size, n_in, n_out] that is computed with."""
        return self.kernel[...]

    def with_time(self, times: int, frames: tuple[int, ...], rngs: nnx.Rngs) -> "Conv":
        """Itself, with the ``time_conv`` that the checkpoint has here: it acts between the frames of a video, which a
        picture has not, and is kept so that the checkpoint comes back whole. Its kernel is
        [*frames, 1, 1, n, times * n]."""
        n = self.kernel.shape[-2]
        self.time_conv = Conv(n, times * n, 1, rngs)
        if frames:
            self.time_conv.kernel = _kernel((*frames, 1, 1, n, times * n), rngs)
        return self


def _kernel(shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))


class CausalConv(Conv):
    """A convolution over a video's frame and those before it, ``kernel`` [size, size, size, n_in, n_out]. A picture is
    one frame with zeros before it: of the first axis only the last slice acts."""

    def __init__(self, n_in: int, n_out: int, size: int, rngs: nnx.Rngs):
        super().__init__(n_in, n_out, size, rngs)
        self.kernel = _kernel((size, size, size, n_in, n_out), rngs)

    def _of_a_picture(self) -> jax.Array:
        return self.kernel[...][-1]


class UpConv(Conv):
    """Every pixel twice in both directions, then a convolution."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x.repeat(2, axis=1).repeat(2, axis=2))


class RMSNorm(nnx.Module):
    """Every pixel's vector to length sqrt(C), times ``scale``."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        squared = jnp.square(x).sum(-1, keepdims=True)
        scale = x.shape[-1] ** 0.5 * self.scale[...].astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24)) * scale


class GroupNorm(nnx.Module):
    """Mean 0 and variance 1 over the whole picture and a group of neighbouring channels, then ``scale``, ``bias``."""

    def __init__(self, width: int, groups: int, eps: float):
        self.scale, self.bias = nnx.Param(jnp.ones((width,))), nnx.Param(jnp.zeros((width,)))
        self.groups, self.eps = groups, eps

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.reshape(*x.shape[:-1], self.groups, -1)
        y = y - y.mean((1, 2, 4), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean((1, 2, 4), keepdims=True) + self.eps)
        return y.reshape(x.shape) * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)


class Style(NamedTuple):
    """In what the families differ: the norm of a width, whether the checkpoint has queries, keys and values of the
    attention in one kernel, and what its convolutions of stride 1 are."""

    norm: Callable[[int], nnx.Module]
    fused_qkv: bool
    conv: type[Conv] = Conv


class Numbered(nnx.Module):
    """Modules under the names "0", "1", ...: lists would put integers into the parameters' paths."""

    def __init__(self, modules: Sequence[nnx.Module]):
        self.count = len(modules)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __call__(self, x: jax.Array) -> jax.Array:
        """One after another."""
        for i in range(self.count):
            x = getattr(self, str(i))(x)
        return x


class ResidualBlock(nnx.Module):
    def __init__(self, n_in: int, n_out: int, style: Style, rngs: nnx.Rngs):
        self.norm1, self.conv1 = style.norm(n_in), style.conv(n_in, n_out, 3, rngs)
        self.norm2, self.conv2 = style.norm(n_out), style.conv(n_out, n_out, 3, rngs)
        self.conv_shortcut = style.conv(n_in, n_out, 1, rngs) if n_in != n_out else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(layers.silu(self.norm1(x)))
        y = self.conv2(layers.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if self.conv_shortcut else x)


class Attention(nnx.Module):
    """Self-attention of one head over all pixels of a picture."""

    def __init__(self, width: int, style: Style, rngs: nnx.Rngs):
        self.norm, self.fused = style.norm(width), style.fused_qkv
        if self.fused:
            self.to_qkv = Conv(width, 3 * width, 1, rngs)
        else:
            self.to_q, self.to_k, self.to_v = (Conv(width, width, 1, rngs) for _ in range(3))
        self.to_out = Conv(width, width, 1, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm(x)
        qkv = jnp.split(self.to_qkv(y), 3, axis=-1) if self.fused else (self.to_q(y), self.to_k(y), self.to_v(y))
        q, k, v = (z.reshape(len(x), -1, 1, x.shape[-1]) for z in qkv)
        with jax.default_matmul_precision("highest"):
            o = attend(q, k, v)
        return x + self.to_out(o.reshape(x.shape))


class Mid(nnx.Module):
    """The coarsest part of encoder and decoder."""

    def __init__(self, width: int, style: Style, rngs: nnx.Rngs):
        self.attention = Attention(width, style, rngs)
        self.before, self.after = (ResidualBlock(width, width, style, rngs) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.after(self.attention(self.before(x)))


class Level(nnx.Module):
    """Residual blocks and a change of resolution (or None), and around both a shortcut without weights (or None)."""

    def __init__(
        self, n_in: int, n_out: int, blocks: int, resample: Conv | None, style: Style, rngs: nnx.Rngs,
        shortcut: Callable[[jax.Array], jax.Array] | None = None,
    ):  # fmt: skip
        ins = (n_in, *(n_out,) * (blocks - 1))
        self.resnets = Numbered([ResidualBlock(n, n_out, style, rngs) for n in ins])
        self.resample, self.shortcut = resample, shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.resnets(x)
        y = self.resample(y) if self.resample else y
        return y + self.shortcut(x) if self.shortcut else y


class Encoder(nnx.Module):
    """Pictures [B, H, W, n_in] to moments [B, h, w, n_out]; ``down`` leads from the first to the last width."""

    def __init__(self, n_in: int, n_out: int, widths: tuple, down: Sequence[nnx.Module], style: Style, rngs: nnx.Rngs):
        self.conv_in, self.down = style.conv(n_in, widths[0], 3, rngs), Numbered(down)
        self.mid = Mid(widths[-1], style, rngs)
        self.norm_out, self.conv_out = style.norm(widths[-1]), style.conv(widths[-1], n_out, 3, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.mid(self.down(self.conv_in(x)))
        return self.conv_out(layers.silu(self.norm_out(x)))


class Decoder(nnx.Module):
    """Latents [B, h, w, n_in] to pictures [B, H, W, n_out]; ``up`` leads from the last to the first width."""

    def __init__(self, n_in: int, n_out: int, widths: tuple, up: Sequence[nnx.Module], style: Style, rngs: nnx.Rngs):
        self.conv_in, self.up = style.conv(n_in, widths[-1], 3, rngs), Numbered(up)
        self.mid = Mid(widths[-1], style, rngs)
        self.norm_out, self.conv_out = style.norm(widths[0]), style.conv(widths[0], n_out, 3, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.up(self.mid(self.conv_in(x)))
        return self.conv_out(layers.silu(self.norm_out(x)))
