"""Thousands of damaged headers and indexes: each is read rightly or refused in words, and nothing outside is touched.

A file is mutated in its bytes (where JSON breaks) and in its meaning (valid JSON with hostile values, where checks of
sizes and offsets have to hold). What is read must also be what the library safetensors reads. Hypothesis draws the seed
of a batch: drawing every byte through it takes longer than the reader, and lists that long are hardly ever varied.
"""

import contextlib
import itertools
import json
import math
import os
import random
import struct
import sys
import time

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashjax import convert
from flashjax.convert import writer

BATCH = 50
HOSTILE = [
    None, True, -1, 0, 1, 2, 4, 8, 24, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 1.0, 0.5, -0.0, float("inf"),
    float("nan"), "", "F32", "f32", "BF16", "U8", "BOOL", "..", "../a", "/", "a\0b", "x\ny", "\ud800", "é" * 300,
    [], [0], [-1], [2, 2], [2**32, 2**32], [0, 2**62, 2**62], [1] * 40, [0, 8], [8, 0], [0, 0], [True, 8], {}, [[[]]],
    {"a": {}}, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, {"a": "b"}, {"\ud800": "x"}, {"a": 1},
    {"a": None},
]  # fmt: skip
SNIPPETS = [
    b'"', b"{", b"}", b"[" * 50_000, b":", b",", b"\xff", b"\0", b"9" * 40, b'{"a":' * 20_000, b"1", b"-",
]  # fmt: skip
NAMES = [
    "one.safetensors", "two.safetensors", "../outside.safetensors", "inside/../../outside.safetensors", ".", "absolute",
    "three.safetensors", "./one.safetensors", "one.safetensors/", "x" * 5000, "i.safetensors.index.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(header, data) of a valid file with every kind of shape."""
    file = tmp_path_factory.mktemp("base") / "w.safetensors"
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int16), "c": np.float64(3.0),
        "d": np.zeros((0, 5), np.uint8), "e": np.ones(3, bool), "f": np.arange(5, dtype=np.int64),
    }  # fmt: skip
    writer.write_arrays(file, arrays, {"format": "pt"})
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length], data[8 + length :]


def hostile(rng: random.Random):
    return rng.choice([rng.choice(HOSTILE), rng.randint(-3, 60), rng.randint(-(2**70), 2**70)])


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    new = rng.choice([rng.choice(SNIPPETS), rng.randbytes(rng.randint(1, 8))])
    return {
        "set": data[:at] + new + data[at + len(new) :],
        "insert": data[:at] + new + data[at:],
        "delete": data[:at] + data[at + 1 + len(new) :],
        "cut": data[:at],
        "append": data + new,
        "length": new.ljust(8, b"\0")[:8] + data[8:],
        "double": data[:at] + data,
    }[rng.choice(["set", "insert", "delete", "cut", "append", "length", "double"])]


def mutated_header(header: dict, rng: random.Random) -> dict:
    name, other = rng.sample([name for name in header if name != "__metadata__"], 2)
    kind, new, entry = rng.randrange(11), hostile(rng), header[name]
    if kind < 3:
        entry[("dtype", "shape", "data_offsets")[kind]] = new
    elif kind == 3:
        header[name] = new
    elif kind == 4:
        header[str(new)] = header.pop(name)
    elif kind == 5:
        header["__metadata__"] = new
    elif kind == 6:
        entry[str(new)] = new
    elif kind == 7:  # moved
        move = rng.choice([-8, -4, -2, -1, 1, 2, 4, 8])
        entry["data_offsets"] = [n + move for n in entry["data_offsets"]]
    elif kind == 8:  # over another tensor
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif kind == 9:  # longer or shorter, at either end
        entry["data_offsets"][rng.randrange(2)] += rng.randint(-9, 9)
    else:
        entry["shape"] = [*entry["shape"], rng.choice([0, 1, 2, 2**62])]
    return header


