"""Prompts of one's own: JSON lines, Parquet, edits with their pictures, and rows that cannot be used."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from flashjax.data import prepare, records
from flashjax.data.loader import make_loader
from flashjax.data.manifest import places, read_manifest
from flashjax.data.mixture import Mixture, open_sources
from flashjax.data.prompts import prepare_prompts, read_rows, read_square
from flashjax.data.writing import PrepareError


def encode(texts):
    return [np.full((len(t.split()) + 2, 4), len(t), np.float32) for t in texts]


def write(folder, rows, name="a.jsonl"):
    (folder / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return folder / name


def prepared(folder, *files, **changes):
    given = dict(name="own", size=8, encode=encode, encoder_name="words", progress=False) | changes
    return prepare_prompts(folder / "out", files, **given)


ROWS = [dict(prompt=f"a {word}", category=c) for word, c in (("fox", "text"), ("hen", "sea"), ("elk", "text"))]
ROWS.append(dict(prompt="a cat", category="sea"))


def test_json_lines_to_a_source(tmp_path):
    path = prepared(tmp_path, write(tmp_path, [*ROWS, ""]))
    manifest = read_manifest(path)
    assert (manifest["categories"], manifest["task"], manifest["size"]) == (["sea", "text"], "t2i", None)
    assert {name: at.tolist() for name, at in places(manifest).items()} == dict(sea=[0, 1], text=[2, 3])
    sources, _ = open_sources(dict(own=dict(path=str(path), weight=dict(sea=1, text=3))))
    mixture = Mixture(sources, np.zeros(2, int), np.zeros(2, int), batch_size=4, seed=0, classes=("text", "sea"))
    read = [mixture[n] for n in range(8)]
    assert [r["category_id"] for r in read].count(1) == 2
    assert {(r["category"], r["category_id"]) for r in read} == {("sea", 1), ("text", 0)}
    assert {r["caption"] for r in read} <= {row["prompt"] for row in ROWS}
    assert prepared(tmp_path, tmp_path / "a.jsonl") == path  # there already
    write(tmp_path, ROWS[:2])
    with pytest.raises(PrepareError, match="already holds another set"):
        prepared(tmp_path, tmp_path / "a.jsonl")
    (other := tmp_path / "other").mkdir()
    both = tmp_path / "a.jsonl", write(other, ROWS)  # of one name
    prepared(tmp_path, *both, name="both")
    write(tmp_path, ROWS[2:])
    with pytest.raises(PrepareError, match="already holds another set"):
        prepared(tmp_path, *both, name="both")


def test_parquet_is_as_json_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet = __import__("pyarrow.parquet").parquet
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    path, other = prepared(tmp_path, tmp_path / "a.parquet"), prepared(tmp_path, write(tmp_path, ROWS), name="lines")
    first, second = records.RecordSource(path), records.RecordSource(other)
    assert [first[i]["caption"] for i in range(4)] == [second[i]["caption"] for i in range(4)]


def test_edits_of_ones_own_pictures(tmp_path):
    for name, size in (("before.png", (16, 12)), ("after.png", (8, 8))):
        Image.new("RGB", size, (200, 10, 10) if name == "before.png" else (10, 200, 10)).save(tmp_path / name)
    good = dict(prompt="make it green", category="colour", source="before.png", image="after.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    broken = good | dict(source="bad.png")
    path = prepared(tmp_path, write(tmp_path, [good, broken, good]), skip_limit=1)
    manifest, source = read_manifest(path), records.RecordSource(path)
    assert (manifest["task"], manifest["count"], manifest["size"]) == ("edit", 2, 8)
    assert len(manifest["skipped"]) == 1
    assert manifest["skipped"][0].startswith(f"row 2 of {tmp_path}/a.jsonl: The picture {tmp_path}/bad.png cannot be")
    np.testing.assert_array_equal(source[0]["source"], np.full((8, 8, 3), (200, 10, 10)))
    np.testing.assert_array_equal(source[0]["image"], np.full((8, 8, 3), (10, 200, 10)))
    with pytest.raises(PrepareError, match=r"of 1 rows cannot be read, and --skip-limit is 0: row 2 of"):
        prepared(tmp_path, tmp_path / "a.jsonl", name="strict")
    with pytest.raises(PrepareError, match=r"of 1 rows cannot be read, and --skip-limit is 0: row 2 of"):
        prepared(tmp_path, tmp_path / "a.jsonl")  # of the set that is there
    with pytest.raises(PrepareError, match=r"None of the 1 rows .*: row 1 of .* cannot be read: .*[^.]\.$"):
        prepared(tmp_path, write(tmp_path, [broken]), name="none", skip_limit=1)


def test_several_pictures_to_edit(tmp_path):
    """In their order, at a size of their own, and as many in every row."""
    colours = dict(a=(200, 10, 10), b=(10, 200, 10), c=(10, 10, 200))
    for name, colour in colours.items():
        Image.new("RGB", (16, 12), colour).save(tmp_path / f"{name}.png")
    row = dict(prompt="put one into the other", category="both", source=["b.png", "a.png"], image="c.png")
    path = prepared(tmp_path, write(tmp_path, [row, row | dict(source=["a.png", "c.png"])]), source_size=4)
    first, second = (records.RecordSource(path)[i] for i in range(2))
    np.testing.assert_array_equal(first["source"], np.full((4, 4, 3), colours["b"]))
    np.testing.assert_array_equal(first["source_2"], np.full((4, 4, 3), colours["a"]))
    assert first["image"].shape == (8, 8, 3)
    for found, name in zip(records.sources(second), "ac", strict=True):
        np.testing.assert_array_equal(found[0, 0], colours[name])
    sources, _ = open_sources(dict(own=dict(path=str(path), task="edit")))
    mixture = Mixture(sources, np.ones(2, int), np.zeros(2, int), batch_size=2, seed=0, classes=("both",))
    batch = next(make_loader(mixture, batch_size=2, max_text_tokens=12))
    assert [x.shape for x in records.sources(batch)] == [(2, 4, 4, 3)] * 2
    assert batch["source_2"].max() <= 1 and batch["source_2"].dtype == np.float32
    with pytest.raises(PrepareError, match="row 2 of .* has 1 pictures to edit and row 1 of .* 2; all rows of a set"):
        prepared(tmp_path, write(tmp_path, [row, row | dict(source="a.png")]), name="uneven")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([dict(prompt="a", category="b", source=["x.png", 3])], "has a 'source' or 'image' that is no path"),
        ([dict(prompt="a", category="b", source=3)], "has a 'source' or 'image' that is no path"),
        ([dict(prompt="a", category="b", source={"x": 1})], "has a 'source' or 'image' that is no path"),
        ([], "There are no prompts in"), (["{"], "Line 1 of .* is not JSON"), (["3"], "has no text 'prompt'"),
        ([dict(prompt="a")], "has no text 'category'"), ([dict(prompt="a", category="")], "has no text 'category'"),
        ([dict(prompt=" ", category="b", source="x.png")], "row 1 of .* is an edit record without an instruction"),
        ([dict(prompt="a", category="b", source="x.png"), dict(prompt="a", category="b")], "edit record without its"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(tmp_path, rows, said):
    with pytest.raises(PrepareError, match=said):
        prepared(tmp_path, write(tmp_path, rows))


def test_prompts_may_hold_any_character(tmp_path):
    """What Unicode calls an end of line, and what editors put before the first: only a line feed ends a row."""
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"prompt": "a\u2028b\x85", "category": "c"}\r\n', encoding="utf-8", newline="")
    assert [row["prompt"] for row in read_rows(path)] == ["a\u2028b\x85"]
    path.write_text('{"prompt": "caf\xe9", "category": "c"}', encoding="latin-1")
    with pytest.raises(PrepareError, match="Line 1 of .* is not JSON in UTF-8"):
        list(read_rows(path))


def test_pictures_stand_upright_and_on_white(tmp_path):
    """A phone writes a picture as its sensor lies, and beside it how it was held; what shines through says nothing."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_square(tmp_path / "a.png", 8), np.rot90(picture, -1))
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, :4, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_square(tmp_path / "clear.png", 8), 255 - picture)


