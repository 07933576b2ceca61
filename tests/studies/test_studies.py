"""Studies: cells kept by their hash, interruptions that lose nothing, contrasts in pairs, and the files shipped."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rates import SHIPPED, STUDY, at_the_root, execute, run  # noqa: F401  at_the_root: of every test

from flashjax import cli
from flashjax.checkpoint import flat
from flashjax.config import weights_of
from flashjax.errors import UserError
from flashjax.recipe import make_recipe, make_table
from flashjax.settings import check_settings
from flashjax.studies import contrasts, grid, page
from flashjax.workdir import identity


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_are_runs_that_can_be(name, tmp_path):
    every = grid.cells(study := grid.load(f"configs/studies/{name}.py"), tmp_path)
    assert len(every) == len(study.cells) * len(study.seeds) + len(study.drawn)
    assert len({cell.folder for cell in every}) == len(every)
    every = every[len(study.drawn) :]
    for cell in every[: len(study.cells)]:
        check_settings(cell.config)
        assert len(make_table(cell.config, make_recipe(cell.config.distill)))
        for path in weights_of(cell.config):
            assert Path(path).exists() or not path.startswith("weights/"), f"{path} is not in the repository"


def test_a_cell_of_what_is_open_differs_in_one_setting(tmp_path):
    first, *others = (cell.config for cell in grid.cells(grid.load("configs/studies/open_questions.py"), tmp_path)[1:])
    names, before = set(), flat(first.distill.to_dict())
    for config in others[:14]:
        now = flat(config.distill.to_dict())
        changed = {key for key in before | now if before.get(key) != now.get(key)}
        names |= {frozenset(changed - {"student_times.low", "student_times.high"})}
    kind = frozenset({"student_times.kind", "student_times.mean", "student_times.std"})
    guided = frozenset({"guidance.times", "guidance.scales"})
    shared = frozenset({"critic_rows", "critic_updates_per_rollout", "share_sample"})
    assert {name for name in names if len(name) > 1} == {kind, guided, shared}
    # Of the cell in which nothing is shared, too, five critic updates follow one of the student's.
    ratios = [c.distill.critic_rows * c.distill.critic_updates_per_rollout + c.distill.share_sample for c in others]
    assert ratios[:3] == [1, 9, 5]


def test_a_cell_is_its_configuration(tmp_path):
    every = grid.cells(STUDY, tmp_path)
    assert [(c.name, c.seed, c.config.student_optim.lr, c.config.seed) for c in every] == [
        ("slow", 0, 1e-5, 0), ("fast", 0, 1e-3, 0), ("slow", 1, 1e-5, 1), ("fast", 1, 1e-3, 1),
    ]  # fmt: skip
    weighted = dataclasses.replace(STUDY, cells={"a": {"sources.prompts.weight": {"text": 1.0}}}, contrasts=())
    assert grid.cells(weighted, tmp_path)[0].config.sources.prompts.weight.to_dict() == {"text": 1.0}
    plain, numpys = (grid.configured(STUDY, {"distill.shift": kind(3)}, 0) for kind in (float, np.float32))
    assert identity(numpys) == identity(plain)
    for key in ("student_optm.lr", "student_optim.lrr", "seed.x"):
        with pytest.raises(UserError, match=f"sets config.{key}, which configs/postcards.py does not have"):
            grid.cells(dataclasses.replace(STUDY, settings={key: 1}), tmp_path)


def test_an_interrupted_study_loses_no_finished_cell(tmp_path, monkeypatch):
    every, ran = grid.cells(STUDY, tmp_path), []

    def interrupted(cell, settings):
        ran.append(cell.name + str(cell.seed))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return execute(cell, settings)

    with pytest.raises(KeyboardInterrupt):
        run(every, execute=interrupted)
    assert [cell.result is not None for cell in every] == [True, True, False, False]
    assert "4 cells, 2 missing" in grid.status(every)
    assert "missing  slow, seed 1" in grid.status(every)
    lines = run(grid.cells(STUDY, tmp_path), execute=interrupted)
    assert ran == ["slow0", "fast0", "slow1", "slow1", "fast1"]
    assert lines[-1].endswith("0 cells to go, about 0 min")
    assert run(every) == []
    # Another configuration, other code, or another measurement are other cells.
    other = dataclasses.replace(STUDY, settings={"batch_size": 12})
    measured = dataclasses.replace(STUDY, measure=dict(limit=3))
    assert all(cell.result is None for s in (other, measured) for cell in grid.cells(s, tmp_path))
    monkeypatch.setattr(grid, "code_version", lambda: "another")
    assert all(cell.result is None for cell in grid.cells(STUDY, tmp_path))


def test_parts_are_all_cells_once(tmp_path):
    every = grid.cells(STUDY, tmp_path)
    parts = [grid.chosen(every, part=(i, 3)) for i in (1, 2, 3)]
    assert sorted(c.folder for part in parts for c in part) == sorted(c.folder for c in every)
    assert [c.name for c in grid.chosen(every, ["fast"])] == ["fast", "fast"]
    with pytest.raises(UserError, match="There is no cell 'fats'; there are fast, slow"):
        grid.chosen(every, ["fats"])


def test_contrasts_are_paired(tmp_path):
    every = grid.cells(STUDY, tmp_path)
    run(every[:3])  # "fast" with seed 0 only
    told = contrasts.summary(STUDY, every)
    score = told["contrasts"]["fast - slow"]["score"]
    # Difficulties differ by 0.7 from prompt to prompt; in pairs nothing of that is left.
    assert score["value"] == pytest.approx(0.2)
    assert score["high"] - score["low"] < 1e-9
    assert (score["seeds"], score["prompts"]) == (1, 40)
    slow = told["figures"]["slow"]["score"]
    assert slow["seeds"] == 2
    assert slow["high"] - slow["low"] > 0.05
    assert told["figures"]["slow"]["word"]["prompts"] == 1
    assert told["missing"] == ["fast, seed 1"]
    table = contrasts.markdown(told, "flashjax study x.py")
    assert "| fast - slow | 1 | 0.200 (0.200 to 0.200) |" in table  # of one run: nothing is said of runs
    assert "Missing: fast, seed 1." in table
    assert f"3 cells in 0 minutes (0 to 0 each): 3 by code {grid.code_version()} on " in table
    told["contrasts"]["fast - slow"]["score"]["seeds"] = 3
    assert "| fast - slow | 3 | **0.200 (0.200 to 0.200)** |" in contrasts.markdown(told, "x")
    made = page.page(told, every, "flashjax study <x>.py")
    assert "flashjax study &lt;x&gt;.py" in made
    assert made.count('class="clear"') == 1  # of all cells the one contrast of three seeds
    assert "http" not in made


def test_an_interval_knows_that_seeds_differ():
    """Three seeds far apart, prompts all alike: Student's t of three, 4.303 times the error of their mean. A figure of
    whole sets, of which a seed has one, is the same case; one seed of it has no interval at all, and no contrast of it
    is ever clear of 0. Of one seed, and of seeds that agree, prompts are resampled."""
    half = 4.302653 * 0.5 / 3**0.5
    for prompts in (50, 1):
        wide = contrasts.interval(np.repeat([[0.0], [0.5], [1.0]], prompts, axis=1))
        assert wide[1:] == pytest.approx((0.5 - half, 0.5 + half))
    prompts = np.random.default_rng(0).normal(0, 1, (1, 100))
    one, three = contrasts.interval(prompts), contrasts.interval(np.repeat(prompts, 3, axis=0))
    assert one.high - one.low == pytest.approx(2 * 1.96 * prompts.std() / 10, rel=0.1)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)
    assert np.isnan(contrasts.interval(np.ones((1, 1)))[1:]).all()
    assert not contrasts.clear(dict(value=1.0, low=None, high=None, seeds=3))
    figure = dict(value=1.0, low=0.5, high=1.5)
    assert [contrasts.clear(figure | dict(seeds=n)) for n in (1, 2, 3)] == [False, False, True]
    assert not contrasts.clear(figure | dict(low=-0.5, seeds=3))
    assert contrasts.formatted(dict(value=1.0, low=None, high=None)) == "1.000"


def test_models_that_are_there_are_measured_once_and_not_trained(tmp_path):
    study = dataclasses.replace(STUDY, drawn={"teacher": "weights/x"}, contrasts=(("slow", "teacher"),))
    every = grid.cells(study, tmp_path)
    assert [(c.name, c.model, c.config is None) for c in every[:2]] == [
        ("teacher", "weights/x", True),
        ("slow", "", False),
    ]
    assert len(every) == 5
    (model := tmp_path / "model").mkdir()
    folders = []
    for content in ("one", "another"):  # a model that was made anew is another cell
        (model / "weights").write_text(content)
        folders.append(grid.cells(dataclasses.replace(STUDY, drawn={"teacher": str(model)}), tmp_path)[0].folder)
    assert len(set(folders)) == 2
    run(every, study)
    told = contrasts.summary(study, every)
    assert told["figures"]["teacher"]["score"]["seeds"] == told["contrasts"]["slow - teacher"]["score"]["seeds"] == 1
    assert [cell["model"] for cell in told["cells"] if "model" in cell] == ["weights/x"]
    with pytest.raises(UserError, match="has 'slow' twice"):
        dataclasses.replace(STUDY, drawn={"slow": "weights/x"})


def test_curves_are_means_over_the_seeds(tmp_path):
    def with_curves(cell, settings):
        more = {"watch/edit_kept": ([10, 20], [0.5, 0.5])} if cell.seed == 0 else {}
        more["watch/adherence"] = ([10, 20], [0.5, 0.5]) if cell.seed == 0 else ([20], [0.5])  # drawn less often
        return execute(cell, settings) | dict(curves={"watch/frechet": ([10, 20], [cell.seed, 2.0])} | more)

    every = grid.cells(STUDY, tmp_path)
    run(every, execute=with_curves)
    told = contrasts.summary(STUDY, every)
    assert told["curves"].keys() == {"watch/frechet"}  # what not all seeds have has no mean over the seeds
    assert told["curves"]["watch/frechet"]["slow"] == ([10, 20], [0.5, 2.0])
    made = page.page(told, every, "x")
    assert made.count("<polyline") == 2
    assert "watch/frechet" in made


def test_the_command_lists_and_writes_and_runs_nothing_that_it_could_not_write(tmp_path, monkeypatch, capsys):
    file = tmp_path / "rates.py"
    file.write_text(
        "from flashjax.studies.grid import Study\n"
        "study = Study(title='T', question='Q', base='configs/postcards.py', cells={'a': {}}, seeds=(0,))\n"
    )
    asked = ["study", str(file), "--out", str(tmp_path / "out")]
    assert cli.main([*asked, "--list"]) == 0
    assert "1 cells, 1 missing" in capsys.readouterr().out
    for flags, said in (("--cells=b", "There is no cell 'b'; there are a."), ("--part=3/2", "--part 3/2 is none; wr")):
        assert cli.main([*asked, "--list", flags]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("flashjax.studies.measuring.train_and_measure", execute)
    assert cli.main(asked) == 0
    assert json.loads((tmp_path / "out/rates.json").read_text())["figures"]["a"]["score"]["seeds"] == 1
    written = {"rates.json", "rates.jsonl", "rates.html", "rates.md"}
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == written
    assert cli.main([*asked, "--docs", str(tmp_path / "docs")]) == 0
    assert {path.name for path in (tmp_path / "docs").iterdir()} == written
    monkeypatch.setattr("flashjax.studies.measuring.train_and_measure", None)
    for flags in (["--docs", str(file)], ["--out", str(file / "new")]):
        assert cli.main([*asked, *flags]) == 2
        assert f"cannot be written: {file} is a file; give another folder." in capsys.readouterr().err


def test_a_cell_that_cannot_be_run_keeps_no_other_from_it(tmp_path):
    def diverging(cell, settings):
        if cell.name == "fast":
            raise FloatingPointError("student_loss is nan at step 3; nothing was saved since.")
        if cell.seed == 1:
            raise FileNotFoundError("There is no manifest x.json; prepare the set again to get one.")
        return execute(cell, settings)

    lines = run(grid.cells(STUDY, tmp_path), execute=diverging)
    assert [": FAILED: student_loss is nan at step 3" in line for line in lines] == [False, True, False, True]
    assert ": FAILED: There is no manifest x.json" in lines[2]
    every = grid.cells(STUDY, tmp_path)
    assert [cell.result is None for cell in every] == [False, True, True, True]
    (every[0].folder / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result.json is damaged .*; delete it"):
        grid.status(every)


def test_a_cell_begins_with_the_weights_that_are_there(tmp_path):
    """A teacher that was trained anew under the same path makes other cells."""
    study = dataclasses.replace(STUDY, base="configs/postcards.py:study")
    (model := tmp_path / "model").mkdir()
    adapter, keys = tmp_path / "adapter.safetensors", set()
    given = {"base": {"weights": str(model)}, "faces": {"weights": str(adapter)}}
    for file, content in ((model / "weights", "one"), (model / "weights", "another"), (adapter, "a"), (adapter, "b")):
        file.write_text(content)
        keys.add(grid.cells(dataclasses.replace(study, settings={"distill.teachers": given}), tmp_path)[0].key)
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(contrasts=(("fast", "slwo"),)), "A contrast names the cell 'slwo'; there are slow, fast"),
        (dict(seeds=(0, 0)), "each seed once"),
        (dict(contrasts=(("fast", "slow", "fast"),)), "a contrast is of two of these"),
        (dict(contrasts=("slow",)), "a contrast is of two of these"),
        (dict(base=""), "name it as the study's base"),
        (dict(cells={4: {}}, contrasts=()), "are called by texts"),
        (dict(cells={"a": None}, contrasts=()), "The cell 'a' has to be a dict of settings"),
        (dict(cells={}, contrasts=()), "at least one cell or model to draw"),
    ],
)
def test_studies_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(STUDY, **changes)


def test_what_json_has_no_word_for_is_kept(tmp_path):
    """Numpy's seeds lost a cell that was trained and measured."""
    measure = dict(limit=np.int64(6), data=Path("a"))
    study = dataclasses.replace(STUDY, seeds=list(np.arange(2)), measure=measure, cells={"slow": {}}, contrasts=())
    told = run(grid.cells(study, tmp_path), study)
    assert len(told) == 2 and not any("FAILED" in line for line in told)
    found = [cell.result for cell in grid.cells(study, tmp_path)]
    assert [each["seed"] for each in found] == [0, 1]


def test_a_file_that_holds_no_study(tmp_path):
    file = tmp_path / "rates.py"
    for text, said in (("study = 3", "is of the type int; it has to be a flash"), ("", "has no attribute 'study'")):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            grid.load(str(file))
