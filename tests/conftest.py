"""One CPU stands in for a small pod: eight devices, faked before JAX is imported."""

import html
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and compute little. Without LLVM's optimisations they take two thirds of the time; a student's
# gradient compiles in 1.4 s, not 6.3, where fusions are emitted the older way, which jaxlib 0.12 has no more, and by
# one thread.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    + ("--xla_cpu_use_fusion_emitters=false " * importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.")))
    + f"--xla_cpu_parallel_codegen_split_count=1 {os.environ.get('XLA_FLAGS', '')}"
)

# Many tests run the same miniature programs. All processes of a test run share what they have compiled: this one, those
# that it divides the tests among, and those that tests start.
os.environ["JAX_COMPILATION_CACHE_DIR"] = (
    os.environ.get("JAX_COMPILATION_CACHE_DIR") or tempfile.mkdtemp(prefix="flashjax-tests-")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from absl import flags
from hypothesis import settings
from tiny_command import command, complaint, inputs  # noqa: F401  fixtures
from tiny_training import fast, given, uninterrupted  # noqa: F401  fixtures

flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which nobody parses under pytest
settings.register_profile("flashjax", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("flashjax")


def pytest_unconfigure(config):
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if cache.name.startswith("flashjax-tests-") and not hasattr(config, "workerinput"):
        shutil.rmtree(cache)


@pytest.fixture
def opened():
    """A function from an HTML file to its tree as headless Chromium has it after its scripts have run."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no Chromium here to open the page in")

    def dump(page: Path, *options: str) -> str:
        argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
        argv += [*options, page.as_uri()]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout

    return dump


@pytest.fixture
def scripted(opened):
    """A function from a page and a script, which runs behind the page's own, to what the script makes the title."""

    def run(page: Path, script: str, *options: str) -> str:
        copy = page.with_name("scripted.html")
        copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"))
        return re.search("<title>(.*?)</title>", opened(copy, *options)).group(1)

    return run


@pytest.fixture
def width(opened, tmp_path):
    """A function from an HTML file and a window's width to the width that the page takes there, in pixels."""

    def measure(page: Path, window: int) -> int:
        # In a frame: the browser's own window has a least width that is larger than a phone's.
        asked = "<script>parent.document.title = 'w' + document.documentElement.scrollWidth</script></body>"
        inner = html.escape(page.read_text(encoding="utf-8").replace("</body>", asked))
        frame = tmp_path / "frame.html"
        frame.write_text(f'<title></title><iframe width={window} height=900 style="border: 0" srcdoc="{inner}">')
        return int(re.search(r"<title>w(\d+)</title>", opened(frame, "--hide-scrollbars")).group(1))

    return measure
