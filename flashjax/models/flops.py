"""Floating-point operations of a denoiser's evaluation, from its sizes: what MFU and ``flashjax plan`` count with.

Products only, two operations a multiplication; norms and activations are below a per cent at real widths. A formula and
no measurement: XLA's own count takes the body of a scan once, whatever the number of layers, and twice the parameters
times the tokens is 2.4 times too much for Qwen-Image, whose modulation runs once a sample and whose tokens each pass
one of two streams.
"""

import dataclasses
from typing import Any

from flashjax.models import qwen_image, z_image


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Tokens of one sample: of the image that is made, of the text as padded, of all references together."""

    image: int
    text: int
    references: int = 0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Operations of one sample: of ``condition``, which several evaluations may share, and of one ``velocity``."""

    condition: float
    velocity: float

    @property
    def both(self) -> float:
        return self.condition + self.velocity


def evaluation(architecture: str, config: Any, sizes: Sizes) -> Evaluation:
    """The forward pass of the architecture's ``Config`` on a sample of these sizes."""
    return COUNTS[architecture](config, sizes)


def _blocks(tokens: int, keys: int, width: int, weights: float) -> float:
    """A block with ``weights`` entries in the matrices that every token meets, and attention from tokens to keys."""
    return 2 * tokens * weights + 4 * tokens * keys * width


def _time_embed(width: int) -> float:
    return 2 * (256 * width + width**2)


def _qwen_image_21(c: Any, s: Sizes) -> Evaluation:
    prefix, d = s.text + s.references, c.width
    weights, time = (4 + 3 * c.mlp_ratio) * d**2, _time_embed(d) + 8 * d**2
    condition = 2 * s.text * (c.context_dim * d + d**2) + 2 * s.references * c.in_channels * d
    # Of the last block nobody reads more than keys and values, which one product gives together with queries.
    condition += (c.layers - 1) * _blocks(prefix, prefix, d, weights) + 2 * prefix * 3 * d**2 + time
    velocity = 4 * s.image * c.in_channels * d + c.layers * _blocks(s.image, prefix + s.image, d, weights)
    return Evaluation(condition, velocity + time + 2 * d**2)


def _qwen_image(c: Any, s: Sizes) -> Evaluation:
    d, tokens = c.width, s.image + s.text + s.references
    block = _blocks(tokens, tokens, d, (4 + 2 * qwen_image.MLP_RATIO) * d**2) + 2 * 12 * d**2
    velocity = 4 * s.image * c.in_channels * d + c.layers * block + _time_embed(d) + 4 * d**2
    # What the last block makes of the text is not read.
    velocity -= _blocks(s.text, tokens, d, (1 + 2 * qwen_image.MLP_RATIO) * d**2)
    return Evaluation(2 * d * (s.text * c.context_dim + s.references * c.in_channels), velocity)


def _flux2(c: Any, s: Sizes) -> Evaluation:
    d, tokens = c.width, s.image + s.text + s.references
    # Double and single blocks have the same matrices for a token: two of attention and MLP, or both fused.
    blocks = (c.double_layers + c.single_layers) * _blocks(tokens, tokens, d, 4 * d**2 + 3 * d * c.hidden)
    velocity = 4 * s.image * c.in_channels * d + blocks + _time_embed(d) + 2 * (15 + 2) * d**2
    return Evaluation(2 * d * (s.text * c.context_dim + s.references * c.in_channels), velocity)


def _z_image(c: Any, s: Sizes) -> Evaluation:
    d, weights = c.width, 4 * c.width**2 + 3 * c.width * c.mlp_width
    text, image = (n + -n % z_image.MULTIPLE for n in (s.text, s.image))
    condition = 2 * s.text * c.context_dim * d + c.refiner_layers * _blocks(text, text, d, weights)
    velocity = 4 * s.image * c.in_channels * d + 2 * (256 * 1024 + 1024 * c.time_width)
    velocity += c.refiner_layers * _blocks(image, image, d, weights)
    velocity += c.layers * _blocks(image + text, image + text, d, weights)
    return Evaluation(condition, velocity + 2 * c.time_width * d * (4 * (c.refiner_layers + c.layers) + 1))


COUNTS = dict(qwen_image_21=_qwen_image_21, qwen_image=_qwen_image, flux2=_flux2, z_image=_z_image)
