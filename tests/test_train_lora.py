"""A LoRA run: the base stays, adapters train, resume bit for bit, and leave as a whole network."""

import shutil

import jax
import numpy as np
import pytest
from tiny_training import STEPS, everything, without_the_encoder

from flashjax import checkpoint, cli, convert, models, optim, paths, pictures, pipeline, train, weights
from flashjax import config as configs
from flashjax import export as exports
from flashjax.commands import inspect
from flashjax.convert import adapters
from flashjax.errors import UserError
from flashjax.models import lora, qwen_image_21, text

pytestmark = pytest.mark.usefixtures("fast")
LORA = ("--config.lora.rank=2", "--config.lora.alpha=4.0")
BLOCKS = ((r"blocks/.*/kernel", True), (r".*", False))
EVERY = ((r".*/kernel", True), (r".*", False))


def load(given, *settings: str):
    return configs.load([given["dmd"], *LORA, *settings])


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    """(work directory, digests of the base after every row) of a whole run."""
    folder, seen = tmp_path_factory.mktemp("lora"), []
    with pytest.MonkeyPatch.context() as patch:
        _without_the_encoder(patch)
        run_row = train.run_row

        def watched(programs, table, step, state, teachers, batch):
            done = run_row(programs, table, step, state, teachers, batch)
            seen.append(checkpoint.digest(teachers[0]))
            return done

        patch.setattr(train, "run_row", watched)
        train.train(load(given), str(folder))
    return folder, seen


def _without_the_encoder(patch):
    for where, name in ((text, "default_encoder"), (pictures, "make_drawer"), (pictures, "make_edit_drawer")):
        patch.setattr(where, name, getattr(where, name))
    without_the_encoder()


@pytest.fixture(scope="module")
def base(given):
    config = load(given)
    whole = qwen_image_21.abstract(models.make_config(qwen_image_21, config.model))
    return convert.load("qwen_image_21", config.distill.teachers.base.weights, whole)


def role(state: dict, start: str) -> dict:
    """The tree of a role in a checkpoint."""
    found = {name.removeprefix(start): x for name, x in state.items() if name.startswith(start)}
    return paths.unflatten({name.strip("[]'").replace("']['", "/"): x for name, x in found.items()})


def test_the_base_stays_and_the_adapters_move(run, base):
    folder, seen = run
    assert set(seen) == {checkpoint.digest(base)}
    assert len(seen) == STEPS
    state = everything(folder, STEPS)
    form = lora.form(lora.Lora(2, 4.0, BLOCKS), base)
    first = lora.init(lora.Lora(2, 4.0, BLOCKS), base, jax.random.key(0))
    trees = [role(state, start) for start in ("['student']['params']", "['critic']['params']", "['ema']")]
    for tree in trees:
        assert jax.tree.structure(tree) == jax.tree.structure(form)
        for path, leaf in paths.flatten(tree).items():
            assert (leaf != paths.flatten(first)[path]).any(), path
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, trees[:2]), strict=True))
    # Nothing of a whole network's size is saved, moments included.
    assert sum(x.size for x in state.values()) < 10 * sum(x.size for x in jax.tree.leaves(form))


def test_inspect_tells_a_lora_run(run):
    told = inspect.describe(run[0])
    assert told["architecture"] == "a run of qwen_image_21, dmd, its adapter, rank 2"
    assert told["files"] == f"the newest checkpoint is of step {STEPS}; counted is the average (ema)"
    assert told["dtypes"].startswith("float32 ")


