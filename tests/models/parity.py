"""What every port is held to: PyTorch's function, on random weights that went through the conversion table.

Every weight is drawn anew, norms, biases and gates included: a fresh network has norms of 1 and often an output of 0,
which would hide a swapped norm or a missing gate. Outputs are of order 1 then, so the tolerance is about a hundred
float32 roundings, for two implementations that add up in different orders.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.extend
import numpy as np
import torch

from flashjax import convert

TOLERANCE = 2e-5
# Module and preset -> number of tensors, and the digest of {name: shape}, of lists that do not come from the installed
# diffusers, whose defaults may change. Statistics of a batch norm are not among the parameters.
RELEASED = {
    "qwen_image_21:qwen_image_21": (297, "bd98e4c217383a150b23a7ecf4ab964fe6d59b7fd4805256f9ab188d2f6e47c9"),
    "vae_qwen_image_21:qwen_image_21": (238, "fbb891f75c1e5037d89b7705fd5b6b431cb7871bf6f9411c7b8c6e0165722458"),
    "qwen_image:qwen_image": (1933, "9349cc6f9d662cbd298b8854c636cc920b4b54fb7480d9bdbab4f706959f17cc"),
    "vae_qwen_image:qwen_image": (194, "ef7f55e5602e71ac402fe9f5ee4f0114044eb5747f9864e0a7cacf5351d63093"),
    "z_image:z_image": (521, "9eb67d3d8e41fe46619f83d9e56c8c354f6516e43dac61182ea64001259e7124"),
    "vae_kl:flux2": (248, "bce79596e9ac481711909188832c4d5f949fee183d894f295782932168ba2a4f"),
    "flux2:klein_4b": (169, "3bb5ea459b4a463ef12b048f78ade78d30d63ebbc218a451186617e27fe5c895"),
    # of diffusers 0.42
    "flux2:klein_9b": (233, "fe53a80be8b17e5137f629ef3e9240881472cb126b60ac386af86a96f323bdca"),
    "vae_kl:z_image": (244, "3123bf4653e4b93dd35162ae539d71d4e22e2cae3a1c88d3a6df1d01544644f9"),
}


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


def all_equations(jaxpr):
    """Those of a program, and of the programs in it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from all_equations(inner)


_LAYOUT = ("broadcast_in_dim", "concatenate", "gather", "reshape", "slice", "split", "squeeze", "transpose")


def check_angles(function, *inputs) -> None:
    """Sines and cosines (of times, of rotary positions) are taken in float32, and what they become without any
    computation is never rounded."""
    taken, kept = 0, set()
    for equation in all_equations(jax.make_jaxpr(function)(*inputs).jaxpr):
        if equation.primitive.name in ("sin", "cos"):
            taken += 1
            assert equation.invars[0].aval.dtype == np.float32, equation
        elif not kept.intersection(x for x in equation.invars if isinstance(x, jax.extend.core.Var)):
            continue
        elif equation.primitive.name not in _LAYOUT:
            assert equation.primitive.name != "convert_element_type", equation
            continue
        kept.update(equation.outvars)
    assert taken >= 2


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


def check_released(which: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """{PyTorch name: shape} is that of the released checkpoint."""
    parameters = {name: list(shape) for name, shape in shapes.items() if not name.startswith("bn.")}
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    assert (len(parameters), digest) == RELEASED[which]
