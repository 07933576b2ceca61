"""A question to a judge as a value: what is sent, its key, and what it can cost at most."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from flashjax.bench.rubrics import Rubric
from flashjax.bench.secret import Secret
from flashjax.errors import UserError
from flashjax.upright import upright

__all__ = ["Call", "Judge", "Picture", "Prices", "read_picture"]

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens, and how many tokens an image is counted as."""

    input: float
    output: float
    image_tokens: int


@dataclass(frozen=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        name: short, unique; the report's column.
        url: up to and with the version, as in https://api.openai.com/v1.
        model: the model's id there.
        key: sent as a bearer token; an empty one is not sent.
        params: further fields of the request, such as temperature and max_tokens. With url, model and reply_format
            they are who is asked: part of the cache's key, where the name is not.
        reply_format: "json_schema" (strict), "json_object", or "text" for servers that know neither.
        concurrency: calls in flight. per_minute: calls started a minute, 0 for no limit. timeout: seconds.
        tries: of a call that got no reply; a busy endpoint uses up none for some minutes. prices: needed for a budget.
    """

    name: str
    url: str
    model: str
    key: Secret = field(default_factory=lambda: Secret(""))
    params: Mapping[str, Any] = field(default_factory=lambda: {"max_tokens": 1024})
    reply_format: str = "json_schema"
    concurrency: int = 8
    per_minute: int = 0
    timeout: float = 120.0
    tries: int = 6
    prices: Prices | None = None

    @property
    def address(self) -> str:
        return self.url.rstrip("/")


@dataclass(frozen=True)
class Picture:
    """A picture on the disk, known by its content: ``digest`` is the sha256 of the PNG's bytes that a judge gets."""

    path: Path
    digest: str

    def png(self) -> bytes:
        """The bytes. Raises UserError where the file is gone or was changed since it was read first."""
        data = _read(self.path)
        if hashlib.sha256(data).hexdigest() != self.digest:
            data = _png_bytes(self.path)  # what was no PNG, or lay on its side
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise UserError(f"{self.path} was changed while it was being judged; start again.")
        return data


def read_picture(path: str | Path) -> Picture:
    """A picture file, checked. Raises UserError: missing, no image, or larger than Pillow dares to open."""
    path = Path(path)
    return Picture(path, hashlib.sha256(_png_bytes(path)).hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The picture {path} cannot be read: {error.strerror}.") from error


def _png_bytes(path: Path) -> bytes:
    """The file itself if it is a PNG that everybody sees alike; what else Pillow reads is sent as PNG, without loss and
    `upright`. Decoded in either case: a broken one is found before anything is sent, and not by the judge that is paid
    to look at it."""
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if data.startswith(_PNG):
                image.verify()  # checksums; after it an image cannot be decoded
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if data.startswith(_PNG) and not turned and not image.has_transparency_data:
                return data
            out = io.BytesIO()
            upright(image).save(out, "PNG")
            return out.getvalue()
    except Image.DecompressionBombError as error:
        most = Image.MAX_IMAGE_PIXELS
        raise UserError(f"The picture {path} is larger than {most} pixels; no judge takes it.") from error
    except UnidentifiedImageError as error:  # whose text is of an object in memory
        raise UserError(f"{path} is not an image, or is damaged from its beginning on.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not an image, or is damaged ({error}).") from error


@dataclass(frozen=True)
class Call:
    """One question to one judge.

    Attributes:
        salt: "" but for probes that have to be asked again though nothing changed.
        subject: what the question is about, for the results: kind, system, prompt, seed and so on.
    """

    judge: Judge
    rubric: Rubric
    user: str
    pictures: tuple[Picture, ...]
    salt: str = ""
    subject: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """sha256 of all that decides the reply: endpoint, model, prompts, image bytes, parameters, schema."""
        body = self.body([picture.digest for picture in self.pictures])
        # Many local servers call their model by one name, "default" say: the address tells the models apart.
        asked = json.dumps([self.judge.address, body, self.salt], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()

    def request(self) -> dict[str, Any]:
        """The body with the images in it."""
        return self.body([f"data:image/png;base64,{base64.b64encode(p.png()).decode()}" for p in self.pictures])

    def body(self, images: Sequence[str]) -> dict[str, Any]:
        content = [dict(type="text", text=self.user)]
        content += [dict(type="image_url", image_url=dict(url=url)) for url in images]
        messages = [dict(role="system", content=self.rubric.system), dict(role="user", content=content)]
        wanted = dict(name="judgement", strict=True, schema=self.rubric.schema)
        formats = {
            "json_schema": dict(response_format=dict(type="json_schema", json_schema=wanted)),
            "json_object": dict(response_format=dict(type="json_object")),
            "text": {},
        }
        return {**self.judge.params, "model": self.judge.model, "messages": messages} | formats[self.judge.reply_format]

    def tokens(self) -> tuple[int, int]:
        """(input, output) tokens at most: a byte of text is never more than one token. Output 0: nothing limits it."""
        text = len((self.rubric.system + self.user + json.dumps(self.rubric.schema)).encode("utf-8", "replace"))
        prices, params = self.judge.prices, self.judge.params
        images = len(self.pictures) * (prices.image_tokens if prices else 0)
        return text + images, int(params.get("max_completion_tokens", params.get("max_tokens", 0)))

    def most(self) -> float:
        """US dollars at most; 0 without prices."""
        return cost(self.judge.prices, *self.tokens()) if self.judge.prices else 0.0

    def about(self) -> float:
        """US dollars as expected: four bytes a token, and replies of 150 tokens, or of as many as there may be."""
        if not self.judge.prices:
            return 0.0
        images = len(self.pictures) * self.judge.prices.image_tokens
        most_in, most_out = self.tokens()
        return cost(self.judge.prices, (most_in - images) // 4 + images, min(150, most_out or 150))


def cost(prices: Prices, tokens_in: int, tokens_out: int) -> float:
    return (tokens_in * prices.input + tokens_out * prices.output) / 1e6
