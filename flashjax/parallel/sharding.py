"""Which device holds which part of a parameter: rules over paths, one set for all denoisers and all roles.

Student, critic, EMA, teachers and optimizer states are divided alike. ``fsdp`` divides every matrix (a layer's matrix
is gathered when it is used); ``tensor`` divides the two matrices around heads and hidden units so that the sum behind
the second is the only exchange. The leading axis of stacked layers is never divided: a scan takes one layer at a time,
which would then be on one device.
"""

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from flashjax import paths
from flashjax.errors import Indivisible

# Of the last axes of a leaf; what stands in front of them is whole.
COLUMN = ("fsdp", "tensor")  # [in, out], of which out are heads or hidden units
ROW = ("tensor", "fsdp")  # [in, out], of which in are heads or hidden units
OUTPUT = (None, ("fsdp", "tensor"))
INPUT = (("fsdp", "tensor"), None)
WHOLE = ()

RULES = (
    # What t alone goes through: a row a sample, so that rows travel and the kernel stays (layers.by_output). In
    # Qwen-Image these are a third of all parameters.
    (r"(.*/)?(mod|modulation\w*|norm_out)/(kernel|bias)", OUTPUT),
    (r".*/(scale|bias)|.*_pad_token", WHOLE),
    (r"time_embed/linear_[12]/kernel|img_in/kernel", OUTPUT),
    (r"(txt_in|text_in|proj_out)/kernel", INPUT),
    (r"text_in/in_layer/kernel", COLUMN),
    (r"text_in/out_layer/kernel", ROW),
    # FLUX.2's fused matrices: their parts do not begin where a division over tensor would cut.
    (r"blocks/single/proj_(in|out)/kernel|.*/mlp_(in|out)/kernel", INPUT),
    (r".*/(to_[qkv]|mlp/(gate|proj|hidden|w1|w3))/kernel", COLUMN),
    (r".*/(to_out|mlp/(out|w2))/kernel", ROW),
)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of a state, a Role, an optimizer's state or parameters (arrays or their shapes).

    A leaf is named by the dictionary keys at the end of its place in the tree, which are a parameter's path also within
    an optimizer's state, however it is nested; numbers without any (counts, the step, Muon's
    coefficients) are whole. Raises Indivisible for
    parameters that do not divide, and PathError for those that no rule names.
    """
    problems = []

    def place(place, leaf):
        path = parameter_path(place)
        if not path and leaf.ndim > 1:
            name = jax.tree_util.keystr(place)
            raise paths.PathError(f"{name} belongs to no parameter, so that no rule says where it lies.")
        spec = partition(division(path) if path else WHOLE, leaf.ndim)
        sharding = NamedSharding(mesh, spec)
        for size, parts in zip(leaf.shape, _parts(spec, leaf.ndim, mesh), strict=True):
            if size % parts:
                problems.append(f"{path} has an axis of {size}, which does not divide over {parts} devices")
        return sharding

    placed = jax.tree_util.tree_map_with_path(place, tree)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Indivisible(f"The parameter {problems[0]}{more}; change fsdp or tensor of the mesh.")
    return placed


def division(path: str) -> tuple:
    """The axes that divide a parameter. The factors of an adapter lie as their kernel does, so that their product is
    where it is added: a [..., in, rank] by its inputs, b [..., rank, out] by its outputs; so do the values of a kernel
    in int8, and their scales [..., 1, out]."""
    kernel, _, side = path.rpartition("/")
    if side not in ("a", "b", "int8", "scale") or not kernel.endswith("/kernel"):
        return paths.match(RULES, path)
    inputs, outputs = paths.match(RULES, kernel)
    return (inputs if side in ("a", "int8") else None, None if side == "a" else outputs)


def partition(names: tuple, ndim: int) -> PartitionSpec:
    """``names`` of the last axes as the specification of a leaf; in front of them, whole."""
    names = names[max(len(names) - ndim, 0) :]
    return PartitionSpec(*(None,) * (ndim - len(names)), *names)


def parameter_path(place: tuple) -> str:
    """The dictionary keys at the end of a key path, as ``paths`` writes them: "" where there are none."""
    names = []
    for key in reversed(place):
        if not isinstance(key, DictKey):
            break
        names.append(key.key)
    return "/".join(reversed(names))


def explain(params: Any) -> str:
    """The table: path, shape, rule and division of every parameter."""
    return paths.explain(RULES, params)


def with_shapes(tree: Any, mesh: Mesh) -> Any:
    """Shapes and dtypes of a tree together with where its leaves are to lie: for restoring, and compiling ahead."""
    return with_places(tree, shardings(tree, mesh))


def with_places(tree: Any, places: Any) -> Any:
    """The same with places of one's own."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, places)


def divided(optimizer: optax.GradientTransformation, mesh: Mesh) -> optax.GradientTransformation:
    """The optimizer, on gradients that are divided as their parameters are. Without it the compiler may sum whole
    gradients on every device, which it did (``jax.jit`` with divided parameters only)."""

    def update(grads, state, params=None):
        grads = jax.lax.with_sharding_constraint(grads, shardings(grads, mesh))
        return optimizer.update(grads, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def _parts(spec: PartitionSpec, ndim: int, mesh: Mesh) -> list[int]:
    """Over how many devices every axis is divided."""
    parts = []
    for names in (*spec, *(None,) * (ndim - len(spec))):
        count = 1
        for name in (names,) if isinstance(names, str) else names or ():
            count *= mesh.shape[name]
        parts.append(count)
    return parts


def put(tree: Any, places: Any) -> Any:
    """Arrays on their places. Of numpy, which every host has whole and has compared (`hosts.check_same`), each host
    copies the parts of its own devices: where there are several, ``jax.device_put`` gathers all their copies first, on
    every device."""
    return jax.tree.map(_put, tree, places)


def _put(x: Any, where: Any) -> jax.Array:
    if isinstance(x, np.ndarray) and jax.process_count() > 1:
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])
    return jax.device_put(x, where)
