"""The mesh's axes by name, and where a network's activations lie on them.

``data`` divides the batch; ``fsdp`` divides the batch too, and parameters; ``context`` divides the tokens of a sample;
``tensor`` divides heads and hidden units. A program that is traced under ``jax.set_mesh`` gets these layouts; without a
mesh, or on one device, every function here returns what it is given.
"""

import math

import jax
from jax.sharding import PartitionSpec

AXES = ("data", "fsdp", "context", "tensor")
BATCH = ("data", "fsdp")
OUTPUT = ("fsdp", "tensor")


def size(*names: str) -> int:
    """Over how many devices of the mesh in use these axes divide; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in names)


def platform() -> str:
    """What kind of device the program is made for, "cpu", "gpu" or "tpu": the mesh's in use, which may be described and
    not there, else the default one."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def constrain(x: jax.Array, *names: str | tuple[str, ...] | None) -> jax.Array:
    """x with its leading dimensions divided over the named axes, and the others whole. A dimension that does not
    divide (a batch of 1, a short text) is left to the compiler."""
    if size(*AXES) == 1:
        return x
    wanted = zip(x.shape, (*names, *(None,) * (x.ndim - len(names))), strict=True)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(_fitting(n, name) for n, name in wanted)))


def _fitting(length: int, names: str | tuple[str, ...] | None):
    count = 1 if names is None else size(*_several(names))
    return names if length % count == 0 else PartitionSpec.UNCONSTRAINED


def of_attention(shape: tuple[int, ...]) -> tuple:
    """The axes that divide samples, queries and heads of [B, Q, H, D] between devices; None for what does not divide,
    which is whole on each."""
    wanted = zip(shape, (BATCH, "context", "tensor"), strict=False)
    return tuple(names if length % size(*_several(names)) == 0 else None for length, names in wanted)


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def tokens(x: jax.Array) -> jax.Array:
    """The stream [B, S, width] between blocks, or latents [B, h, w, channels], by rows."""
    return constrain(x, BATCH, "context")


def queries(x: jax.Array) -> jax.Array:
    """[B, S, H, D]: every device has its own tokens and heads."""
    return constrain(x, BATCH, "context", "tensor")


def keys(x: jax.Array) -> jax.Array:
    """[B, S, H, D]: keys or values of its own heads, of all tokens."""
    return constrain(x, BATCH, None, "tensor")