def test_a_lora_run_resumes_bit_for_bit(run, given, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    train.train(load(given), str(folder))
    a, b = everything(run[0], STEPS), everything(folder, STEPS)
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []


def test_an_exported_adapter_is_a_whole_network(run, base, tmp_path, monkeypatch):
    folder, encoder, drawn = run[0], text.default_encoder(), []
    merged = lora.merge(base, role(everything(folder, STEPS), "['ema']"), 2.0)
    out = exports.export(str(folder), str(tmp_path / "out"))
    alone = exports.export_lora(str(folder), str(tmp_path / "adapter"), "flashjax").parent
    for pipe in map(pipeline.load, map(str, (folder, out, alone))):
        assert jax.tree.structure(pipe.params) == jax.tree.structure(merged)
        jax.tree.map(np.testing.assert_array_equal, pipe.params, merged)
        drawn.append(pipe.draw(["a lake"], [3], encoder))
    for picture in drawn[1:]:
        np.testing.assert_array_equal(drawn[0], picture)
    assert (paths.flatten(merged)["blocks/mlp/gate/kernel"] != paths.flatten(base)["blocks/mlp/gate/kernel"]).any()
    monkeypatch.setattr(weights, "digest", lambda tree: "of other weights")
    for path in (folder, alone):
        with pytest.raises(UserError, match=f"are not those that {path} adapts"):
            pipeline.load(str(path))
    (alone / "card.json").unlink()
    with pytest.raises(UserError, match="an adapter without the card.json that names its base"):
        pipeline.load(str(alone))


@pytest.mark.parametrize("spelling", ["diffusers", "comfyui", "flashjax"])
def test_an_exported_adapter_merges_to_the_same_network(run, base, tmp_path, spelling):
    average = role(everything(run[0], STEPS), "['ema']")
    out = tmp_path / spelling
    assert cli.main(["export", f"--workdir={run[0]}", f"--out={out}", f"--lora={spelling}"]) == 0
    table = convert.table_of("qwen_image_21")
    changes = adapters.open_lora(out / adapters.FILES[spelling], "qwen_image_21", table, base)
    expected = adapters.to_pytorch(adapters.Adapter(_pairs(average), 2, 4.0), table)
    assert set(changes) == set(expected)
    for name, (a, b, scale) in expected.items():
        np.testing.assert_array_equal(changes[name].scale * changes[name].b @ changes[name].a, scale * b @ a)
    assert sorted(file.name for file in out.iterdir()) == sorted(["card.json", "scheduler", adapters.FILES[spelling]])


def _pairs(tree):
    factors = {}
    for name, x in paths.flatten(tree).items():
        factors.setdefault(name[:-2], {})[name[-1]] = np.asarray(x)
    return factors


def test_a_lora_run_as_teacher_and_as_beginning(run, given, base):
    config, folder = load(given), str(run[0])
    average = role(everything(run[0], STEPS), "['ema']")
    merged = lora.merge(base, average, 2.0)
    jax.tree.map(np.testing.assert_array_equal, weights.load_weights(config, base, folder), merged)
    # Begun at twice the scale, it has to have half of b.
    begun = paths.flatten(weights.load_weights(load(given, "--config.lora.alpha=8.0"), average, folder))
    for path, leaf in paths.flatten(average).items():
        np.testing.assert_array_equal(begun[path], leaf / 2 if path.endswith("/b") else leaf)
    with pytest.raises(UserError, match="trained an adapter of rank 2 over other matrices or of another rank"):
        weights.load_weights(config, lora.form(lora.Lora(3, 1.0, BLOCKS), base), folder)
    path = config.distill.teachers.base.weights
    goes_on = load(given, f"--config.init={folder}")
    said = weights.begun_from(goes_on, {path: weights.content(path, base)})
    assert said == f"begins with step {STEPS} of {folder}, its newest"
    with pytest.raises(UserError, match=f"The weights in {path} are not those that {folder} adapts; bring them back"):
        weights.begun_from(goes_on, {path: "replaced"})
    assert weights.begun_from(config, {}) == ""
    # Where the same weights are called otherwise they are the same weights.
    parent, file = path.rsplit("/", 1)
    with goes_on.unlocked():
        goes_on.distill.teachers.base.weights = other = f"{parent}/./{file}"
    begun = weights.load_weights(goes_on, average, folder)
    jax.tree.map(np.testing.assert_array_equal, begun, average)
    assert weights.begun_from(goes_on, {other: weights.content(other, base)}) == said
    assert jax.tree.map(np.shape, weights.specialist_form(goes_on, base, folder)) == jax.tree.map(np.shape, average)
    with pytest.raises(UserError, match=f"The weights in {other} are not those that {folder} adapts"):
        weights.begun_from(goes_on, {other: "others"})
    whole = config.distill.teachers.base.weights
    with pytest.raises(UserError, match="which is no run; a LoRA student begins as its base or as a LoRA run"):
        weights.load_weights(config, average, whole)


def test_a_teacher_may_be_an_adapter_file(given, base, tmp_path):
    config = configs.load([given["dmd"]])  # in a run that trains everything
    tree = lora.init(lora.Lora(2, 1.0, EVERY), base, jax.random.key(1))
    tree = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.1), tree)
    adapters.write(tmp_path / "adapter.safetensors", adapters.from_tree(tree, 2, 3.0), "qwen_image_21")
    for path in (tmp_path, tmp_path / "adapter.safetensors"):
        found = weights.load_weights(config, base, str(path))
        jax.tree.map(np.testing.assert_array_equal, found, lora.merge(base, tree, 1.5))
    with config.unlocked():
        config.distill.teachers.base.weights = str(tmp_path)
    with pytest.raises(UserError, match="has no base of its own"):
        weights.load_weights(config, base, str(tmp_path))


