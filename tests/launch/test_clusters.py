"""What the launch scripts of clusters ask gcloud, kubectl and sbatch for."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from stubs import GCLOUD, GKE, ROOT, RUN, SCRIPTS, answers, calls, runs


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
    done = bash("tpu_vm", *RUN, **GCLOUD, FLASHJAX_PROJECT="p", FLASHJAX_RESTARTS="3", PYTHON="python3.12")
    assert done.returncode == 0, done.stderr
    copy, unpack, start, follow = calls(bin)
    for call in (copy, unpack, start, follow):
        assert call[1][:3] == ["compute", "tpus", "tpu-vm"]
        assert {"--worker=all", "--zone=us-east5-a", "--project=p"} <= set(call[1])
    assert copy[1][3] == "scp" and copy[1][5] == "mine:flashjax.tgz"
    assert not Path(copy[1][4]).parent.exists()  # a folder of this launch alone
    assert worker_command(start)[:3] == ["cd", "flashjax", "&&"]
    assert worker_command(start)[3:] == [
        "PYTHON=python3.12", "FLASHJAX_EXTRAS=tpu,postcards", "FLASHJAX_RESTARTS=3", "bash", "launch/detached.sh",
        "start", "tpu", *RUN,
    ]  # fmt: skip
    assert worker_command(follow) == ["bash", "flashjax/launch/detached.sh", "follow"]


def test_code_that_is_gone_from_the_archive_is_gone_from_the_workers(bash, bin, tmp_path):
    """The roll call reads every file of flashjax; a left-over one of an earlier upload had it refuse the run."""
    bash("tpu_vm", *RUN, **GCLOUD)
    unpack = next(word for word in calls(bin)[1][1] if word.startswith("--command=")).removeprefix("--command=")
    home = tmp_path / "home"
    for name in ("flashjax/old.py", "configs/old.py", "launch/old.sh", ".venv/kept", "data/kept"):
        (home / "flashjax" / name).parent.mkdir(parents=True)
        (home / "flashjax" / name).touch()
    (tmp_path / "flashjax").mkdir()
    (tmp_path / "flashjax" / "new.py").touch()
    subprocess.run(["tar", "-czf", home / "flashjax.tgz", "flashjax"], cwd=tmp_path, check=True)
    (home / "flashjax_run").mkdir()
    holds = ["flock", "flashjax_run/lock", "sh", "-c", "echo held; cat"]
    with subprocess.Popen(holds, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        assert subprocess.run(["sh", "-c", unpack], cwd=home).returncode == 3
        assert (home / "flashjax" / "flashjax" / "old.py").exists()
        run.stdin.close()
    assert subprocess.run(["sh", "-c", unpack], cwd=home).returncode == 0
    files = {str(path.relative_to(home / "flashjax")) for path in home.glob("flashjax/**/*") if path.is_file()}
    assert files == {"flashjax/new.py", ".venv/kept", "data/kept"}


def does(call: list) -> str:
    """``create``, ``scp``, ``unpack``, ``start``, ``follow``, ``stop``, ...: what gcloud is called for."""
    words = worker_command(call) if call[1][3] == "ssh" else [call[1][3]]
    return "unpack" if "tar" in words else next((w for w in ("start", "follow", "stop") if w in words), words[0])


@pytest.mark.parametrize("statuses", [[255], [255, 255, 255, 255]])
def test_a_connection_that_breaks_is_made_again(bash, bin, statuses):
    """gcloud has tried it ten times by then. The run itself goes on; it is not started a second time."""
    answers(bin, "gcloud", *((["detached.sh follow"], f"once {i}", status) for i, status in enumerate(statuses)))
    done = bash("tpu_vm", *RUN, **GCLOUD)
    assert done.returncode == 0, done.stderr
    assert [does(call) for call in calls(bin)] == ["scp", "unpack", "start", *["follow"] * (len(statuses) + 1)]
    assert done.stdout.count("no connection to mine; the run goes on there, trying again") == len(statuses)


def test_a_machine_that_stays_away_ends_the_script(bash, bin):
    answers(bin, "gcloud", (["detached.sh follow"], "", 255))
    assert bash("tpu_vm", *RUN, **GCLOUD).returncode == 255
    assert [does(call) for call in calls(bin)].count("follow") == 5


def test_a_run_that_is_there_is_followed(bash, bin):
    """Its code is not overwritten under it; whether it is the same run, the machines know."""
    answers(bin, "gcloud", (["tar -xzf"], "", 3))
    assert bash("tpu_vm", *RUN, **GCLOUD).returncode == 0
    assert [does(call) for call in calls(bin)] == ["scp", "unpack", "start", "follow"]
    answers(bin, "gcloud", (["tar -xzf"], "", 3), (["detached.sh start"], "", 2))
    (bin / "calls").unlink()
    assert bash("tpu_vm", *RUN, **GCLOUD).returncode == 2
    assert [does(call) for call in calls(bin)] == ["scp", "unpack", "start"]


@pytest.mark.parametrize(("option", "expected"), [("--follow", ["follow"]), ("--stop", ["stop", "follow"])])
@pytest.mark.parametrize("script", ["tpu_vm", "tpu_queued", "tpu_multislice"])
def test_nothing_is_begun_to_follow_or_stop_a_run(bash, bin, script, option, expected):
    answers(bin, "gcloud", (["detached.sh follow"], "", 75))
    assert bash(script, option, **GCLOUD).returncode == 75  # the run's
    nodes = ["mine-0", "mine-1"] if script == "tpu_multislice" else ["mine"]
    for node in nodes:
        assert [does(call) for call in calls(bin) if call[1][4] == node] == expected
    assert len(calls(bin)) == len(nodes) * len(expected)


def taken_away(bin, states: str, status: int) -> None:
    """A gcloud whose queued resource is in these states, a look each, and whose first run ends with ``status``."""
    script = (bin / "gcloud").read_text()
    (bin / "gcloud").write_text(
        script + f"""
