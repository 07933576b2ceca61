"""Studies in several sittings: on other machines, under later code, by two processes, and a cell run again."""

import base64
import contextlib
import json
import re
import shutil
import types
from pathlib import Path

from rates import SHIPPED, STUDY, at_the_root, code_version, execute, run  # noqa: F401  at_the_root: of every test

from flashjax import cli
from flashjax.files import held
from flashjax.studies import contrasts, grid, kept, page


def test_shipped_pages_can_be_gone_on_from(tmp_path):
    """With the codes that docs/studies/README.md accepts: pages without their cells kept two studies from running."""
    said, docs = Path("docs/studies/README.md").read_text(), tmp_path / "docs"
    shutil.copytree("docs/studies", docs)
    for name in SHIPPED:
        asked = rf"^ +flashjax study configs/studies/{name}.py --docs docs/studies(?!.*--ce).*$"
        (command,) = re.findall(asked, said, re.M)
        accepted = command.partition("--accept ")[2].split()
        file = docs / f"{name}.jsonl"
        every = grid.cells(grid.load(f"configs/studies/{name}.py"), tmp_path, elsewhere := kept.read(file), accepted)
        kept.check_none_lost(file, elsewhere, every)
        assert {cell.name for cell in every if cell.result} == {cell["cell"] for cell in elsewhere.values()}
    # Every seed has all cells before the next begins.
    assert [cell.seed for cell in every] == sorted(cell.seed for cell in every)


def test_pages_and_comments_do_not_decide_the_numbers(tmp_path, monkeypatch):
    """A study goes on after its page was mended or a sentence was, and begins anew after the code of its numbers was.
    """
    copy, names = tmp_path / "flashjax", (*grid.OTHER_FILES, "bench/rubrics.py")
    decide = ("studies/measuring.py", "convert/table.py")
    for name in ("__init__.py", "flow.py", *decide, *names):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(grid.flashjax.__file__).parent / name, copy / name)
    monkeypatch.setattr(grid.flashjax, "__file__", str(copy / "__init__.py"))
    versions = [code_version()]
    for name in (*names, *decide):
        (copy / name).write_text((copy / name).read_text() + "\nCHANGED = True\n")
        versions.append(code_version())
    *others, _, last = versions
    assert len(set(others)) == 1
    assert len(set(versions)) == 1 + len(decide)
    said = (copy / "flow.py").read_text()
    again = said.replace('"""', '"""Now: ', 1)
    for text, same in ((f"# changed\n{said}", True), (again, True), (f"{said}x = 1", False)):
        (copy / "flow.py").write_text(text)
        assert (code_version() == last) is same


def test_a_study_goes_on_elsewhere_and_under_later_code(tmp_path, monkeypatch, capsys):
    """What one machine finished another has from the file beside the page, with its pictures; cells of earlier code are
    taken where they are named and never lost unasked."""
    file = tmp_path / "rates.py"
    file.write_text(
        "from flashjax.studies.grid import Study\n"
        "study = Study(title='T', question='Q', base='configs/postcards.py', cells={'a': {}, 'b': {}}, seeds=(0,))\n"
    )
    docs = tmp_path / "docs"

    def drawing(cell, settings):
        (cell.folder / "pictures.png").write_bytes(b"a picture of " + cell.name.encode())
        return execute(cell, settings)

    monkeypatch.setattr("flashjax.studies.measuring.train_and_measure", drawing)

    def study(machine, *more):
        status = cli.main(["study", str(file), "--out", str(tmp_path / machine), "--docs", str(docs), *more])
        return status, "".join(capsys.readouterr())

    assert study("first", "--cells", "a")[0] == 0
    written = {path: path.read_text() for path in docs.iterdir()}
    assert "done     a" in study("second", "--list")[1]
    assert not (tmp_path / "second").exists()
    assert {path: path.read_text() for path in docs.iterdir()} == written
    assert study("second", "--page")[0] == 0
    assert kept.read(docs / "rates.jsonl").keys() == {json.loads(written[docs / "rates.jsonl"])["key"]}
    monkeypatch.setattr(grid, "code_version", lambda: "later")
    status, said = study("second")
    assert status != 0
    found = kept.read(docs / "rates.jsonl")
    (earlier,) = {result["code"] for result in found.values()}
    assert "has 1 finished cells of other code, settings or weights than the study's (a). Take those" in said
    assert f"--accept {earlier}" in said
    assert kept.read(docs / "rates.jsonl") == found
    assert "b, seed 0: " in study("second", "--accept", earlier)[1]
    found = kept.read(docs / "rates.jsonl").values()
    assert [(result["cell"], result["code"]) for result in found] == [("a", earlier), ("b", "later")]
    pictures = re.findall("base64,([^\"]*)", (docs / "rates.html").read_text())
    assert [base64.b64decode(text) for text in pictures] == [b"a picture of a", b"a picture of b"]
    # A process of earlier code that began before the file was there loses nothing of what others wrote meanwhile.
    monkeypatch.setattr(grid, "code_version", lambda: earlier)
    kept.write(docs / "rates.jsonl", grid.cells(grid.load(file), tmp_path / "first"))
    found = kept.read(docs / "rates.jsonl").values()
    assert [(result["cell"], result["code"]) for result in found] == [("a", earlier), ("b", "later")]
    assert "nothing to repeat" in study("third", "--repeat", "--cells", "b")[1]
    # A cell that two versions have finished is one cell, and the file keeps both.
    monkeypatch.setattr(grid, "code_version", lambda: "later")
    list(grid.run(grid.cells(grid.load(file), tmp_path / "fourth")[:1], STUDY, drawing))
    assert study("fourth", "--accept", earlier, "--page")[0] == 0
    found = kept.read(docs / "rates.jsonl").values()
    assert [(result["cell"], result["code"]) for result in found] == [("a", "later"), ("b", "later"), ("a", earlier)]
    assert study("fourth", "--accept", earlier, "--page")[0] == 0
    (docs / "rates.jsonl").rename(tmp_path / "rates.jsonl")
    assert "rates.json tells of cells that" in study("second")[1]
    (docs / "rates.jsonl").write_text('{"key": "x"}\n')
    assert "rates.jsonl, line 1, is no finished cell: KeyError: 'cell'" in study("second")[1]


