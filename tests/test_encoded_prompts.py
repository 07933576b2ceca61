"""Text states of a released family in a data set, and latents of pictures: what the denoiser is given when a picture is
drawn, what it learns from, and what training says itself, from the set."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_pipelines
from PIL import Image

from flashjax import checkpoint, cli, models, paths, pictures, released, roles, settings, train, weights
from flashjax import config as configs
from flashjax.data import said
from flashjax.data.loader import make_loader
from flashjax.data.manifest import places, read_manifest
from flashjax.data.mixture import Mixture, open_sources
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import watch
from flashjax.models import editing, lora, text

TEXTS = ["a red fox", "a very red fox in the snow", "a fox", *(f"a red {'very ' * i}fox" for i in range(8))]


@pytest.fixture(scope="module", params=["z_image", pytest.param("flux2_klein", marks=pytest.mark.long)])
def made(request, tmp_path_factory):
    """(the family, the folder of its pipeline, that of a set which `flashjax prepare` encoded with it)."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny_pipelines.make(request.param, folder / "released")
    rows = [dict(prompt=prompt, category="fox") for prompt in TEXTS]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["prepare", "--from", f"{folder}/prompts.jsonl", "--out", f"{folder}/set", "--also", "blurred"]
    words += ["--encoder", request.param, "--encoder-weights", f"{folder}/released"]
    assert cli.main(words) == 0
    return request.param, folder / "released", folder / "set" / "prompts.arrayrecord"


def test_states_are_those_that_a_picture_is_drawn_with(made):
    """Whatever the neighbours in a batch, and but for rounding to bfloat16."""
    family, folder, path = made
    model, source, manifest = released.load(folder), RecordSource(path), read_manifest(path)
    for i in (0, 1, 7):
        record = source[i]
        assert record["text"].dtype == ml_dtypes.bfloat16
        states, lengths = model.encoder.states(model.plan([record["caption"]], guidance_scale=1.0).rows)
        expected = np.asarray(states[0] if lengths is None else states[0, : lengths[0]])
        assert len(record["text"]) == (512 if family == "flux2_klein" else len(expected))
        np.testing.assert_allclose(record["text"].astype(np.float32), expected, rtol=2**-8, atol=1e-5)
    assert manifest["text_width"] == model.denoiser.config.context_dim
    assert manifest["count"] == len(TEXTS)
    assert places(manifest)["fox"].tolist() == list(range(len(TEXTS)))


def test_training_says_what_the_set_holds(made):
    _, folder, path = made
    sources = dict(own=dict(path=str(path)))
    encoder = said.of(sources, open_sources(sources)[1])
    rules = released.load_encoder(folder, made[0])
    null, negative = encoder.encode(["", "blurred"])
    expected = rules.encode([rules.rules.null, "blurred"])
    assert all((x == y.astype(np.float32)).all() for x, y in zip((null, negative), expected, strict=True))
    cond, _ = pictures.conditions(models.architecture("z_image"), encoder, list(pictures.PROMPTS), 512)
    assert len(cond.text) == len(pictures.PROMPTS)
    with pytest.raises(UserError, match="was prepared without the text 'ugly', .* --also 'ugly'"):
        encoder.encode(["ugly"])


def test_what_a_run_draws_on_its_way_has_to_be_in_the_set(made):
    config, table = configs.load(["--config=configs/z_image.py:tiny"]), SimpleNamespace(task=np.zeros(1, int))
    sources = dict(own=dict(path=str(made[2])))
    encoder = said.of(sources, open_sources(sources)[1])
    watch.check_texts(config, bool((table.task == 0).any()), watch.Watched(), encoder)
    watched = watch.Watched(watch.Prompts(["ugly"], [], [], np.zeros(0), None))
    with pytest.raises(UserError, match="was prepared without the text 'ugly'"):
        watch.check_texts(config, bool((table.task == 0).any()), watched, encoder)


