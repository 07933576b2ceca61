"""Which process of the run a machine is, and when flashjax is started again."""

import pytest
from stubs import answers, runs


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
