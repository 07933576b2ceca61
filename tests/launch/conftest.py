"""The launch scripts, in an environment of stubs."""

import os
import subprocess

import pytest
from stubs import PROGRAM, ROOT, STUB


@pytest.fixture
def bin(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gcloud", "kubectl", "sbatch", "scontrol", "curl"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    (folder / "git").write_text("#!/bin/sh\n")  # an archive of the whole repository takes seconds
    (folder / "git").chmod(0o755)
    program = tmp_path / "venv" / "bin" / "flashjax"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return folder


@pytest.fixture
def bash(bin, tmp_path):
    def run(script: str, *args: str, **environment: str) -> subprocess.CompletedProcess:
        own = ("FLASHJAX_", "SLURM_", "XLA_", "JAX_", "LIBTPU_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        env |= dict(PATH=f"{bin}:{env['PATH']}", CALLS=str(tmp_path / "runs"), TMPDIR=str(tmp_path))
        env |= dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="0") | environment
        command = ["bash", str(ROOT / "launch" / f"{script}.sh"), *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    return run
