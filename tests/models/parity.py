"""What every port is held to: PyTorch's function, on random weights that went through the conversion table.

Every weight is drawn anew, norms, biases and gates included: a fresh network has norms of 1 and often an output of 0,
which would hide a swapped norm or a missing gate. Outputs are of order 1 then, so the tolerance is about a hundred
float32 roundings, for two implementations that add up in different orders.
"""

import copy
from pathlib import Path

import numpy as np
import torch

from flashjax import convert

TOLERANCE = 2e-5


def randomise(model: torch.nn.Module, seed: int = 0, centred: tuple[str, ...] = ()) -> torch.nn.Module:
    """The model in evaluation mode with weights drawn anew: kernels keep the size of what they multiply, scales lie
    around 1, biases around 0, as do the scales of parameters whose names contain one of ``centred``."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.squeeze().ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
            else:
                around_one = name.endswith(("weight", "gamma")) and not any(part in name for part in centred)
                weight.normal_(1 if around_one else 0, 0.4)
    return model.eval()


def rounded(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with bfloat16 weights. Its constants (rotary frequencies) stay in float32, as in a model that is loaded
    so."""
    copied = copy.deepcopy(model)
    for weight in copied.parameters():
        weight.data = weight.data.bfloat16()
    return copied


def relative_error(rough, exact) -> float:
    """Relative L2 error."""
    return float(np.sqrt(np.mean((np.asarray(rough) - exact) ** 2) / np.mean(np.square(exact))))


# Both round where layers end, on independent signs, so that 1 is expected; ours rounds less, since norms, softmax,
# rotation and time stay in float32. The few hundred numbers of a test leave some per cent to chance.
RATIO = 1.1


def check_bfloat16(rough, exact, theirs, bound: float) -> None:
    """bfloat16's result is within ``bound`` of float32's, and as near to it as PyTorch's bfloat16 result is."""
    assert rough.dtype == np.float32
    ours, others = relative_error(rough, exact), relative_error(theirs, exact)
    assert 1e-4 < ours < bound
    assert ours < RATIO * others, (ours, others)


def carry_over(name: str, model: torch.nn.Module, abstract, folder: Path):
    """The parameters of flashjax's model ``name`` with the weights of PyTorch's, through a file."""
    model.save_pretrained(folder)
    return convert.load(name, folder, abstract)


def close(actual, expected, tolerance: float = TOLERANCE) -> None:
    """Both may be trees of arrays or tensors; absolute and relative tolerance alike."""
    if isinstance(expected, tuple | list):
        for a, e in zip(actual, expected, strict=True):
            close(a, e, tolerance)
        return
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)
