"""What every role of a run begins as: which of the weights that a configuration names is whose."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flashjax import flow
from flashjax.models import lora
from flashjax.weights import content, kept, load_specialist, load_weights


class Roles(NamedTuple):
    """student, critic: what they begin as, in LoRA runs adapters. frozen: the teachers, the base first, as they are
    held; of flow matching the base of a LoRA run, or nothing. sha256: path to content of all that was read."""

    student: flow.Params
    critic: flow.Params
    frozen: list[flow.Params]
    sha256: dict[str, str]


def load(
    config: ConfigDict, named: Sequence[str], whole: flow.Params, trained: flow.Params, mesh: Mesh,
    noise: Callable[[], flow.Params],
) -> Roles:  # fmt: skip
    """``named``: the weights of the teachers, the base's first; none of flow matching. ``whole``, ``trained``: shapes
    of the network and of what is trained, which differ in LoRA runs. ``noise`` makes a network of no weights at all.
    All hosts call it. Raises UserError."""
    paths, adapted = [*named, *([config.init] if config.init else [])], lora.of(config)
    # The base teacher comes first, or what flow matching begins with.
    trees = [load_weights(config, whole, path, mesh) for path in paths[:1]]
    trees += [load_specialist(config, trees[0], path, mesh) for path in paths[1 : len(named)]]
    trees += [load_weights(config, trained, path, mesh) for path in paths[max(len(named), 1) :]]
    # What trains begins as what config.init names, else as the base teacher, else as noise.
    student, frozen = (trees[len(named) :] or trees[:1] or [None])[0], trees[: len(named)]
    if student is None:
        student = noise()
    critic = trees[0] if named else student
    if adapted:  # The base comes first among what is frozen; an adapter that changes nothing yet begins as it.
        critic, frozen = jax.device_get(lora.init(adapted, whole, jax.random.key(config.seed))), frozen or trees
        student = trees[len(named)] if named and config.init else critic
    # By content: a path says nothing of weights that were replaced.
    read = dict(zip(paths, map(content, paths, trees), strict=True))
    return Roles(student, critic, [kept(tree, config.teacher_dtype) for tree in frozen], read)
