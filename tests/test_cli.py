"""The command line: every bad input is one sentence and exit status 2, and overwrites nothing."""

import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashjax import cli, convert, models, pipeline, train
from flashjax import config as configs
from flashjax.commands import sample
from flashjax.data import prepare
from flashjax.models import qwen_image_21

CONFIG = "tests/configs/tiny_postcards.py"


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture
def complaint(capsys):
    """Runs a command that has to fail, and returns its sentence."""

    def run(*argv: str) -> str:
        assert cli.main(list(argv)) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        sentence = said.err[said.err.index(f"flashjax {argv[0]}: ") :]
        return sentence.removeprefix(f"flashjax {argv[0]}: ").strip()

    return run


def test_a_process_that_waited_in_vain_has_a_status_of_its_own(monkeypatch, capsys, command):
    """By which a cluster knows that it may try again."""
    environment = dict(FLASHJAX_COORDINATOR="localhost:9", FLASHJAX_PROCESSES="2", FLASHJAX_PROCESS="1")
    for name, value in (environment | dict(FLASHJAX_WAIT="0.1")).items():
        monkeypatch.setenv(name, value)
    assert cli.main(command()) == 77
    assert capsys.readouterr().err.count("flashjax train: Process 1 finds no process 0 at localhost:9") == 1


def test_a_sentence_is_written_with_its_end(monkeypatch):
    """In one piece: the processes of a run tell the same one at once, into the same log."""
    pieces = []
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(write=pieces.append, flush=lambda: None))
    assert cli.main(["plan", f"--config={CONFIG}"]) == 2
    assert len(pieces) == 1 and pieces[0].startswith("flashjax plan: Nothing to plan for") and pieces[0][-1] == "\n"


def model_config():
    return models.make_config(qwen_image_21, configs.load([f"--config={CONFIG}"]).model)


@pytest.fixture(scope="module")
def inputs(request, tmp_path_factory):
    """A folder with prompts, pictures and a random teacher, exported."""
    os.chdir(request.config.rootpath)
    folder = tmp_path_factory.mktemp("inputs")

    def encode(captions):
        return [np.ones((2 + len(c.split()), 384), np.float32) for c in captions]

    for name, size in (("prompts", None), ("pictures", 8)):
        prepare.prepare(
            folder / name, split="train", count_per_category=4, size=size, seed=0, encode=encode, progress=False
        )  # fmt: skip
    tiny, rng = model_config(), np.random.default_rng(0)
    weights = {
        name: np.asarray(rng.normal(0, 0.1, leaf.shape), np.float32)
        for name, leaf in train.optim.paths.flatten(qwen_image_21.abstract(tiny)).items()
    }
    params = train.optim.paths.unflatten(weights)
    for name in ("transformer", "scheduler"):
        (folder / "teacher" / name).mkdir(parents=True)
    convert.save("qwen_image_21", params, folder / "teacher/transformer/diffusion_pytorch_model.safetensors")
    (folder / "teacher/transformer/config.json").write_text(json.dumps(tiny.to_diffusers()))
    described = pipeline.describe(configs.load([f"--config={CONFIG}"]))
    (folder / "teacher/scheduler/scheduler_config.json").write_text(json.dumps(dict(flashjax=described)))
    return folder


@pytest.fixture
def command(inputs, tmp_path):
    """``flashjax train`` in a new folder; settings may be added."""

    def make(*settings: str, arg: str = "", data="prompts/train.arrayrecord", weights="teacher/transformer"):
        given = f"{arg}data={inputs / data},weights={inputs / weights}"
        return ["train", f"--workdir={tmp_path / 'run'}", f"--config={CONFIG}:{given}", *settings]

    return make


def test_without_a_command_it_explains_itself(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)


