"""A run from what `convert --to orbax` wrote: the run from safetensors, and no process holds the weights whole."""

import json
import shutil

import jax
import numpy as np
import pytest

from flashjax import checkpoint, cli, convert, models, train, weights
from flashjax import config as configs
from flashjax.convert import manifest, pods
from flashjax.errors import UserError
from flashjax.models import lora, qwen_image_21
from flashjax.parallel import mesh as meshes

pytestmark = pytest.mark.usefixtures("fast")
FSDP = "--config.mesh.fsdp=8"
LORA = ("--config.lora.rank=2", "--config.lora.alpha=4.0")


@pytest.fixture(scope="module")
def tiny(given):
    """Sizes of the tiny run's network."""
    return models.make_config(qwen_image_21, configs.load([given["dmd"]]).model)


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """The same three networks in bfloat16 as safetensors (``flat``) and for pods (``pod``), one for another mesh."""
    top = tmp_path_factory.mktemp("converted")
    for seed, (name, axes) in enumerate(dict(base="fsdp=8", other="fsdp=2,tensor=2", start="fsdp=8").items()):
        convert_both(top, name, tiny, axes, seed)
    return top


def convert_both(top, name: str, sizes, axes: str, seed: int = 0) -> None:
    rng, source = np.random.default_rng(seed), top / "source" / name
    source.mkdir(parents=True)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), qwen_image_21.abstract(sizes))
    convert.save("qwen_image_21", params, source / "diffusion_pytorch_model.safetensors")
    (source / "config.json").write_text(json.dumps(sizes.to_diffusers()))
    for kind, options in dict(flat=(), pod=("--to", "orbax", "--mesh", axes)).items():
        asked = ("--source", source, "--out", top / kind / name, "--dtype", "bfloat16", *options)
        assert cli.main(["convert", *map(str, asked)]) == 0


def load(given, folder, *settings: str, specialist: str = "other"):
    """The tiny DMD run with base teacher, a specialist and a beginning of its own."""
    config = configs.load([given["dmd"], *settings])
    with config.unlocked():
        config.distill.teachers.base.weights = str(folder / "base")
        config.distill.teachers.other = dict(weights=str(folder / specialist))
        config.distill.guidance_table = {"portrait": {"other": (0.5, 1.0)}}
    return config


def shards(tree):
    """What every device holds of it."""
    return [shard.data for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]


def refuse(*args, **kwargs):
    raise AssertionError("This reads parameters whole.")


@pytest.fixture
def never_whole(monkeypatch):
    for name in ("read", "stream"):
        monkeypatch.setattr(pods.Stored, name, refuse)


class Begun(Exception):
    """Where a run would compile its programs: its state, its teachers."""


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """A function from a configuration to what the programs of its run take."""

    def stop(table, call, example, mesh):
        raise Begun(example[0], example[1])

    monkeypatch.setattr(train, "compile_programs", stop)

    def begun(config, name: str):
        with pytest.raises(Begun) as stopped:
            train.train(config, str(tmp_path / name))
        return stopped.value.args

    return begun


