"""Work directories: whose they are, and that nothing of another run is touched."""

import errno
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from flashjax import checkpoint, workdir
from flashjax.checkpoint import Checkpoints, check_meta, form, restore_params
from flashjax.errors import UserError

CONFIG = ConfigDict(
    dict(objective="dmd", seed=0, log_every=10, optim=dict(lr=1e-3), sources=dict(own=dict(path="a")), grid=(0, 1))
)


def changed(**settings) -> ConfigDict:
    config = CONFIG.copy_and_resolve_references()
    config.update(settings)
    return config


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that has done steps."""
    folder = workdir.claim(str(tmp_path / "run"), CONFIG)
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    return folder


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    """Of gs://bucket/run a folder gs: was made, on a machine that may be taken away."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--workdir gs://bucket/run is an address; give a folder"):
        workdir.claim("gs://bucket/run", CONFIG)
    assert not any(tmp_path.iterdir())


def test_a_run_goes_on_in_its_folder(begun):
    before = (begun / "config.json").read_text()
    workdir.claim(str(begun), changed(log_every=20))
    assert (begun / "config.json").read_text() == before
    assert sorted(p.name for p in begun.iterdir()) == ["config.json", "metrics.jsonl"]


def test_a_run_goes_on_with_its_network_computed_otherwise(tmp_path):
    """On fewer devices, say, where less is kept for the backward pass; the folder keeps how it is computed now."""
    sizes = dict(layers=2, remat="none")
    folder = workdir.claim(str(tmp_path / "run"), changed(model=sizes))
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    now = changed(model=sizes | dict(remat="full", attention="xla", scan_layers=False))
    assert workdir.shared(str(workdir.claim(str(folder), now)), now) == folder
    assert json.loads((folder / "config.json").read_text())["model"]["remat"] == "full"
    check_meta(*(dict(config=workdir.identity(config)) for config in (changed(model=sizes), now)), "It")
    with pytest.raises(UserError, match=r"another run: model.layers is 2 there and 3 here\. Use"):
        workdir.claim(str(folder), changed(model=dict(layers=3, remat="none")))


def test_another_run_is_named_by_its_settings(begun):
    before = (begun / "config.json").read_text()
    with pytest.raises(UserError) as caught:
        workdir.claim(str(begun), changed(seed=1, optim=dict(lr=2e-3)))
    assert "optim.lr is 0.001 there and 0.002 here; seed is 0 there and 1 here" in str(caught.value)
    assert "another --workdir" in str(caught.value)
    assert (begun / "config.json").read_text() == before


def test_a_run_that_never_started_binds_nobody(tmp_path):
    folder = workdir.claim(str(tmp_path / "run"), CONFIG)
    (folder / "metrics.jsonl").touch()
    (folder / "checkpoints").mkdir()
    workdir.claim(str(folder), changed(objective="trajectory"))
    assert json.loads((folder / "config.json").read_text())["objective"] == "trajectory"


