"""Checkpoints: everything that a run needs to go on, as one atomic unit (Orbax).

A checkpoint holds the training state (student, critic, both optimizers, EMA, step), the data position, the
configuration and the hashes of step table, data and weights that the run began with. Orbax writes to a temporary name
and renames: a half-written checkpoint is never seen.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from flashjax.errors import UserError
from flashjax.workdir import HOW, MIXTURE


class Checkpoints:
    """The checkpoints of one work directory; keeps the newest ``keep`` and, of those that were saved with the figure
    ``best``, the one in which it is smallest (``better`` is min) or largest (max)."""

    def __init__(self, folder: Path, keep: int = 2, best: str = "", better: Callable = min):
        kept, worst = [policies.LatestN(keep)], math.inf if better is min else -math.inf

        def figure(saved: dict[str, float]) -> float:
            return saved.get(best, worst)  # a run that went on with another ``best`` has checkpoints of the one before

        if best:
            only = dict(n=1, keep_checkpoints_without_metrics=False)
            kept.append(policies.BestN(get_metric_fn=figure, reverse=better is min, **only))
        # What a killed run left half-written goes: on a full disk it is what stands in the way of the next save.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept), enable_async_checkpointing=True,
            cleanup_tmp_directories=True, best_mode=better.__name__, best_fn=figure if best else None,
        )  # fmt: skip
        self._best = best
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=_handlers())

    def latest(self) -> int | None:
        """The newest step that was saved completely."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the best checkpoint; None where none was saved with the figure. Waits for the save in flight."""
        self.wait()
        step = self._manager.best_step()
        return step if step is not None and self._best in (self._manager.metrics(step) or {}) else None

    def save(self, step: int, state: Any, data: dict, meta: dict, figures: dict[str, float] | None = None) -> None:
        """Starts an asynchronous save; errors of the previous one surface here. Raises FloatingPointError for a state
        that is not finite: saved, it would in the end push the last good one out."""
        check_finite(state, step)
        args = dict(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta))
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**args), metrics=figures or None)

    def restore(self, step: int, abstract_state: Any, meta: dict, free: tuple[str, ...] = ()) -> tuple[Any, dict]:
        """State and data position of ``step``. ``abstract_state`` carries the shardings to restore to; ``meta`` must
        equal what was saved, but for the parts named in ``free``, else the run would silently continue as another
        one."""
        args = dict(state=ocp.args.StandardRestore(abstract_state), data=ocp.args.JsonRestore())
        with _reading(self._manager.directory, step):
            found = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
            check_meta(found, meta, f"The checkpoint in {self._manager.directory}", free)
            _check_arrays(_described(self._manager, step).tree, abstract_state, f"{self._manager.directory}/{step}")
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return restored.state, restored.data

    def wait(self) -> None:
        """Until the save in flight is complete."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save in flight."""
        with self._writing(), contextlib.closing(self._manager):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Names what the system refused: Orbax hides it in the text of a ValueError, possibly one save late."""
        try:
            yield
        except (OSError, ValueError) as error:
            if (number := _number(error)) is None:
                raise
            raise UserError(
                f"A checkpoint could not be written to {self._manager.directory}: {os.strerror(number)}. "
                f"The newest complete one is of step {self.latest() or 0}; mend this and start again with the same "
                "arguments."
            ) from error


@contextlib.contextmanager
def _reading(folder: Any, step: int) -> Iterator[None]:
    """Says which checkpoint is damaged, or what the disk refused; Orbax and its storage layer raise one of these, with
    a page of text."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        number = _number(error)
        if number not in (None, errno.ENOENT):
            raise UserError(
                f"The checkpoint {folder}/{step} cannot be read now ({os.strerror(number)}); look at its disk, and "
                "start again with the same arguments."
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The checkpoint {folder}/{step} cannot be read ({reason}). Delete this folder, and the run goes on from "
            "the checkpoint before it, or from the start if there is none."
        ) from error


def _number(error: Exception) -> int | None:
    """What the system refused with, which Orbax hides in the text of a ValueError; None for anything else."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else getattr(error, "errno", None)


def _check_arrays(found: Any, wanted: Any, where: str) -> None:
    """Raises UserError where a checkpoint has other arrays than a state of this code. (Orbax's own words were taken for
    damage, and deleting the folder was advised.)"""
    there, here = _shapes(found), _shapes(wanted)
    names = [name for name in sorted(there | here) if there.get(name) != here.get(name)]
    if names:
        told = [f"of the shape {list(of[names[0]])}" if names[0] in of else "missing" for of in (there, here)]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise UserError(
            f"The checkpoint {where} was written by other code or packages: its array {names[0]} is {told[0]}, and "
            f"{told[1]} in the state of today{more}. Go on with those that wrote it, or begin anew in another "
            "--workdir."
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """By path, whatever the nodes are: a state's are fields, a description's are keys."""
    return {
        ".".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def digest(tree: Any) -> str:
    """What the checkpoint's meta calls a tree of weights: 16 digits of sha256 over paths, dtypes, shapes, values."""
    h = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        h.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        h.update(array.view(np.uint8))
    return h.hexdigest()[:16]


