"""The commands that the launch scripts and README.md print, laid out on the devices that they ask for."""

import math
import os
import re
import shlex
import subprocess

import pytest
from stubs import ROOT

from flashjax import config as configs
from flashjax import plan

CLUSTERS = ("tpu_vm", "tpu_queued", "tpu_multislice", "gke", "slurm")
LAUNCHED = re.compile(r"((?:[A-Z_]+=\S+ )*)launch/(\w+)\.sh (.*)")


def commands(text: str) -> list[re.Match]:
    """Of the indented lines that start a script with something to run: its variables, its name, its arguments."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    return [found for line in lines if (found := LAUNCHED.match(re.sub(" +", " ", line))) and "=" in found[3]]


def of_readme() -> list[re.Match]:
    """Those of the chapter on pods, by the shell itself: their variables are of the lines above them."""
    chapter = (ROOT / "README.md").read_text().partition("## Launch on a pod")[2].partition("\n## ")[0]
    lines = "".join(line.removeprefix("    ") + "\n" for line in chapter.splitlines() if line.startswith("    "))
    shown = re.sub(r"launch/(\w+)\.sh --dry-run", r"show \1", lines)
    place = ("TPU", "TOPOLOGY", "SLICES")
    told = " ".join(f"${{FLASHJAX_{name}:+FLASHJAX_{name}=$FLASHJAX_{name}}}" for name in place)
    script = f'show() {{ script="$1"; shift; echo "    $(echo {told}) launch/$script.sh $*"; }}\n{shown}'
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLASHJAX_")}
    return commands(subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, check=True).stdout)


def devices(script: str, given: dict[str, str]) -> int:
    """Chips, as the scripts' variables and their defaults say."""
    if script == "local_multi":
        return 2 * 2
    if script == "slurm":
        return int(given.get("FLASHJAX_NODES", 1)) * int(given.get("FLASHJAX_GPUS", 8))
    if script == "gke":
        return math.prod(map(int, given["FLASHJAX_TOPOLOGY"].split("x"))) * int(given.get("FLASHJAX_SLICES", 1))
    slices = int(given.get("FLASHJAX_SLICES", 2)) if script == "tpu_multislice" else 1
    return slices * int(given.get("FLASHJAX_TPU", "v6e-16").rpartition("-")[2])


def check(found: re.Match) -> None:
    """It divides over the devices, and reads nothing that is not on their disk or in what is uploaded."""
    given = dict(word.split("=") for word in shlex.split(found[1]))
    train, config, workdir, *settings = shlex.split(found[3])
    assert train == "train" and workdir.startswith("--workdir=/mnt/")
    loaded = configs.load([config, *settings])
    laid = plan.lay_out(loaded, plan.devices(f"cpu:{devices(found[2], given)}"))
    assert laid.mesh.size == laid.target.count
    assert all(source.path.startswith("/mnt/") for source in loaded.sources.values())
    assert loaded.init == ""
    for teacher in loaded.distill.teachers.values():
        assert teacher.weights.startswith("weights/") and (ROOT / teacher.weights).exists()


@pytest.mark.parametrize("script", CLUSTERS)
def test_the_example_of_a_script_can_train(bash, script):
    (found,) = commands(bash(script, "--help").stdout)
    assert found[2] == script
    check(found)


def test_examples_of_the_readme_can_train():
    found = of_readme()
    assert {each[2] for each in found} == {"local_multi", *CLUSTERS}
    for each in found:
        check(each)


def test_each_of_four_slices_holds_the_whole_state(bash):
    """With fsdp left at 1 four of 64 chips would have had work."""
    (found,) = commands(bash("tpu_multislice", "--help").stdout)
    _, config, _, *settings = shlex.split(found[3])
    laid = plan.lay_out(configs.load([config, *settings]), plan.devices("cpu:64"))
    assert dict(laid.mesh.shape) == dict(data=4, fsdp=16, context=1, tensor=1)
