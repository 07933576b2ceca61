"""Chips by name: what one of them computes and holds. What MFU is measured against and ``flashjax plan`` plans
with."""

import dataclasses
import difflib

from flashjax.errors import UserError

GIB = 2**30
GPU_SHARE = 0.9  # of a GPU's memory that JAX takes (host.take_gpu_memory); the rest stays with CUDA


@dataclasses.dataclass(frozen=True)
class Chip:
    """``kind``: JAX's ``device_kind``. flops: bf16 products, dense, per second; hbm: bytes a program may use;
    bandwidth: of that memory, bytes per second; links: bytes per second that come in over all links to other chips of
    the slice (half of what is called bidirectional); devices: how many JAX sees in one chip, each with its part; host:
    bytes per second from the host's memory, and as many to it; 0 where no source says."""

    name: str
    kind: str
    flops: float
    hbm: float
    bandwidth: float
    links: float
    devices: int = 1
    host: float = 0.0


CHIPS = (
    # TPUs: docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e,tpu7x}, nothing of it measured. Memory is what libtpu's compiler
    # says it has left for programs (v5e 15.75 of 16 GB, v6e 31.25 of 32); where none was made to fail yet (v5p, tpu7x),
    # the documented size. The host, over PCIe: jax-ml.github.io/scaling-book/tpus, of
    # which tpu7x is not.
    Chip("v5e", "TPU v5 lite", 197e12, 15.75 * GIB, 819e9, 200e9, host=15e9),
    Chip("v5p", "TPU v5", 459e12, 95e9, 2765e9, 600e9, host=15e9),
    Chip("v6e", "TPU v6 lite", 918e12, 31.25 * GIB, 1638e9, 400e9, host=32e9),
    Chip("tpu7x", "TPU7x", 2307e12, 192e9, 7380e9, 600e9, devices=2),
    # GPUs: NVIDIA's data sheets of H100 SXM and H200 SXM, dense (half of the figure with sparsity); NVLink; PCIe.
    Chip("h100", "NVIDIA H100 80GB HBM3", 989e12, GPU_SHARE * 80e9, 3350e9, 450e9, host=64e9),
    Chip("h200", "NVIDIA H200", 989e12, GPU_SHARE * 141e9, 4800e9, 450e9, host=64e9),
)


def named(name: str) -> Chip:
    """Raises UserError with the nearest name for a chip that is not in the table."""
    known = {chip.name: chip for chip in CHIPS}
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.3)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    raise UserError(f"There is no chip {name!r} in flashjax/parallel/chips.py; {hint}")


def of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device, None for one that the table has not (a CPU)."""
    return next((chip for chip in CHIPS if chip.kind == device_kind), None)
