"""The launch scripts of clusters, against stubs of gcloud, kubectl and sbatch that write down what they are given, and
of a flashjax that says which process it is."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ("train", "--config=configs/x.py:a=1,b", "--workdir=/mnt/my run", '--config.note="it\'s"')
SCRIPTS = ("local", "local_multi", "tpu_vm", "tpu_queued", "tpu_multislice", "gke", "slurm", "worker")
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
        if answer != "once":
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
        env = {name: value for name, value in os.environ.items() if not name.startswith(("FLASHJAX_", "SLURM_"))}
        env |= dict(PATH=f"{bin}:{env['PATH']}", CALLS=str(tmp_path / "runs"), TMPDIR=str(tmp_path))
        env |= dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="0") | environment
        command = ["bash", str(ROOT / "launch" / f"{script}.sh"), *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    return run


def answers(bin: Path, name: str, *given: tuple[list[str], str, int]) -> None:
    (bin / f"{name}.answers").write_text("".join(json.dumps(answer) + "\n" for answer in given))


def calls(bin: Path) -> list:
    return [json.loads(line) for line in (bin / "calls").read_text().splitlines()] if (bin / "calls").exists() else []


def runs(tmp_path) -> list[str]:
    return (tmp_path / "runs").read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_and_each_of_its_variables(bash, script):
    done = bash(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"launch/{script}.sh [--help | --dry-run]")
    source = (ROOT / "launch" / f"{script}.sh").read_text()
    names = set(re.findall(r"FLASHJAX_[A-Z]+", source))
    assert [name for name in names if name not in done.stdout] == []
    assert bash(script).returncode == 2


@pytest.mark.parametrize(
    ("script", "environment"),
    [("local", {}), ("local_multi", {}), ("tpu_vm", GCLOUD), ("tpu_queued", GCLOUD), ("tpu_multislice", GCLOUD),
     ("gke", GKE), ("slurm", {})],
)  # fmt: skip
def test_a_dry_run_calls_nothing(bash, bin, tmp_path, script, environment):
    done = bash(script, "--dry-run", *RUN, **environment)
    assert done.returncode == 0, done.stderr
    assert "my" in done.stdout and "configs/x.py" in done.stdout
    assert calls(bin) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "venv"]


@pytest.mark.parametrize("script", ["tpu_vm", "tpu_queued", "tpu_multislice", "gke"])
def test_what_is_missing_is_named(bash, bin, script):
    done = bash(script, *RUN, FLASHJAX_ZONE="z")
    assert done.returncode == 2
    assert "FLASHJAX_NAME is not set; see" in done.stderr
    assert calls(bin) == []


def worker_command(call: list) -> list[str]:
    """The words that the workers' shells see in what is run by ssh."""
    return shlex.split(next(word for word in call[1] if word.startswith("--command=")).removeprefix("--command="))


def test_a_tpu_vm(bash, bin):
    done = bash("tpu_vm", *RUN, **GCLOUD, FLASHJAX_PROJECT="p", FLASHJAX_RESTARTS="3")
    assert done.returncode == 0, done.stderr
    copy, unpack, run = calls(bin)
    for call in (copy, unpack, run):
        assert call[1][:3] == ["compute", "tpus", "tpu-vm"]
        assert {"--worker=all", "--zone=us-east5-a", "--project=p"} <= set(call[1])
    assert copy[1][3] == "scp" and copy[1][5] == "mine:flashjax.tgz"
    assert worker_command(run)[:3] == ["cd", "flashjax", "&&"]
    assert worker_command(run)[3:] == [
        "FLASHJAX_EXTRAS=tpu,postcards", "FLASHJAX_RESTARTS=3", "bash", "launch/worker.sh", "tpu", *RUN
    ]  # fmt: skip


