"""Records, prepared sets and the loader."""

import copy
import json
import resource

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashjax.data import loader as loaders
from flashjax.data import postcards, prepare, records
from flashjax.data.loader import make_loader
from flashjax.data.manifest import CLASSES, read_manifest
from flashjax.data.mixture import Mixture, open_sources

WIDTH = 6
FILE_SIZE = resource.RLIMIT_FSIZE


def encode(captions):
    """A stand-in text encoder: one token a word, filled with the word's length."""
    return [
        np.array([[len(w)] * WIDTH for w in caption.split()], np.float32) for caption in captions
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    return prepare.prepare(
        folder, split="train", count_per_category=9, size=16, seed=3, encode=encode, progress=False
    )


def loader(path, table_rows=100, batch_size=4, seed=1, rows=None, max_text_tokens=32):
    """Of the one source."""
    sources, _ = open_sources({"cards": {"path": str(path)}})
    mixture = Mixture(sources, *np.zeros((2, table_rows), int), batch_size=batch_size, seed=seed, classes=CLASSES)
    return make_loader(mixture, batch_size=batch_size, max_text_tokens=max_text_tokens, rows=rows)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_records_round_trip(tmp_path):
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array(2.5, np.float16),
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.zeros((0, 3), np.int64),
        np.arange(12.0).reshape(3, 4).T,
    ]
    made = [{"i": i, "name": "é", "none": None, "deep": {"a": [a]}} for i, a in enumerate(arrays)]
    assert records.write_records(tmp_path / "a.arrayrecord", made) == 5
    source = records.RecordSource(tmp_path / "a.arrayrecord")
    assert len(source) == 5 and source[-1]["i"] == 4
    for i, array in enumerate(arrays):
        found = source[i]["deep"]["a"][0]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    assert copy.copy(source)[2]["name"] == "é"
    with pytest.raises(IndexError, match="holds 5 records"):
        source[5]


def test_writing_is_all_or_nothing(tmp_path):
    def failing():
        yield {"a": 1}
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        records.write_records(tmp_path / "a.arrayrecord", failing())
    with pytest.raises(records.RecordError, match="plain values"):
        records.write_records(tmp_path / "a.arrayrecord", [{"a": object()}])
    with pytest.raises(records.RecordError, match="plain values"):
        records.pack({"a": np.array([object()])})
    with pytest.raises(records.RecordError, match="no records"):
        records.write_records(tmp_path / "a.arrayrecord", [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_gets_a_sentence(tmp_path):
    """A limit on the size of files stands in for it: ArrayRecord meets both with the same RuntimeError."""
    noise, before = np.random.default_rng(0).integers(0, 256, (60, 1000), np.uint8), resource.getrlimit(FILE_SIZE)
    resource.setrlimit(FILE_SIZE, (50_000, before[1]))
    try:
        said = rf"^a.arrayrecord cannot be written to {tmp_path} \(.*File too large\); make room"
        with pytest.raises(records.RecordError, match=said):
            records.write_records(tmp_path / "a.arrayrecord", (dict(image=row) for row in noise))
    finally:
        resource.setrlimit(FILE_SIZE, before)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 100, 0.5, -10])
def test_truncated_file_gets_a_sentence(prepared, tmp_path, keep):
    data, path = prepared.read_bytes(), tmp_path / "cut.arrayrecord"
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else keep])
    with pytest.raises(records.RecordError, match="truncated"):
        records.RecordSource(path)


def test_missing_file_gets_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="write it first"):
        records.RecordSource(tmp_path / "none.arrayrecord")


