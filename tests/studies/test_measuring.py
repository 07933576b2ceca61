"""What a study keeps of a cell: one value a prompt, in the order of the prompts, and None where there is none."""

import json
import types

import numpy as np
import pytest

from flashjax.data import postcards, records
from flashjax.errors import UserError
from flashjax.evaluate import classifier
from flashjax.studies import measuring


@pytest.fixture(scope="module")
def judge(request):
    return classifier.load(request.config.rootpath / "weights/postcards_classifier")


@pytest.fixture
def cards():
    made = [postcards.make(category, "heldout", i, 0) for i in range(8) for category in postcards.CATEGORIES]
    return [
        dict(category=c.category, named=c.named, caption=c.caption, spec=c.spec, edit_spec=c.edit_spec,
             changed=c.changed, instruction=c.instruction, image=postcards.render(c, 32))
        for c in made
    ]  # fmt: skip


@pytest.fixture
def reads_everything(monkeypatch):
    monkeypatch.setattr(measuring.ocr, "word_hits", lambda images, words: np.ones(len(images), bool))


def test_values_stand_with_their_prompts(judge, cards, reads_everything):
    values = measuring.prompt_values(np.stack([c["image"] for c in cards]), cards, judge)
    assert {len(each) for each in values.values()} == {24}
    assert set(values) == {"adherence", "saturation", "word", *(f"adherence, {kind}" for kind in postcards.CATEGORIES)}
    for kind in postcards.CATEGORIES:
        own = [v for v, c in zip(values[f"adherence, {kind}"], cards, strict=True) if c["category"] == kind]
        assert own == [v for v, c in zip(values["adherence"], cards, strict=True) if c["category"] == kind]
        assert sum(v is not None for v in values[f"adherence, {kind}"]) == sum(v is not None for v in own)
    assert [v is None for v in values["word"]] == ["word" not in c["named"] for c in cards]
    assert np.mean([v for v in values["adherence"] if v is not None]) > 0.9  # the true pictures