def check_finite(state: Any, step: int) -> None:
    """Raises FloatingPointError naming the first array of ``state`` with a NaN or an infinity in it."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    leaves = [(path, x) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    fine = np.asarray(_finite([x for _, x in leaves]))
    bad = [path for (path, _), good in zip(leaves, fine, strict=True) if not good]
    if bad:
        more = f" and {len(bad) - 1} more arrays" if len(bad) > 1 else ""
        raise FloatingPointError(
            f"{jax.tree_util.keystr(bad[0])}{more} of the state are not finite after step {step}, which was not saved. "
            "The checkpoint before is whole: look at the metrics since, and start again from it with a smaller rate."
        )


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    """bool [leaves]."""
    return jnp.stack([jnp.isfinite(x).all() for x in leaves])


def check_meta(found: dict, expected: dict, what: str, free: tuple[str, ...] = ()) -> None:
    """Raises UserError naming every setting in which ``what`` (a checkpoint, a folder) differs from this run, but for
    those in the groups ``free`` and how its network is computed."""
    a, b = flat(found), flat(expected)
    keys = [key for key in sorted(a | b) if not _within(key, (*free, *HOW)) and a.get(key) != b.get(key)]
    if keys:
        told = "; ".join(f"{key} is {a.get(key)!r} there and {b.get(key)!r} here" for key in keys[:5])
        more = f"; and {len(keys) - 5} more" if len(keys) > 5 else ""
        mixture = ", or give --change-mixture" if all(_within(key, MIXTURE) for key in keys) else ""
        raise UserError(
            f"{what} belongs to another run: {told}{more}. Use its configuration, or another --workdir{mixture}."
        )


def _within(key: str, groups: Sequence[str]) -> bool:
    return any(f"{key}.".startswith(f"{group}.") for group in groups)


def restore_params(folder: Path, which: str = "ema", step: int | None = None) -> tuple[Any, dict, int]:
    """(parameters of "ema", "student" or "critic", meta, step) of the checkpoint of ``step``, or the newest, in
    ``folder``, a run's ``checkpoints``: numpy arrays. Of the state, which is seven times as large, nothing else is
    read, and no accelerator has to hold it."""
    with _opened(folder, step) as (manager, step):
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        tree = _described(manager, step).tree
        wanted = {"ema": tree["ema"]} if which == "ema" else {which: {"params": tree[which]["params"]}}
        asked = ocp.args.PyTreeRestore(
            item=wanted, partial_restore=True,
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
        )  # fmt: skip
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(manager.directory / str(step) / "state", args=asked)
    return (restored["ema"] if which == "ema" else restored[which]["params"]), meta, step


def form(folder: Path) -> tuple[Any, dict, int]:
    """(abstract parameters, meta, step) of the newest checkpoint in ``folder``; no parameter is read."""
    with _opened(folder, None) as (manager, step):
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        ema = _described(manager, step)["ema"]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), ema), meta, step


def _described(manager: ocp.CheckpointManager, step: int) -> Any:
    """The arrays of a state by their shapes. Raises FileNotFoundError for a copy of a checkpoint that lacks them."""
    state = manager.item_metadata(step).state
    if state is None:
        raise FileNotFoundError("state/_METADATA is missing")
    return state


@contextlib.contextmanager
def _opened(folder: Path, step: int | None) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """The checkpoints in ``folder``, and which one is meant. Raises UserError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There are no checkpoints in {folder.parent}; give the work directory of a training run.")
    with contextlib.closing(ocp.CheckpointManager(folder.absolute(), item_handlers=_handlers())) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(
                f"{folder} holds no complete checkpoint; start its run again with the same arguments and wait for the "
                "first one (config.checkpoint_every), or give another run."
            )
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f"{folder} holds no checkpoint of step {step}; it has {', '.join(map(str, steps))}.")
        with _reading(folder, step):
            yield manager, step


def _handlers() -> dict:
    json_handlers = {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
    return dict(state=ocp.StandardCheckpointHandler(), **json_handlers)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by their path, ``a.b``; sequences are leaves."""
    if isinstance(tree, dict):
        return {k: v for name, sub in tree.items() for k, v in flat(sub, f"{prefix}{name}.").items()}
    return {prefix[:-1]: json.loads(json.dumps(tree))}
