"""An NNX network as pure functions over nested dicts of parameters: what every model file offers the outside.

``network`` is the class, made by ``network(config, rngs=...)``; a model file names its own with ``partial``.
"""

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
    return jax.eval_shape(lambda: init(network, config, jax.random.key(0)))


def graphdef(network: Network, config: Any) -> nnx.GraphDef:
    """What ``nnx.merge`` makes the network of again, together with parameters."""
    return nnx.split(nnx.eval_shape(lambda: network(config, rngs=nnx.Rngs(params=0))), nnx.Param)[0]


def denoiser(network: Network, config: Any) -> flow.Denoiser:
    """The two functions of (params, ...) of a network with the methods ``condition`` and ``velocity``."""
    definition = graphdef(network, config)

    def condition(params: flow.Params, cond: Any) -> flow.Context:
        return nnx.merge(definition, params).condition(cond)

    def velocity(params: flow.Params, context: flow.Context, z: jax.Array, t: jax.Array) -> jax.Array:
        return nnx.merge(definition, params).velocity(context, z, t)

    return flow.Denoiser(condition, velocity)
