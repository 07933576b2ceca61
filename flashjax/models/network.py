"""An NNX network as pure functions over nested dicts of parameters: what every model file offers the outside.

``network`` is the class, made by ``network(config, rngs=...)``; a model file names its own with ``partial``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from flashjax import flow

Network = Callable[..., nnx.Module]


def init(network: Network, config: Any, key: jax.Array) -> flow.Params:
    """Random parameters as nested dicts of arrays, in the configuration's ``param_dtype`` (float32 without one)."""
    return nnx.to_pure_dict(nnx.state(network(config, rngs=nnx.Rngs(params=key)), nnx.Param))


def abstract(network: Network, config: Any) -> flow.Params:
    """Shapes and dtypes of the parameters; nothing is allocated."""
    return jax.tree.map(lambda leaf: leaf, _traced(network, config)[1])  # the caller's own tree


def graphdef(network: Network, config: Any) -> nnx.GraphDef:
    """What ``nnx.merge`` makes the network of again, together with parameters."""
    return _traced(network, config)[0]


@functools.cache
def _traced(network: Network, config: Any) -> tuple[nnx.GraphDef, flow.Params]:
    """Once a configuration: a network of hundreds of kernels takes seconds to trace, and a run asks several times."""
    made = nnx.eval_shape(lambda: network(config, rngs=nnx.Rngs(params=0)))
    definition, params = nnx.split(made, nnx.Param)
    return definition, nnx.to_pure_dict(params)


def denoiser(network: Network, config: Any) -> flow.Denoiser:
    """The two functions of (params, ...) of a network with the methods ``condition`` and ``velocity``."""
    definition = graphdef(network, config)

    def condition(params: flow.Params, cond: Any) -> flow.Context:
        return nnx.merge(definition, params).condition(cond)

    def velocity(params: flow.Params, context: flow.Context, z: jax.Array, t: jax.Array) -> jax.Array:
        return nnx.merge(definition, params).velocity(context, z, t)

    return flow.Denoiser(condition, velocity)
