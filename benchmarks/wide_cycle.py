"""The DMD cycle at the width of Qwen-Image-2.1 and the tokens of a 1024 px picture, a few layers deep, on a GPU.

    python benchmarks/wide_cycle.py [--layers 4] [--batch 2] [--cycles 3] [--compile] [--json FILE]

flashjax as a run computes it and with nothing shared, and the plain cycle in PyTorch over diffusers' own modules (their
scaled-dot-product attention, bfloat16 by autocast; ``--compile``: torch.compile). Each runs in a process of its own, as
both allocators take the device for themselves; they follow each other in one call, so their ratio is of one machine.
MFU counts the model's operations (flashjax/models/flops.py) against the chip's peak (flashjax/parallel/chips.py).
``--tiny`` is for a look on any machine; its times mean nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from flashjax import config as configs

CRITIC_UPDATES, NULL_TOKENS = 5, 2
WAYS = ("flashjax", "flashjax, plain cycle", "PyTorch, plain cycle")


def configured(args: argparse.Namespace, way: str) -> ConfigDict:
    """configs/postcards.py with the large model: no run of it is meant, its cycle is."""
    config = configs.load([f"--config={Path(__file__).parent.parent}/configs/postcards.py"])
    with config.unlocked(), config.ignore_type():
        config.model = dict(architecture="qwen_image_21", preset="qwen_image_21", layers=args.layers)
        config.autoencoder.update(architecture="vae_qwen_image_21", preset="qwen_image_21")
        if args.tiny:
            config.model = dict(
                architecture="qwen_image_21", preset="qwen_image_21", layers=1, width=32, heads=2, axes_dims=(4, 6, 6),
                context_dim=24,
            )  # fmt: skip
        config.batch_size, config.max_text_tokens, config.image_size = args.batch, args.text, args.size
        config.student_updates, config.distill.critic_warmup = config.distill.nfe, 0  # short, with every k in it
        if "plain" in way:
            config.distill.update(share_sample=False, critic_updates_per_rollout=1, critic_rows=CRITIC_UPDATES)
    return config


def inputs(config: ConfigDict, model_config) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    text = rng.normal(size=(config.batch_size, config.max_text_tokens, model_config.context_dim)).astype(np.float32)
    length = np.full(config.batch_size, config.max_text_tokens, np.int32)
    return dict(text=text, text_length=length, category=np.arange(config.batch_size, dtype=np.int32) % 3)


def timed(run, nfe: int, cycles: int) -> float:
    """Median over the cycles of milliseconds, a mean over the student's steps; the first one does not count."""
    for k in range(nfe):
        run(k)
    times = []
    for _ in range(cycles):
        start = time.perf_counter()
        for k in range(nfe):
            run(k)
        times.append((time.perf_counter() - start) / nfe * 1e3)
    return statistics.median(times)


def ours(args: argparse.Namespace, way: str) -> dict:
    import jax
    from dmd_cycle import Timed

    from flashjax import cost, models, recipe
    from flashjax.models import qwen_image_21
    from flashjax.parallel import chips

    config = configured(args, way)
    model_config = models.make_config(qwen_image_21, config.model)
    params = jax.jit(partial(qwen_image_21.init, model_config))(jax.random.key(0))
    batch = inputs(config, model_config)
    null = qwen_image_21.Condition(batch["text"][:1, :NULL_TOKENS], np.array([NULL_TOKENS], np.int32))
    run = Timed(config, params, batch, null)
    del params
    made = recipe.make_recipe(config.distill)
    counted = cost.Cost(
        config.model.architecture, model_config, made, batch=config.batch_size,
        sizes=cost.sizes_of(config, {0: batch}), nulls=(NULL_TOKENS,),
    )  # fmt: skip
    work = cost.total(counted.row(run.table, row) for row in range(len(run.table)))
    flops = cost.of_model(work) / config.student_updates
    device, ms = jax.devices()[0], timed(run, config.distill.nfe, args.cycles)
    memory = device.memory_stats() or {}
    chip = chips.of_kind(device.device_kind)
    return dict(
        ms=ms, tflop_s=flops / ms / 1e9, mfu=flops / ms * 1e3 / chip.flops if chip else None,
        peak_gib=memory["peak_bytes_in_use"] / 2**30 if "peak_bytes_in_use" in memory else None,
        device=device.device_kind, version=f"jax {jax.__version__}",
    )  # fmt: skip