@pytest.mark.parametrize("argv", [["trian"], ["train"], ["export", "--workdir=a", "--out=b", "--nonsense"]])
def test_what_is_not_understood_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("flashjax")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("sample --checkpoint=a --prompt=b --out=c.png --seed=-1", "--seed: '-1' is not a whole number from 0 to 429"),
        ("sample --checkpoint=a --prompt=b --out=c.png --seed=4294967296", "--seed: '4294967296' is not a whole"),
        ("sample --checkpoint=a --prompt=b --out=c.png --scale=0", "--scale: '0' is not a whole number from 1 on"),
        ("sample --checkpoint=a --prompt=b --out=c.png --guidance=nan", "--guidance: 'nan' is not a number"),
        ("bench generate --checkpoint=a --bench=b --out=c --guidance=nan", "--guidance: 'nan' is not a number"),
        ("bench generate --checkpoint=a --bench=b --out=c --guidance=inf", "--guidance: 'inf' is not a number"),
        ("prepare --out=a --seed=-1", "--seed: '-1' is not a whole number from 0 to"),
        ("evaluate --workdir=a --out=b.html --limit=-999", "--limit: '-999' is not a whole number from 1 on"),
        ("evaluate --workdir=a --out=b.html --limit=0", "--limit: '0' is not a whole number from 1 on"),
        ("evaluate --workdir=a --out=b.html --limit=x", "--limit: 'x' is not a whole number from 1 on"),
        ("table --config=a --rows=-1", "--rows: '-1' is not a whole number from 0 on"),
    ],
)
def test_numbers_that_cannot_be(argv, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv.split())
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_has_a_help_line(name):
    subs = next(a for a in cli.parser(name)._actions if a.dest == "command")
    assert [action.dest for action in subs.choices[name]._actions if not action.help] == []


def test_the_step_table_is_printed(capsys):
    assert cli.main(["table", "--config=configs/postcards.py:quick", "--rows=2", "--config.distill.nfe=2"]) == 0
    said = capsys.readouterr().out
    assert "165 steps, 4 programs" in said
    assert "step     1  critic t2i k=" in said


def test_where_parameters_lie_is_printed(capsys):
    assert cli.main(["table", "--config=configs/postcards.py", "--parameters"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["modulation/kernel", "160x640"] in [line[:2] for line in lines]
    rows = [line for line in lines if line[0] in ("blocks/attn/to_out/kernel", "blocks/mlp/out/kernel")]
    assert [line[-2:] for line in rows] == [["('tensor',", "'fsdp')"]] * 2


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--config=configs/postcards.py:quik"], "postcards.py:quik: This configuration has no argument 'quik'"),
        (["--config=configs/postcard.py"], "There is no configuration file at configs/postcard.py. Did you mean"),
        (["--config=configs/postcards.py", "--config.student_optm=1"], "did you mean config.student_optim?"),
        (["--config=configs/postcards.py", "--config.batch_size=x"], "config.batch_size has to be of type int"),
        (["--config=configs/postcards.py", "--config.objective=dmdd"], "There is no objective 'dmdd'; choose flow"),
        (["--config=configs/postcards.py", "--config.student_updates=0"], "student_updates (0) has to be positive"),
        (["--config=configs/postcards.py", "--config.distill.nfe=0"], "A time grid needs at least one step, not 0."),
        (["--config=configs/postcards.py", "--config.edit_share=1.5"], "config.edit_share is 1.5; the share of edits"),
        (["--config=configs/postcards.py", "--config.objective=flow_matching"], "The run needs config.steps, which"),
    ],
)
def test_settings_that_are_wrong(complaint, argv, expected):
    said = complaint("table", *argv)
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["--config.distill.classes=landscape,portrait"], "has the category 'text', which is not among config.distill"),
        (["--config.distill.teachers.base.weights="], "The teacher 'base' has no weights; name the folder of its"),
        (["--config.mesh.data=9"], "context = 1, tensor = 1, which takes 9 devices or a multiple; there are 8"),
        (["--config.mesh.fsdp=3", "--config.mesh.data=-1"], "there are 8, which do not divide by it."),
        (["--config.mesh.data=8", "--config.batch_size=12"], "A batch of 12 does not divide over 8 devices; change"),
        (["--config.mesh.tensor=4"], "A model of 2 heads does not divide over 4 devices; change config.mesh.tensor."),
        (["--config.mesh.context=8"], "An image of 4 tokens does not divide over 8 devices; change config.mesh."),
        (["--config.batch_size=100"], "holds 12 records, no batch of 100; lower config.batch_size."),
        (["--config.max_text_tokens=3"], "raise config.max_text_tokens from 3."),
        (["--config.model.architecture=unet"], "There is no architecture 'unet'; there are qwen_image_21, "),
        (["--config.model.preset=postcard"], "has no preset 'postcard'; choose one of qwen_image_21, postcards, tiny"),
        (["--config.model.preset=heads"], "qwen_image_21 has no preset 'heads'; choose one of qwen_image_21, post"),
        (["--config.model.heads=3"], "must sum to the head width"),
        (["--config.model.heads=0"], "config.model.heads is 0; it has to be 1 or more."),
        (["--config.model.layers=-1"], "config.model.layers is -1; it has to be 1 or more."),
        (["--config.model.width=64", "--config.model.heads=4"], "do not fit the model"),
    ],
)
def test_runs_that_cannot_be(complaint, command, settings, expected):
    assert expected in complaint(*command(*settings))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("batch_size=0", "config.batch_size is 0; it has to be 1 or more."),
        ("mesh.data=0", "every axis has to be 1 or more, and one at most -1 (the rest)."),
        ("seed=-1", "config.seed is -1; it has to be 0 or more."),
        ("seed=4294967296", "config.seed is 4294967296; jax takes its seeds from 32 bits, so it ends at 4294967295."),
        ("student_optim.clip=0", "config.student_optim.clip is 0.0, the norm that gradients are cut to; it has to be"),
        ("critic_optim.kind=sgd", "config.critic_optim.kind is 'sgd'; choose adamw or muon."),
        ("log_every=0", "config.log_every is 0; it has to be 1 or more."),
        ("sample_every=0", "config.sample_every is 0; it has to be 1 or more."),
        ("checkpoint_every=0", "config.checkpoint_every is 0; it has to be 1 or more."),
        ("keep_checkpoints=0", "config.keep_checkpoints is 0; it has to be 1 or more."),
        ("image_size=10", "config.image_size is 10; it has to be a multiple of 4."),
        ("distill.critic_times.kind=beta", "Unknown time distribution 'beta'; choose uniform or logit_normal."),
        ("distill.student_times.low=0.99", "from low 0.99 to high 0.98; 0 <= low <= high <= 1 has to hold."),
        ("distill.student_times.high=1.5", "from low 0.02 to high 1.5; 0 <= low <= high <= 1 has to hold."),
        ("distill.rollout_mode=heun", "Unknown rollout mode 'heun'; choose one of euler, renoise."),
        ("distill.shift=-1.0", "The time shift has to be positive, not -1.0"),
        ("distill.critic_updates_per_rollout=0", "critic_updates_per_rollout is 0; it has to be 1 or more."),
        ("distill.ema_decay=1.5", "ema_decay is 1.5; it has to lie in [0, 1)."),
        ("distill.classes=()", "config.distill.classes is (); it names the categories of the prompts, each once"),
        ("steps=0", "config.steps is 0; it has to be 1 or more."),
        ("drop_rate=2.0", "config.drop_rate is 2.0; it has to lie in [0, 1)."),
        ("ema_decay=1.0", "config.ema_decay is 1.0; it has to lie in [0, 1)."),
        ("times.shift=-1.0", "std (1.2) and shift (-1.0) of a time distribution have to be positive."),
        ("sample.mode=hun", "Unknown rollout mode 'hun'; choose one of euler, renoise."),
        ("sample.steps=0", "A time grid needs at least one step, not 0."),
        ("sample.guidance_scale=nan", "config.sample.guidance_scale is nan; 1.0 is no guidance."),
        ("sample.shift=0.0", "The time shift has to be positive, not 0.0"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "table"])