states = folder / "states"
if "describe" in sys.argv:
    left = states.read_text().split()
    print(left[0])
    states.write_text(" ".join(left[1:]))
if "detached.sh follow" in " ".join(sys.argv) and not (folder / "failed").exists():
    (folder / "failed").touch()
    sys.exit({status})
"""
    )
    (bin / "states").write_text(states)


def test_a_queued_resource_that_is_taken_away_is_asked_for_again(bash, bin):
    answers(
        bin, "gcloud",
        (["detached.sh follow"], "once", 1), (["describe"], "ACTIVE", 0),
    )  # fmt: skip
    assert bash("tpu_queued", *RUN, **GCLOUD).returncode == 1  # the machines are there: the run itself has failed
    (bin / "calls").unlink()
    (bin / "gcloud.answers").write_text("")
    # Active, gone when the run has failed, active again.
    taken_away(bin, "WAITING_FOR_RESOURCES ACTIVE SUSPENDED ACTIVE", 75)
    done = bash("tpu_queued", *RUN, **GCLOUD, FLASHJAX_SPOT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    did = [does(call) for call in calls(bin) if does(call) != "describe"]
    whole = ["create", "scp", "unpack", "start", "follow"]
    assert did == [*whole, "delete", *whole]
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


@pytest.mark.parametrize(("status", "asked_again"), [(75, True), (1, True), (2, False)])
def test_machines_are_taken_away_before_the_queue_says_so(bash, bin, status, asked_again):
    """The workers end, as they were told to stop or fell silent, while the resource still calls itself active."""
    taken_away(bin, "ACTIVE ACTIVE SUSPENDING ACTIVE", status)
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
    ran = [call[4] for call in rest if "detached.sh start" in " ".join(call)]
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


def test_dollars_of_arguments_are_no_variables_of_kubernetes(bash):
    """Which replaces $(NAME) in a container's arguments, and reads $$ as one dollar."""
    yaml = pytest.importorskip("yaml")
    given = ["train", "--config.note=$(FLASHJAX_JOBSET) costs 5$ or 5$$", '--config.rules="\\$"']
    done = bash("gke", "--dry-run", *given, **GKE)
    (group,) = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"]
    (container,) = group["template"]["spec"]["template"]["spec"]["containers"]
    assert [word.replace("$$", "$") for word in container["args"]] == given
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", " ".join(container["args"]))  # no odd one