def theirs(args: argparse.Namespace, way: str) -> dict:
    import plain_torch
    import torch

    from flashjax import models
    from flashjax.models import latents, qwen_image_21

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = configured(args, way)
    model_config = models.make_config(qwen_image_21, config.model)
    module = diffusers_module(model_config, device)
    batch = {name: torch.tensor(x, device=device) for name, x in inputs(config, model_config).items()}
    shape = latents.of(config).shape(config.image_size)
    weights = {name: w.detach() for name, w in module.named_parameters()}
    null = batch["text"][:1, :NULL_TOKENS], torch.tensor([NULL_TOKENS], device=device)
    network = partial(diffusers_velocity, module, torch.compile if args.compile else lambda f: f)()
    cycle = plain_torch.Cycle(
        weights, network, shape, config.distill, batch["text"], batch["text_length"], null,
        student_lr=config.student_optim.lr, critic_lr=config.critic_optim.lr,
    )  # fmt: skip

    def run(k: int) -> None:
        cycle(k, CRITIC_UPDATES)
        if device == "cuda":
            torch.cuda.synchronize()

    ms = timed(run, config.distill.nfe, args.cycles)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return dict(ms=ms, peak_gib=peak, device=name, version=f"torch {torch.__version__}")


def diffusers_module(c, device: str):
    """diffusers' network of a ``qwen_image_21.Config`` in float32, from PyTorch's own beginning."""
    import torch
    from diffusers import QwenImage21Transformer2DModel

    sizes = {name: value for name, value in c.to_diffusers().items() if name not in ("_class_name", "patch_size")}
    torch.manual_seed(0)
    with torch.device(device):
        return QwenImage21Transformer2DModel(**sizes)


def diffusers_velocity(module, compiled):
    """``network(weights, text, length, z, t)`` of plain_torch.Cycle: diffusers' module called with a role's weights,
    as a whole evaluation; a null condition of one prompt serves the batch. All texts are of full length."""
    import torch

    def evaluate(weights, text, slots, z, t):
        with torch.autocast(z.device.type, torch.bfloat16, enabled=z.device.type == "cuda"):
            out = torch.func.functional_call(
                module, weights, kwargs=dict(
                    hidden_states=z.flatten(1, 2), encoder_hidden_states=text, timestep=t, img_mask=slots,
                    img_shapes=[[(1, *z.shape[1:3])]] * len(z), return_dict=False,
                ),
            )[0]  # fmt: skip
        return out[:, -z.shape[1] * z.shape[2] :].reshape(z.shape).float()

    evaluate = compiled(evaluate)

    def network(weights, text, length, z, t):
        text = text.expand(len(z), -1, -1)
        slots = torch.zeros(len(z), text.shape[1] + z.shape[1] * z.shape[2] // 4, dtype=torch.bool, device=z.device)
        slots[:, text.shape[1] :] = True
        return evaluate(weights, text, slots, z, t)

    return network


def table(results: dict[str, dict]) -> str:
    """Markdown; the ratio is of the plain cycle in PyTorch."""
    base, lines = results[WAYS[-1]]["ms"], ["| | ms a cycle | PyTorch's time / this | TFLOP/s | MFU | peak GiB |"]
    lines.append("|---|---|---|---|---|---|")
    for way, row in results.items():
        cells = [f"{row['ms']:.0f}", f"{base / row['ms']:.2f}"]
        for name, form in (("tflop_s", "{:.1f}"), ("mfu", "{:.1%}"), ("peak_gib", "{:.1f}")):
            cells.append("" if row.get(name) is None else form.format(row[name]))
        lines.append(f"| {way}, {row['version']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=1024, help="pixels a side; 16 of them are a token's")
    parser.add_argument("--text", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--tiny", action="store_true", help="a network of width 32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # one of them, in this process
    args = parser.parse_args()
    if args.way:
        print(json.dumps((theirs if "PyTorch" in args.way else ours)(args, args.way)))
        return
    results = {}
    for way in WAYS:
        command = [sys.executable, *sys.argv, f"--way={way}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[way] = json.loads(done.stdout.splitlines()[-1])
    where = results[WAYS[0]]["device"]
    print(f"{where}; {args.layers} layers, batch {args.batch}, {args.size} px, {args.text} tokens of text\n")
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(dict(arguments=sys.argv[1:], results=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