def test_settings_are_refused_before_anything_is_made(complaint, tmp_path, verb, setting, expected):
    """By ``table`` too: what it prints can be run. ``train`` leaves no folder behind."""
    only_teachers = ("steps", "drop_rate", "ema_decay", "times", "sample")
    arg = ":teacher" if setting.startswith(tuple(f"{name}{end}" for name in only_teachers for end in "=.")) else ""
    argv = [f"--workdir={tmp_path / 'run'}"] if verb == "train" else []
    assert expected in complaint(verb, *argv, f"--config={CONFIG}{arg}", f"--config.{setting}")
    assert not (tmp_path / "run").exists()


def test_pictures_of_another_size(complaint, command):
    said = complaint(*command("--config.image_size=16", arg="teacher,", data="pictures/train.arrayrecord"))
    assert "has pictures of 8 px; set config.image_size from 16 to 8." in said


def test_pictures_are_missing(complaint, command):
    assert "has no pictures to learn from, which flow matching needs" in complaint(*command(arg="teacher,"))


def test_a_data_set_is_missing(complaint, command, inputs):
    said, there = complaint(*command(data="prompts/trian.arrayrecord")), f"{inputs}/prompts"
    assert said == f"There is no data set at {there}/trian.arrayrecord. Did you mean {there}/train.arrayrecord?"


def test_weights_are_missing(complaint, command, inputs):
    said = complaint(*command(weights="teacher/transfromer"))
    assert said == f"There are no weights at {inputs}/teacher/transfromer. Did you mean {inputs}/teacher/transformer?"