def test_a_checkpoint_binds_without_metrics(tmp_path):
    folder = workdir.claim(str(tmp_path / "run"), CONFIG)
    (folder / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(UserError, match=f"The folder {folder} belongs to another run: seed is 0 there and 1 here"):
        workdir.claim(str(folder), changed(seed=1))


def test_without_a_checkpoint_it_says_what_to_give(tmp_path):
    folder = tmp_path / "checkpoints"
    with pytest.raises(UserError, match=f"no checkpoints in {tmp_path}; give the work directory of a training run."):
        restore_params(folder)
    folder.mkdir()
    with pytest.raises(UserError, match=f"{folder} holds no complete checkpoint; start its run again with the same"):
        restore_params(folder)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds files but no run of flashjax; give an empty or a new folder"):
        workdir.claim(str(tmp_path), CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_models_folder_is_left_alone(tmp_path):
    """It has a config.json too, which is not a run's."""
    files = {"config.json": b'{"_class_name": "AutoencoderKL"}', "diffusion_pytorch_model.safetensors": b"weights"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="holds files but no run of flashjax; give an empty or a new folder"):
        workdir.claim(str(tmp_path), CONFIG)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(UserError, match="is a file; give a folder"):
        workdir.claim(str(tmp_path / "run"), CONFIG)
    with pytest.raises(UserError, match="cannot be used: Not a directory"):
        workdir.claim(str(tmp_path / "run" / "below"), CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be used: Permission denied"):
        workdir.claim(str(tmp_path / "run"), CONFIG)


def test_a_small_disk(tmp_path):
    with pytest.raises(UserError, match=r"needs about \d+ MiB .* its disk has \d+ MiB left"):
        workdir.claim(str(tmp_path / "run"), CONFIG, needed_bytes=1 << 60)
    assert not (tmp_path / "run" / "config.json").exists()


def test_checkpoints_that_will_not_fit_are_told_at_the_beginning(tmp_path):
    """Of hours, where the first save told."""
    for name in ("1", "2", "3.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    half = shutil.disk_usage(tmp_path).free // 8
    state = [jax.ShapeDtypeStruct((half,), jnp.float32)]  # half of what is free
    workdir.check_disk(tmp_path, state, keep=2)  # two are there
    with pytest.raises(UserError, match=r"take \S+ GB more in .* lower config.keep_checkpoints"):
        workdir.check_disk(tmp_path, state, keep=4)


def test_the_mixture_of_a_finished_run_stays(tmp_path):
    (tmp_path / "checkpoints" / "9").mkdir(parents=True)
    workdir.check_unfinished(tmp_path, 10)
    with pytest.raises(UserError, match="is finished; its mixture cannot be changed any more"):
        workdir.check_unfinished(tmp_path, 9)


@pytest.mark.parametrize("content", [b"{", b"\x89PNG\r\n\xff", b"[1, 2]"], ids=["cut", "binary", "a list"])
@pytest.mark.parametrize("metrics", [True, False])
def test_a_damaged_record(begun, content, metrics):
    (begun / "config.json").write_bytes(content)
    if not metrics:
        (begun / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"config.json is not .*; give another --workdir"):
        workdir.claim(str(begun), CONFIG)
    assert (begun / "config.json").read_bytes() == content


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file/a.html", "--out {0}/file/a.html cannot be written: {0}/file is a file; give another folder."),
        ("file/new/a.html", "--out {0}/file/new/a.html cannot be written: {0}/file is a file; give another folder."),
        ("a.html", "--out {0}/a.html cannot be written: {0}/a.csv is a folder; give another name."),
        ("run/config.html", "--out {0}/run/config.html has the name of a file of the run's own; give another"),
        ("run/../run/metrics.html", "has the name of a file of the run's own"),
        ("heldout.html", "--out {0}/heldout.html would be written over {0}/heldout.json, which is read for it; give"),
        ("measures.html", "would be written over {0}/measures.csv, which is read for it"),
    ],
)
def test_results_that_cannot_be_written(tmp_path, out, said):
    (tmp_path / "file").write_text("x")
    for name in ("run", "a.csv"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError) as raised:
        workdir.check_out(
            tmp_path / out, (".json", ".csv"), [str(tmp_path / "run")],
            read=[str(tmp_path / "heldout.arrayrecord"), str(tmp_path / "new/../measures.csv")],
        )  # fmt: skip
    assert said.format(tmp_path) in str(raised.value)


def test_results_that_can_be_written(tmp_path, monkeypatch):
    """In new folders, over those of before, and beside what a run is known by."""
    (tmp_path / "run").mkdir()
    (tmp_path / "report.html").write_text("x")
    monkeypatch.chdir(tmp_path)
    for out in ("report.html", "new/folder/report.html", "run/report.html", "config.html"):
        workdir.check_out(Path(out), (".json", ".csv"), [str(tmp_path / "run")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_results_in_a_folder_that_is_write_protected(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=f"{tmp_path} is write-protected; give another folder"):
        workdir.check_out(tmp_path / "new" / "report.html")


def test_existing_names_the_nearest(tmp_path):
    (tmp_path / "train.arrayrecord").touch()
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(UserError, match=r"There is no data set at .*/train. Did you mean .*/train.arrayrecord\?"):
        workdir.existing(f"{tmp_path}/train", "data set")  # not its manifest
    with pytest.raises(UserError, match=r"There is no data set at .*trian.arrayrecord. Did you mean .*train.arrayrec"):
        workdir.existing(str(tmp_path / "trian.arrayrecord"), "data set")
    with pytest.raises(UserError, match=r"no data set at .*/nowhere/x\. `flashjax prepare` makes one; the con"):
        workdir.existing(str(tmp_path / "nowhere" / "x"), "data set")


def test_a_checkpoint_of_another_configuration(tmp_path):
    state, meta = {"a": jnp.arange(3.0)}, dict(config=dict(seed=0, teachers=["t"]), table="abc")
    saved = Checkpoints(tmp_path / "checkpoints")
    saved.save(4, state, dict(loader={"at": 7}), meta)
    saved.close()
    again = Checkpoints(tmp_path / "checkpoints")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with pytest.raises(UserError, match=r"config.seed is 0 there and 1 here; table is 'abc' there and 'abd' here"):
        again.restore(4, abstract, dict(config=dict(seed=1, teachers=["t"]), table="abd"))
    wide = {"a": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=state["a"].sharding)}
    for other, said in (
        (abstract | dict(b=abstract["a"]), r"its array b is missing, and of the shape \[3\] in the state of today\. "),
        ({}, r"its array a is of the shape \[3\], and missing in the state of today"),
        (wide, r"written by other code or packages: its array a is of the shape \[3\], and of the shape \[4\] in"),
    ):
        with pytest.raises(UserError, match=said):
            again.restore(4, other, meta)
    restored, data = again.restore(4, abstract, meta)
    assert restored["a"].tolist() == [0, 1, 2]
    assert data == dict(loader={"at": 7})


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "x"), ValueError(f"Error reading [os_error_code='{errno.EIO}' tensorstore_spec=''")]
)
def test_a_disk_that_does_not_answer_is_no_damage(error):
    """Deleting the checkpoint was advised."""
    said = r"^The checkpoint runs/4 cannot be read now \(Input/output error\); look at its disk"
    with pytest.raises(UserError, match=said), checkpoint._reading("runs", 4):
        raise error