@pytest.mark.long  # two runs of programs of their own; tests/models/test_lora.py has the products
def test_a_specialist_of_factors_is_the_merged_one(run, given, base, tmp_path):
    """A specialist that is an adapter is held as its factors, with the numbers of the whole network."""
    tree = lora.init(lora.Lora(2, 1.0, EVERY), base, jax.random.key(1))
    tree = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.05), tree)
    adapter, whole = tmp_path / "adapter.safetensors", tmp_path / "whole.safetensors"
    adapters.write(adapter, adapters.from_tree(tree, 2, 3.0), "qwen_image_21")
    convert.save("qwen_image_21", lora.merge(base, tree, 1.5), whole)
    held, ends = [], []
    for path in (adapter, whole):
        config = configs.load([given["dmd"]])
        with config.unlocked():
            config.distill.teachers.other = dict(weights=str(path))
            config.distill.guidance_table = {"portrait": {"other": (0.5, 1.0)}, "text": {"other": (1.0, 0.0)}}
        held.append(optim.parameter_count(weights.load_specialist(config, base, str(path))))
        ends.append(role(everything(train.train(config, str(tmp_path / path.stem)), STEPS), "['ema']"))
    assert held[0] < held[1] / 3
    moved = max(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (ends[0], base)), strict=True))
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * moved)  # Adam makes much of a gradient's last bits
    # In a LoRA run products are multiplied by its own scale, 2.
    with (config := load(given)).unlocked():
        config.distill.teachers.other = dict(weights=str(adapter))
    found = weights.load_specialist(config, base, str(adapter))
    for one, other in zip(*(jax.tree.leaves(lora.merge(base, *x)) for x in ((found, 2.0), (tree, 1.5))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    # A LoRA run over the same base is held so too, and one over another base as the whole that it is.
    found = weights.load_specialist(configs.load([given["dmd"]]), base, str(run[0]))
    for path in (adapter, run[0]):  # what a plan takes for what is loaded
        form = weights.specialist_form(config, base, str(path))
        loaded = weights.load_specialist(config, base, str(path))
        assert jax.tree.map(np.shape, form) == jax.tree.map(np.shape, loaded)
        assert lora.is_adapter(form)
    average = role(everything(run[0], STEPS), "['ema']")
    jax.tree.map(np.testing.assert_allclose, lora.merge(base, found, 1.0), lora.merge(base, average, 2.0))
    assert not lora.is_adapter(weights.load_specialist(config, jax.tree.map(lambda x: x + 1, base), str(run[0])))


@pytest.mark.parametrize(
    ("objective", "settings", "said"),
    [
        ("flow_matching", ("lora.rank=2", "optim.kind=adamw"), "adapts what config.init names"),
        ("dmd", ("lora.rank=2", "critic_optim.kind=muon"), "config.critic_optim.kind is muon"),
        ("dmd", ("lora.rank=-1",), "config.lora.rank is -1"),
    ],
)
def test_settings_that_no_lora_run_can_have(given, tmp_path, objective, settings, said):
    config = configs.load([given[objective], *(f"--config.{setting}" for setting in settings)])
    with pytest.raises(UserError, match=said):
        train.train(config, str(tmp_path / "run"))


def test_runs_without_adapters_are_the_runs_that_they_were(given):
    assert "lora" not in train.workdir.identity(configs.load([given["dmd"]]))
    assert train.workdir.identity(load(given))["lora"]["rank"] == 2


def test_runs_without_a_dtype_of_moments_are_the_runs_that_they_were_and_micro_batches_make_no_other(given):
    plain = train.workdir.identity(configs.load([given["dmd"]]))
    assert "mu_dtype" not in plain["student_optim"]
    assert train.workdir.identity(configs.load([given["dmd"], "--config.micro_batches=4"])) == plain
    half = train.workdir.identity(configs.load([given["dmd"], "--config.critic_optim.mu_dtype=bfloat16"]))
    assert half["critic_optim"].pop("mu_dtype") == "bfloat16"
    assert half == plain


@pytest.mark.long  # eight devices compile for a while; tests/parallel has the meshes of whole networks
def test_a_lora_run_on_eight_devices_is_that_of_one_and_goes_on_on_others(run, given, tmp_path):
    """Base and adapters divided over all axes; then from its middle on eight devices along another axis."""
    one = everything(run[0], STEPS)
    for axes in ((2, 2, 2), (8, 1, 1)):
        shutil.rmtree(tmp_path / "checkpoints" / str(STEPS), ignore_errors=True)
        mesh = (f"--config.mesh.{name}={n}" for name, n in zip(("fsdp", "context", "tensor"), axes, strict=True))
        train.train(load(given, *mesh), str(tmp_path))
        found = everything(tmp_path, STEPS)
        assert found["data"] == one["data"]
        worst = {name: np.abs(x - found[name]).max() for name, x in one.items() if x.dtype == np.float32}
        assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])