def assert_same(one, other):
    """Bit for bit, in type and in place."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        name = jax.tree_util.keystr(path)
        assert (x.dtype, x.sharding) == (y.dtype, y.sharding), name
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name


@pytest.mark.parametrize("kept", [(), ("--config.teacher_dtype=bfloat16", "--config.teacher_memory=pinned_host")])
def test_a_run_begins_as_from_safetensors(given, folders, never_whole, begin, kept):
    """What eight devices hold is the same to the bit, and so is all that follows."""
    starts = ([FSDP, *kept, f"--config.init={folders / kind / 'start'}"] for kind in ("flat", "pod"))
    flat, pod = (begin(load(given, folders / kind, *s), kind) for kind, s in zip(("flat", "pod"), starts, strict=True))
    assert_same(flat, pod)
    state, teachers = ({x.unsafe_buffer_pointer() for x in shards(tree)} for tree in pod)
    assert not state & teachers  # a step gives the state's memory away


def test_a_lora_run_begins_over_its_part_of_the_base(given, folders, never_whole, begin):
    assert_same(*(begin(load(given, folders / kind, FSDP, *LORA), kind) for kind in ("flat", "pod")))


def test_a_lora_run_knows_its_base_by_the_manifest(given, folders, tiny, monkeypatch, tmp_path):
    """Over the same base its factors are a specialist; one host merges it with the base, which it reads whole."""
    config, path = configs.load([given["dmd"], FSDP, *LORA]), str(folders / "pod" / "base")
    config.distill.teachers.base.weights = path
    whole, mesh = qwen_image_21.abstract(tiny), meshes.make_mesh(config.mesh)
    base = weights.load_weights(config, whole, path, mesh)
    factors = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), lora.form(lora.of(config), whole))
    saved = checkpoint.Checkpoints(tmp_path / "checkpoints")
    meta = dict(config=train.workdir.identity(config), sha256={path: weights.content(path, base)})
    saved.save(1, dict(ema=factors), {}, meta)
    saved.close()
    with monkeypatch.context() as patch:
        patch.setattr(weights, "load_run", refuse)
        found = weights.load_specialist(config, base, str(tmp_path), mesh)
    jax.tree.map(np.testing.assert_array_equal, found, factors)
    expected = lora.merge(convert.load("qwen_image_21", path, whole), factors, lora.of(config).scale)
    jax.tree.map(np.testing.assert_array_equal, weights.load_run(tmp_path)[0], expected)
    monkeypatch.setattr(manifest, "content", lambda folder: "another")
    with pytest.raises(UserError, match="are not those that .* adapts"):
        weights.load_run(tmp_path)


def test_int8_of_what_devices_hold_is_that_of_the_host_but_at_ties(given, folders, tiny):
    config, path = configs.load([given["dmd"], FSDP]), str(folders / "pod" / "base")
    here, there = (
        weights.kept(weights.load_weights(config, qwen_image_21.abstract(tiny), path, *mesh), "int8")
        for mesh in ((), (meshes.make_mesh(config.mesh),))
    )
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(here))
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert one.dtype == other.dtype
        step = one.dtype == np.int8  # a tie goes to either side
        one, other = (np.asarray(x, np.float32) for x in (one, other))
        np.testing.assert_allclose(one, other, rtol=2e-7, atol=step)
        assert np.mean(one != other) < 0.01 or not step


def test_content_is_of_the_tensors_and_not_of_their_chunks(folders, tiny, tmp_path):
    convert_both(tmp_path, "base", tiny, "fsdp=2")
    names = [folders / "pod" / "base", tmp_path / "pod" / "base", folders / "pod" / "other"]
    one, again, other = (weights.content(str(name), {}) for name in names)
    assert one == again != other


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("manifest", "There is no .*/pod/manifest.json; give a folder that `flashjax convert` wrote."),
        ("chunk", "/pod/params is not whole, [0-9]* bytes of [0-9]*; copy or convert it again."),
        ("model", "/pod does not fit the model: .*/kernel.* differ; convert it again."),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(given, folders, begin, tmp_path, what, said):
    shutil.copytree(folders / "pod" / "base", tmp_path / "pod")
    if what == "manifest":
        (tmp_path / "pod" / "manifest.json").unlink()
    if what == "chunk":
        next((tmp_path / "pod" / "params" / "img_in.kernel").glob("[0-9]*")).unlink()
    more = ["--config.model.layers=2"] if what == "model" else []
    config = configs.load([given["dmd"], FSDP, *more])
    config.distill.teachers.base.weights = str(tmp_path / "pod")
    with pytest.raises(UserError, match=said):
        train.train(config, str(tmp_path / "run"))


# A process of two: its run of other weights stops before its programs and leaves its devices' parts of what they take.
STOPPED = """
import jax, numpy as np
import tensorstore as ts
from flashjax import config, train
from flashjax.parallel import hosts
load = config.load
def changed(argv):
    found = load(argv)
    with found.unlocked():
        found.distill.teachers.other = dict(weights=os.environ["OTHER"])
        found.distill.guidance_table = {"portrait": {"other": (0.5, 1.0)}}
    return found
def stop(table, call, example, mesh):
    read = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    parts = {"bytes read": sum(value["value"] for metric in read for value in metric["values"])}
    for path, leaf in jax.tree_util.tree_leaves_with_path(example[:2]):
        for shard in leaf.addressable_shards:
            parts[f"{jax.tree_util.keystr(path)} {shard.index}"] = np.asarray(shard.data).astype(np.float32)
    np.savez(f"{os.environ['PARTS']}/{jax.process_index()}", **parts)
    hosts.leave(0)
config.load, train.compile_programs = changed, stop
"""


@pytest.mark.long  # two processes start and read for half a minute
def test_each_of_two_processes_reads_its_half(given, folders, begin, launch, tmp_path):
    settings = ("--config.mesh.fsdp=4", "--config.teacher_dtype=bfloat16", "--config.teacher_memory=pinned_host")
    pod, flat = folders / "pod", folders / "flat"
    run = launch(
        "local_multi.sh", *settings, f"--config.distill.teachers.base.weights={pod / 'base'}",
        f"--config.init={pod / 'start'}", f"--workdir={tmp_path / 'run'}", FIRST=STOPPED, OTHER=str(pod / "other"),
        PARTS=str(tmp_path), FLASHJAX_RESTARTS="0",
    )  # fmt: skip
    output = run.communicate(timeout=200)[0]
    assert run.returncode == 0, output
    expected = begin(load(given, flat, *settings, f"--config.init={flat / 'start'}"), "flat")
    parts = [dict(np.load(tmp_path / f"{process}.npz")) for process in range(2)]
    whole = sum(x.size * 2 for x in jax.tree.leaves(expected[1]))  # two of three networks, in bfloat16
    for part in parts:
        assert part.pop("bytes read") < 0.65 * whole * 3 / 2
    found = parts[0] | parts[1]
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        for shard in leaf.addressable_shards:
            part = found.pop(f"{jax.tree_util.keystr(path)} {shard.index}", None)
            if shard.replica_id == 0:
                np.testing.assert_array_equal(part, np.asarray(shard.data).astype(np.float32))
    assert not found
