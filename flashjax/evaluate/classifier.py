"""The judge of generated postcards: a small convolutional network that reads every attribute off a picture.

One trunk, one head for every (category, attribute), one head for the category. It learns from exact descriptions, so
what it says of a picture can be compared with what the caption named; its features [N, 128] serve the Fréchet distance
and the diversity. Trained in a few minutes on a laptop CPU:

    python -m flashjax.evaluate.classifier --data data/postcards/train.arrayrecord \
        --heldout data/postcards/heldout.arrayrecord --out weights/postcards_classifier
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flashjax.convert.sources import open_weights
from flashjax.convert.writer import write_arrays
from flashjax.data.postcards import CATEGORIES
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate.classifier_network import HEADS, Config, abstract, apply, init
from flashjax.files import write_whole
from flashjax.models import pixels
from flashjax.paths import flatten, unflatten

__all__ = ["HEADS", "Classifier", "Config", "accuracy", "features", "load", "predict", "save", "train"]

_PREDICT_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained judge: its sizes and its parameters as a plain tree of arrays."""

    config: Config
    params: dict[str, Any]
    card: dict[str, Any] = dataclasses.field(default_factory=dict)


def _augment(config: Config, key: jax.Array, images: jax.Array) -> jax.Array:
    """Small shifts, gains and noise, so that a generated picture is judged by what it shows, not by its texture."""
    keys, n, s = jax.random.split(key, 4), images.shape[0], config.shift
    padded = jnp.pad(images, ((0, 0), (s, s), (s, s), (0, 0)), mode="edge")
    at = jax.random.randint(keys[0], (n, 2), 0, 2 * s + 1)
    cut = jax.vmap(lambda x, p: jax.lax.dynamic_slice(x, (p[0], p[1], 0), images.shape[1:]))(padded, at)
    gain = 1 + config.gain * jax.random.uniform(keys[1], (n, 1, 1, 1), minval=-1, maxval=1)
    sigma = config.noise * jax.random.uniform(keys[2], (n, 1, 1, 1))
    return cut * gain + sigma * jax.random.normal(keys[3], cut.shape)


