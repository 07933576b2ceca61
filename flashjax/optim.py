"""Optimizers from configuration."""

import jax
import optax
from ml_collections import ConfigDict

from flashjax import paths
from flashjax.errors import UserError

# Matrices decay, norms do not. First match wins.
DECAY = ((r".*/scale", False), (r".*/kernel", True))


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up, then "constant" or "cosine" (to 1 % of the peak at ``steps``, counted in this optimizer's
    updates)."""
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, config.lr, config.warmup, max(steps, config.warmup + 1), config.lr / 100
        )
    if config.schedule == "constant":
        return optax.join_schedules(
            [optax.linear_schedule(0.0, config.lr, config.warmup), optax.constant_schedule(config.lr)], [config.warmup]
        )
    raise UserError(f"Unknown learning-rate schedule {config.schedule!r}; choose constant or cosine.")


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """AdamW behind a clip by global norm. ``config``: lr, warmup, schedule, b1, b2, weight_decay, clip."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay,
            mask=lambda params: paths.map_paths(DECAY, params),
        ),
    )  # fmt: skip


def parameter_count(params) -> int:
    return sum(p.size for p in jax.tree.leaves(params))