def test_a_queued_resource_that_is_taken_away_is_asked_for_again(bash, bin):
    answers(
        bin, "gcloud",
        (["ssh", "worker.sh"], "once", 1), (["describe"], "ACTIVE", 0),
    )  # fmt: skip
    assert bash("tpu_queued", *RUN, **GCLOUD).returncode == 1  # the machines are there: the run itself has failed
    (bin / "calls").unlink()
    (bin / "gcloud.answers").write_text("")
    # Active, gone when the run has failed, active again.
    script = (bin / "gcloud").read_text()
    (bin / "gcloud").write_text(
        script + f"""
states = folder / "states"
if "describe" in sys.argv:
    left = states.read_text().split()
    print(left[0])
    states.write_text(" ".join(left[1:]))
if "worker.sh" in " ".join(sys.argv) and not (folder / {"failed"!r}).exists():
    (folder / "failed").touch()
    sys.exit(255)
"""
    )
    (bin / "states").write_text("WAITING_FOR_RESOURCES ACTIVE SUSPENDED ACTIVE")
    done = bash("tpu_queued", *RUN, **GCLOUD, FLASHJAX_SPOT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    did = [call[1][3] for call in calls(bin) if call[1][3] != "describe"]
    assert did == ["create", "scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]
    create = next(call[1] for call in calls(bin) if call[1][3] == "create")
    assert {"--node-id=mine", "--accelerator-type=v6e-16", "--spot", "--runtime-version=v2-alpha-tpuv6e"} <= set(create)


def test_no_spot_machines_unless_asked_for(bash):
    for script in ("tpu_queued", "tpu_multislice"):
        assert "--spot" not in bash(script, "--dry-run", *RUN, **GCLOUD, FLASHJAX_SPOT="0").stdout
        assert "--spot" in bash(script, "--dry-run", *RUN, **GCLOUD, FLASHJAX_SPOT="1").stdout


def test_a_queue_that_fails_is_told(bash, bin):
    answers(bin, "gcloud", (["describe"], "FAILED", 0))
    done = bash("tpu_queued", *RUN, **GCLOUD)
    assert done.returncode == 2
    assert "The queued resource mine is FAILED" in done.stderr
    assert all(call[1][3] != "ssh" for call in calls(bin))


@pytest.mark.parametrize(("status", "asked_again"), [(75, True), (255, True), (2, False)])
def test_machines_are_taken_away_before_the_queue_says_so(bash, bin, status, asked_again):
    """The workers end, as they were told to stop or fell silent, while the resource still calls itself active."""
    script = (bin / "gcloud").read_text()
    (bin / "gcloud").write_text(
        script + f"""
states = folder / "states"
if "describe" in sys.argv:
    left = states.read_text().split()
    print(left[0])
    states.write_text(" ".join(left[1:]))
if "worker.sh" in " ".join(sys.argv) and not (folder / "failed").exists():
    (folder / "failed").touch()
    sys.exit({status})
"""
    )
    (bin / "states").write_text("ACTIVE ACTIVE SUSPENDING ACTIVE")
    assert bash("tpu_queued", *RUN, **GCLOUD).returncode == (0 if asked_again else status)
    assert ("delete" in [call[1][3] for call in calls(bin)]) == asked_again


def test_a_queue_that_was_asked_before_is_gone_on_with(bash, bin):
    """The script's own machine was started anew; the slice is there, and its name taken."""
    answers(bin, "gcloud", (["create"], "", 1), (["describe"], "ACTIVE", 0))
    done = bash("tpu_queued", *RUN, **GCLOUD)
    assert done.returncode == 0 and "mine is there already: going on with it" in done.stdout
    answers(bin, "gcloud", (["create"], "", 1), (["describe"], "", 1))
    (bin / "calls").unlink()
    done = bash("tpu_queued", *RUN, **GCLOUD)
    assert done.returncode == 2 and "The queued resource mine cannot be made" in done.stderr
    assert [call[1][3] for call in calls(bin)] == ["create", "describe"]


def test_no_answer_is_no_state(bash, bin):
    """Of a run that has failed the machines stay, though gcloud does not tell that they are there."""
    answers(bin, "gcloud", (["describe"], "once", 1), (["describe"], "ACTIVE", 0))
    assert bash("tpu_queued", *RUN, **GCLOUD).returncode == 0  # asked twice
    answers(bin, "gcloud", (["describe"], "", 1))
    (bin / "calls").unlink()
    done = bash("tpu_queued", *RUN, **GCLOUD)
    assert done.returncode == 2 and "gcloud does not tell the state of the queued resource mine" in done.stderr
    assert {call[1][3] for call in calls(bin)} == {"create", "describe"}


def test_an_archive_that_cannot_be_made_is_not_replaced_by_an_older_one(bash, bin):
    answers(bin, "gcloud", (["describe"], "ACTIVE", 0))
    (bin / "git").write_text("#!/bin/sh\nexit 128\n")
    for script in ("tpu_vm", "tpu_queued"):
        assert bash(script, *RUN, **GCLOUD).returncode == 128
    assert {call[1][3] for call in calls(bin)} == {"create", "describe"}


def test_slices_run_together(bash, bin):
    answers(bin, "gcloud", (["describe"], "ACTIVE", 0))
    assert bash("tpu_multislice", *RUN, **GCLOUD, FLASHJAX_SLICES="3").returncode == 0
    create, *rest = [call[1] for call in calls(bin) if call[1][3] != "describe"]
    assert {"--node-count=3", "--node-prefix=mine"} <= set(create)
    ran = [call[4] for call in rest if call[3] == "ssh" and "worker.sh" in " ".join(call)]
    assert sorted(ran) == ["mine-0", "mine-1", "mine-2"]


def test_a_jobset(bash, bin):
    yaml = pytest.importorskip("yaml")
    assert bash("gke", *RUN, **GKE, FLASHJAX_GRACE="600").returncode == 0
    asked, (name, args, manifest) = calls(bin)
    assert asked[1][:3] == ["get", "jobset", "mine"]
    assert (name, args) == ("kubectl", ["apply", "-f", "-"])
    job = yaml.safe_load(manifest)
    assert job["kind"] == "JobSet" and job["metadata"]["name"] == "mine"
    (group,) = job["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    assert (group["replicas"], spec["parallelism"], spec["completions"]) == (2, 4, 4)
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 600
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
    (container,) = pod["containers"]
    assert container["args"] == list(RUN)
    assert container["image"] == "me/flashjax:1"
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert given["FLASHJAX_RESTARTS"] == "0" and given["FLASHJAX_HOSTS"] == "4"
    assert "@" not in manifest


def test_a_pod_without_others_is_not_started_again_when_it_crashes(bash, bin):
    yaml = pytest.importorskip("yaml")
    done = bash("gke", "--dry-run", *RUN, **GKE | dict(FLASHJAX_HOSTS="1", FLASHJAX_SLICES="1"))
    (group,) = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"]  # what is printed is a manifest
    (rule,) = group["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [1, 2, 134]
    assert "kubectl get jobset mine" in done.stdout and "kubectl delete jobset mine" in done.stdout


@pytest.mark.parametrize("state", ["Failed", "Completed"])
def test_a_jobset_that_has_ended_is_replaced(bash, bin, state):
    answers(bin, "kubectl", (["get"], f"mine {state}", 0))
    done = bash("gke", *RUN, **GKE)
    assert done.returncode == 0, done.stderr
    assert f"the JobSet mine {state} is deleted, and made anew" in done.stdout
    assert [call[1][0] for call in calls(bin)] == ["get", "delete", "apply"]
    assert calls(bin)[1][1] == ["delete", "jobset", "mine", "--wait", "--cascade=foreground"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("mine ", 0), "The JobSet mine is there and has not ended: kubectl logs --follow job/mine-slice-0 follows"),
        (("", 1), "kubectl does not tell whether there is a JobSet mine; the lines above say why."),
    ],
)
def test_a_jobset_that_may_run_is_left_alone(bash, bin, answer, words):
    answers(bin, "kubectl", (["get"], *answer))
    done = bash("gke", *RUN, **GKE)
    assert done.returncode == 2 and words in done.stderr
    assert [call[1][0] for call in calls(bin)] == ["get"]


def test_a_slurm_job(bash, bin):
    done = bash("slurm", *RUN, FLASHJAX_NODES="4", FLASHJAX_SBATCH="--partition=gpu --account=me")
    assert done.returncode == 0, done.stderr
    ((name, args, job),) = calls(bin)
    assert (name, args) == ("sbatch", ["--partition=gpu", "--account=me"])
    assert {"#SBATCH --nodes=4", "#SBATCH --gpus-per-node=8", "#SBATCH --signal=TERM@300"} <= set(job.splitlines())
    line = next(shlex.split(line) for line in job.splitlines() if " srun " in line)
    words = line[line.index("slurm") + 1 : line.index("||")]
    assert words == list(RUN)
    assert subprocess.run(["bash", "-n"], input=job, text=True).returncode == 0
    assert "#SBATCH --signal=TERM@900\n" in bash("slurm", "--dry-run", *RUN, FLASHJAX_GRACE="900").stdout


@pytest.mark.parametrize(
    ("cluster", "environment", "expected"),
    [
        ("slurm", dict(SLURM_STEP_NODELIST="n[3-6]", SLURM_NTASKS="4", SLURM_PROCID="2"), "n3:8476 4 2 600"),
        (
            "jobset",
            dict(FLASHJAX_JOBSET="mine", FLASHJAX_SLICES="2", FLASHJAX_HOSTS="4")
            | dict(JOB_INDEX="1", JOB_COMPLETION_INDEX="3"),
            "mine-slice-0-0.mine:8476 8 7 600",
        ),
        (
            "plain",
            dict(FLASHJAX_COORDINATOR="a:1", FLASHJAX_PROCESSES="2", FLASHJAX_PROCESS="1", FLASHJAX_WAIT="5"),
            "a:1 2 1 5",
        ),
    ],
)  # fmt: skip
def test_a_worker_knows_which_process_it_is(bash, bin, tmp_path, cluster, environment, expected):
    answers(bin, "scontrol", (["hostnames", "n[3-6]"], "n3\nn4\nn5\nn6", 0))
    done = bash("worker", cluster, "train", "--workdir=a b", **environment)
    assert done.returncode == 0, done.stderr
    assert runs(tmp_path) == [f"flashjax {expected} train --workdir=a b"]


@pytest.mark.parametrize(
    ("endpoints", "slices", "expected"),
    [
        ("host-0,host-1,host-2", "", "host-0:8476 3 1"),
        ("x:0:10.0.0.5,x:1:10.0.0.6", "", "10.0.0.5:8476 2 1"),
        (
            "host-0,host-1",
            "A: 'b'\nMEGASCALE_COORDINATOR_ADDRESS: '10.9.9.9:8080'\nMEGASCALE_NUM_SLICES: '4'\n"
            "MEGASCALE_SLICE_ID: '2'",
            "10.9.9.9:8476 8 5",
        ),
    ],
)
def test_a_worker_of_a_tpu_vm_asks_the_metadata_server(bash, bin, tmp_path, endpoints, slices, expected):
    answers(
        bin, "curl", (["agent-worker-number"], "1", 0), (["worker-network-endpoints"], endpoints, 0),
        (["tpu-env"], slices, 0),
    )  # fmt: skip
    assert bash("worker", "tpu", "train").returncode == 0
    assert runs(tmp_path) == [f"flashjax {expected} 600 train"]


def test_a_worker_elsewhere_says_so(bash, bin, tmp_path):
    answers(bin, "curl", ([], "", 6))
    done = bash("worker", "tpu", "train")
    assert done.returncode == 2 and "does not say that this is a worker of a TPU VM" in done.stderr
    done = bash("worker", "lsf", "train")
    assert done.returncode == 2 and "lsf is no cluster" in done.stderr


@pytest.mark.parametrize(
    ("script", "environment", "words"),
    [
        ("local_multi", dict(FLASHJAX_PROCESSES="two"), "FLASHJAX_PROCESSES is two; it has to be a whole number."),
        ("local_multi", dict(FLASHJAX_PROCESSES="0"), "FLASHJAX_PROCESSES is 0; it has to be 1 or more."),
        ("local", dict(FLASHJAX_DEVICES="-1"), "FLASHJAX_DEVICES is -1; it has to be a whole number."),
        ("tpu_multislice", GCLOUD | dict(FLASHJAX_SLICES="0"), "FLASHJAX_SLICES is 0; it has to be 1 or more."),
        ("gke", GKE | dict(FLASHJAX_HOSTS="4 "), "FLASHJAX_HOSTS is 4 ; it has to be a whole number."),
        ("slurm", dict(FLASHJAX_NODES="0"), "FLASHJAX_NODES is 0; it has to be 1 or more."),
        ("slurm", dict(FLASHJAX_GRACE="5m"), "FLASHJAX_GRACE is 5m; it has to be a whole number."),
        ("gke", GKE | dict(FLASHJAX_GRACE="0"), "FLASHJAX_GRACE is 0; it has to be 1 or more."),
        ("tpu_queued", GCLOUD | dict(FLASHJAX_SPOT="no"), "FLASHJAX_SPOT is no; it has to be 0 or 1."),
    ],
)
def test_numbers_are_numbers(bash, bin, tmp_path, script, environment, words):
    done = bash(script, *RUN, **environment)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr == f"[flashjax] {words}\n"
    assert calls(bin) == [] and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("cluster", "name"), [("slurm", "SLURM_STEP_NODELIST"), ("jobset", "FLASHJAX_JOBSET")])
def test_a_worker_outside_of_its_cluster_says_so(bash, cluster, name):
    done = bash("worker", cluster, "train")
    assert done.returncode == 2 and f"{name} is not set; see" in done.stderr


@pytest.mark.parametrize(
    ("processes", "statuses", "restarts", "status", "count"),
    [
        ("2", "75 76 134 0", "9", 0, 4), ("2", "75 75 75", "1", 75, 2), ("2", "2 0", "9", 2, 1),
        ("2", "75 1", "9", 1, 2), ("1", "75 76 0", "9", 0, 3), ("1", "134 0", "9", 134, 1),
    ],
)  # fmt: skip
def test_started_again_where_that_helps(bash, tmp_path, processes, statuses, restarts, status, count):
    (tmp_path / "runs.statuses").write_text("\n".join(statuses.split()) + "\n")
    place = dict(FLASHJAX_COORDINATOR="a:1", FLASHJAX_PROCESSES=processes, FLASHJAX_PROCESS="0")
    assert bash("worker", "plain", "train", **place, FLASHJAX_RESTARTS=restarts).returncode == status
    assert len(runs(tmp_path)) == count


@pytest.mark.parametrize("workdir", [["--workdir={}"], ["--workdir", "{}"]])
def test_starts_that_save_nothing_come_to_an_end(bash, tmp_path, workdir):
    """Three that save, two of them something new, then five in vain; what is half-written is nothing saved."""
    run = tmp_path / "a run"
    (run / "checkpoints" / "99.orbax-checkpoint-tmp-1").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "flashjax").write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/starts\ncase $(wc -l <{tmp_path}/starts) in\n"
        f"1) mkdir '{run}'/checkpoints/9 ;;\n4) mkdir '{run}'/checkpoints/10 ;;\nesac\nexit 75\n"
    )
    done = bash("local", "train", *(word.format(run) for word in workdir))
    assert done.returncode == 2
    assert "5 starts in a row have saved nothing new (the last one's status: 75)" in done.stderr
    assert (tmp_path / "starts").read_text() == "x\n" * 9


