"""One CPU stands in for a small pod: eight devices, faked before JAX is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and compute little: without LLVM's optimisations they take two thirds of the time.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", "")]
)

from absl import flags
from hypothesis import settings
from tiny_training import compile_cache, fast, given, uninterrupted  # noqa: F401  fixtures

flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which nobody parses under pytest
settings.register_profile("flashjax", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("flashjax")
