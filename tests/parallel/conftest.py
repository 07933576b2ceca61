"""Tiny runs in processes of their own, started by the launch scripts: their environment's flashjax has a stand-in for
the text encoder, and may be told to do something at a step."""

import os
import re
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import stand_ins

from flashjax import config as configs
from flashjax import convert, models, paths
from flashjax.data import prepare
from flashjax.models import qwen_image_21

ROOT = Path(__file__).parents[2]
FLASHJAX = f"""#!{sys.executable}
import os, signal, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "parallel")!r}]
import stand_ins
stand_ins.replace(drawer="DRAW" not in os.environ)
exec(os.environ.get("FIRST", ""))
from flashjax import cli
sys.exit(cli.main())
"""


@pytest.fixture(scope="session")
def setting(tmp_path_factory):
    """An environment for the launch scripts, and --config of the tiny DMD run with its data and its teacher."""
    folder = tmp_path_factory.mktemp("setting")
    data = prepare.prepare(
        folder, split="train", count_per_category=9, size=8, seed=0, encode=stand_ins.encode, progress=False
    )
    file = ROOT / "tests" / "configs" / "tiny_postcards.py"
    tiny = models.make_config(qwen_image_21, configs.load([f"--config={file}"]).model)
    rng, flat = np.random.default_rng(0), paths.flatten(qwen_image_21.abstract(tiny))
    params = paths.unflatten({name: rng.normal(0, 0.1, x.shape).astype(np.float32) for name, x in flat.items()})
    convert.save("qwen_image_21", params, folder / "teacher.safetensors")
    program = folder / "venv" / "bin" / "flashjax"
    program.parent.mkdir(parents=True)
    program.write_text(FLASHJAX)
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASHJAX_")} | dict(
        FLASHJAX_VENV=str(folder / "venv"), FLASHJAX_PAUSE="0", FLASHJAX_WAIT="30", GLIBC_TUNABLES="",
        XLA_FLAGS=re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"]),
    )  # fmt: skip
    config = f"--config={file}:data={data},weights={folder}/teacher.safetensors"
    return types.SimpleNamespace(environment=environment, config=config, program=str(program))


@pytest.fixture
def launch(setting):
    """Starts a launch script with the tiny run; what is still there at the end of the test is ended."""
    started = []

    def start(script: str, *args: str, **environment: str) -> subprocess.Popen:
        with socket.create_server(("", 0)) as server:
            port = str(server.getsockname()[1])
        env = setting.environment | dict(FLASHJAX_PORT=port) | environment
        command = ["bash", str(ROOT / "launch" / script), "train", setting.config, *args]
        started.append(
            subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait(30)
