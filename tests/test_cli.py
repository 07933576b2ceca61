"""The command line: its commands, flags and settings; every wrong one is one sentence and exit status 2."""

import subprocess
import sys
import types

import pytest
from tiny_command import CONFIG, at_the_root  # noqa: F401  a fixture of every test here

from flashjax import cli


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


WITHOUT_EXTRAS = """
import sys
sys.modules |= dict.fromkeys(("jinja2", "aiohttp"))  # as if they were not installed
from flashjax import cli
for words in (
    "evaluate --workdir=x --out={0}/x.html", "evaluate-edits --checkpoint x --out={0}/x.html",
    "study configs/studies/guidance.py --out={0}/study",
    "bench report --bench=x --judged=x --pictures a=x --out={0}/x.html",
    "bench prompts --out={0}/bench --endpoint=x", "bench judge --bench=x --pictures a=x --judges=x --out={0}/judged",
):
    assert cli.main(words.format(sys.argv[1]).split()) == 2, words
"""


def test_an_extra_that_is_missing_is_told_before_anything_is_opened(tmp_path, request):
    """A traceback of ModuleNotFoundError, of a study after days of training."""
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path)]
    done = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page, asking = "This needs jinja2; run `pip install 'flashjax[{}]'`.", "This needs aiohttp; run `pip install"
    assert done.stderr.splitlines() == [
        *(f"flashjax {name}: {page.format('postcards')}" for name in ("evaluate", "evaluate-edits", "study")),
        f"flashjax bench: {page.format('judge')}", *[f"flashjax bench: {asking} 'flashjax[judge]'`."] * 2,
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


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
        ("sample --checkpoint=a --prompt=b --out=c.png --scale=0", "--scale: '0' is not a whole number from 1 to 64"),
        ("sample --weights=a --prompt=b --out=c.png --size=9x99999", "'99999' is not a whole number from 1 to 16"),
        ("sample --checkpoint=a --prompt=b --out=c.png --guidance=nan", "--guidance: 'nan' is not a number"),
        ("sample --checkpoint=a --prompt=b --out=c.png --guidance=1e300", "--guidance: '1e300' is not a number"),
        ("prepare --out=a --size=0", "--size: '0' is not a whole number from 1 to 16384"),
        ("bench generate --checkpoint=a --bench=b --out=c --guidance=nan", "--guidance: 'nan' is not a number"),
        ("bench generate --checkpoint=a --bench=b --out=c --guidance=inf", "--guidance: 'inf' is not a number"),
        ("prepare --out=a --seed=-1", "--seed: '-1' is not a whole number from 0 to"),
        ("bench prompts --out=a --t2i=9999999", "--t2i: '9999999' is not a whole number from 1 to 1000000"),
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
        (["--config.model.heads=3"], "must be even and sum to the head width"),
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
        ("student_updates=99999999999", "config.student_updates is 99999999999; it has to be 100,000,000 at most."),
        ("distill.nfe=1000000000", "A time grid has 10000 steps at most, not 1000000000."),
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
