"""A family's condition encoder by itself: prompts, and pictures to edit, to what its denoiser reads."""

import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import ml_dtypes
import numpy as np
from PIL import Image

from flashjax import convert, flow
from flashjax.data.records import sources
from flashjax.models import pixels, prompts
from flashjax.released.families import as_seen

BUCKET = 64  # prompts are padded to multiples of so many tokens: few programs, and short beside a picture's tokens
BATCH = 8  # prompts a call, where there are many; of about the same length


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One network of a folder. ``params`` are read when they are first asked for, and kept until ``drop``."""

    name: str  # in flashjax.models and convert.MODELS
    folder: Path
    config: Any
    dtype: np.dtype

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"flashjax.models.{self.name}")

    @functools.cached_property
    def params(self) -> flow.Params:
        return jax.device_put(convert.load(self.name, self.folder, self.module.abstract(self.config), self.dtype))

    def drop(self) -> None:
        self.__dict__.pop("params", None)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A family's rules with the network and the tokenizer that they are for."""

    rules: prompts.Family
    part: Part
    tokenizer: prompts.Tokenizer

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """For every prompt its states bfloat16 [n_i, width]: of its true tokens, or of all where the family pads. The
        encoders compute in bfloat16, so that nothing is lost; float16 ends at 65504, and states that no norm has
        passed may not. Raises UserError for a prompt that is too long."""
        rows = [prompts.read(self.rules, self.tokenizer, text) for text in texts]
        order, found = sorted(range(len(rows)), key=lambda i: len(rows[i].ids)), {}
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            made = self.cut([rows[i] for i in (some * BATCH)[:BATCH]])
            found |= dict(zip(some, made, strict=False))
        return [found[i] for i in range(len(rows))]

    def cut(self, rows: Sequence[prompts.Tokens], seen: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        """``states`` on the host in bfloat16, without the padding."""
        states, lengths = self.states(rows, seen)
        lengths = np.full(len(rows), states.shape[1]) if lengths is None else lengths
        host = np.asarray(states).astype(ml_dtypes.bfloat16)
        return [row[:length].copy() for row, length in zip(host, lengths, strict=True)]

    def states(self, rows: Sequence[prompts.Tokens], seen: Sequence[np.ndarray] = ()):
        """What the denoiser is given of prompts: states [B, L, D] and how many of them are real (None: all). ``seen``:
        pictures uint8 [H, W, 3] as the encoder sees them, the same for all prompts."""
        rules = self.rules
        longest = max(len(row.ids) for row in rows)
        pad = prompts.token_id(self.tokenizer, prompts.PADDING)
        tokens, lengths, at = prompts.pack(rules, rows, pad, -(-longest // BUCKET) * BUCKET)
        images = dict(images=tuple(np.repeat(x[None], len(rows), axis=0) for x in seen), image_at=at) if seen else {}
        kept = prompts.kept(rules, rows[0], tokens.shape[1])
        states = self._read(self.part.params, tokens, lengths, **images)[:, kept]
        return states, None if rules.padded else lengths - (tokens.shape[1] - len(kept))

    @functools.cached_property
    def _read(self):
        static = () if self.rules.images == (0, 0) else ("image_at",)
        return jax.jit(self.part.module.encoder(self.part.config), static_argnames=static)


@dataclasses.dataclass(frozen=True, eq=False)
class PictureEncoder:
    """An encoder, with the autoencoder whose latents of pictures the denoiser learns to make, or is given to edit; most
    encoders see the latter too."""

    encoder: Encoder
    autoencoder: Part

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `Encoder.encode`, without the autoencoder in memory."""
        self.autoencoder.drop()
        return self.encoder.encode(texts)

    def latents(self, picture: np.ndarray) -> np.ndarray:
        """Of uint8 [H, W, 3], float16 [h, w, C], which are of the size of 1; without the encoder in memory."""
        self.encoder.part.drop()
        return self._latents(picture)

    def record(self, prompt: str, pictures: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What a record of an edit holds, of ``pictures`` uint8 [H, W, 3] with "source" among them, and "source_2" and
        on where there are several: their latents float16 [h, w, C], which are of the size of 1; the states of prompt
        and null, both read with the sources if the encoder sees them, bfloat16 [n, width]; and ``reference_at``, how
        many of these states stand before each source, for every prompt the same."""
        rules, tokenizer = self.encoder.rules, self.encoder.tokenizer
        sees = rules.images != (0, 0)
        seen = [as_seen(rules, Image.fromarray(picture)) for picture in sources(pictures)] if sees else []
        sizes = [picture.shape[:2] for picture in seen]
        rows = [prompts.read(rules, tokenizer, text, sizes) for text in (prompt, rules.null)]
        made = dict(zip(("text", "null"), self.encoder.cut(rows, seen), strict=True))
        made |= {name: self._latents(picture) for name, picture in pictures.items()}
        return made | dict(reference_at=list(prompts.reference_at(rules, rows[0])))

    def _latents(self, picture: np.ndarray) -> np.ndarray:
        if self.autoencoder.config.channels == 4:  # with alpha
            picture = np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=-1)
        return np.asarray(self._encode(self.autoencoder.params, pixels.from_uint8(picture[None])))[0].astype(np.float16)

    @functools.cached_property
    def _encode(self):
        return jax.jit(self.autoencoder.module.autoencoder(self.autoencoder.config).encode)