def test_starts_are_not_counted_without_a_folder_to_look_into(bash, tmp_path):
    (tmp_path / "venv" / "bin" / "flashjax").write_text(f"#!/bin/sh\necho x >>{tmp_path}/starts\nexit 75\n")
    for workdir in ([], ["--workdir=gs://bucket/run"]):
        assert bash("local", "train", *workdir, FLASHJAX_RESTARTS="7").returncode == 75
    assert (tmp_path / "starts").read_text() == "x\n" * 16


def test_local_processes_find_each_other(bash, tmp_path):
    done = bash("local_multi", "train", FLASHJAX_PROCESSES="3", FLASHJAX_PORT="4711", FLASHJAX_WAIT="7")
    assert done.returncode == 0, done.stderr
    assert sorted(runs(tmp_path)) == [f"flashjax localhost:4711 3 {i} 7 train" for i in range(3)]


def test_a_process_that_fails_decides_the_status(bash, bin, tmp_path):
    """The others are aborted by JAX (134), or do not notice: they are ended."""
    program = tmp_path / "venv" / "bin" / "flashjax"
    program.write_text('#!/bin/sh\ncase $FLASHJAX_PROCESS in 0) sleep 0.3; kill -ABRT $$ ;; 1) exit 2 ;; esac\n')
    assert bash("local_multi", "train").returncode == 2


