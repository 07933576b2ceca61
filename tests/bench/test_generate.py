"""Pictures of a bench: each drawn once whatever happens, and each says what made it."""

import errno
import json
import os
import shutil
import types

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flashjax import cli, models, paths
from flashjax import config as configs
from flashjax.bench import generate, plan, prompts
from flashjax.bench.prompts import Prompt
from flashjax.checkpoint import Checkpoints
from flashjax.commands import bench_generate
from flashjax.errors import UserError
from flashjax.files import looks
from flashjax.models import qwen_image_21, text

PROMPTS = [Prompt(f"p{i}", "c", f"prompt {i} 茶") for i in range(7)]
FACTS = dict(model="m", steps=4, flashjax="1")


class Drawer:
    """Pictures that know their prompt and seed; stops like a killed process after ``left`` batches."""

    def __init__(self, left=99, channels=3):
        self.left, self.asked, self.channels = left, [], channels

    def __call__(self, some, seeds):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += [(p.id, seed) for p, seed in zip(some, seeds, strict=True)]
        out = np.zeros((len(some), 8, 8, self.channels), np.uint8)
        out[..., 0] = [[[int(p.id[1:]) * 10 + s]] for p, s in zip(some, seeds, strict=True)]
        return out


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    folder, asked = tmp_path / "out", []
    for left in (1, 2, 99):
        draw = Drawer(left)
        generate.settle(folder, FACTS)
        todo = generate.pending(PROMPTS, [0, 5], folder)
        try:
            list(generate.generate(todo, folder, draw, FACTS, 3))
        except KeyboardInterrupt:
            assert left < 99
        asked += draw.asked
    assert asked == [(p.id, s) for p in PROMPTS for s in (0, 5)]
    assert not list(folder.glob(".*"))
    for p in PROMPTS:
        for seed in (0, 5):
            with Image.open(folder / f"{p.id}_{seed}.png") as image:
                assert image.getpixel((0, 0))[0] == int(p.id[1:]) * 10 + seed
                assert image.text == dict(model="m", steps="4", flashjax="1", prompt=p.prompt, seed=str(seed), id=p.id)


@pytest.mark.parametrize(
    ("model", "more"),
    [("--checkpoint=x", "--size=64"), ("--weights=x", "--batch=2"), ("--weights=x", "--which=ema"),
     ("--weights=x", "--source-size=32")],
)  # fmt: skip
def test_options_of_the_other_kind_of_model_are_told(capsys, model, more):
    assert cli.main(["bench", "generate", "--bench=b.jsonl", "--out=o", model, more]) == 2
    assert f"{more.partition('=')[0]} does nothing with {model[:-2]}; leave it out." in capsys.readouterr().err


def test_a_seed_that_is_named_twice_is_drawn_once(tmp_path):
    assert generate.pending(PROMPTS[:1], [3, 3, 4], tmp_path) == [(PROMPTS[0], 3), (PROMPTS[0], 4)]


def test_shares_are_all_and_disjoint(tmp_path):
    parts = [generate.pending(PROMPTS, [0, 1], tmp_path, (i, 3)) for i in range(3)]
    assert sorted((p.id, s) for part in parts for p, s in part) == [(p.id, s) for p in PROMPTS for s in (0, 1)]


def test_the_launch_scripts_say_which_share(tmp_path, monkeypatch):
    for name, value in dict(COORDINATOR="host0:8476", PROCESSES="4", PROCESS="3").items():
        monkeypatch.setenv(f"FLASHJAX_{name}", value)
    assert bench_generate._share(None) == (3, 4)
    assert bench_generate._share("1/2") == (1, 2)
    monkeypatch.delenv("FLASHJAX_PROCESS")
    with pytest.raises(UserError, match="FLASHJAX_PROCESS is not set"):
        bench_generate._share(None)
    for name in ("COORDINATOR", "PROCESSES"):
        monkeypatch.delenv(f"FLASHJAX_{name}")
    assert bench_generate._share(None) == (0, 1)


