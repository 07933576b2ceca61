"""Conversion as data: a table says where each PyTorch tensor goes in a Flax tree, and is read in
both directions.

    Table(
        rules=(
            Rule("img_in.weight", "img_in/kernel", transpose),
            Rule("blocks.{l}.attn.{p:to_q|to_k}.weight", "blocks/attn/{p}/kernel[{l}]", transpose),
        ),
        drops=(drop(r"lm_head[.].*", "the head is not used"),),
    )

Source and target are templates, not bare regexes, so that the same row can be read backwards: `{l}`
is a number, `{p:regex}` whatever the regex matches, everything else is literal. A target that ends
in `[{l}]` is one slot of a leaf whose leading axis stacks the layers. Drops are regexes over source
names, with the reason that the user is shown; a rule with `surplus` is a drop, for that reason, where
the model has no place for the tensor (an encoder that stops before the checkpoint's last layer).
`renames` bring names of older checkpoints to the ones that the rules know; only those are written.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Transform:
    """An invertible rearrangement of one tensor; `forward` goes from PyTorch to Flax."""

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]

    def shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """Return the Flax shape of a PyTorch shape (computed on a zero-stride array, so no memory
        is touched).

        Raises:
          ValueError: a tensor of this shape cannot be rearranged so.
        """
        return self.forward(np.broadcast_to(np.zeros(()), source)).shape

    def inverse_shape(self, target: tuple[int, ...]) -> tuple[int, ...]:
        """Return the PyTorch shape of a Flax shape; see `shape`."""
        return self.inverse(np.broadcast_to(np.zeros(()), target)).shape


def permute(*axes: int) -> Transform:
    """Reorder axes: conv kernels [O, I, h, w] -> [h, w, I, O] are `permute(2, 3, 1, 0)`."""
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Transform(f"permute{axes}", lambda x: np.transpose(x, axes), lambda x: np.transpose(x, back))


copy = Transform("copy", lambda x: x, lambda x: x)
transpose = Transform("transpose", permute(1, 0).forward, permute(1, 0).inverse)  # linear


@dataclass(frozen=True)
class Rule:
    """One row: PyTorch name template, Flax path template, what happens to the tensor in between, and why a file
    may hold more than the model has places for (empty: that is an error)."""

    source: str
    target: str
    transform: Transform = copy
    surplus: str = ""

    def __post_init__(self):
        source, target = (set(m[1] for m in _FIELD.finditer(t)) for t in (self.source, self.target))
        if source != target:
            raise ValueError(f"The rule {self.source!r} -> {self.target!r} has fields on one side only.")

    @cached_property
    def stack(self) -> str | None:
        """The field that counts the slots of a stacked target, or None."""
        found = re.search(r"\[\{(\w+)\}\]$", self.target)
        return found[1] if found else None

    @cached_property
    def path(self) -> str:
        """The target without its slot."""
        return re.sub(r"\[\{\w+\}\]$", "", self.target)

    @cached_property
    def _regexes(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        patterns = {m[1]: m[2] for m in _FIELD.finditer(self.source)}
        return _regex(self.source, patterns), _regex(self.path, patterns)

    def place(self, source: str) -> tuple[str, int | None] | None:
        """Return (target path, slot or None) of a source name, or None where the rule does not
        match."""
        if not (found := self._regexes[0].fullmatch(source)):
            return None
        fields = found.groupdict()
        return _fill(self.path, fields), int(fields[self.stack]) if self.stack else None

    def sources(self, path: str, slots: int) -> list[str] | None:
        """Return the source names of a target path (one a slot if stacked), or None where the rule
        does not match."""
        if not (found := self._regexes[1].fullmatch(path)):
            return None
        fields = found.groupdict()
        if self.stack is None:
            return [_fill(self.source, fields)]
        return [_fill(self.source, {**fields, self.stack: str(slot)}) for slot in range(slots)]


def with_bias(source: str, target: str, kernel: Transform = transpose, slot: str = "") -> tuple[Rule, Rule]:
    """The two rows of a layer with a bias, a linear one unless ``kernel`` says otherwise; ``slot`` is "[{l}]" where
    layers are stacked."""
    return (
        Rule(f"{source}.weight", f"{target}/kernel{slot}", kernel),
        Rule(f"{source}.bias", f"{target}/bias{slot}"),
    )


def _regex(template: str, patterns: Mapping[str, str | None]) -> re.Pattern[str]:
    out, end, seen = "", 0, set()
    for field in _FIELD.finditer(template):
        name = field[1]
        group = f"(?P={name})" if name in seen else f"(?P<{name}>{patterns[name] or '[0-9]+'})"
        out += re.escape(template[end : field.start()]) + group
        end = field.end()
        seen.add(name)
    return re.compile(out + re.escape(template[end:]))


def _fill(template: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda field: fields[field[1]], template)


@dataclass(frozen=True)
class Drop:
    """Source tensors that the model does not want, and why."""

    source: str
    reason: str


def drop(source_regex: str, reason: str) -> Drop:
    """Leave out the source tensors whose whole name matches."""
    return Drop(source_regex, reason)


@dataclass(frozen=True)
class Table:
    """All rows of one architecture.

    Attributes:
      renames: (regex of how an older name begins, how it begins today).
      native: rows from weights to the layers of the authors' own implementation, which LoRAs of ComfyUI and kohya may
        be named after. Weights with one target are its rows, in the order of their rules.
      comfyui: what stands in front of PyTorch's names in a LoRA for ComfyUI.
    """

    rules: tuple[Rule, ...]
    drops: tuple[Drop, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    native: tuple[Rule, ...] = ()
    comfyui: str = "diffusion_model."

    def today(self, name: str) -> str:
        """The name that the rules and drops know a source tensor by."""
        for old, new in self.renames:
            name = re.sub(f"^(?:{old})", new, name)
        return name