def dump(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def in_words():
    """A ConversionError of one short line that a terminal can show; anything else is a failure, as is a long time."""
    start = time.perf_counter()
    try:
        yield
    except convert.ConversionError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 3000
    assert time.perf_counter() - start < 10


def put(file, content: bytes) -> None:
    """The file's content, written over what was there: a file that is emptied first costs ext4 ten times as long as all
    of the test, since it waits for the disk."""
    with file.open("r+b" if file.exists() else "xb") as out:
        out.write(content)
        out.truncate()


def check_reader(file, content: bytes):
    with in_words():
        reader = convert.open_weights(file)
        taken = []
        for name, spec in reader.shapes().items():
            entry = reader.entry(name)
            assert entry.start >= 8
            assert entry.start + spec.nbytes <= len(content)
            array = reader.read(name)
            assert (array.shape, array.dtype) == spec
            assert array.tobytes() == content[entry.start : entry.start + spec.nbytes]
            taken.append((entry.start, entry.start + spec.nbytes))
        taken.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))
        assert {name for name, _ in safetensors.deserialize(content)} == set(reader)


def check_headers(folder, base, rng) -> None:
    header, data = base
    file = folder / "w.safetensors"
    for _ in range(BATCH):
        whole = mutated_bytes(struct.pack("<Q", len(header)) + header + data, rng)
        texts = (mutated_bytes(header, rng), dump(mutated_header(json.loads(header), rng)))
        for content in (whole, *(struct.pack("<Q", len(text)) + text + data for text in texts)):
            put(file, content)
            check_reader(file, content)


_opened: list[str] | None = None


def _hook(event, args):
    if event == "open" and _opened is not None and isinstance(args[0], str | os.PathLike):
        _opened.append(os.fspath(args[0]))


@contextlib.contextmanager
def opened():
    """The paths that were opened meanwhile."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def shards(base, tmp_path_factory):
    """A folder of two shards, and beside it a file that nobody may open."""
    folder = tmp_path_factory.mktemp("shards") / "inside"
    folder.mkdir()
    names = {"one.safetensors": ["a", "b"], "two.safetensors": ["c"], "../outside.safetensors": ["z"]}
    for name, keys in names.items():
        writer.write_arrays(folder / name, {key: np.ones(2, np.float32) for key in keys})
    sys.addaudithook(_hook)  # cannot be removed, but is idle outside of `opened`
    return folder


def check_indexes(folder, rng) -> None:
    valid = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    index = folder / "i.safetensors.index.json"
    outside = str(folder.parent / "outside.safetensors")
    for _ in range(BATCH):
        key, value = rng.choice(["a", "b", "c", "z", "", "\ud800"]), rng.choice([rng.choice(NAMES), hostile(rng)])
        value = outside if value == "absolute" else value
        changed = {"weight_map": valid["weight_map"] | {key: value}}
        for content in (mutated_bytes(dump(valid), rng), dump(changed), dump({"weight_map": value})):
            put(index, content)
            with opened() as paths, in_words():
                assert set(convert.open_weights(folder)) == {"a", "b", "c"}
            assert not [path for path in paths if os.path.realpath(path) == outside]
    index.unlink()


def fuzz(examples):
    def decorate(test):
        drawn = given(st.integers(0, 2**64))(test)
        return settings(max_examples=examples, suppress_health_check=list(HealthCheck), print_blob=True)(drawn)

    return decorate


def headers(examples):
    @fuzz(examples)
    def test(tmp_path_factory, base, seed):
        check_headers(tmp_path_factory.getbasetemp(), base, random.Random(seed))

    return test


def indexes(examples):
    @fuzz(examples)
    def test(shards, seed):
        check_indexes(shards, random.Random(seed))

    return test


# every mutation is three files
test_6000_headers_are_read_or_refused = headers(40)
test_6000_indexes_are_read_or_refused = indexes(40)


def test_the_longest_header_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "w.safetensors"
    with file.open("wb") as out:
        out.write(struct.pack("<Q", 2**63 - 1))
        out.truncate(math.floor(2e8))  # sparse
    with pytest.raises(convert.ConversionError, match="no header at its start"):
        convert.open_weights(file)