def test_both_tasks_are_drawn_and_measured(judge, cards, reads_everything, monkeypatch, tmp_path):
    """A pipeline that paints what it should: a postcard for a caption, the exact edit for an instruction."""
    edits = [c | dict(source=c["image"], image=255 - c["image"]) for c in cards]
    asked = {}

    def draw(prompts, seeds, encoder, images=None, **settings):
        asked["edits" if images is not None else "prompts"] = (prompts, seeds, images)
        return np.stack([c["image"] for c in (edits if images is not None else cards)])

    monkeypatch.setattr(measuring.classifier, "load", lambda path: judge)
    monkeypatch.setattr(measuring.text, "default_encoder", lambda: None)
    monkeypatch.setattr(measuring.pipeline, "load", lambda path: types.SimpleNamespace(draw=draw))
    kept = []

    def draw_kept(pipe, prompts, seeds, encoder, folder, **settings):
        kept.append(folder)
        return pipe.draw(list(prompts), list(seeds), encoder, **settings)

    monkeypatch.setattr(measuring.study, "draw_kept", draw_kept)
    given = {("a", "data"): cards, ("b", "edit_data"): edits}
    monkeypatch.setattr(measuring.study, "load_cards", lambda path, limit, kind="data": given[path, kind])
    cell = types.SimpleNamespace(folder=tmp_path, config={}, again=False)
    values = measuring.measure("run", cell, data="a", edit_data="b")["values"]
    assert {"edit success", "edit kept", "edit outside", "edit text", "adherence"} <= set(values)
    assert {len(each) for each in values.values()} == {24}
    assert asked["prompts"][0] == [c["caption"] for c in cards]
    assert asked["edits"][0] == [c["instruction"] for c in cards]
    np.testing.assert_array_equal(asked["edits"][2], np.stack([c["source"] for c in edits]))
    assert asked["prompts"][1] == asked["edits"][1] == list(range(1, 25))
    assert (tmp_path / "pictures.png").is_file()
    assert kept == [tmp_path / "drawn"]  # a student's own; a teacher's are kept for all studies


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "measures nothing; give its 'measure' the paths"), (dict(edit_data="a", teacher="b"), "give it data, or"),
        (dict(dta="a"), "The study's 'measure' has no 'dta'; it takes classifier_path, data, edit_data, limit"),
        (dict(data="held"), "There is no data of the study's 'measure' at held"),
        (dict(data="set", limit="9"), "has the limit '9', which has to be a whole number"),
        (dict(data="set", limit=99), "has the limit 99, and .*set.arrayrecord has 24 records"),
        (dict(edit_data="set"), "holds records of another kind"),
        (dict(data="small"), r"pictures of 32 px, but there are others in .*small.arrayrecord \(8 px\)"),
        (dict(data="set", side=64), r"32 px, but there are others in the runs of a \(64 px\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_told_before_training(settings, said, monkeypatch, cards, judge, tmp_path):
    """It was trained for minutes, cell after cell, and failed then."""
    monkeypatch.setattr(measuring, "train", lambda *given: pytest.fail("it was trained"))
    monkeypatch.setattr(measuring.classifier, "load", lambda path: judge)
    for name, step in (("set", 1), ("small", 4)):
        made = [c | dict(index=i, image=np.ascontiguousarray(c["image"][::step, ::step])) for i, c in enumerate(cards)]
        records.write_records(tmp_path / f"{name}.arrayrecord", made)
    run = types.SimpleNamespace(image_size=settings.pop("side", 32))
    paths = {"set": str(tmp_path / "set.arrayrecord"), "small": str(tmp_path / "small.arrayrecord")}
    settings = {key: paths.get(value, value) for key, value in settings.items()}
    with pytest.raises(UserError, match=said):
        measuring.train_and_measure(types.SimpleNamespace(name="a", config=run), settings)


def test_a_limit_may_be_above_the_smaller_of_two_sets(cards, judge, tmp_path, monkeypatch):
    """As that of configs/studies/mixture.py, of 450 prompts and 300 edits."""
    monkeypatch.setattr(measuring.classifier, "load", lambda path: judge)
    monkeypatch.setattr(measuring.ocr, "reader", lambda: None)
    edits = [c | dict(source=c["image"]) for c in cards[:8]]
    for name, made in (("cards", cards), ("edits", edits)):
        numbered = [c | dict(index=i) for i, c in enumerate(made)]
        records.write_records(tmp_path / f"{name}.arrayrecord", numbered)
    sets = dict(data=f"{tmp_path}/cards.arrayrecord", edit_data=f"{tmp_path}/edits.arrayrecord")
    for limit in (20, np.int64(24)):
        measuring.check(sets | dict(limit=limit), {})
    with pytest.raises(UserError, match="has the limit 25, and .*cards.arrayrecord has 24 records"):
        measuring.check(sets | dict(limit=25), {})


def test_a_teacher_is_what_sets_are_far_from(judge, cards, reads_everything, monkeypatch, tmp_path):
    """The same pictures are at no distance and the same from all seeds; gray ones are far away."""
    true = np.stack([c["image"] for c in cards])
    drawn = {"teacher": true, "same": true, "gray": np.full_like(true, 128)}
    monkeypatch.setattr(measuring.classifier, "load", lambda path: judge)
    monkeypatch.setattr(measuring.text, "default_encoder", lambda: None)
    monkeypatch.setattr(measuring.pipeline, "load", lambda path: path)
    monkeypatch.setattr(measuring.study, "load_cards", lambda path, limit: cards)
    asked = {}

    def draw_kept(pipe, prompts, seeds, encoder, folder, **settings):
        asked.setdefault(pipe, []).append(set(seeds))
        return drawn[pipe][np.arange(len(prompts)) % len(true)]

    monkeypatch.setattr(measuring.study, "draw_kept", draw_kept)
    cell = types.SimpleNamespace(folder=tmp_path, config=None, again=False)
    same, gray = (measuring.measure(name, cell, data="a", teacher="teacher")["values"] for name in ("same", "gray"))
    names = {"Fréchet", *(f"Fréchet, {kind}" for kind in postcards.CATEGORIES)}
    assert names | {"diversity"} <= set(same)
    for name in names:
        assert same[name] == [pytest.approx(0, abs=1e-6)]
        assert gray[name][0] > 1
    assert len(same["diversity"]) == 18
    assert not asked["teacher"][0] & asked["same"][0]  # else a student that shares its noise is nearer for that


def test_finished_cells_have_to_have_read_the_same(tmp_path, monkeypatch):
    """By path alone, a set that was prepared anew was subtracted prompt by prompt from the one before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "weights").write_text("x")
    manifest = dict(count=450, split="heldout", sha256="of this machine", bytes=3)
    (tmp_path / "heldout.json").write_text(json.dumps(manifest))
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "weights").write_text("t")
    settings = dict(data="heldout.arrayrecord", classifier_path="judge", teacher="teacher")
    monkeypatch.setattr(measuring.ocr, "reader", lambda: "one that reads 1.0")

    def cell(name, **given):
        return types.SimpleNamespace(name=name, seed=0, config=None, result=given or None)

    given = measuring.read(cell("a"), settings)
    assert given["heldout.arrayrecord"] == dict(count=450, split="heldout") and len(given["judge"]) == 16
    measuring.check_read([cell("a", read=given), cell("old"), cell("missing")], settings)
    other = given | {"heldout.arrayrecord": dict(count=900, split="heldout")}
    with pytest.raises(UserError, match=r"cell b, seed 0, read another heldout.arrayrecord .*\(it differs in count\)"):
        measuring.check_read([cell("a", read=given), cell("b", read=other)], settings)
    for path in ("judge", "teacher"):  # a distance to another teacher is another figure
        before = (tmp_path / path / "weights").read_text()
        (tmp_path / path / "weights").write_text("trained anew")
        with pytest.raises(UserError, match=f"cell a, seed 0, read another {path} than what is there now"):
            measuring.check_read([cell("a", read=given)], settings)
        (tmp_path / path / "weights").write_text(before)
    with pytest.raises(UserError, match="cell b, seed 0, read another OCR than what is there now"):
        measuring.check_read([cell("b", read=given | {"OCR": "one that reads 0.9"})], settings)
    (tmp_path / "heldout.json").unlink()  # another machine, that only makes the page
    measuring.check_read([cell("a", read=given)], settings)
    with pytest.raises(UserError, match="cell b, seed 0, read another heldout.arrayrecord than a, seed 0, read"):
        measuring.check_read([cell("a", read=given), cell("b", read=other)], settings)