def test_a_copy_of_a_checkpoint_that_lacks_a_file(tmp_path):
    """What is read of it alone is found by that file's description."""
    folder, params = tmp_path / "checkpoints", dict(a=jnp.arange(3.0))
    saved = Checkpoints(folder)
    saved.save(4, dict(ema=params, student=dict(params=params)), {}, dict(config={}))
    saved.close()
    assert restore_params(folder)[0]["a"].tolist() == [0, 1, 2]
    (folder / "4" / "state" / "_METADATA").unlink()
    for read in (restore_params, form):
        with pytest.raises(UserError, match=r"checkpoints/4 cannot be read \(state/_METADATA is missing\)"):
            read(folder)


def test_a_state_that_is_not_finite_is_not_saved_and_pushes_nothing_out(tmp_path):
    folder, state = tmp_path / "checkpoints", dict(params=dict(a=jnp.ones(3), b=jnp.ones((2, 2))), step=jnp.int32(1))
    saved = Checkpoints(folder, keep=1)
    saved.save(1, state, {}, {})
    state["params"]["b"] = state["params"]["b"].at[1, 0].set(jnp.inf)
    with pytest.raises(FloatingPointError, match=r"\['params'\]\['b'\] of the state are not finite after step 2"):
        saved.save(2, state, {}, {})
    saved.close()
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_another_mixture_can_be_asked_for():
    """The one difference that may be meant."""
    then, now = dict(sources=dict(a=dict(weight=1.0)), seed=0), dict(sources=dict(a=dict(weight=2.0)), seed=0)
    with pytest.raises(UserError, match="or another --workdir, or give --change-mixture"):
        check_meta(then, now, "here")
    with pytest.raises(UserError, match=r"or another --workdir\.$"):
        check_meta(then, now | dict(seed=1), "here")


def test_many_differences_are_counted():
    with pytest.raises(UserError, match="and 2 more"):
        check_meta({str(i): 0 for i in range(7)}, {str(i): 1 for i in range(7)}, "here")


def test_the_step_table_of_a_changed_mixture_keeps_what_was_before(tmp_path):
    def kept(table, changed=False):
        workdir.keep_table(tmp_path, table, changed)
        return (tmp_path / "step_table.txt").read_text()

    assert kept("a\n") == kept("a\n") == "a\n"
    assert kept("b\n", changed=True) == "b\n"  # nothing was saved, so no rows were read by the other
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    assert kept("c\n", changed=True) == "c\n\nBefore row 4 it was this:\n\nb\n"
    assert kept("c\n") == kept("c\n", changed=True) == "c\n\nBefore row 4 it was this:\n\nb\n"
    (tmp_path / "checkpoints" / "8").mkdir()
    told = kept("d\n", changed=True)
    assert told == "d\n\nBefore row 8 it was this:\n\nc\n\nBefore row 4 it was this:\n\nb\n"
    assert kept("d, in later words\n") == told.replace("d", "d, in later words", 1)