def test_deep_pictures_are_not_cut_off(tmp_path):
    """16-bit greys came out white, as Pillow cuts them off at 255; floating point says nowhere what white is."""
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    found = read_square(tmp_path / "deep.png", 8)
    assert np.abs(found - (ramp / 257)[..., None]).max() <= 1
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(PrepareError, match="float.tiff cannot be read: pixels of the mode F have no white"):
        read_square(tmp_path / "float.tiff", 8)


def test_a_damaged_picture_is_skipped_whatever_pillow_raises_for_it(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = dict(prompt="a", category="c", image="a.png")
    file = write(tmp_path, [row])
    for error in (struct.error("unpack requires a buffer"), RuntimeError("no decoder"), OverflowError("too long")):

        def damaged(image, error=error):
            raise error

        monkeypatch.setattr("flashjax.data.prompts.upright", damaged)
        with pytest.raises(PrepareError, match="row 1 of .* cannot be read"):
            prepared(tmp_path, file, name=type(error).__name__)


def test_pictures_as_latents_are_another_set(tmp_path):
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "a.png")
    file = write(tmp_path, [dict(prompt=n, category="c", image="a.png") for n in "ab"])
    latents = dict(latents=lambda x: x[::4, ::4].astype(np.float16) / 2, autoencoder="halves")
    path = prepared(tmp_path, file, **latents)
    assert (read_manifest(path)["autoencoder"], read_manifest(path)["size"]) == ("halves", 8)
    np.testing.assert_array_equal(records.RecordSource(path)[1]["image"], np.full((2, 2, 3), (100, 5, 5), np.float16))
    assert prepared(tmp_path, file, **latents) == path
    prepared(tmp_path, file, name="pixels")
    with pytest.raises(PrepareError, match="already holds another set .*autoencoder is None, asked for halves"):
        prepared(tmp_path, file, **latents, name="pixels")


