"""Configurations: what overrides mean, and the sentence for everything that is misspelt."""

import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from flashjax import config as configs
from flashjax.errors import UserError, about_settings

POSTCARDS = "--config=configs/postcards.py"


def message(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        configs.load(list(argv))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def test_a_file_with_arguments_and_settings():
    config = configs.load([POSTCARDS + ":quick", "--config.student_optim.lr=1", "--config.distill.share_sample=false"])
    assert config.student_updates == 45
    assert config.student_optim.lr == 1.0
    assert isinstance(config.student_optim.lr, float)
    assert config.distill.share_sample is False
    assert config.is_locked


def test_a_file_that_names_a_part_of_a_group_has_the_rest_too():
    config = configs.load([POSTCARDS + ":study", "--config.watch.edit_data=x"])
    assert config.watch.edit_data == "x"
    assert config.watch.count == 150  # as the file has it
    assert configs.load([POSTCARDS]).watch.edit_data == ""


def test_settings_do_not_depend_on_the_command_line_of_the_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["flashjax", POSTCARDS, "--config.seed=9"])
    assert configs.load([POSTCARDS, "--config.seed=3"]).seed == 3
    assert configs.load([POSTCARDS]).seed == 0


@pytest.mark.parametrize("text", ["a,b", "('a', 'b')", "['a', 'b']"])
def test_sequences(text):
    assert configs.load([POSTCARDS, f"--config.distill.classes={text}"]).distill.classes == ("a", "b")


def test_nested_numbers():
    config = configs.load([POSTCARDS, "--config.distill.guidance.times=((0.1, 0.2, 0.3),)"])
    assert config.distill.guidance.times == ((0.1, 0.2, 0.3),)


def test_an_empty_text_is_a_value():
    assert configs.load(["--config=configs/postcards_teacher.py", "--config.init="]).init == ""


TABLE = {"portrait": {"faces": (0, 0, 0.5, 1)}, "text": {"faces": "linear"}}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("edit_share", "1", 1.0), ("edit_share", "[(0, 0.0), (0.5, 0.3)]", ((0, 0.0), (0.5, 0.3))),
        ("sources.prompts.weight", '{"portrait": 2, "text": 1.0}', {"portrait": 2, "text": 1.0}),
        ("sources.prompts.weight", "((0, 1.0), (0.5, {'text': 2.0}))", ((0, 1.0), (0.5, {"text": 2.0}))),
        ("sources", "{'a': {'path': 'a.arrayrecord'}}", {"a": {"path": "a.arrayrecord"}}),
        ("distill.guidance_table", repr(TABLE), TABLE), ("distill.guidance_table", "{}", {}),
        ("distill.guidance_table", f"((0, {{}}), (0.5, {TABLE!r}))", ((0, {}), (0.5, TABLE))),
        ("distill.teachers", "{'base': {'weights': 'a'}, 'faces': {'weights': 'b', 'negative': 'blurred'}}",
         {"base": {"weights": "a"}, "faces": {"weights": "b", "negative": "blurred"}}),
    ],
)  # fmt: skip
def test_settings_that_are_written_as_python_writes_them(key, text, expected):
    found = configs.load([POSTCARDS, f"--config.{key}={text}"]).to_dict()
    for name in key.split("."):
        found = found[name]
    assert found == expected
    assert type(found) is type(expected)