def default_signals() -> None:
    """A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 30
    while not all(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_starts_is_final_too(bin, tmp_path, number):
    """There is no process then that could hear of it."""
    program = tmp_path / "venv" / "bin" / "flashjax"
    program.write_text(f"#!/bin/sh\necho x >>{tmp_path}/starts\nexit 75\n")
    env = os.environ | dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="1", FLASHJAX_RESTARTS="3")
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "local.sh"), "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    script.stdout.readline()  # that it starts again, before it pauses
    time.sleep(0.2)
    os.killpg(script.pid, number)
    script.communicate(timeout=30)
    assert script.returncode == 75
    assert (tmp_path / "starts").read_text() == "x\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("arguments", [["local"], ["local_multi"], ["worker", "plain"]])
def test_what_ends_the_script_is_passed_on_and_final(bin, tmp_path, arguments, number):
    """As SIGTERM, and to all that run in a terminal, as Ctrl-C and a terminal that closes are."""
    count = 2 if arguments == ["local_multi"] else 1
    (tmp_path / "venv" / "bin" / "flashjax").write_text(
        f'#!/bin/sh\ntrap "echo told >>{tmp_path}/told; exit 75" TERM\necho x >>{tmp_path}/starts\n'
        f"touch {tmp_path}/up.${{FLASHJAX_PROCESS:-0}}\nfor _ in $(seq 300); do sleep 0.1; done\n"
    )
    env = os.environ | dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="0")
    name, *rest = arguments
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / f"{name}.sh"), *rest, "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    wait_for(*(tmp_path / f"up.{i}" for i in range(count)))
    if number == signal.SIGTERM:
        script.send_signal(number)
    else:
        os.killpg(script.pid, number)
    output = script.communicate(timeout=30)[0]
    assert script.returncode == 75
    assert b"more" not in output
    assert (tmp_path / "told").read_text() == "told\n" * count
    assert (tmp_path / "starts").read_text() == "x\n" * count


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_ends_the_script_ends_its_connections(bin, tmp_path, number, status):
    """gcloud, and the ssh that it has started, of every slice; the machines are not asked for again."""
    (bin / "gcloud").write_text(
        f"""#!/bin/sh
