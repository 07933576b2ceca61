"""What the three autoencoders' tests share."""

import functools
import json

import jax
import numpy as np
import torch
from parity import all_equations, carry_over, check_released, close, randomise

from flashjax import convert, paths
from flashjax.convert import planning

_COUNTER = "bn.num_batches_tracked"


class Pair:
    """diffusers' autoencoder with weights drawn anew, and ours with the same weights, through a file."""

    def __init__(self, module, torch_class, settings: dict, folder, seed: int = 0):
        self.name = module.__name__.rpartition(".")[2]
        self.torch = soften(randomise(torch_class(**settings), seed))
        self.folder = folder
        self.config = module.Config.from_diffusers(self.saved_config())
        self.abstract = module.abstract(self.config)
        self.params = carry_over(self.name, self.torch, self.abstract, folder)
        self.encode, self.decode = (jax.jit(f) for f in module.autoencoder(self.config))

    def saved_config(self) -> dict:
        self.torch.save_config(self.folder)
        return json.loads((self.folder / "config.json").read_text())


def soften(model: torch.nn.Module) -> torch.nn.Module:
    """Pictures within [-1, 1] for the most part, else the clipping would hide differences; statistics of a batch norm
    unlike the fresh ones."""
    with torch.no_grad():
        for weight in model.decoder.conv_out.parameters():
            weight *= 0.25
        if hasattr(model, "bn"):
            model.bn.running_mean.normal_(0, 0.5)
            model.bn.running_var.uniform_(0.3, 3)
    return model


def draw(*shape, seed: int = 0, loud: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) if loud else rng.uniform(-1, 1, shape)).astype(np.float32)


def nchw(x) -> torch.Tensor:
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).contiguous()


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def encode(pair: Pair, images: np.ndarray, expected: np.ndarray) -> None:
    _same(pair.encode(pair.params, images), expected)


def decode(pair: Pair, latents: np.ndarray, expected: np.ndarray) -> None:
    assert np.mean(np.abs(expected) == 1) < 0.05
    _same(pair.decode(pair.params, latents), expected)


def _same(actual: jax.Array, expected: np.ndarray) -> None:
    across = expected.std((0, 1, 2)).mean()  # of one channel over samples and pixels
    assert 0.02 < across < 3  # else the tolerance would mean nothing
    assert actual.dtype == np.float32
    close(actual, expected)


def clipping(pair: Pair, latents: np.ndarray) -> None:
    """Pictures are clipped to [-1, 1]: with a louder last convolution, to as loud a picture, clipped."""
    decoder = pair.params["decoder"]

    def decode(times):
        conv_out = jax.tree.map(lambda x: times * x, decoder["conv_out"])
        return np.asarray(pair.decode(pair.params | {"decoder": decoder | {"conv_out": conv_out}}, latents))

    quiet = decode(0.1)
    assert np.abs(quiet).max() < 1
    times = 0.1 / np.median(np.abs(quiet))
    np.testing.assert_allclose(decode(times), np.clip(times * quiet / 0.1, -1, 1), rtol=0, atol=5e-6)


def names_and_shapes(module, torch_class, preset: str, settings: dict, count: int) -> None:
    """Every tensor of the released model, without a weight in memory: our parameters, named by the table read
    backwards, are PyTorch's but for a counter of training steps; ``count`` numbers in all of PyTorch's."""
    with torch.device("meta"):
        theirs = {name: tuple(w.shape) for name, w in torch_class(**settings).state_dict().items()}
    config = getattr(module.Config, preset)()
    ours = planning.export(convert.table_of(module.__name__.rpartition(".")[2]), module.abstract(config))[1]
    assert {name: spec.shape for name, spec in ours.items()} == {n: s for n, s in theirs.items() if n != _COUNTER}
    assert sum(np.prod(shape, dtype=np.int64) for shape in theirs.values()) == count
    check_released(f"{module.__name__.rpartition('.')[2]}:{preset}", {name: spec.shape for name, spec in ours.items()})


def same_sizes(module, torch_class, preset: str, settings: dict) -> None:
    """The preset is the configuration of the released checkpoint."""
    with torch.device("meta"):
        config = dict(torch_class(**settings).config)
    assert module.Config.from_diffusers(json.loads(json.dumps(config))) == getattr(module.Config, preset)()


def written(pair: Pair, folder, dtype=None) -> dict[str, np.ndarray]:
    """The tensors of the file that our parameters (cast to ``dtype``) become."""
    params = pair.params if dtype is None else jax.tree.map(lambda x: x.astype(dtype), pair.params)
    convert.save(pair.name, params, folder / "model.safetensors")
    reader = convert.open_weights(folder / "model.safetensors")
    return {name: np.array(reader.read(name)) for name in reader.shapes()}


def low_precision_weights(pair: Pair, images, latents) -> None:
    """bfloat16 weights are computed with as the float32 numbers that they are."""
    rough = jax.tree.map(lambda x: x.astype("bfloat16"), pair.params)
    exact = jax.tree.map(lambda x: x.astype(np.float32), rough)
    np.testing.assert_array_equal(pair.encode(rough, images), pair.encode(exact, images))
    np.testing.assert_array_equal(pair.decode(rough, latents), pair.decode(exact, latents))


def precision(pair: Pair, images, latents) -> None:
    """Every product asks for full float32: on CPU all do, on TPU the default rounds factors to bfloat16."""
    for function, x in ((pair.encode, images), (pair.decode, latents)):
        equations = all_equations(jax.make_jaxpr(function)(pair.params, x).jaxpr)
        products = [e for e in equations if e.primitive.name in ("dot_general", "conv_general_dilated")]
        assert len(products) > 10
        assert {e.params["precision"] for e in products} == {(jax.lax.Precision.HIGHEST,) * 2}


def init(module, config) -> None:
    params = jax.jit(module.init, static_argnums=0)(config, jax.random.key(0))
    described = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert described(params) == described(module.abstract(config))
    assert all(x.dtype == np.float32 for x in paths.flatten(params).values())