def test_processes_that_begin_at_once_agree(tmp_path, monkeypatch):
    """The other one writes its record, and a first picture, between any two looks of this one."""
    folder, exists = tmp_path / "out", generate.Path.exists
    for facts, fine in ((FACTS, True), (FACTS | dict(steps=8), False)):
        shutil.rmtree(folder, ignore_errors=True)

        def meanwhile(path, facts=facts):
            monkeypatch.setattr(generate.Path, "exists", exists)
            generate.settle(folder, facts)
            (folder / "p0_0.png").touch()
            return False

        monkeypatch.setattr(generate.Path, "exists", meanwhile)
        if fine:
            generate.settle(folder, FACTS)
        else:
            with pytest.raises(UserError, match="has pictures of other settings: steps is 8 there and 4 here"):
                generate.settle(folder, FACTS)


def test_processes_of_one_number_have_files_of_their_own(tmp_path, monkeypatch):
    """In containers all are number 1, and hosts share the folder: one took the other's unfinished file away."""
    monkeypatch.setattr("flashjax.files.os.getpid", lambda: 1)
    link = os.link

    def meanwhile(partial, path):
        monkeypatch.setattr("flashjax.files.os.link", link)
        generate.settle(tmp_path / "out", FACTS)
        link(partial, path)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("flashjax.files.os.link", meanwhile)
    generate.settle(tmp_path / "out", FACTS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["drawn.json"]


def test_a_bucket_without_links_is_a_folder_too(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.ENOTSUP, "no links here")

    monkeypatch.setattr("flashjax.files.os.link", link)
    generate.settle(tmp_path / "out", FACTS)
    assert json.loads((tmp_path / "out" / "drawn.json").read_text()) == FACTS
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["drawn.json"]


def test_weights_are_known_by_their_content(tmp_path):
    """A student is exported into its teacher's folder: the pictures before are another model's."""
    (tmp_path / "a.safetensors").write_bytes(bytes(3 << 20))
    before = looks(tmp_path)
    assert looks(tmp_path) == before
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    assert looks(tmp_path) != before


def test_transparency_is_put_on_white(tmp_path):
    generate.settle(tmp_path / "a", FACTS)
    list(generate.generate([(PROMPTS[0], 0)], tmp_path / "a", Drawer(channels=4), FACTS, 1))
    with Image.open(tmp_path / "a" / "p0_0.png") as image:
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_folders_of_others(tmp_path):
    generate.settle(tmp_path / "a", FACTS)
    generate.settle(tmp_path / "a", FACTS)
    with pytest.raises(UserError, match="steps is 4 there and 8 here; give another --out"):
        generate.settle(tmp_path / "a", FACTS | dict(steps=8))
    with pytest.raises(UserError, match="params is None there and 'f0' here; step is None there and 8 here; give"):
        generate.settle(tmp_path / "a", FACTS | dict(params="f0", step=8))
    (tmp_path / "a" / "drawn.json").write_text("{")
    with pytest.raises(UserError, match=r"drawn\.json is damaged"):
        generate.settle(tmp_path / "a", FACTS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds files, but no pictures of flashjax bench generate"):
        generate.settle(tmp_path / "b", FACTS)


def test_a_picture_of_another_prompt_is_not_judged(tmp_path):
    """Benches of two seeds have the same ids; sources are drawn from what they show, not from the instruction."""
    list(generate.generate([(PROMPTS[0], 0)], tmp_path, Drawer(), FACTS, 1))
    assert list(plan.find_pictures(tmp_path, PROMPTS[:1])["p0"]) == [0]
    with pytest.raises(UserError, match=r"p0_0.png was drawn from the prompt 'prompt 0 茶', and p0 of .* is 'x'"):
        plan.find_pictures(tmp_path, [Prompt("p0", "c", "x")])
    edit = Prompt("p0", "object", "remove it", source_prompt=PROMPTS[0].prompt)
    assert list(plan.find_sources([edit], tmp_path / "b.jsonl", tmp_path)) == ["p0"]
    with pytest.raises(UserError, match="and p0 of this bench is 'remove it'"):
        plan.find_pictures(tmp_path, [edit])


def test_what_other_programs_call_a_prompt_is_none(tmp_path):
    facts = PngImagePlugin.PngInfo()
    facts.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
    Image.new("RGB", (8, 8)).save(tmp_path / "p0_0.png", pnginfo=facts)
    assert list(plan.find_pictures(tmp_path, PROMPTS[:1])) == ["p0"]


def test_an_exported_model_draws_what_judging_finds(request, tmp_path, monkeypatch, capsys):
    """The teacher of the repository, two steps; the second start has nothing to do, and a bad share is told."""
    monkeypatch.chdir(request.config.rootpath)
    prompts.write_bench(tmp_path / "b.jsonl", [Prompt("a", "text", "a red house"), Prompt("b", "text", 'a "TEA" sign')])
    argv = ["bench", "generate", "--checkpoint=weights/postcards_teacher", f"--bench={tmp_path}/b.jsonl"]
    argv += [f"--out={tmp_path}/out", "--steps=2", "--guidance=1", "--batch=2"]
    assert cli.main(argv) == 0
    assert "2 pictures drawn" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "a_0.png") as image:
        assert image.text["prompt"] == "a red house"
        assert (image.text["steps"], image.text["model"]) == ("2", "weights/postcards_teacher")
        assert len(image.getcolors(10_000)) > 50
    drawn = json.loads((tmp_path / "out" / "drawn.json").read_text())
    assert (drawn["guidance_scale"], drawn["step"]) == (1, None)
    assert len(drawn["params"]) == len(drawn["bench_sha256"]) == 16
    assert cli.main([*argv, "--share=2/2"]) == 2
    assert "--share 2/2 has to be I/N" in capsys.readouterr().err
    assert cli.main(argv) == 0
    assert "0 pictures drawn" in capsys.readouterr().out
    prompts.write_bench(tmp_path / "b.jsonl", [Prompt("a", "text", "a blue house"), Prompt("b", "text", "a lake")])
    assert cli.main(argv) == 2
    assert "bench_sha256 is" in capsys.readouterr().err


@pytest.fixture
def run(request, tmp_path):
    """The folder of a run with random weights, others at step 4 than at step 8."""
    folder, file = tmp_path / "run", f"{request.config.rootpath}/tests/configs/tiny_postcards.py"
    config = configs.load([f"--config={file}"])
    form = paths.flatten(qwen_image_21.abstract(models.make_config(qwen_image_21, config.model)))
    checkpoints, rng = Checkpoints(folder / "checkpoints"), np.random.default_rng(0)
    for step in (4, 8):
        params = paths.unflatten({name: rng.normal(0, 0.1, x.shape).astype(np.float32) for name, x in form.items()})
        meta = dict(config=json.loads(config.to_json_best_effort()))
        checkpoints.save(step, dict(ema=params, student=dict(params=params)), dict(position=step), meta)
    checkpoints.close()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_bench_of_edits_by_a_run(run, tmp_path, capsys, monkeypatch):
    """Each picture depends on its own source; another checkpoint is another model, whose pictures are not mixed in."""
    states = [np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)]
    stub = types.SimpleNamespace(encode=lambda texts, **_: states * len(texts), tokens=lambda *_: None)
    monkeypatch.setattr(text, "default_encoder", lambda: stub)
    bench = [Prompt(f"e{i}", "object", "make it red", source_prompt="a house") for i in range(2)]
    prompts.write_bench(tmp_path / "b.jsonl", bench)
    (tmp_path / "sources").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (8, 12, 3)).astype(np.uint8)).save(tmp_path / f"sources/e{i}_0.png")
    argv = ["bench", "generate", f"--checkpoint={run}", f"--bench={tmp_path}/b.jsonl", f"--out={tmp_path}/out"]
    assert cli.main(argv) == 2
    assert "2 edits name no source picture; give --sources" in capsys.readouterr().err
    argv.append(f"--sources={tmp_path}/sources")
    assert cli.main([*argv, "--limit=1"]) == 0
    assert cli.main(argv) == 0  # adds to it
    a, b = (np.asarray(Image.open(tmp_path / f"out/e{i}_0.png")) for i in range(2))
    assert (a != b).any()  # same words, same noise
    assert Image.open(tmp_path / "out/e0_0.png").text["step"] == "8"
    (tmp_path / "sources/e1_0.png").rename(tmp_path / "e1_0.png")
    shutil.copy(tmp_path / "sources/e0_0.png", tmp_path / "sources/e1_0.png")
    assert cli.main(argv) == 2
    assert "out/e1_0.png was drawn from another picture to edit than there is now" in capsys.readouterr().err
    (tmp_path / "e1_0.png").replace(tmp_path / "sources/e1_0.png")
    assert cli.main(argv) == 0
    shutil.rmtree(run / "checkpoints" / "8")
    assert cli.main(argv) == 2
    told = capsys.readouterr().err
    assert "step is 8 there and 4 here; give another --out" in told
    assert "params is" in told