def test_kept_cells_have_the_pictures_that_the_page_shows(tmp_path):
    def drawing(cell, settings):
        (cell.folder / "pictures.png").write_bytes(cell.key.encode())
        return execute(cell, settings)

    every = grid.cells(STUDY, tmp_path)
    run(every, execute=drawing)
    kept.write(tmp_path / "x.jsonl", every)
    found = kept.read(tmp_path / "x.jsonl")
    sheets = [base64.b64decode(found[cell.key]["sheet"]).decode() for cell in every]
    assert sheets == [every[0].key, every[1].key, "", ""]
    elsewhere = grid.cells(STUDY, tmp_path / "elsewhere", found)
    assert [cell.result["values"] for cell in elsewhere] == [cell.result["values"] for cell in every]
    assert page.page(contrasts.summary(STUDY, elsewhere), elsewhere, "x") == page.page(
        contrasts.summary(STUDY, every), every, "x"
    )


def test_two_processes_with_one_file_lose_no_cell(tmp_path):
    """Each listed the cells before the other had finished its own."""
    first, second = grid.cells(STUDY, tmp_path / "first"), grid.cells(STUDY, tmp_path / "second")
    run(first[:1])
    run(second[1:2])
    for every in (first, second):
        kept.write(tmp_path / "x.jsonl", every)
    assert {told["cell"] for told in kept.read(tmp_path / "x.jsonl").values()} == {"slow", "fast"}


def test_code_that_changes_while_a_study_runs_does_not_hide_what_it_finished(tmp_path, monkeypatch, capsys):
    file = tmp_path / "rates.py"
    file.write_text(
        "from flashjax.studies.grid import Study\n"
        "study = Study(title='T', question='Q', base='configs/postcards.py', cells={'a': {}}, seeds=(0,))\n"
    )

    def editing(cell, settings):
        monkeypatch.setattr(grid, "code_version", lambda: "edited meanwhile")
        return execute(cell, settings)

    monkeypatch.setattr("flashjax.studies.measuring.train_and_measure", editing)
    assert cli.main(["study", str(file), "--out", str(tmp_path / "out")]) == 0
    assert "done     a, seed 0" in capsys.readouterr().out
    assert [told["code"] for told in kept.read(tmp_path / "out/rates.jsonl").values()] == ["of today"]


def test_a_cell_is_run_by_one_process(tmp_path, monkeypatch):
    """One that another process holds is left to it, and one that was finished meanwhile is not run again."""
    every, ran, now = grid.cells(STUDY, tmp_path), [], [0.0]
    monkeypatch.setattr(grid, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def other(cell, settings):
        now[0] += 600
        if not ran:  # the other process has the next cell, and finishes the one behind it
            every[1].folder.mkdir()
            opened.enter_context(held(every[1].folder / ".running"))
            every[2].folder.mkdir()
            (every[2].folder / "result.json").write_text("{}")
        ran.append(cell.name + str(cell.seed))
        return execute(cell, settings)

    with contextlib.ExitStack() as opened:
        lines = run(every, execute=other)
    assert ran == ["slow0", "fast1"]
    assert "another process is running it" in lines[1]
    assert lines[2].endswith("finished meanwhile; 1 cells to go, about 10 min")  # not 3: it ran one in 10 minutes


def test_a_cell_that_is_run_again_is_compared(tmp_path):
    every = grid.cells(STUDY, tmp_path)
    run(every[:1])
    told = grid.repeat(every[0], STUDY, execute, tmp_path / "same")
    assert told.endswith(": all 2 figures and curves are the same to the last digit")

    def other(cell, settings):
        assert cell.again
        return dict(values=dict(score=[1.0]))

    told = grid.repeat(every[0], STUDY, other, tmp_path / "other")
    assert told.startswith("slow, seed 0, of code ")
    assert told.endswith("2 of 2 figures and curves differ: score, word")  # and what it does not tell any more
