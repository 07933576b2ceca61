"""What a conversion costs: memory above the largest tensor, and time beside that of copying the same files.

    python benchmarks/convert.py --scratch convert_bench [--scale 0.1] [--shards 4] [--orbax] [--json FILE]

A synthetic bfloat16 checkpoint in the shapes of Qwen-Image-2.1 is written to --scratch and converted by the command in
a process of its own; before and after that it is copied. ``--scale 1`` is all of its 14.2 GB (twice that of the disk),
a smaller scale has fewer blocks of the same size. Each of the three begins with none of the source in the page cache
(where the system can be told so), and ends when the result is on the disk. Memory is the peak of the process less the
peak of one that converts a checkpoint of some kilobytes, which is what Python, JAX and the libraries take; seconds are
counted in the same way. The folder is removed at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from flashjax import paths
from flashjax.convert import Spec, table_of
from flashjax.convert.output import shard
from flashjax.convert.planning import export
from flashjax.convert.sources import INDEX
from flashjax.convert.writer import write_weights
from flashjax.models import qwen_image_21 as qwen

STEM = "diffusion_pytorch_model"


def form(config: qwen.Config) -> dict[str, Spec]:
    """{PyTorch name: spec} of a checkpoint, from the table read backwards over arrays that take no memory."""
    leaves = paths.flatten(qwen.abstract(config))
    arrays = {name: np.broadcast_to(ml_dtypes.bfloat16(0), leaf.shape) for name, leaf in leaves.items()}
    return export(table_of("qwen_image_21"), paths.unflatten(arrays))[1]


def make(folder: Path, config: qwen.Config, shards: int) -> int:
    """Write a checkpoint of random weights; returns the bytes of its largest tensor."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_diffusers()))
    specs = form(config)
    largest = max(spec.nbytes for spec in specs.values())
    # the bits of numbers between 1 and 2
    bits = np.random.default_rng(0).integers(0x3F80, 0x4000, largest // 2, dtype=np.uint16).view(ml_dtypes.bfloat16)
    limit = max(sum(spec.nbytes for spec in specs.values()) // shards, 1)
    weight_map = {}
    for file, names in shard(specs, limit, STEM).items():
        chosen = {name: specs[name] for name in names}
        pieces = {name: lambda spec=specs[name]: [bits[: spec.nbytes // 2]] for name in names}
        write_weights(folder / file, pieces, chosen)
        weight_map |= dict.fromkeys(names, file)
    if len(set(weight_map.values())) > 1:
        (folder / (STEM + INDEX)).write_text(json.dumps({"weight_map": weight_map}))
    return largest


def convert(source: Path, out: Path, options: tuple[str, ...]) -> tuple[float, float, int]:
    """Run the command; returns (seconds, seconds of the processor, peak resident bytes)."""
    command = [sys.executable, "-m", "flashjax.cli", "convert", "--source", str(source), "--out", str(out)]
    command += options
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ, JAX_PLATFORMS="cpu"))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the conversion failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak


def copy(source: Path, out: Path) -> tuple[float, float]:
    """Copy the files to the same disk, until they are on it, and remove the copy; (seconds, of the processor)."""
    forget(source)
    out.mkdir()
    start, processor = time.perf_counter(), time.process_time()
    for file in sorted(source.iterdir()):
        shutil.copyfile(file, out / file.name)
        with (out / file.name).open("rb") as handle:
            os.fsync(handle.fileno())
    taken = time.perf_counter() - start, time.process_time() - processor
    shutil.rmtree(out)
    return taken


def forget(folder: Path) -> None:
    """Let the system drop the folder's files from its page cache."""
    for file in folder.iterdir() if hasattr(os, "posix_fadvise") else ():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(scratch: Path, scale: float, shards: int, options: tuple[str, ...]) -> dict:
    """All figures, in bytes and seconds."""
    config = qwen.Config.qwen_image_21(layers=max(1, round(32 * scale)))
    make(scratch / "small", qwen.Config.tiny(), 1)
    convert(scratch / "small", scratch / "small_out", options)  # loads the libraries from the disk
    started, start_cpu, floor = convert(scratch / "small", scratch / "small_out_2", options)
    largest = make(scratch / "source", config, shards)
    size = sum(file.stat().st_size for file in (scratch / "source").iterdir())
    before, copy_cpu = copy(scratch / "source", scratch / "copy")
    forget(scratch / "source")
    converted, cpu, peak = convert(scratch / "source", scratch / "out", options)
    shutil.rmtree(scratch / "out")
    after, _ = copy(scratch / "source", scratch / "copy")
    return dict(
        layers=config.layers, bytes=size, largest_tensor=largest, start_seconds=started,
        copy_seconds=[before, after], convert_seconds=converted, copy_cpu_seconds=copy_cpu,
        cpu_seconds=cpu - start_cpu, peak_above_start=peak - floor, peak_above_largest=peak - floor - largest,
        speed_ratio=min(before, after) / (converted - started),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="new folder for the files; removed at the end")
    parser.add_argument("--scale", type=float, default=0.1, help="share of the 32 blocks (default %(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="files of the checkpoint (default %(default)s)")
    parser.add_argument("--orbax", action="store_true", help="convert to an Orbax checkpoint for eight devices")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True)  # an existing folder is not ours to remove
    options = ("--to", "orbax", "--mesh", "fsdp=8") if args.orbax else ()
    try:
        found = measure(args.scratch, args.scale, args.shards, options)
    finally:
        shutil.rmtree(args.scratch)
    mb = {name: found[name] / 1e6 for name in ("bytes", "largest_tensor", "peak_above_start", "peak_above_largest")}
    print(f"checkpoint {mb['bytes']:.0f} MB in {found['layers']} blocks, largest tensor {mb['largest_tensor']:.0f} MB")
    print(f"memory     {mb['peak_above_start']:.0f} MB, {mb['peak_above_largest']:.0f} MB above the largest tensor")
    print(
        f"time       {found['convert_seconds']:.1f} s, of which {found['start_seconds']:.1f} s to start; a copy takes "
        f"{' and '.join(f'{seconds:.1f}' for seconds in found['copy_seconds'])} s: {found['speed_ratio']:.2f} of the "
        "speed of the faster copy"
    )
    each = (found[name] / found["bytes"] * 1e9 for name in ("cpu_seconds", "copy_cpu_seconds"))
    print("processor  {:.2f} s a GB, a copy {:.2f} s a GB".format(*each))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
