"""The host's memory allocator, which decides a third of a training step's time on CPU."""

import os
import platform
import sys

# One heap, grown in big pieces, never given back, on huge pages where the system offers them.
_TUNABLES = dict(arena_max=1, mmap_max=0, trim_threshold=1 << 40, top_pad=256 << 20, hugetlb=1)


def tunables() -> str:
    """The value of GLIBC_TUNABLES that ``keep_memory`` starts commands with."""
    return ":".join(f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items())


def keep_memory() -> None:
    """Starts this command anew under a glibc that keeps freed memory; elsewhere, and in the new process, does nothing.

    XLA on CPU frees a step's temporaries after every call and asks for them again in the next; by default glibc unmaps
    them and the system clears and maps each page anew. Kept, a forward and backward pass takes 0.65 of the processor
    time (docs/performance.md). ``mallopt`` would not need the new process but cannot name a threshold above 2 GB, and
    a step that needs more lost its pages every time. Who sets GLIBC_TUNABLES keeps what was set.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = tunables()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
