"""What the tests of the Qwen encoders share: batches padded on either side, PyTorch's states, names and bits."""

import functools

import jax
import numpy as np
import torch
from parity import carry_over, randomise
from safetensors.torch import load_file, save_file

from flashjax import convert
from flashjax.convert import planning


def draw_tokens(vocab: int, lengths, total: int, seed: int = 0):
    """(tokens int32 [B, total] padded on the right with token 0, lengths int32 [B])."""
    tokens = np.random.default_rng(seed).integers(1, vocab, (len(lengths), total))
    lengths = np.array(lengths, np.int32)
    return np.where(np.arange(total) < lengths[:, None], tokens, 0).astype(np.int32), lengths


def to_the_right(x: np.ndarray, lengths, back: bool = False) -> np.ndarray:
    """Rows [B, L, ...] padded on the right, padded on the left instead; ``back`` undoes it."""
    shifts = x.shape[1] - np.asarray(lengths)
    return np.stack([np.roll(row, -s if back else s, axis=0) for row, s in zip(x, shifts, strict=True)])


def valid(x, lengths) -> np.ndarray:
    """The real tokens of a batch padded on the right, [sum of lengths, ...]."""
    return np.concatenate([np.asarray(row)[:n] for row, n in zip(x, lengths, strict=True)])


def torch_states(text_model, features, final_norm: bool, run) -> np.ndarray:
    """The states that ``features`` names, side by side: ``run(output_hidden_states=True)`` with the final norm passed
    over, since transformers ties the last hidden state to the normed one."""
    handle = text_model.norm.register_forward_hook(lambda module, inputs, output: output if final_norm else inputs[0])
    with torch.no_grad():
        states = run(output_hidden_states=True).hidden_states
    handle.remove()
    return torch.cat([states[k] for k in features], dim=-1).float().numpy()


def check_names(name: str, model: torch.nn.Module, abstract) -> dict[str, str]:
    """Every tensor of a PyTorch model (of any device) has its place in the parameters, or is dropped; what is written
    has the same names and shapes. Returns the dropped names and reasons."""
    source = {n: convert.Spec(tuple(w.shape), np.dtype(np.float32)) for n, w in model.state_dict().items()}
    dropped = dict(planning.plan(convert.table_of(name), source, abstract).dropped)
    _, written = planning.export(convert.table_of(name), abstract)
    assert {n: s.shape for n, s in written.items()} == {n: s.shape for n, s in source.items() if n not in dropped}
    return dropped


def check_round_trip(name: str, model: torch.nn.Module, abstract, folder) -> None:
    """PyTorch to Flax to PyTorch, bit for bit, in float32 and in bfloat16."""
    dropped = check_names(name, model, abstract)
    for dtype in (torch.float32, torch.bfloat16):
        state = {n: w.detach().to(dtype).clone() for n, w in model.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        params = convert.load(name, folder / "model.safetensors", abstract, np.dtype(str(dtype).removeprefix("torch.")))
        convert.save(name, params, folder / "back.safetensors")
        back = load_file(folder / "back.safetensors")
        assert set(back) == set(state) - set(dropped)
        for n, weight in back.items():
            assert torch.equal(weight, state[n]), n


def pairs(module, configs: dict[str, dict], torch_model, factory):
    """name of a config -> (config, transformers' model, the same weights as parameters), each made once."""
    own = module.__name__.rpartition(".")[2]

    @functools.cache
    def make(name: str):
        config = module.Config.tiny(**configs[name])
        model = randomise(torch_model(config))
        return config, model, carry_over(own, model, module.abstract(config), factory.mktemp(name))

    return make


@functools.cache
def jitted(module, config):
    return jax.jit(module.encoder(config), static_argnames="image_at")


def run(module, config, params, batch):
    """The states of a batch with images."""
    tokens, lengths, image_at, pixels = batch
    return jitted(module, config)(params, tokens, lengths, pixels, image_at=image_at)


def expected_states(config, model, batch, processor) -> np.ndarray:
    """transformers' states of a batch padded on the left, turned back; its ``processor`` cuts the patches."""
    run = functools.partial(model, **torch_inputs(config, batch, processor))
    states = torch_states(model.model.language_model, config.features, config.final_norm, run)
    return to_the_right(states, batch[1], back=True)


def draw_batch(config, lengths, total: int, images, patch: int, merge: int, seed: int = 0):
    """(tokens, lengths, image_at, pixels): images of (slot rows, slot columns, tokens of text in front of it)."""
    tokens, lengths = draw_tokens(config.vocab - 2, lengths, total, seed)
    rng, place, image_at, pixels = np.random.default_rng(seed + 1), 0, [], []
    for rows, columns, text in images:
        place += text
        image_at.append(place)
        tokens[:, place : place + rows * columns] = config.vocab - 1
        place += rows * columns
        shape = (len(lengths), rows * patch * merge, columns * patch * merge, 3)
        pixels.append(rng.integers(0, 256, shape, dtype=np.uint8))
    return tokens, lengths, tuple(image_at), tuple(pixels)


def torch_inputs(config, batch, processor, left: bool = True) -> dict[str, torch.Tensor]:
    """transformers' view of a batch; its own ``processor`` of images cuts the patches."""
    tokens, lengths, _, pixels = batch
    mask = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64)
    if left:
        tokens, mask = to_the_right(tokens, lengths), to_the_right(mask, lengths)
    inputs = dict(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask))
    if pixels:
        images = [x[i] for i in range(len(tokens)) for x in pixels]
        inputs |= processor(images=images, do_resize=False, input_data_format="channels_last", return_tensors="pt")
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == config.vocab - 1).int()
    return inputs
