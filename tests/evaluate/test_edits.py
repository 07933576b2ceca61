"""Edit metrics: the exact edit is perfect, the untouched source fails in the edit alone, and stains outside count."""

import numpy as np
import pytest
from scipy import ndimage

from flashjax.data import postcards
from flashjax.errors import UserError
from flashjax.evaluate import classifier, edits, edits_page


def record(category, index):
    card = postcards.make(category, "heldout", index, 0)
    return dict(
        category=category, spec=card.spec, edit_spec=card.edit_spec, changed=card.changed,
        source=postcards.render(card, 32), image=postcards.render_edit(card, 32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def records():
    return [record(category, i) for category in postcards.CATEGORIES for i in range(24)]


@pytest.fixture(scope="module")
def judge(request):
    return classifier.load(request.config.rootpath / "weights/postcards_classifier")


def test_exact_edits_and_untouched_sources(records, judge, monkeypatch):
    monkeypatch.setattr(edits.ocr, "word_hits", lambda images, words: np.array([i.sum() % 2 for i in images], bool))
    told = edits.figures({}, records, judge)
    exact, nothing = told["exact"], told["nothing done"]
    assert exact["outside"]["value"] < 1e-12  # outside is where the exact edit changes nothing
    assert nothing["outside"]["value"] == 0
    assert exact["success"]["value"] > 0.8 > 0.3 > nothing["success"]["value"]
    assert min(exact["kept"]["value"], nothing["kept"]["value"]) > 0.9
    words = sum(r["changed"] == "word" for r in records)
    assert exact["text"]["count"] == words > 0
    assert exact["success"]["count"] == len(records)
    assert set(exact["success_by_category"]) == set(postcards.CATEGORIES)


def test_the_page_shows_what_was_not_done(records, judge, monkeypatch, tmp_path):
    monkeypatch.setattr(edits.ocr, "word_hits", lambda images, words: np.zeros(len(words), bool))
    told_records = [{**r, "instruction": f"edit <{i}>"} for i, r in enumerate(records)]
    sets = {"good": np.stack([r["image"] for r in records]), "idle": np.stack([r["source"] for r in records])}
    told = edits.figures(sets, told_records, judge)
    words = [i for i, r in enumerate(records) if r["changed"] == "word"]
    assert told["good"]["text"]["value"] == 0 and told["good"]["text"]["high"] > 0.2  # of few words nothing is certain
    assert set(words) <= set(told["good"]["failed"]) < set(told["idle"]["failed"])
    edits_page.write_page(tmp_path / "page.html", told, sets, told_records, "flashjax evaluate-edits")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Not done: idle" in page
    assert f"edit &lt;{told['idle']['failed'][0]}&gt;" in page
    assert "Done as told, by category" in page
    assert "To repeat it" not in page
    assert page.count("<img") == 4 * (6 * len(postcards.CATEGORIES) + 12)


def test_a_changed_word_is_judged_by_what_can_be_read(records, judge, monkeypatch):
    asked = []

    def read(images, words):
        asked.extend(words)
        return np.array([i % 2 == 0 for i in range(len(words))])

    monkeypatch.setattr(edits.ocr, "word_hits", read)
    found = edits.scores(np.stack([r["image"] for r in records]), records, judge)
    words = [i for i, r in enumerate(records) if r["changed"] == "word"]
    assert asked == [records[i]["edit_spec"]["word"] for i in words]
    assert found["success"][words].tolist() == [float(i % 2 == 0) for i in range(len(words))]
    assert np.isnan(np.delete(found["text"], words)).all()


def test_of_one_edit_there_is_no_interval(records, judge, monkeypatch, tmp_path):
    """It read as certain: 0.000 [0.000, 0.000]."""
    monkeypatch.setattr(edits.ocr, "word_hits", lambda images, words: np.zeros(len(words), bool))
    one = next(r for r in records if r["changed"] == "word") | dict(instruction="make it LAKE")
    told = edits.figures({"set": one["image"][None]}, [one], judge)
    assert told["set"]["success"] == told["set"]["text"] == dict(value=0.0, low=None, high=None, count=1)
    assert ("set", "text", 0.0, "", "") in list(edits.lines(told))
    edits_page.write_page(tmp_path / "page.html", told, {"set": one["image"][None]}, [one], "flashjax evaluate-edits")
    assert "set: 0.0% of the edits are done as told" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_error_outside_is_measured_outside():
    source, exact = np.zeros((2, 8, 8, 3), np.uint8)
    exact[:, :3] = 255
    card = dict(source=source, image=exact)
    anything = exact.copy()
    anything[:, :4] = 77  # within the change, and the column that touches it
    assert edits.outside_error([anything], [card])[0] == 0
    stained = anything.copy()
    stained[2, 6] = 51
    np.testing.assert_allclose(edits.outside_error([stained], [card])[0], 0.2 / 32)
    everything = dict(source=source, image=source + 1)
    assert np.isnan(edits.outside_error([source], [everything])[0])


def test_the_error_outside_is_scipys(records):
    """What the change touches is its dilation by a pixel to all eight sides."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, r["source"].shape, np.uint8) for r in records]
    expected = []
    for image, card in zip(images, records, strict=True):
        near = ndimage.binary_dilation(np.any(card["source"] != card["image"], -1), np.ones((3, 3)))
        errors = np.abs(np.int16(image) - np.int16(card["source"]))[~near]
        expected.append(errors.mean() / 255 if errors.size else np.nan)
    np.testing.assert_allclose(edits.outside_error(images, records), expected, rtol=0, atol=1e-6)


def test_pictures_and_edits_are_of_one_number(records, judge):
    with pytest.raises(UserError, match="1 pictures of 72 edits"):
        edits.scores(records[0]["image"][None], records, judge)
