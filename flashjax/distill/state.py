"""The training state: a frozen tree of arrays. A step takes one and returns the next; nothing is mutated."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from flashjax.flow import Params


@struct.dataclass
class Role:
    """A trained network: its parameters (float32) and its optimizer's state."""

    params: Params
    opt_state: Any

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> "Role":
        return cls(params, optimizer.init(params))

    def apply(self, grads: Params, optimizer: optax.GradientTransformation) -> "Role":
        """The role after one optimizer update."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        return Role(optax.apply_updates(self.params, updates), opt_state)


@struct.dataclass
class TrainState:
    """Everything that training changes.

    step: int32 [], the row of the step table that comes next; the randomness of a step derives from it.
    student: the network that is trained (for flow matching: the future teacher).
    critic: the fake-score network, or None for flow matching.
    ema: float32 average of the student's parameters; moves on student updates only.
    """

    step: jax.Array
    student: Role
    critic: Role | None
    ema: Params

    @classmethod
    def create(cls, params: Params, student_optimizer, critic_optimizer=None, critic: Params = None) -> "TrainState":
        """Student and EMA start at ``params``, the critic at its own (for distillation the base teacher's, which knows
        every t), or at ``params`` too."""

        def copy(tree):
            # Separate buffers: a donated state must not hold the same array twice.
            return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), tree)

        start = copy(params if critic is None else critic) if critic_optimizer is not None else None
        fake = None if start is None else Role.create(start, critic_optimizer)
        return cls(jnp.zeros((), jnp.int32), Role.create(copy(params), student_optimizer), fake, copy(params))

    def update_student(self, grads: Params, optimizer: optax.GradientTransformation, ema_decay: float) -> "TrainState":
        """The state behind a row that trained the student: its average moves with it."""
        student = self.student.apply(grads, optimizer)
        return self.replace(step=self.step + 1, student=student, ema=ema_update(self.ema, student.params, ema_decay))


def ema_update(ema: Params, params: Params, decay: float) -> Params:
    """``decay * ema + (1 - decay) * params``, in the average's dtype."""
    return optax.incremental_update(params, ema, 1.0 - decay)