def test_some_rows_with_pictures_and_some_without_are_two_sets(tmp_path):
    """In one batch they cannot stand side by side."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [dict(prompt="a", category="c", image="a.png"), dict(prompt="b", category="c")]
    with pytest.raises(PrepareError, match="row 2 of .* has no 'image', while others have one; make two sets"):
        prepared(tmp_path, write(tmp_path, rows))
    rows = [dict(prompt="a", category="c", source="a.png")]
    manifest = read_manifest(prepared(tmp_path, write(tmp_path, rows), name="wishes"))
    assert (manifest["size"], manifest["source_size"]) == (None, 8)  # nothing to learn from by flow matching


def test_a_picture_that_was_mended_makes_another_set(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    file = write(tmp_path, [dict(prompt=n, category="c", image=f"{n}.png") for n in "ab"])
    assert prepared(tmp_path, file, skip_limit=1) == prepared(tmp_path, file, skip_limit=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(PrepareError, match="already holds another set of the split .*pictures is"):
        prepared(tmp_path, file, skip_limit=1)


def test_files_that_are_none(tmp_path):
    with pytest.raises(PrepareError, match="There is no file of prompts"):
        prepared(tmp_path, tmp_path / "none.jsonl")
    with pytest.raises(PrepareError, match=r"neither \.jsonl nor \.parquet"):
        prepared(tmp_path, write(tmp_path, ROWS, "a.csv"))


def test_edits_of_postcards(tmp_path):
    """The instruction is what is said, its result what is wanted; the sources are the pictures of the same cards."""
    given = dict(split="train", count_per_category=2, size=16, seed=3, encode=encode, progress=False)
    plain = records.RecordSource(prepare.prepare(tmp_path, **given))
    path = prepare.prepare(tmp_path, **given, edits=True)
    assert (path.name, read_manifest(path)["task"]) == ("train_edits.arrayrecord", "edit")
    source = records.RecordSource(path)
    for i in range(6):
        record = source[i]
        np.testing.assert_array_equal(record["source"], plain[i]["image"])
        assert (record["image"] != record["source"]).any()
        np.testing.assert_array_equal(record["text"], encode([record["instruction"]])[0])
    with pytest.raises(PrepareError, match="needs the pictures to edit"):
        prepare.prepare(tmp_path, **(given | dict(size=None)), edits=True)
