"""Public benches in the formats of their files."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from flashjax import cli
from flashjax.bench import importing, plan, prompts
from flashjax.errors import UserError


def test_dpg(tmp_path):
    for name, text in (("12", "a red car\n"), ("7", "a bench")):
        (tmp_path / f"{name}.txt").write_text(text)
    assert [(p.id, p.prompt, p.category) for p in importing.take("dpg", tmp_path, tmp_path)] == [
        ("12", "a red car", "dense"), ("7", "a bench", "dense"),
    ]  # fmt: skip


def test_longtext(tmp_path):
    rows = [dict(prompt_id=0, prompt='a sign "OPEN"', text=["OPEN"]), dict(prompt_id=1, prompt="招牌", text="茶")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = importing.take("longtext", tmp_path / "x.jsonl", tmp_path)
    assert (first.id, first.texts, first.language) == ("longtext-0", ("OPEN",), "en")
    assert (second.texts, second.language) == (("茶",), "zh")


def test_dpg_that_is_no_utf_8(tmp_path):
    (tmp_path / "1.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match=r"1\.txt is no text in UTF-8"):
        importing.take("dpg", tmp_path, tmp_path)


def imgedit(tmp_path, **changes):
    rows = {"1": dict(id="animal/0.png", prompt="add a hat", edit_type="add") | changes}
    (tmp_path / "basic_edit.json").write_text(json.dumps(rows))
    return tmp_path / "basic_edit.json"


def test_imgedit_from_the_command_to_its_sources(tmp_path, capsys):
    (tmp_path / "pictures" / "animal").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "animal" / "0.png")
    argv = ["bench", "prompts", f"--out={tmp_path}/out", "--take", "imgedit", str(imgedit(tmp_path))]
    assert cli.main(argv) == 2
    assert "need --images" in capsys.readouterr().err
    assert cli.main([*argv, f"--images={tmp_path}/pictures"]) == 0
    written = tmp_path / "out" / "imgedit.jsonl"
    (edit,) = bench = prompts.read_bench(written)
    assert (edit.category, edit.is_edit) == ("object", True)
    assert plan.find_sources(bench, written, None)[edit.id][0].path.resolve().name == "0.png"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(edit_type="teleport"), "Edit 1 of .* is no prompt: teleport is no category of edits"),
        (dict(id="../../etc/passwd"), "Edit 1 of .* is no prompt: source is no text"),
        (dict(id="/etc/passwd"), "Edit 1 of .* is no prompt: source is no text"),
        (dict(prompt=None), "Edit 1 of .* is no prompt: prompt is no text"),
    ],
)
def test_bad_edits_are_named(tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason):
        importing.take("imgedit", imgedit(tmp_path, **changes), tmp_path, tmp_path)


@pytest.mark.parametrize(("data", "reason"), [(None, "does not exist"), (b"no", "is not an image, or is damaged")])
def test_sources_of_imgedit_have_to_open(tmp_path, data, reason):
    if data:
        (tmp_path / "animal").mkdir()
        (tmp_path / "animal" / "0.png").write_bytes(data)
    with pytest.raises(UserError, match=f"Edit 1 of .* is no prompt: its source .*0.png {reason}"):
        importing.take("imgedit", imgedit(tmp_path), tmp_path, tmp_path)


def test_all_bad_lines_are_named(tmp_path):
    rows = [dict(prompt_id=i, prompt="x" if i % 2 else "") for i in range(30)] + [3, dict(prompt_id=1, prompt="y")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError) as told:
        importing.take("longtext", tmp_path / "x.jsonl", tmp_path)
    assert str(told.value).startswith("Line 1 of ")
    assert "Line 3 of " in str(told.value)
    assert str(told.value).endswith(" And 7 more.")
    with pytest.raises(UserError, match="There is no "):
        importing.take("dpg", tmp_path / "none", tmp_path)
    with pytest.raises(UserError, match="holds no prompts in the format dpg"):
        importing.take("dpg", tmp_path, tmp_path)


def parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def gedit_row(key="k1", **changes):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    row = dict(key=key, task_type="subject-add", instruction="add a hat", instruction_language="en")
    return row | dict(input_image=dict(bytes=picture.getvalue(), path=None), Intersection_exist=True) | changes


def test_gedit_with_its_pictures(tmp_path):
    rows = [gedit_row(), gedit_row("k2", task_type="text_change", instruction="改成“茶”", instruction_language="cn")]
    parquet(tmp_path / "train.parquet", rows)
    (tmp_path / "out").mkdir()
    argv = ["bench", "prompts", f"--out={tmp_path}/out", "--take", "gedit", str(tmp_path)]
    assert cli.main(argv) == 0
    bench = prompts.read_bench(tmp_path / "out" / "gedit.jsonl")
    assert [(p.id, p.category, p.language) for p in bench] == [
        ("gedit-k1-en", "object", "en"), ("gedit-k2-zh", "text", "zh"),
    ]  # fmt: skip
    found = plan.find_sources(bench, tmp_path / "out" / "gedit.jsonl", None)
    assert {p.path.resolve().parent.name for pictures in found.values() for p in pictures.values()} == {"sources"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(task_type="fly"), "Row 1 of .* is no prompt: fly is no category of edits"),
        (dict(key="../x"), "Row 1 of .* is no prompt: its id is missing, or is more than letters"),
        (dict(input_image=None), "Row 1 of .* is no prompt: it has no source picture"),
        (dict(input_image=dict(bytes=b"no")), "Row 1 of .* is no prompt: its source is not an image, or is damaged"),
        (dict(instruction=None), "Row 1 of .* is no prompt: prompt is no text"),
    ],
)
def test_bad_rows_of_gedit_are_named(tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason):
        importing.take("gedit", parquet(tmp_path / "a.parquet", [gedit_row(**changes)]), tmp_path / "out")
    assert not [*tmp_path.rglob("*.png")]


def test_gedit_has_a_key_in_two_languages(tmp_path):
    rows = [gedit_row(), gedit_row(instruction="加一顶帽子", instruction_language="cn")]
    made = importing.take("gedit", parquet(tmp_path / "a.parquet", rows), tmp_path)
    assert [p.id for p in made] == ["gedit-k1-en", "gedit-k1-zh"]
    assert all((tmp_path / p.source).exists() for p in made)


def test_parquet_of_ones_own(tmp_path):
    rows = [
        dict(id="a", category="text", prompt='a sign "OPEN"', facts=["It reads OPEN."], texts=["OPEN"], source=None),
        dict(id="b", category="scene", prompt="make it night", facts=[], texts=None, source="b.png"),
    ]
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    first, second = importing.take("parquet", parquet(tmp_path / "a.parquet", rows), tmp_path / "out")
    assert (first.texts, first.facts, first.is_edit) == (("OPEN",), ("It reads OPEN.",), False)
    assert (tmp_path / "out" / second.source).resolve() == tmp_path / "b.png"
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        importing.take("parquet", tmp_path / "b.parquet", tmp_path)


def test_jsonl_of_ones_own(tmp_path):
    """A prompt is enough; whatever else a prompt has is taken as it is."""
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    rows = [dict(prompt="a red car"), dict(id="b", category="scene", prompt="make it night", source="b.png")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "out").mkdir()
    first, second = importing.take("jsonl", tmp_path / "x.jsonl", tmp_path / "out")
    assert (first.id, first.category, first.is_edit) == ("own-0001", "own", False)
    assert (tmp_path / "out" / second.source).resolve() == tmp_path / "b.png"


def test_the_command_imports_jsonl(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text('{"prompt": "a red car"}\n{"prompt": "a bench"}\n')
    argv = ["bench", "prompts", f"--out={tmp_path}/out", "--take", "jsonl", f"{tmp_path}/x.jsonl"]
    assert cli.main(argv) == 0
    assert [p.prompt for p in prompts.read_bench(tmp_path / "out" / "jsonl.jsonl")] == ["a red car", "a bench"]
    (tmp_path / "x.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "category": "scene", "source_prompt": "c"}\n')
    assert cli.main([*argv[:2], f"--out={tmp_path}/new", *argv[3:]]) == 2
    assert "x.jsonl mixes edits, which name a source, with text to image" in capsys.readouterr().err
    assert not (tmp_path / "new" / "jsonl.jsonl").exists()
    for more, reason in (
        ("--images=.", "--images names the source pictures of --take imgedit"),
        ("--budget=3", "--budget does nothing without --endpoint"),
        ("--t2i=3", "--t2i does nothing with --take, which imports all"),
        ("--endpoint=w.json", "--take imports a bench and --endpoint has one written"),
    ):
        assert cli.main([*argv[:2], f"--out={tmp_path}/new", *argv[3:], more]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (dict(prompt="x", facts="abc"), "Line 1 of .* is no prompt: facts is no list of texts"),
        (dict(prompt="a cat \ud83d on a roof"), "Line 1 of .* is no prompt: it holds half a character"),
        (dict(prompt="x", facts=["y", "\udc00"]), "Line 1 of .* is no prompt: it holds half a character"),
        (dict(prompt="x", texts="abc"), "Line 1 of .* is no prompt: texts is no list of texts"),
        (dict(prompt="x", fact=["a"]), "Line 1 of .* is no prompt: it has unknown fields: fact"),
        (dict(caption="x"), "Line 1 of .* is no prompt: it has unknown fields: caption"),
        (dict(prompt="x", category="scene", source="no.png"), "Line 1 of .*: its source .*no.png does not exist"),
        ("x", "Line 1 of .* is no prompt: it is no object"),
    ],
)
def test_bad_lines_of_ones_own_are_named(tmp_path, row, reason):
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=reason):
        importing.take("jsonl", tmp_path / "x.jsonl", tmp_path)
