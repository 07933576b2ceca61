"""What the tests of the launch scripts share: stubs of gcloud, kubectl, sbatch and curl that write down what they are
given, and a flashjax that says which process it is."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ("train", "--config=configs/x.py:a=1,b", "--workdir=/mnt/my run", '--config.note="it\'s"')
SCRIPTS = ("local", "local_multi", "tpu_vm", "tpu_queued", "tpu_multislice", "gke", "slurm", "worker", "detached")
GCLOUD = dict(FLASHJAX_NAME="mine", FLASHJAX_ZONE="us-east5-a", FLASHJAX_TPU="v6e-16")
GKE = dict(
    FLASHJAX_NAME="mine", FLASHJAX_IMAGE="me/flashjax:1", FLASHJAX_ACCELERATOR="tpu-v6e-slice", FLASHJAX_TOPOLOGY="4x4",
    FLASHJAX_HOSTS="4", FLASHJAX_SLICES="2",
)  # fmt: skip
# Writes a line of [name, arguments, standard input] and answers what the test has put into NAME.answers, a line a call.
STUB = f"""#!{sys.executable}
import json, os, pathlib, sys
name, folder = pathlib.Path(sys.argv[0]).name, pathlib.Path(sys.argv[0]).parent
said = "" if name == "gcloud" or sys.stdin.isatty() else sys.stdin.read()
with open(folder / "calls", "a") as file:
    file.write(json.dumps([name, sys.argv[1:], said]) + "\\n")
answers = folder / (name + ".answers")
for line in answers.read_text().splitlines() if answers.exists() else []:
    words, answer, status = json.loads(line)
    if all(word in " ".join(sys.argv) for word in words):
        if not answer.startswith("once"):
            print(answer)
        else:
            answers.write_text(answers.read_text().replace(line + "\\n", "", 1))
        sys.exit(status)
"""
PROGRAM = """#!/bin/sh
echo "flashjax $FLASHJAX_COORDINATOR $FLASHJAX_PROCESSES $FLASHJAX_PROCESS $FLASHJAX_WAIT" "$@" >>"$CALLS"
echo x >>"$CALLS.$FLASHJAX_PROCESS"
exit "$(sed -n "$(wc -l <"$CALLS.$FLASHJAX_PROCESS")p" "$CALLS.statuses" 2>/dev/null || echo 0)"
"""


def answers(bin: Path, name: str, *given: tuple[list[str], str, int]) -> None:
    (bin / f"{name}.answers").write_text("".join(json.dumps(answer) + "\n" for answer in given))


def calls(bin: Path) -> list:
    return [json.loads(line) for line in (bin / "calls").read_text().splitlines()] if (bin / "calls").exists() else []


def runs(tmp_path) -> list[str]:
    return (tmp_path / "runs").read_text().splitlines()
