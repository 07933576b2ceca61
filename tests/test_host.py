"""A command starts itself anew with another allocator: once, with the same arguments, never against a setting. What it
takes of a GPU, and what a processor multiplies."""

import json
import os
import platform
import subprocess
import sys

import pytest
from jaxlib import xla_client

from flashjax import cli, host
from flashjax.parallel import chips

SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
LOADER = "/lib64/ld-linux-x86-64.so.2"
SCRIPT = """
import json, os, sys
from flashjax.host import keep_memory
print("started", flush=True)
keep_memory()
print(json.dumps([os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.utf8_mode]))
"""


def run(tmp_path, **env):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    base = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-X", "utf8", str(file), "two words", "--x=$HOME"]
    done = subprocess.run(command, env=base | env, capture_output=True, text=True, check=True)
    *starts, answer = done.stdout.splitlines()
    return len(starts), *json.loads(answer)


def test_starts_anew_once_with_the_same_arguments(tmp_path):
    glibc = platform.libc_ver()[0] == "glibc"
    expected = (2, host.tunables()) if glibc else (1, None)
    assert run(tmp_path) == (*expected, ["two words", "--x=$HOME"], 1)


def test_tunables_that_somebody_set_stay(tmp_path):
    theirs = "glibc.malloc.arena_max=4"
    assert run(tmp_path, GLIBC_TUNABLES=theirs) == (1, theirs, ["two words", "--x=$HOME"], 1)


@pytest.mark.skipif(not os.path.exists(LOADER), reason="no glibc for x86-64")
def test_glibc_knows_every_tunable():
    """An unknown name would be ignored without a word; the loader lists those that it knows."""
    known = subprocess.run([LOADER, "--list-tunables"], capture_output=True, text=True, check=True).stdout
    for setting in host.tunables().split(":"):
        assert setting.split("=")[0] + ":" in known


@pytest.mark.parametrize(
    ("given", "share"),
    [({}, 0.9), ({SHARES[0]: "0.5"}, 0.5), ({SHARES[1]: "0.5"}, 0.5), ({SHARES[0]: ""}, 0.9)],
)
def test_a_gpu_has_what_plans_count_on(given, share, monkeypatch):
    """By itself JAX takes 0.75; where both of the names say something it raises."""
    for name in SHARES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    host.take_gpu_memory()
    assert xla_client.generate_pjrt_gpu_plugin_options()["memory_fraction"] == share
    assert chips.named("h200").hbm == pytest.approx(0.9 * 141e9)


def test_a_command_of_its_own_takes_it(monkeypatch):
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "")  # so that it is as it was when this has ended
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("GLIBC_TUNABLES", host.tunables())
    monkeypatch.setattr(sys, "argv", ["flashjax", "inspect", "nothing"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    assert cli.main() == 2
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.9"


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fpu avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx512f avx512_vnni", False), (None, False)],
)
def test_the_processors_flags_tell_what_it_multiplies(flags, has, monkeypatch):
    lines = ["processor : 0", f"flags\t\t: {flags}"] if flags else []
    monkeypatch.setattr(host, "_cpuinfo", lambda: lines)
    host.multiplies_bfloat16.cache_clear()
    assert host.multiplies_bfloat16() == has
    host.multiplies_bfloat16.cache_clear()
