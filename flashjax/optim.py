"""Optimizers from configuration."""

import math
import numbers

import jax
import optax
from ml_collections import ConfigDict
from optax import contrib

from flashjax import paths
from flashjax.errors import UserError

# First match wins. Matrices decay, norms do not.
DECAY = ((r".*/(scale|bias)|.*_pad_token", False), (r".*/kernel(/[ab])?", True))
# Muon is for the matrices inside the network; what reads pictures, text and time, and what writes velocities, is
# Adam's, as Muon's authors advise.
MUON = ((r"blocks/.*/kernel", True), (r".*", False))
KNOWN = dict(kind=("adamw", "muon"), schedule=("constant", "cosine"), mu_dtype=("float32", "bfloat16"))
# Least, and what no longer may be: at b = 1 a moment never moves, and cut to a norm of 0 no gradient is left.
NUMBERS = dict(lr=(0, math.inf), warmup=(0, math.inf), b1=(0, 1), b2=(0, 1), weight_decay=(0, math.inf))


def check(config: ConfigDict, where: str) -> None:
    """Raises UserError for settings that no optimizer can have; ``where`` they stand in the configuration."""
    for name, known in KNOWN.items():
        if config[name] not in known:
            raise UserError(f"{where}.{name} is {config[name]!r}; choose {' or '.join(known)}.")
    for name, (least, end) in NUMBERS.items():
        if not isinstance(config[name], numbers.Real) or not least <= config[name] < end:
            wanted = f"{least} or more" if end == math.inf else f"{least} or more, and below {end}"
            raise UserError(f"{where}.{name} is {config[name]!r}; it has to be {wanted}.")
    if not isinstance(config.clip, numbers.Real) or not config.clip > 0:
        raise UserError(
            f"{where}.clip is {config.clip!r}, the norm that gradients are cut to; it has to be above 0 (inf leaves "
            "them as they are)."
        )


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up, then "constant" or "cosine" (to 1 % of the peak at ``steps``, counted in this optimizer's
    updates)."""
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, config.lr, config.warmup, max(steps, config.warmup + 1), config.lr / 100
        )
    return optax.join_schedules(
        [optax.linear_schedule(0.0, config.lr, config.warmup), optax.constant_schedule(config.lr)], [config.warmup]
    )


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """AdamW, or Muon for the matrices and AdamW for the rest, behind a clip by global norm.

    ``config``: kind ("adamw" or "muon"), lr, warmup, schedule, b1, b2, weight_decay, clip, and ``mu_dtype``, in which
    the first moment (Muon's only one) is kept between updates: float32, or bfloat16 in half of its memory. The second
    moment stays float32: at b2 = 0.999 an update moves it by less than bfloat16 resolves. One learning rate serves both
    kinds: Muon's updates are scaled to the size of Adam's (root mean square 0.2, arXiv 2502.16982). With Muon only its
    own matrices decay. ``check`` has seen the settings.
    """
    lr, kept = learning_rate(config, steps), dict(mu_dtype=config.mu_dtype)

    def decays(params):
        return paths.map_paths(DECAY, params)

    if config.kind == "adamw":
        rule = optax.adamw(lr, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decays, **kept)
    else:
        rule = contrib.muon(
            lr, beta=0.95, consistent_rms=0.2, weight_decay=config.weight_decay, weight_decay_mask=decays,
            adam_b1=config.b1, adam_b2=config.b2, **kept,
            muon_weight_dimension_numbers=_muon_dimensions,
        )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(config.clip), rule)


def _muon_dimensions(params):
    """Where the two sides of Muon's matrices are, behind a leading layer axis; None for Adam's parameters."""
    return jax.tree.map(
        lambda muon, p: contrib.MuonDimensionNumbers(p.ndim - 2, p.ndim - 1) if muon else None,
        paths.map_paths(MUON, params), params,
    )  # fmt: skip


def parameter_count(params) -> int:
    return sum(p.size for p in jax.tree.leaves(params))