def test_a_negative_prompt_has_to_be_in_the_set_before_weights_are_read(made, tmp_path, monkeypatch):
    path, width = made[2], read_manifest(made[2])["text_width"]
    config = configs.load(["--config=configs/z_image.py:tiny", f"--config.sources.prompts.path={path}"])
    with config.unlocked():
        config.distill.teachers.base.negative, config.distill.classes = "ugly", ("fox",)
        config.model.context_dim, config.max_text_tokens, config.batch_size = width, 512, 8
    monkeypatch.setattr(roles, "load", None)
    with pytest.raises(UserError, match="was prepared without the text 'ugly', .* --also 'ugly'"):
        train.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_set_of_another_encoder_is_told(made):
    config = configs.load(["--config=configs/z_image.py:tiny", f"--config.sources.prompts.path={made[2]}"])
    model = models.architecture("z_image")
    sizes, manifests = models.make_config(model, config.model), dict(prompts=read_manifest(made[2]))
    with pytest.raises(UserError, match=r"text states of \d+ channels \(of .*\), config.model takes 384"):
        settings.check_latents(config, sizes, manifests)
    with pytest.raises(UserError, match="different text encoders"):
        said.of(config.sources, manifests | dict(other=dict(encoder="all-MiniLM-L6-v2")))


@pytest.fixture(scope="module")
def shown(made):
    """(the picture, the set) of rows with pictures of 48 px, one of which cannot be read, prepared at 64 px."""
    folder = made[1].parent / "shown"
    folder.mkdir()
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (4, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "bad.png").write_bytes(b"not a picture")
    rows = [dict(prompt=prompt, category="fox", image="a.png") for prompt in TEXTS]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [rows[0] | dict(image="bad.png"), *rows])))
    assert cli.main([*_words(made, folder), "--skip-limit", "1"]) == 0
    larger = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(larger), folder / "prompts.arrayrecord"


def _words(made, folder, size=64):
    words = ["prepare", "--from", f"{folder}/rows.jsonl", "--out", f"{folder}", "--size", f"{size}"]
    return [*words, "--encoder", made[0], "--encoder-weights", f"{made[1]}"]


def test_a_picture_to_learn_from_is_stored_as_latents(made, shown):
    """Of the family's autoencoder, as those of edits are; texts are those of the same prompts without pictures."""
    (pixels, path), model = shown, released.load(made[1], keep=True)
    source, plain, manifest = RecordSource(path), RecordSource(made[2]), read_manifest(path)
    part = model.autoencoder
    expected = part.module.autoencoder(part.config).encode(part.params, pixels[None] / np.float32(127.5) - 1)[0]
    for i in range(len(TEXTS)):
        assert source[i]["caption"] == plain[i]["caption"]
        assert source[i]["image"].dtype == np.float16
        np.testing.assert_allclose(source[i]["image"], expected, rtol=2**-10, atol=1e-4)
        np.testing.assert_array_equal(source[i]["text"], plain[i]["text"])
    told = {name: manifest.get(name) for name in ("task", "size", "autoencoder", "count", "own_nulls")}
    assert told == dict(task="t2i", size=64, autoencoder=part.name, count=len(TEXTS), own_nulls=None)
    assert set(manifest["said"]) == {"", *pictures.PROMPTS}
    assert [line.partition(":")[0] for line in manifest["skipped"]] == [f"row 1 of {path.parent}/rows.jsonl"]


def test_one_network_is_in_memory_at_a_time(made, shown):
    both = released.load_picture_encoder(made[1], made[0])
    parts = (both.encoder.part, both.autoencoder)
    for work, given, there in ((both.encode, ["a fox"], 0), (both.latents, shown[0], 1), (both.encode, ["a fox"], 0)):
        work(given)
        assert [part for part in parts if "params" in vars(part)] == [parts[there]]