def test_weights_are_truncated(complaint, command, inputs, tmp_path):
    whole = (inputs / "teacher/transformer/diffusion_pytorch_model.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(whole[: len(whole) // 2])
    assert f"{broken} is truncated" in complaint(*command(weights=str(broken)))
    broken.write_bytes(b"PK")
    assert f"{broken} is not a safetensors file" in complaint(*command(weights=str(broken)))


def test_a_data_set_is_truncated(complaint, command, inputs, tmp_path):
    for name in ("train.json", "train.arrayrecord"):
        content = (inputs / "prompts" / name).read_bytes()
        (tmp_path / name).write_bytes(content if name.endswith("json") else content[: len(content) // 2])
    assert "is truncated or of another kind" in complaint(*command(data=str(tmp_path / "train.arrayrecord")))


def test_a_folder_of_another_run(complaint, command, tmp_path):
    (tmp_path / "empty").mkdir()
    lost = f"--config.distill.teachers.base.weights={tmp_path / 'empty'}"  # found out after the folder is claimed
    assert "empty" in complaint(*command(lost))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 0}\n')
    before = (tmp_path / "run" / "config.json").read_text()
    said = complaint(*command("--config.seed=1", lost))
    assert f"The folder {tmp_path}/run belongs to another run: seed is 0 there and 1 here. Use its config" in said
    assert said.endswith("or another --workdir.")
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_folder_of_other_files(complaint, command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("x")
    assert "holds files but no run of flashjax; give an empty or a new folder." in complaint(*command())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_debug_shows_the_traceback(command):
    with pytest.raises(configs.UserError, match="There is no data set"):
        cli.main([*command(data="none"), "--debug"])


def test_a_prompt_that_is_too_long(complaint, inputs, tmp_path):
    out = tmp_path / "a.png"
    said = complaint("sample", f"--checkpoint={inputs / 'teacher'}", f"--out={out}", "--prompt", "a red house " * 20)
    assert "has 62 tokens with [CLS] and [SEP], the limit is 28" in said
    assert not out.exists()


def test_a_prompt_that_is_no_text(complaint, inputs, tmp_path):
    """What the shell hands over where bytes are no UTF-8."""
    out, prompt = tmp_path / "a.png", os.fsdecode(b"a caf\xe9")
    said = complaint("sample", f"--checkpoint={inputs / 'teacher'}", f"--out={out}", "--prompt", "a house", prompt)
    assert said == "The prompt 'a caf\\udce9' is no valid text; write it in UTF-8."
    assert not out.exists()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red house " * 200, "has 602 tokens with [CLS] and [SEP], the limit is 512; shorten it."),
        ("a caf\ud800", "The prompt 'a caf\\ud800' is no valid text; write it in UTF-8."),
    ],
    ids=["long", "no text"],
)
def test_rows_that_cannot_be_encoded(complaint, tmp_path, prompt, expected):
    rows = [dict(prompt=each, category="own") for each in ("a house", prompt)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert expected in complaint("prepare", f"--from={tmp_path / 'own.jsonl'}", f"--out={tmp_path / 'set'}")
    assert list((tmp_path / "set").iterdir()) == []


def test_prompts_of_samples_that_are_too_long_are_told_before_anything_is_compiled(
    complaint, command, inputs, tmp_path, monkeypatch
):
    """Of a set whose own prompts are short, whatever it calls its categories."""
    rows = [dict(prompt=f"a fox {i}", category="text") for i in range(8)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.main(["prepare", f"--from={tmp_path / 'own.jsonl'}", f"--out={tmp_path / 'set'}"]) == 0
    monkeypatch.setattr(train, "compile_programs", None)
    said = complaint(*command("--config.max_text_tokens=8", data=tmp_path / "set" / "prompts.arrayrecord"))
    assert "that this run draws while it goes on have up to 13 tokens; raise config.max_text_tokens from 8." in said
    assert not (tmp_path / "run").exists()


def test_sampling_that_cannot_be(complaint, inputs, tmp_path):
    def sample(out: str, checkpoint: str = "teacher", steps: int = 1) -> str:
        return complaint(
            "sample", f"--checkpoint={inputs / checkpoint}", f"--out={tmp_path / out}", f"--steps={steps}",
            "--prompt", "a",
        )  # fmt: skip

    (tmp_path / "there.png").write_text("x")
    assert "there.png exists; give a new --out, nothing is overwritten." in sample("there.png")
    assert (tmp_path / "there.png").read_text() == "x"
    assert "There is no folder" in sample("nowhere/a.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder.png exists; give a new --out" in sample("folder.png")
    assert f"There is no folder {tmp_path}/there.png to write" in sample("there.png/a.png")
    assert "has to end in .png" in sample("a.txt")
    assert "is neither a run's work directory nor an exported model" in sample("a.png", checkpoint="prompts")
    assert "A time grid needs at least one step, not 0." in sample("a.png", steps=0)
    argv = ["sample", f"--checkpoint={inputs / 'teacher'}", f"--out={tmp_path / 'a.png'}", "--prompt", "a"]
    assert complaint(*argv, "--negative", "b") == "--negative does not go with --checkpoint; leave it out."
    assert "--image names 2 pictures for 1 prompts; give one for each, or" in complaint(*argv, "--image", "b", "c")
    there = str(tmp_path / "there.png")
    assert f"The picture {there} cannot be read: cannot identify image file" in complaint(*argv, "--image", there)
    assert "cannot be read: [Errno 2] No such file" in complaint(*argv, "--image", "nowhere.png")


def test_exports_that_cannot_be(complaint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    argv, file = ["export", f"--workdir={tmp_path}"], tmp_path / "out" / "thesis.txt"
    assert "is not an empty folder; give a new one" in complaint(*argv, f"--out={tmp_path / 'out'}")
    assert f"There are no checkpoints in {tmp_path}; give" in complaint(*argv, f"--out={tmp_path / 'new'}")
    assert "is not an empty folder; give a new one" in complaint(*argv, f"--out={file}")
    assert file.read_text() == "x" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sets_that_cannot_be(complaint, inputs, tmp_path):
    said = complaint("prepare", f"--out={inputs / 'prompts'}", "--count=5", "--prompts-only")
    assert "already holds another set of the split 'train'" in said
    assert "at least one postcard a category" in complaint("prepare", f"--out={tmp_path}", "--count=0")
    said = complaint("prepare", f"--out={tmp_path}", "--count=1", "--categories", "boats")
    assert said == "There is no category 'boats' of postcards; take one of landscape, portrait, text."
    assert not list(tmp_path.iterdir())


def test_a_misspelt_setting_is_told_at_once(request):
    """As a process: nothing slow is imported for it."""
    code = "import sys; from flashjax import cli; r = cli.main(sys.argv[1:]); print('jax' in sys.modules); sys.exit(r)"
    argv = ["train", "--workdir=/nowhere", "--config=configs/postcards.py", "--config.lrr=1"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("flashjax train: There is no setting config.lrr; ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "False\n"


def test_training_and_encoding_leave_torch_alone():
    """As a process: where it is installed, importing it takes longer than JAX."""
    code = """
import sys
import flashjax.evaluate.study, flashjax.train
from flashjax.models import text
text.default_encoder().encode(["a lake"])
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_picture_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """Nothing stays at --out, where the next try would find it and refuse; and it is said what to do."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def begin(image, file, *args, **options):
        Path(file).write_bytes(b"half of it")
        raise full

    monkeypatch.setattr(Image.Image, "save", begin)
    monkeypatch.setattr(sample, "run", lambda args: sample._save(Image.new("RGB", (4, 4)), args.out, {}))
    assert cli.main(["sample", "--checkpoint=a", "--prompt=a", f"--out={tmp_path / 'a.png'}"]) == 2
    assert capsys.readouterr().err == "flashjax sample: No space left on device; make room and start again.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path):
    """The system's own refusal, of a background write; what was saved before is whole, and a second start goes on."""
    code = """
import pathlib, resource, sys
import jax, jax.numpy as jnp, numpy as np
from flashjax import cli, commands
from flashjax.checkpoint import Checkpoints
def run(args):
    commands.quiet()
    saves = Checkpoints(pathlib.Path(sys.argv[1]))
    start = saves.latest() or 0
    for step in (start + 1, start + 2):
        size = 1000 if step == 1 else 500_000
        if step == 2 and start == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        saves.save(step, {"a": jnp.asarray(np.random.default_rng(0).random(size, np.float32))}, {}, {})
    saves.close()
    print(saves.latest())
cli.importlib.import_module("flashjax.commands.table").run = run
sys.exit(cli.main(["table", "--config=x"]))
"""

    def start():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    first = start()
    assert first.returncode == 2, first.stderr
    assert first.stderr.splitlines()[-1] == (
        f"flashjax table: A checkpoint could not be written to {tmp_path}: File too large. "
        "The newest complete one is of step 1; mend this and start again with the same arguments."
    )
    assert "Traceback" not in first.stderr
    second = start()
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip() == "3"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
