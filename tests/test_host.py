"""A command starts itself anew with another allocator: once, with the same arguments, never against a setting."""

import json
import os
import platform
import subprocess
import sys

import pytest

from flashjax import host

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
    ("flags", "has"),
    [("fpu avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx512f avx512_vnni", False), (None, False)],
)
def test_the_processors_flags_tell_what_it_multiplies(flags, has, monkeypatch):
    lines = ["processor : 0", f"flags\t\t: {flags}"] if flags else []
    monkeypatch.setattr(host, "_cpuinfo", lambda: lines)
    host.multiplies_bfloat16.cache_clear()
    assert host.multiplies_bfloat16() == has
    host.multiplies_bfloat16.cache_clear()