def test_prepared_records_are_the_postcards(prepared):
    source = records.RecordSource(prepared)
    names = list(postcards.CATEGORIES)
    assert len(source) == 27
    for i in range(27):
        record = source[i]
        card = postcards.make(names[i % 3], "train", i // 3, 3)
        assert (record["index"], record["category_id"]) == (i, i % 3)
        assert record["category"] == card.category and record["spec"] == card.spec
        assert record["named"] == card.named and record["caption"] == card.caption
        assert record["edit_spec"] == card.edit_spec and record["changed"] == card.changed
        np.testing.assert_array_equal(record["image"], postcards.render(card, 16))
        np.testing.assert_array_equal(record["text"], encode([card.caption])[0])
        assert record["text"].dtype == np.float16


def test_a_source_of_a_mixture_may_be_smaller_than_a_batch(prepared, tmp_path):
    """Nine tenths of a batch of 40 are of 27 records, which come equally often; resumed it goes on as it was."""
    asked = dict(split="train", count_per_category=20, size=16, seed=4, encode=encode, progress=False)
    given = dict(few=dict(path=prepared, weight=9.0), many=dict(path=prepare.prepare(tmp_path, **asked)))
    sources, _ = open_sources(given)
    mixture = Mixture(sources, *np.zeros((2, 6), int), batch_size=40, seed=1, classes=CLASSES)
    whole, resumed = (make_loader(mixture, batch_size=40, max_text_tokens=32) for _ in range(2))
    batches = [next(whole) for _ in range(2)]
    resumed.set_state(whole.get_state())
    for batch in whole:
        assert_same(batch, next(resumed))
        batches.append(batch)
    few = [sources[0] is mixture.cells[0][cell][0] for row in range(6) for cell in mixture.locate(row)[0]]
    read = np.concatenate([batch["index"] for batch in batches])[few]
    assert np.bincount(read, minlength=27).tolist() == [8] * 27


def test_manifest_and_second_call(prepared):
    manifest = read_manifest(prepared)
    assert manifest["count"] == 27 and manifest["text_width"] == WIDTH
    before = prepared.stat().st_mtime_ns
    request = {"split": "train", "count_per_category": 9, "size": 16, "seed": 3}
    prepare.prepare(prepared.parent, **request, encode=encode, progress=False)
    assert prepared.stat().st_mtime_ns == before
    with pytest.raises(prepare.PrepareError, match="another set.*seed is 3, asked for 4"):
        prepare.prepare(prepared.parent, **(request | {"seed": 4}), encode=encode)
    with pytest.raises(prepare.PrepareError, match="encoder is unnamed, asked for None"):
        prepare.prepare(prepared.parent, **request)


def test_prompt_only_set_and_damaged_folder(tmp_path):
    request = {"split": "heldout_words", "count_per_category": 5, "size": None, "seed": 0}
    path = prepare.prepare(tmp_path, **request, progress=False)
    source = records.RecordSource(path)
    assert len(source) == 5 and "image" not in source[0] and "text" not in source[0]
    assert set(next(loader(path, batch_size=2))) == {"category", "index"}
    path.write_bytes(b"")
    with pytest.raises(prepare.PrepareError, match="not as long as its manifest"):
        prepare.prepare(tmp_path, **request, progress=False)
    path.with_suffix(".json").unlink()
    with pytest.raises(prepare.PrepareError, match="without its manifest"):
        prepare.prepare(tmp_path, **request, progress=False)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda captions: [], "one for each"),
        (lambda captions: [np.zeros(3)] * len(captions), "has to be"),
        (lambda captions: [np.full((2, 3), 1e6)] * len(captions), "not finite"),
    ],
)
def test_bad_encoder_gets_a_sentence(tmp_path, bad, words):
    with pytest.raises(prepare.PrepareError, match=words):
        prepare.prepare(
            tmp_path, split="train", count_per_category=1, size=8, seed=0, encode=bad,
            progress=False,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_batch_is_what_the_records_say(prepared):
    source, batch = records.RecordSource(prepared), next(loader(prepared))
    shapes = {k: (v.shape, v.dtype.name) for k, v in batch.items()}
    assert shapes == {
        "text": ((4, 32, WIDTH), "float32"),
        "text_length": ((4,), "int32"),
        "image": ((4, 16, 16, 3), "float32"),
        "category": ((4,), "int32"),
        "index": ((4,), "int64"),
    }
    for n, index in enumerate(batch["index"]):
        record, length = source[index], batch["text_length"][n]
        np.testing.assert_array_equal(batch["text"][n, :length], record["text"])
        assert length == len(record["text"]) and not batch["text"][n, length:].any()
        np.testing.assert_allclose((batch["image"][n] + 1) * 127.5, record["image"], atol=1e-3)
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1


def test_every_record_once_an_epoch_in_another_order(prepared):
    iterator = loader(prepared, batch_size=9)
    epochs = [np.concatenate([next(iterator)["index"] for _ in range(3)]) for _ in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(27))
    assert len({tuple(order) for order in epochs}) == 3
    assert len(list(loader(prepared, batch_size=9, table_rows=6))) == 6


def test_order_depends_on_the_seed_alone(prepared):
    orders = [next(loader(prepared, seed=s, batch_size=20))["index"].tolist() for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


# 27 records in batches of 4: the epoch ends inside the seventh batch.
@pytest.mark.parametrize("at", [0, 3, 6, 7, 13])
def test_resume_is_exact(prepared, at):
    iterator = loader(prepared)
    for _ in range(at):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(9)]
    resumed = loader(prepared)
    next(resumed)
    resumed.set_state(state)
    for batch in expected:
        assert_same(batch, next(resumed))


@given(st.permutations(range(12)), st.lists(st.integers(1, 11), max_size=4, unique=True), st.integers(1, 4))
def test_every_record_is_read_by_the_one_process_that_has_its_row(order, cuts, batches):
    """Any division of a batch's rows over processes."""
    common, found, read = np.arange(12 * batches + 5), np.full(12 * batches, -1), []
    counted = type("Counted", (list,), {"__getitem__": lambda self, i: (read.append(i), list.__getitem__(self, i))[1]})
    for own in np.split(np.array(order), sorted(cuts)):
        source = loaders._Rows(counted(common), 12, own)
        assert len(source) == batches * len(own)
        for i in range(len(source)):
            found[i // len(own) * 12 + own[i % len(own)]] = source[i]
    assert found.tolist() == common[: 12 * batches].tolist()
    assert sorted(read) == list(range(12 * batches))


def test_the_order_does_not_depend_on_how_many_read(prepared):
    """One process, then three with scattered rows, then two: the samples of one that was never interrupted."""
    alone = loader(prepared, batch_size=12)
    expected = [next(alone)["index"].tolist() for _ in range(6)]
    state, got = None, []
    for rows in ([range(12)], [[0, 1, 10, 11], [2, 9], [3, 4, 5, 6, 7, 8]], [range(0, 12, 2), range(1, 12, 2)]):
        iterators = [loader(prepared, batch_size=12, rows=own) for own in rows]
        for iterator in iterators:
            iterator.set_state(state or iterator.get_state())
        for _ in range(2):
            batch = np.full(12, -1)
            for iterator, own in zip(iterators, rows, strict=True):
                batch[list(own)] = next(iterator)["index"]
            got.append(batch.tolist())
        states = [iterator.get_state() for iterator in iterators]
        assert all(found == states[0] for found in states)
        state = states[-1]
    assert got == expected


@pytest.mark.parametrize("broken", [dict(source=None), dict(source_2=""), dict(image="a.png")])
def test_an_edit_record_without_its_picture_gets_a_sentence(broken):
    picture = np.zeros((8, 8, 3), np.uint8)
    record = dict(index=7, category="colour", category_id=3, source=picture, image=picture) | broken
    (name,) = broken
    with pytest.raises(records.RecordError, match=f"Record 7 of the category 'colour' has no picture as its '{name}'"):
        loaders._example(record, max_text_tokens=4, images=True)


def test_bad_settings_get_a_sentence(prepared):
    with pytest.raises(records.RecordError, match="more than max_text_tokens = 1"):
        next(loader(prepared, max_text_tokens=1, batch_size=27))
    for rows in ([4], [-1], []):
        with pytest.raises(ValueError, match="they have to lie in a batch of 4"):
            loader(prepared, rows=rows)


def test_what_distillation_does_not_read_is_left_out(prepared, tmp_path):
    """A set of prompts beside one with pictures: a batch of both has one form."""
    bare = prepare.prepare(
        tmp_path, split="train", count_per_category=9, size=None, seed=3, encode=encode, progress=False
    )
    given = {"cards": {"path": str(prepared)}, "prompts": {"path": str(bare)}}
    sources, _ = open_sources(given)
    mixture = Mixture(sources, *np.zeros((2, 10), int), batch_size=4, seed=1, classes=CLASSES)
    batch = next(make_loader(mixture, batch_size=4, max_text_tokens=32, images=False))
    assert "text" in batch and "image" not in batch