FOR_JAX = dict(
    JAX_COMPILATION_CACHE_DIR="/mnt/my cache", XLA_FLAGS="--xla_a=1 --xla_b='$(x)'",
    LIBTPU_INIT_ARGS='--xla_tpu_c="true"', FLASHJAX_PORT="4711",
)  # fmt: skip


def test_what_is_set_for_jax_goes_to_the_pods(bash):
    yaml = pytest.importorskip("yaml")
    manifests = [yaml.safe_load(bash("gke", "--dry-run", *RUN, **GKE, **given).stdout) for given in ({}, FOR_JAX)]
    pods = [job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"] for job in manifests]
    plain, given = [{e["name"]: e.get("value") for e in pod["containers"][0]["env"]} for pod in pods]
    assert {name: given[name].replace("$$", "$") for name in FOR_JAX} == FOR_JAX and "$$(x)" in given["XLA_FLAGS"]
    assert plain.keys() == given.keys() - FOR_JAX.keys() | {"FLASHJAX_PORT"} and plain["FLASHJAX_PORT"] == "8476"
    assert [pod["containers"][0]["ports"] for pod in pods] == [[dict(containerPort=port)] for port in (8476, 4711)]


def test_what_is_set_for_jax_goes_to_the_workers(bash, bin):
    assert bash("tpu_vm", *RUN, **GCLOUD, **FOR_JAX).returncode == 0
    start = next(call for call in calls(bin) if does(call) == "start")
    assert {f"{name}={value}" for name, value in FOR_JAX.items()} <= set(worker_command(start))


@pytest.mark.parametrize(("hosts", "own"), [("4", ["cloud.google.com/gke-nodepool"]), ("1", [])])
def test_slices_of_one_node_share_a_node_pool(bash, hosts, own):
    """Exclusive placement would start one of them in it and leave the others waiting."""
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(bash("gke", "--dry-run", *RUN, **GKE | dict(FLASHJAX_HOSTS=hosts)).stdout)
    assert list(job["metadata"]["annotations"].values()) == own


def test_a_manifest_is_the_same_by_an_older_bash(bash):
    """macOS has 3.2, which keeps the inner quotes of "${text//old/"$new"}" (as BASH_COMPAT=4.2 does): no YAML."""
    given = ["train", '--config.note="5$ & \\\\ more, @FINAL@"', "--workdir=/mnt/my run"]
    new, old = (bash("gke", "--dry-run", *given, **GKE, **compat) for compat in ({}, dict(BASH_COMPAT="4.2")))
    assert old.stdout == new.stdout and old.returncode == 0
    assert r'args: ["train", "--config.note=\"5$$ & \\\\ more, @FINAL@\"", "--workdir=/mnt/my run"]' in new.stdout


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
    # A step does not take over what the job asked for a task (Slurm 22.05 and later), and both default to one core.
    assert "#SBATCH --cpus-per-task=64" in job.splitlines() and "--cpus-per-task=64" in line
    assert "#SBATCH --cpus-per-task=12\n" in bash("slurm", "--dry-run", *RUN, FLASHJAX_CPUS="12").stdout
    assert subprocess.run(["bash", "-n"], input=job, text=True).returncode == 0
    assert "#SBATCH --signal=TERM@900\n" in bash("slurm", "--dry-run", *RUN, FLASHJAX_GRACE="900").stdout


def test_nodes_of_a_job_install_nothing(bash, bin, tmp_path):
    """Slurm passes on what was exported; all nodes would install into the one environment that they share."""
    place = "SLURM_STEP_NODELIST=n SLURM_NTASKS=1 SLURM_PROCID=0"
    (bin / "srun").write_text(f'#!/bin/sh\nshift\nexec env {place} "$@"\n')
    (bin / "srun").chmod(0o755)
    answers(bin, "scontrol", (["hostnames"], "n", 0))
    env = os.environ | dict(PATH=f"{bin}:{os.environ['PATH']}", FLASHJAX_EXTRAS="cuda", CALLS=str(tmp_path / "runs"))
    (tmp_path / "job").write_text(bash("slurm", "--dry-run", "train").stdout)
    done = subprocess.run(["bash", tmp_path / "job"], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "installing" not in done.stdout, done.stdout + done.stderr
    assert runs(tmp_path) == ["flashjax n:8476 1 0 600 train"]


@pytest.mark.parametrize(
    ("status", "restarts", "saves", "requeued"),
    [
        (75, "", False, True), (75, "4", False, True), (75, "5", False, False), (75, "40", True, True),
        (0, "", True, False), (2, "", False, False),
    ],
)  # fmt: skip
def test_a_job_that_saves_nothing_does_not_come_back_for_ever(bash, bin, tmp_path, status, restarts, saves, requeued):
    """One that is stopped before its first row each time ended with 75 and was put into the queue without end."""
    run = tmp_path / "a run"
    (run / "checkpoints" / "9").mkdir(parents=True)
    new = f"mkdir '{run}'/checkpoints/10\n" if saves else ""
    (bin / "srun").write_text(f"#!/bin/sh\n{new}exit {status}\n")
    (bin / "srun").chmod(0o755)
    job = tmp_path / "job"
    job.write_text(bash("slurm", "--dry-run", "train", f"--workdir={run}").stdout)
    env = os.environ | dict(PATH=f"{bin}:{os.environ['PATH']}", SLURM_JOB_ID="7", SLURM_RESTART_COUNT=restarts)
    done = subprocess.run(["bash", job], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == status, done.stderr
    assert [call[1] for call in calls(bin)] == [["requeue", "7"]] * requeued
    assert ("not put into the queue again: after 5 restarts" in done.stdout) == (status == 75 and not requeued)


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        ("5", True), ("5:00", True), ("0:04:59", True), ("0-00:05", True), ("6", False), ("05:01", False),
        ("1:00:00", False), ("0-1", False), ("1-00:00:00", False), ("0", False), ("UNLIMITED", False),
    ],
)  # fmt: skip
def test_a_job_may_not_save_for_longer_than_it_runs(bash, bin, limit, refused):
    done = bash("slurm", *RUN, FLASHJAX_TIME=limit)
    assert done.returncode == (2 if refused else 0)
    told = f"[flashjax] FLASHJAX_GRACE is 300 s and FLASHJAX_TIME {limit}, no longer than that: the job would be told"
    assert done.stderr == (f"{told} to stop before it has begun.\n" if refused else "")
    assert (calls(bin) == []) == refused


@pytest.mark.parametrize(
    ("script", "environment", "words"),
    [
        ("local_multi", dict(FLASHJAX_PROCESSES="two"), "FLASHJAX_PROCESSES is two; it has to be a whole number."),
        ("local_multi", dict(FLASHJAX_PROCESSES="0"), "FLASHJAX_PROCESSES is 0; it has to be 1 or more."),
        ("local", dict(FLASHJAX_DEVICES="-1"), "FLASHJAX_DEVICES is -1; it has to be a whole number."),
        ("tpu_multislice", GCLOUD | dict(FLASHJAX_SLICES="0"), "FLASHJAX_SLICES is 0; it has to be 2 or more."),
        # gcloud takes a --node-count from 2 on.
        ("tpu_multislice", GCLOUD | dict(FLASHJAX_SLICES="1"),
         "FLASHJAX_SLICES is 1; a single slice is for launch/tpu_queued.sh to ask for."),
        ("gke", GKE | dict(FLASHJAX_HOSTS="4 "), "FLASHJAX_HOSTS is 4 ; it has to be a whole number."),
        ("slurm", dict(FLASHJAX_NODES="0"), "FLASHJAX_NODES is 0; it has to be 1 or more."),
        ("slurm", dict(FLASHJAX_CPUS="many"), "FLASHJAX_CPUS is many; it has to be a whole number."),
        ("slurm", dict(FLASHJAX_GRACE="5m"), "FLASHJAX_GRACE is 5m; it has to be a whole number."),
        ("gke", GKE | dict(FLASHJAX_GRACE="0"), "FLASHJAX_GRACE is 0; it has to be 1 or more."),
        ("tpu_queued", GCLOUD | dict(FLASHJAX_SPOT="no"), "FLASHJAX_SPOT is no; it has to be 0 or 1."),
    ],
)  # fmt: skip
def test_numbers_are_numbers(bash, bin, tmp_path, script, environment, words):
    done = bash(script, *RUN, **environment)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr == f"[flashjax] {words}\n"
    assert calls(bin) == [] and not (tmp_path / "runs").exists()
