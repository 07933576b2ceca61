"""The host's memory allocator, which decides a good part of a training step's time on CPU."""

import os
import platform
import sys

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