def test_pictures_that_cannot_be_encoded(made, shown, capsys, tmp_path):
    folder = shown[1].parent
    for words, told in (
        (_words(made, folder, 60), "Pictures of 60 px do not fit the autoencoder; take a multiple of 16."),
        (_words(made, folder), "of 1 rows cannot be read, and --skip-limit is 0: row 1 of"),
        (_words(made, folder)[:5] + _words(made, folder)[7:], "size is 64, asked for 1024"),
        ([*_words(made, folder), "--name", "new"], "of 1 rows cannot be read, and --skip-limit is 0: row 1 of"),
    ):
        assert cli.main(words) == 2
        assert told in capsys.readouterr().err
    rows = [dict(prompt="a fox", category="fox", image="../a.png"), dict(prompt="a hen", category="hen")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.main(_words(made, tmp_path)) == 2
    assert "row 2 of" in (said_ := capsys.readouterr().err) and "has no 'image', while others have one" in said_


def _specialist(made, path, *changes):
    """A run of the released pipeline on the set at ``path``, which trains adapters."""
    model, manifest = released.load(made[1]), read_manifest(path)
    file = f"--config=configs/specialist.py:model={made[0].removeprefix('flux2_')},of=fox,tiny"
    config = configs.load([file, f"--config.sources.pictures.path={path}", "--config.mesh.fsdp=1", *changes])
    with config.unlocked():
        config.image_size, config.max_text_tokens, config.init = 64, 512, f"{made[1]}/transformer"
        config.model.update(dict(in_channels=model.denoiser.config.in_channels, context_dim=manifest["text_width"]))
        sizes = dataclasses.asdict(model.autoencoder.config)
        config.autoencoder = dict(architecture=model.autoencoder.name, preset="tiny", weights="") | sizes
    return config


def test_a_specialist_learns_from_latents(made, shown, tmp_path, monkeypatch):
    """Its adapters move, all of them; the released network beneath stays as it is, to the bit."""
    config, seen, run_row = _specialist(made, shown[1], "--config.steps=3"), [], train.run_row

    def watched(programs, table, step, state, teachers, batch):
        stored = RecordSource(shown[1])[0]["image"].astype(np.float32)
        assert all((latents == stored).all() for latents in np.asarray(batch["image"]))
        done = run_row(programs, table, step, state, teachers, batch)
        seen.append(checkpoint.digest(teachers[0]))
        return done

    monkeypatch.setattr(train, "run_row", watched)
    folder = train.train(config, str(tmp_path / "run"))
    model = models.architecture(config.model.architecture)
    form = model.abstract(models.make_config(model, config.model))
    base = weights.load_weights(config, form, config.init)
    assert seen == [checkpoint.digest(base)] * 3
    adapter, _, step = checkpoint.restore_params(folder / "checkpoints", "student")
    begun = lora.init(lora.of(config), form, jax.random.key(config.seed))
    assert (step, paths.flatten(adapter).keys()) == (3, paths.flatten(begun).keys())
    for name, x in paths.flatten(begun).items():
        assert (paths.flatten(adapter)[name] != x).any(), name


@pytest.mark.long  # another run; that of adapters reads the same records
def test_a_specialist_may_be_trained_whole(made, shown, tmp_path):
    config = _specialist(made, shown[1], "--config.steps=2", "--config.lora.rank=0")
    folder = train.train(config, str(tmp_path / "run"))
    found, _, _ = checkpoint.restore_params(folder / "checkpoints", "student")
    model = models.architecture(config.model.architecture)
    base = weights.load_weights(config, model.abstract(models.make_config(model, config.model)), config.init)
    moved = [(paths.flatten(found)[name] != x).any() for name, x in paths.flatten(base).items()]
    assert np.mean(moved) > 0.9


def test_only_who_learns_from_pictures_minds_what_they_are(made, shown):
    """Distillation reads the prompts of such a set, whatever the size and the autoencoder of its pictures."""
    manifests = dict(pictures=read_manifest(shown[1]))
    config = _specialist(made, shown[1], "--config.batch_size=2")
    settings.check_data(manifests["pictures"], "a", config)
    sizes = models.make_config(models.architecture(config.model.architecture), config.model)
    settings.check_latents(config, sizes, manifests)
    with config.unlocked():
        config.image_size = 32
    with pytest.raises(UserError, match="a has pictures of 64 px; set config.image_size from 32 to 64"):
        settings.check_data(manifests["pictures"], "a", config)
    manifests["pictures"] |= dict(autoencoder="vae_other")
    with pytest.raises(UserError, match="holds pictures as vae_other, and config.autoencoder is vae_kl"):
        settings.check_latents(config, sizes, manifests)
    with config.unlocked():
        config.objective = "dmd"
        config.distill = dict(teachers=dict(base=dict(weights="random")), classes=("fox",))
    settings.check_data(manifests["pictures"], "a", config)
    settings.check_latents(config, sizes, manifests)


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    """(the folder of a pipeline that edits, a picture, the set which `flashjax prepare` encoded with it)."""
    folder = tmp_path_factory.mktemp("edits")
    tiny_pipelines.make("qwen_image_edit_plus", folder / "released")
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    row = dict(prompt="a red fox", category="fox", source="a.png")
    (folder / "edits.jsonl").write_text("\n".join([json.dumps(row)] * 2))
    words = ["prepare", "--from", f"{folder}/edits.jsonl", "--out", f"{folder}/set", "--size", "64"]
    words += ["--encoder", "qwen_image_edit_plus", "--encoder-weights", f"{folder}/released"]
    assert cli.main(words) == 0
    return folder / "released", pixels, folder / "set" / "prompts.arrayrecord"


def test_an_edit_is_read_with_its_picture_and_so_is_its_null(edits):
    folder, pixels, path = edits
    model, record, manifest = released.load(folder, keep=True), RecordSource(path)[1], read_manifest(path)
    plan = model.plan(["a red fox"], [Image.fromarray(pixels)], guidance_scale=4.0)
    for name, rows in (("text", plan.rows), ("null", plan.negative)):
        states, lengths = model.encoder.states(rows, plan.seen)
        expected = np.asarray(states[0, : lengths[0]])
        np.testing.assert_allclose(record[name].astype(np.float32), expected, rtol=2**-8, atol=1e-4)
    part = model.autoencoder
    latents = part.module.autoencoder(part.config).encode(part.params, pixels[None] / np.float32(127.5) - 1)[0]
    np.testing.assert_allclose(record["source"], latents, rtol=2**-10, atol=1e-4)
    assert (manifest["autoencoder"], manifest["own_nulls"], manifest["task"]) == ("vae_qwen_image", True, "edit")


def test_an_edit_is_read_with_all_its_pictures(edits):
    """A record of two pictures has the states that the pipeline reads with both, and the latents of each."""
    folder, pixels, _ = edits
    model, pictures = released.load(folder, keep=True), dict(source=pixels, source_2=pixels[::-1].copy())
    record = released.load_picture_encoder(folder, "qwen_image_edit_plus").record("a red fox", pictures)
    plan = model.plan(["a red fox"], [Image.fromarray(x) for x in pictures.values()], guidance_scale=4.0)
    for name, rows in (("text", plan.rows), ("null", plan.negative)):
        states, lengths = model.encoder.states(rows, plan.seen)
        np.testing.assert_allclose(
            record[name].astype(np.float32), np.asarray(states[0, : lengths[0]]), rtol=2**-8, atol=1e-4
        )
    part = model.autoencoder
    encode = part.module.autoencoder(part.config).encode
    for name, picture in pictures.items():
        expected = encode(part.params, picture[None] / np.float32(127.5) - 1)[0]
        np.testing.assert_allclose(record[name], expected, rtol=2**-10, atol=1e-4)


@pytest.mark.long  # a preparation and a run each
@pytest.mark.parametrize("family", ["qwen_image_21", "flux2_klein"])
def test_edits_of_families_that_draw_too(family, tmp_path):
    """The same encoder reads prompts and, where rows have pictures, edits: as the pipeline conditions its denoiser."""
    tiny_pipelines.make(family, tmp_path / "released")
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    row = dict(prompt="a red fox", category="fox")
    for name, rows in (("prompts", [row]), ("edits", [row | dict(source="a.png")] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        words = ["prepare", "--from", f"{tmp_path}/{name}.jsonl", "--out", f"{tmp_path}/set", "--size", "64"]
        words += ["--name", name, "--encoder", family, "--encoder-weights", f"{tmp_path}/released"]
        assert cli.main(words) == 0
    model = released.load(tmp_path / "released", keep=True)
    plan = model.plan(["a red fox"], [Image.fromarray(pixels)], height=64, width=64, guidance_scale=4.0)
    plan = dataclasses.replace(plan, references=[np.asarray(Image.fromarray(pixels).convert(_mode(model)))])
    expected, _ = model._conditions(plan)
    paths = [tmp_path / "set" / f"{name}.arrayrecord" for name in ("prompts", "edits")]
    record, manifest = RecordSource(paths[1])[1], read_manifest(paths[1])
    states = text.pack([record["text"].astype(np.float32)])
    latents = SimpleNamespace(encode=np.asarray)
    at = tuple(manifest["reference_at"])
    made = editing.condition(model.denoiser.module, *states, [record["source"][None].astype(np.float32)], latents, at)
    length = states[0].shape[1]
    np.testing.assert_allclose(made.text, np.asarray(expected.text, np.float32)[:, :length], rtol=2**-8, atol=1e-4)
    np.testing.assert_allclose(made.references[0], expected.references[0], rtol=2**-10, atol=1e-3)
    assert getattr(made, "reference_at", None) == getattr(expected, "reference_at", None)
    # One run of both: the prompts' set says the null of pictures from prompts, edits bring theirs.
    sources = dict(edits=dict(path=str(paths[1]), task="edit"), prompts=dict(path=str(paths[0])))
    encoder = said.of(sources, open_sources(sources)[1])
    assert len(encoder.encode([""])) == 1
    assert manifest["own_nulls"]


def _mode(model) -> str:
    return "RGBA" if model.autoencoder.config.channels == 4 else "RGB"


def test_edits_train_with_the_nulls_of_their_records(edits):
    path = edits[2]
    config = configs.load(["--config=configs/qwen_image.py:tiny,edit", f"--config.sources.prompts.path={path}"])
    sources, manifests = open_sources(config.sources)
    assert said.of(config.sources, manifests).encode([]) == []
    mixture = Mixture(sources, np.ones(1, int), np.zeros(1, int), batch_size=2, seed=0, classes=("fox",))
    batch = next(make_loader(mixture, batch_size=2, max_text_tokens=300))
    assert batch["null"].shape == batch["text"].shape
    assert (batch["null_length"] < batch["text_length"]).all()
    assert batch["source"].dtype == np.float32
    with config.unlocked():
        config.distill.teachers.base.negative = "blurred"
        config.model.context_dim, config.model.in_channels = manifests["prompts"]["text_width"], 16
        config.autoencoder = dict(architecture="vae_qwen_image", preset="tiny", weights="")
    model = models.architecture("qwen_image")
    with pytest.raises(UserError, match="has its own null"):
        settings.check_latents(config, models.make_config(model, config.model), manifests)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--encoder", "z_image"], "go together"), (["--also", "x"], "--also for what it encodes"),
        (["--encoder", "z_imag", "--encoder-weights", "."], "no family 'z_imag'"),
    ],
)  # fmt: skip
def test_words_that_are_no_request(words, told, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps(dict(prompt="a", category="b")))
    assert cli.main(["prepare", "--from", f"{tmp_path}/a.jsonl", "--out", f"{tmp_path}/o", *words]) == 2
    assert told in capsys.readouterr().err