def _loss(config: Config, params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy of the category and of the heads of each picture's own category; labels as `_labels` gives them."""
    logits, _ = apply(config, params, images)
    cross = optax.softmax_cross_entropy_with_integer_labels
    total = cross(logits[:, : len(CATEGORIES)], labels[:, 0])
    for i, head in enumerate(HEADS, start=1):
        own = labels[:, i] >= 0
        part = logits[:, head.start : head.start + len(head.values)]
        total += jnp.where(own, cross(part, jnp.maximum(labels[:, i], 0)), 0.0)
    return total.mean()


def _labels(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """int32 [N, 1 + heads]: the category, then for every head the position of the value, -1 in other categories."""
    labels = np.full((len(records), 1 + len(HEADS)), -1, np.int32)
    kinds = list(CATEGORIES)
    for row, record in zip(labels, records, strict=True):
        row[0] = kinds.index(record["category"])
        for i, head in enumerate(HEADS, start=1):
            if head.category == record["category"]:
                row[i] = head.values.index(record["spec"][head.attribute])
    return labels


def train(records: Sequence[Mapping[str, Any]], config: Config, seed: int, *, log=None) -> Classifier:
    """Train a judge.

    Args:
        records: dicts with category, spec (attribute to value) and image (uint8 [side, side, 3]).
        config: sizes; `config.steps` batches are taken, every epoch in a new order.
        seed: of the parameters, the order and the augmentation.
        log: called with (step, loss) every 100 steps.

    Raises:
        UserError: there are fewer records than a batch, or the loss is not finite.
    """
    images, labels = _stacked(config, records), _labels(records)
    if len(images) < config.batch:
        raise UserError(
            f"The classifier's batch is {config.batch}, but only {len(images)} records were given; "
            "prepare more postcards or lower the batch."
        )
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, max(1, config.steps // 20), config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-3))
    params = init(config, seed)
    state, rng, root = optimizer.init(params), np.random.default_rng(seed), jax.random.key(seed)
    step_fn, order = _step_function(config, optimizer), np.empty(0, np.int64)
    for step in range(config.steps):
        if len(order) < config.batch:
            order = rng.permutation(len(images))
        chosen, order = order[: config.batch], order[config.batch :]
        key = jax.random.fold_in(root, step)
        params, state, loss = step_fn(params, state, key, images[chosen], labels[chosen])
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            _report(step + 1, float(loss), log)
    return Classifier(config, jax.tree.map(np.asarray, params))


def _step_function(config: Config, optimizer: optax.GradientTransformation):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, key, images, labels):
        batch = _augment(config, key, pixels.from_uint8(images))
        loss, gradient = jax.value_and_grad(lambda p: _loss(config, p, batch, labels))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def _report(step: int, loss: float, log) -> None:
    if not np.isfinite(loss):
        raise UserError(f"The classifier's loss is {loss} at step {step}; lower the learning rate.")
    if log is not None:
        log(step, loss)


def _pictures(records: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    if not len(records) or "image" not in records[0]:
        raise UserError("There are no pictures in the classifier's records; prepare postcards without --prompts-only.")
    return [record["image"] for record in records]


def _stacked(config: Config, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return _checked(config, np.stack(_pictures(records)))


def _checked(config: Config, images: np.ndarray) -> np.ndarray:
    images, side = np.asarray(images), config.side
    if images.ndim != 4 or images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
        raise UserError(
            f"The classifier judges pictures uint8 [N, {side}, {side}, 3], not {images.dtype} "
            f"{list(images.shape)}; convert or resize them, or train one of their size."
        )
    return images


def _all(classifier: Classifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of any number of pictures, in batches of one size, so that one program serves all."""
    images, logits, found = _checked(classifier.config, images), [], []
    for start in range(0, len(images), _PREDICT_BATCH):
        part = images[start : start + _PREDICT_BATCH]
        full = np.concatenate([part, np.zeros((_PREDICT_BATCH - len(part), *part.shape[1:]), np.uint8)])
        answer = apply(classifier.config, classifier.params, pixels.from_uint8(full))
        logits.append(np.asarray(answer[0])[: len(part)])
        found.append(np.asarray(answer[1])[: len(part)])
    return np.concatenate(logits), np.concatenate(found)


def features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """The penultimate features of pictures uint8 [N, side, side, 3]: float32 [N, D], each of length sqrt(D).

    The length is fixed because it says how far a picture lies outside of what the network knows, without bound: a few
    unreadable words once made two sets of one teacher's pictures further apart (522) than teacher and student (335).

    Raises:
        UserError: the pictures are of another dtype or shape.
    """
    found = _all(classifier, images)[1]
    return found * np.sqrt(found.shape[1]) / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def predict(classifier: Classifier, images: np.ndarray, categories: Sequence[str]) -> tuple[list[dict[str, str]], list]:
    """What the pictures show.

    Args:
        classifier: a trained judge.
        images: uint8 [N, side, side, 3].
        categories: N names; a picture is read by the heads of its category.

    Returns:
        N dicts of attribute to value, and N categories as the category head sees them.

    Raises:
        UserError: the pictures are of another dtype or shape, or the numbers differ.
    """
    if len(categories) != len(images):
        raise UserError(f"{len(images)} pictures came with {len(categories)} categories; give one for each.")
    logits, _ = _all(classifier, images)
    kinds, answers = list(CATEGORIES), [{} for _ in categories]
    for head in HEADS:
        best = logits[:, head.start : head.start + len(head.values)].argmax(-1)
        for answer, category, value in zip(answers, categories, best, strict=True):
            if category == head.category:
                answer[head.attribute] = head.values[value]
    return answers, [kinds[i] for i in logits[:, : len(kinds)].argmax(-1)]


def accuracy(classifier: Classifier, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of right answers for "category" and for every "category/attribute" that the records hold."""
    categories = [record["category"] for record in records]
    answers, seen = predict(classifier, _stacked(classifier.config, records), categories)
    result = {"category": float(np.mean([a == b for a, b in zip(seen, categories, strict=True)]))}
    for head in HEADS:
        right = [
            answer[head.attribute] == record["spec"][head.attribute]
            for answer, record in zip(answers, records, strict=True)
            if record["category"] == head.category
        ]
        if right:
            result[f"{head.category}/{head.attribute}"] = float(np.mean(right))
    return result


def save(classifier: Classifier, folder: str | os.PathLike[str]) -> None:
    """Write `model.safetensors` and, last, `card.json` (the config and whatever `classifier.card` says)."""
    folder = Path(folder)
    write_arrays(folder / "model.safetensors", flatten(classifier.params))
    card = {**classifier.card, "config": dataclasses.asdict(classifier.config), "labels": _label_names()}
    write_whole(folder / "card.json", (json.dumps(card, indent=2) + "\n").encode())


def load(folder: str | os.PathLike[str]) -> Classifier:
    """Read what `save` wrote.

    Raises:
        UserError: files are missing or damaged, or the judge was trained for other attributes or sizes.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        config = Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()})
        reader = open_weights(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"There is no readable classifier in {folder} ({error}); train it with "
            "`python -m flashjax.evaluate.classifier`."
        ) from error
    if card.get("labels") != _label_names():
        raise UserError(
            f"The classifier in {folder} was trained for other attributes than the postcards have now; "
            "train it again with `python -m flashjax.evaluate.classifier`."
        )
    expected = {path: tuple(leaf.shape) for path, leaf in flatten(abstract(config)).items()}
    if {path: spec.shape for path, spec in reader.shapes().items()} != expected:
        raise UserError(f"The weights in {folder} do not have the shapes that its card.json announces; train again.")
    return Classifier(config, unflatten({path: np.array(reader.read(path)) for path in expected}), card)


def _label_names() -> dict[str, list[str]]:
    return {f"{head.category}/{head.attribute}": list(head.values) for head in HEADS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on a record file, state the accuracy on another, write both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="record file to train on")
    parser.add_argument("--heldout", required=True, help="record file to state the accuracy on")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    start, work, source = time.monotonic(), time.process_time(), RecordSource(options.data)
    records = _slim(source)
    config = Config(side=len(_pictures(records)[0]), steps=options.steps)
    judge = train(records, config, options.seed, log=_print_step(start, config.steps))
    seconds, cpu_seconds = round(time.monotonic() - start, 1), round(time.process_time() - work, 1)
    right = accuracy(judge, _slim(RecordSource(options.heldout)))
    mean = float(np.mean([v for k, v in right.items() if not k.endswith("/word")]))
    card = {
        "seed": options.seed,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "pictures": len(source),
        "parameters": _size(judge.params),
        "heldout_accuracy": right,
        "heldout_accuracy_mean_without_word": mean,
    }
    save(dataclasses.replace(judge, card=card), options.out)
    print(json.dumps(card, indent=2))


def _slim(source: RecordSource) -> list[dict[str, Any]]:
    # The encoded captions are most of a record and serve nothing here.
    records, wanted = map(source.__getitem__, range(len(source))), ("category", "spec", "image")
    return [{k: record[k] for k in wanted if k in record} for record in records]


def _size(params: Mapping[str, Any]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _print_step(start: float, steps: int):
    def log(step: int, loss: float) -> None:
        passed = time.monotonic() - start
        print(
            f"step {step}/{steps}  loss {loss:.3f}  {passed:.0f} s, about {passed * (steps / step - 1):.0f} s left",
            flush=True,
        )

    return log


if __name__ == "__main__":
    main()
