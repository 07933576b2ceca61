"""What the tests of the denoisers share: pairs with diffusers' models, whole evaluations, ways to compute the same."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch
from parity import carry_over, check_bfloat16, close, rounded
from torch.utils._pytree import tree_map_only

from flashjax import convert, paths


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def pairs(module: ModuleType, configs: dict[str, dict], torch_model: Callable, factory) -> Callable:
    """name of a config -> (config, diffusers' model, the same weights as parameters), each made once."""

    @functools.cache
    def make(name: str):
        config = module.Config.tiny(**configs[name])
        model = torch_model(config)
        return config, model, carry_over(name_of(module), model, module.abstract(config), factory.mktemp(name))

    return make


def evaluate(denoiser, params, cond, z, t):
    return denoiser.velocity(params, denoiser.condition(params, cond), z, t)


@functools.cache
def jitted(module: ModuleType, config):
    return jax.jit(functools.partial(evaluate, module.denoiser(config)))


def run(module: ModuleType, config, params, cond, z, t):
    """The velocity, by a program that is compiled once a configuration and shape."""
    return jitted(module, config)(params, cond, z, t)


def loss_and_grads(module: ModuleType, config, params, cond, z, t):
    """((loss, velocity), gradients in parameters and z)."""
    denoiser = module.denoiser(config)

    def loss(params, z):
        v = evaluate(denoiser, params, cond, z, t)
        return jnp.mean(v**2), v

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, z)


class Rounded:
    """diffusers' model in bfloat16 for what asks it in float32. Positions, which it counts, are not rounded."""

    def __init__(self, model: torch.nn.Module):
        self.model = rounded(model)

    def __call__(self, *inputs, **named):
        ids = {name: named.pop(name) for name in ("img_ids", "txt_ids") if name in named}
        inputs, named = tree_map_only(torch.Tensor, _round, (inputs, named))
        out = self.model(*inputs, **named, **ids).sample
        return SimpleNamespace(sample=tree_map_only(torch.Tensor, torch.Tensor.float, out))


def _round(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16() if x.is_floating_point() else x


def check_bfloat16_velocity(module: ModuleType, config, params, model, inputs, torch_velocity, bound: float) -> None:
    """See ``parity.check_bfloat16``; at times of which bfloat16 holds 1000 t, which diffusers rounds."""
    cond, z, _ = inputs
    inputs = cond, z, np.resize(np.float32([0.5, 1]), len(z))
    exact, rough = (run(module, c, params, *inputs) for c in (config, dataclasses.replace(config, dtype=jnp.bfloat16)))
    check_bfloat16(rough, exact, torch_velocity(Rounded(model), *inputs), bound)


def text_gradient(module: ModuleType, config, params, cond, z, t):
    """Of the velocity's sum in ``cond.text``: where it is 0, the text is not looked at."""
    denoiser = module.denoiser(config)
    return jax.jit(jax.grad(lambda text: evaluate(denoiser, params, cond.replace(text=text), z, t).sum()))(cond.text)


def check_same(computed, expected, every_gradient: bool = True) -> None:
    """Two results of ``loss_and_grads`` agree; ``every_gradient``: and every parameter has one."""
    (_, v), grads = computed
    (_, expected_v), expected_grads = expected
    close(v, expected_v, 5e-6)
    for (path, a), b in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.abs(b).max() > 0 or not every_gradient, path
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))


def check_round_trip(module: ModuleType, config, model: torch.nn.Module, folder, dtype: torch.dtype) -> None:
    """PyTorch to Flax to PyTorch, bit for bit, in ``dtype``."""
    model, name, kind = model.to(dtype), name_of(module), str(dtype).removeprefix("torch.")
    model.save_pretrained(folder)
    params = convert.load(name, folder, module.abstract(config), np.dtype(kind))
    assert {str(leaf.dtype) for leaf in paths.flatten(params).values()} == {kind}
    convert.save(name, params, folder / "back.safetensors")
    state, back = model.state_dict(), safetensors.torch.load_file(folder / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(back[k].dtype == dtype and torch.equal(back[k], state[k]) for k in state)


def check_written_from_jax(
    module: ModuleType, config, torch_model: torch.nn.Module, reload, folder, inputs, torch_velocity
) -> None:
    """Parameters that are drawn here, written for PyTorch, and run there: ``reload(folder)`` is diffusers' model."""
    rng = np.random.default_rng(1)

    def draw_leaf(x):
        return (rng.normal(size=x.shape) * (x.shape[-2] ** -0.5 if x.ndim > 1 else 0.4)).astype(np.float32)

    params = jax.tree.map(draw_leaf, module.abstract(config))
    convert.save(name_of(module), params, folder / "diffusion_pytorch_model.safetensors")
    torch_model.save_config(folder)
    close(run(module, config, params, *inputs), torch_velocity(reload(folder), *inputs))