def test_a_part_of_a_table_that_is_there():
    table = "--config.distill.guidance_table"
    parts = ".text={'words': 'linear'}", ".portrait.faces=(0, 0, 0, 1)", ".text.words=constant:0.5"
    config = configs.load([POSTCARDS, f"{table}={TABLE!r}", *(f"{table}{part}" for part in parts)])
    expected = {"portrait": {"faces": (0, 0, 0, 1)}, "text": {"words": "constant:0.5"}}
    assert config.distill.guidance_table.to_dict() == expected


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("configs").glob("*.py")))
def test_shipped_configurations_take_mappings_and_schedules_in_python(name):
    config = configs.load([f"--config=configs/{name}.py"])
    share, weight, table = ((0, 0.0), (0.5, 0.3)), ((0, 1.0), (0.5, {"text": 1.0})), ((0, {}), (0.5, TABLE))
    config.edit_share = share
    for source in config.sources.values():
        source.weight = {"portrait": 2.0}
        source.weight = weight
    if "distill" in config:
        config.distill.guidance_table = TABLE
        config.distill.guidance_table = table
        assert config.to_dict()["distill"]["guidance_table"] == table
    assert (config.edit_share, source.to_dict()["weight"]) == (share, weight)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("edit_share=half", "config.edit_share is written like 0.3 or ((0, 0.0), (0.5, 0.3)), not half."),
        ("edit_share={'a': 1}", "config.edit_share is written like 0.3 or ((0, 0.0), (0.5, 0.3)), not {'a': 1}."),
        ("sources.prompts.weight=True", "config.sources.prompts.weight is written like 2.0, {'portrait': 2.0, "),
        ("distill.guidance_table=0.5", "config.distill.guidance_table is written like {'portrait': {'faces': (0, 0, "),
        ("distill.guidance_table={'a': ", "config.distill.guidance_table is written like {'portrait': "),
        ("distill.guidance_table=((0, {3: {}}),)", "config.distill.guidance_table is written like {'portrait': "),
        ("distill.teachers={'a.b': {}}", "config.distill.teachers is written like {'base': {'weights': 'runs/base'}, "),
        (
            "distill.guidance_table.portrait=linear",
            "There is no setting config.distill.guidance_table.portrait; config.distill.guidance_table has none. New "
            "ones are written whole, config.distill.guidance_table=\"{'portrait': ",
        ),
        ("student_optm=1", "There is no setting config.student_optm; did you mean config.student_optim?"),
        ("student_optm.lr=1", "There is no setting config.student_optm; did you mean config.student_optim?"),
        ("student_optim.lrr=1", "There is no setting config.student_optim.lrr; did you mean config.student_optim.lr?"),
        ("lr=1", "There is no setting config.lr; did you mean config.critic_optim.lr or config.student_optim.lr?"),
        ("model.zzz=1", "There is no setting config.model.zzz; config.model has architecture, preset, products."),
        ("batch_size=abc", "config.batch_size has to be of type int, like 24, not 'abc'."),
        ("batch_size=1.5", "config.batch_size has to be of type int, like 24, not '1.5'."),
        ("batch_size.x=1", "config.batch_size is a single setting, so there is no config.batch_size.x."),
        ("distill.share_sample=maybe", "config.distill.share_sample has to be true or false, not 'maybe'."),
        ("distill.guidance.times=(1", "config.distill.guidance.times has to be of type tuple, like (0.05, "),
        ("model=tiny", "config.model is a group of settings; set one of config.model.architecture, config.model.pre"),
    ],
)
def test_a_setting_that_is_wrong(setting, expected):
    assert message(POSTCARDS, f"--config.{setting}").startswith(expected)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "No configuration given; write --config=configs/postcards.py, for example."),
        ([POSTCARDS, "--config.seed", "3"], "Not understood: --config.seed. Settings are written --config.key=value."),
        ([POSTCARDS, "--confg.seed=3"], "Not understood: --confg.seed=3. Settings are written --config.key=value."),
        (["--config=configs/postcard.py"], "file at configs/postcard.py. Did you mean configs/postcards.py?"),
        (["--config=configs"], "configs is no configuration; give a Python file with get_config(arg) in it."),
        ([POSTCARDS + ":quik"], "This configuration has no argument 'quik'; did you mean quick?"),
        ([POSTCARDS + ":quick=2"], "The argument quick is a switch"),
        (["--config=configs/postcards_teacher.py:steps=many"], "The argument steps has to be of type int, not 'many'."),
    ],
)
def test_a_command_line_that_is_wrong(argv, expected):
    assert expected in message(*argv)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_config(arg):\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero."),
        ("def get_config(arg):\n    assert False, 'no'\n", "line 2: AssertionError: no."),
        ("def get_config(arg:\n", "line 1: '(' was never closed."),
        ("import flashjax_nowhere\n", "line 1: ModuleNotFoundError: No module named 'flashjax_nowhere'."),
        ("x = 1\n", "has no attribute 'get_config'"),
        ("def get_config(arg):\n    return {}\n", "returned dict; it has to return a ConfigDict."),
    ],
)
def test_a_file_that_is_wrong(tmp_path, source, expected):
    path = tmp_path / "mine.py"
    path.write_text(source)
    text = message(f"--config={path}")
    assert str(path) in text
    assert expected in text


def test_a_folder_with_a_colon_in_its_name(tmp_path):
    (folder := tmp_path / "a:b").mkdir()
    shutil.copy("configs/postcards.py", folder)
    assert configs.load([f"--config={folder}/postcards.py"]).student_updates == 120
    assert configs.load([f"--config={folder}/postcards.py:quick"]).student_updates == 45


def test_arguments_take_the_type_of_their_default():
    assert configs.parse_arg("quick,res=64", quick=False, res=32) == ConfigDict(dict(quick=True, res=64))
    assert configs.parse_arg(None, quick=False).quick is False
    with pytest.raises(UserError, match="it takes none"):
        configs.parse_arg("x")


def test_errors_about_settings_keep_their_words():
    with pytest.raises(UserError, match=r"^as it was$"), about_settings():
        raise ValueError("as it was")
