"""What is checked of sizes and of the ``config.json`` of a released model, whatever the model."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from flashjax.errors import UserError

# Settings of config.json, scheduler_config.json and model_index.json by what they have to be, whatever the model.
_COUNTS = {
    "attention_head_dim", "base_dim", "cap_feat_dim", "context_in_dim", "decoder_base_dim", "depth", "dim", "head_dim",
    "hidden_size", "in_channels", "input_channels", "intermediate_size", "joint_attention_dim", "latent_channels",
    "layers_per_block", "max_position_embeddings", "n_heads", "n_layers", "n_refiner_layers", "norm_num_groups",
    "num_attention_heads", "num_heads", "num_hidden_layers", "num_key_value_heads", "num_layers",
    "num_position_embeddings", "num_res_blocks", "num_single_layers", "spatial_merge_size", "steps", "type_vocab_size",
    "vocab_size", "window_size", "z_dim",
}  # fmt: skip
_NUMBERS = {
    "base_image_seq_len", "base_shift", "batch_norm_eps", "eps", "guidance_scale", "layer_norm_eps",
    "max_image_seq_len", "max_shift", "mlp_ratio", "norm_eps", "rms_norm_eps", "rope_theta", "scaling_factor", "shift",
}  # fmt: skip
_LISTS = {
    "axes_dims", "axes_dims_rope", "block_out_channels", "decoder_block_out_channels", "dim_mult", "sample_sigmas",
}  # fmt: skip
_MAY_BE_EMPTY = {
    "deepstack_visual_indexes", "fullatt_block_indexes", "latents_mean", "latents_std", "mrope_section",
    "temperal_downsample",
}  # fmt: skip
_MOST = 10**7  # of any count: more layers than that were listed one by one, for hours
_LARGE = 1e30  # what float32 still computes with; JSON's whole numbers have no end
_PARTS = {"flashjax", "rope_parameters", "rope_scaling", "sampling", "text_config", "vision_config"}


def products(dtype: Any) -> None:
    """Raises ValueError unless ``dtype``, to which factors of matrix products are rounded, is None or a dtype."""
    try:
        jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"products is {dtype!r}, no dtype; write float32 or bfloat16.") from error


def even_axes(axes_dims: Sequence[int], width: int, heads: int, count: int = 3) -> None:
    """Raises ValueError unless there are ``count`` rotary axes, which are even and make up a head."""
    if len(axes_dims) != count or width % heads or sum(axes_dims) != width // heads or any(d % 2 for d in axes_dims):
        raise ValueError(
            f"axes_dims {tuple(axes_dims)} must be even and sum to the head width, which is width / heads = "
            f"{width} / {heads}; there are {count} of them."
        )


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` without the settings that it leaves to the class's default."""
    return {name: value for name, value in config.items() if value is not None}


def values(config: Mapping[str, Any], part: str = "") -> None:
    """Raises UserError for a setting of a ``config.json``, or of a ``part`` of one, that is nothing of its kind; null
    is none."""
    for name, value in without_nulls(config).items():
        if wanted := _wanted(name, value, part):
            found = reprlib.repr(value)  # some have no end
            raise UserError(f"config.json has {name} = {found}, which should be {wanted}; fetch it again.")
        if name in _PARTS:
            values(value, name)


def _wanted(name: str, value: Any, part: str) -> str:
    """What a setting should be in place of this value; empty where it may be."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _COUNTS or (part, name) == ("vision_config", "patch_size"):  # elsewhere it may be two numbers
        return "" if type(value) is int and 0 < value <= _MOST else f"a whole number from 1 to {_MOST}"
    if name in _NUMBERS:
        return "" if number and 0 < value < _LARGE else f"a number between 0 and {_LARGE:g}"
    if name == "shift_terminal":  # 0 is none
        return "" if number and 0 <= value < 1 else "a number from 0 to less than 1"
    if name in _LISTS | _MAY_BE_EMPTY:
        numbers = isinstance(value, list | tuple) and all(
            isinstance(each, int | float) and abs(each) < _LARGE for each in value
        )
        return "" if numbers and (name in _MAY_BE_EMPTY or (value and min(value) > 0)) else "a list of numbers"
    return "" if name not in _PARTS or isinstance(value, Mapping) else "an object"


def needed(config: Mapping[str, Any], names: Sequence[str], class_name: str) -> None:
    """Raises UserError unless a ``config.json`` has all the settings ``names``."""
    if missing := [name for name in names if config.get(name) is None]:
        article = "an" if class_name.startswith("A") else "a"
        raise UserError(f"config.json lacks {', '.join(missing)}; is it the one of {article} {class_name}?")


def fixed(config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises UserError unless a ``config.json`` has ``settings``, where it has them, as they are built here."""
    for name, wanted in settings.items():
        found = config.get(name, wanted)
        if _listed(found) != _listed(wanted):
            raise UserError(f"config.json has {name} = {found!r}; only {wanted!r} is built here.")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
