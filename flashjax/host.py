"""The host: its memory allocator, which decides a good part of a training step's time on CPU, what is taken of a GPU's
memory, the host's name, and what its processor multiplies."""

import functools
import os
import platform
import sys

from flashjax.parallel.chips import GPU_SHARE

# A few heaps, grown in big pieces, never given back, on huge pages where the system offers them. All but the first hold
# 64 MB at most, so that a step's temporaries pass them by and kernels find their small buffers soon: with one heap for
# both, searching it took a fifth of the processor time of distillation, and threads waited for each other.
_TUNABLES = dict(arena_max=4, mmap_max=0, trim_threshold=1 << 40, top_pad=256 << 20, hugetlb=1)


def tunables() -> str:
    """The value of GLIBC_TUNABLES that ``keep_memory`` starts commands with."""
    return ":".join(f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items())


def keep_memory() -> None:
    """Starts this command anew under a glibc that keeps freed memory; elsewhere, and in the new process, does nothing.

    XLA on CPU frees a step's temporaries after every call and asks for them again in the next; by default glibc unmaps
    them and the system clears and maps each page anew (docs/performance.md says what that costs). ``mallopt`` would not
    need the new process but cannot name a threshold above 2 GB, and a step that needs more lost its pages every time.
    Who sets GLIBC_TUNABLES keeps what was set.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = tunables()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def take_gpu_memory() -> None:
    """Has JAX take as much of a GPU's memory as ``flashjax plan`` counts on: three quarters are its own default.

    It may be called until JAX looks for devices. Who sets a share keeps it, under either of its names, both of which at
    once JAX refuses."""
    name, former = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    if not os.environ.get(name) and not os.environ.get(former):
        os.environ[name] = str(GPU_SHARE)


def machine() -> str:
    """What computes here, as results name it: the accelerators, or the processor and how many of its cores this process
    may use."""
    import jax

    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}"


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has an instruction for products of bfloat16 with float32 sums (AVX512-BF16 or AMX)."""
    flags = [line.split() for line in _cpuinfo() if line.startswith("flags")]
    return bool(flags) and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[0])


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo") as file:
            return file.read().splitlines()
    except OSError:
        return []