echo "$4" >>{tmp_path}/did
case "$*" in
  *describe*) echo ACTIVE ;;
  *worker.sh*) sleep 60 & echo $$ $! >{tmp_path}/up.$5; wait ;;
esac
"""
    )
    env = os.environ | GCLOUD | dict(PATH=f"{bin}:{os.environ['PATH']}", TMPDIR=str(tmp_path), FLASHJAX_PAUSE="0")
    command = ["bash", str(ROOT / "launch" / "tpu_multislice.sh"), "train"]
    script = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, preexec_fn=default_signals)
    up = [tmp_path / "up.mine-0", tmp_path / "up.mine-1"]
    wait_for(*up)
    script.send_signal(number)
    output = script.communicate(timeout=30)[0]  # comes to an end when nothing holds the pipe any more
    assert script.returncode == status
    assert b"told to stop: the machines of mine are kept" in output
    assert (tmp_path / "did").read_text().split()[-2:] == ["ssh", "ssh"]


def test_ctrl_c_while_gcloud_asks_for_machines_is_final(bin, tmp_path):
    """gcloud ends with an error then, as it does for a name that is taken."""
    (bin / "gcloud").write_text(
        f"#!{sys.executable}\nimport pathlib, sys, time\npathlib.Path({str(tmp_path)!r}, sys.argv[4]).touch()\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(1)\n"
    )
    env = os.environ | GCLOUD | dict(PATH=f"{bin}:{os.environ['PATH']}", FLASHJAX_PAUSE="0")
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "tpu_queued.sh"), "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    wait_for(tmp_path / "create")
    os.killpg(script.pid, signal.SIGINT)
    script.communicate(timeout=30)
    assert script.returncode == 130
    assert not (tmp_path / "describe").exists()
