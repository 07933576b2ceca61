"""Conversion: bit-exact both ways, and everything that can be wrong said in words, at once."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import QwenImage21Transformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from flashjax import convert, paths
from flashjax.convert import planning, reader, table, writer
from flashjax.models import qwen_image_21

TINY = {
    "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "in_channels": 8,
    "out_channels": 8, "context_in_dim": 24, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
F32 = np.dtype(np.float32)
RULES = table.Table(
    rules=(
        table.Rule("in.weight", "in/kernel", table.transpose),
        table.Rule("h.{l}.{p:q|k}.weight", "blocks/{p}/kernel[{l}]", table.transpose),
    ),
    drops=(table.drop(r"pos.*", "a constant"),),
)


def spec(*shape, dtype=F32):
    return reader.Spec(shape, np.dtype(dtype))


def fitting():
    source = {"in.weight": spec(3, 2), "pos_ids": spec(9, dtype=np.int64)}
    source |= {f"h.{layer}.{p}.weight": spec(3, 3) for layer in range(2) for p in "qk"}
    target = {
        "in/kernel": spec(2, 3),
        "blocks/q/kernel": spec(2, 3, 3),
        "blocks/k/kernel": spec(2, 3, 3),
    }
    return source, paths.unflatten(target)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16])
def qwen(request, tmp_path_factory):
    torch.manual_seed(0)
    model = QwenImage21Transformer2DModel(**TINY).to(request.param)
    folder = tmp_path_factory.mktemp("qwen")
    model.save_pretrained(folder, safe_serialization=True)
    config = qwen_image_21.Config.tiny()
    return model.state_dict(), folder, qwen_image_21.abstract(config), request.param


def test_qwen_round_trip_is_bit_exact(qwen, tmp_path):
    state, folder, target, dtype = qwen
    name = str(dtype).removeprefix("torch.")
    params = convert.load("qwen_image_21", folder, target, np.dtype(name))
    flat = paths.flatten(params)
    assert {p: a.shape for p, a in flat.items()} == {
        p: a.shape for p, a in paths.flatten(target).items()
    }
    assert {str(a.dtype) for a in flat.values()} == {name}
    last = state["transformer_blocks.1.img_mlp.gate_layer.weight"].T.float().numpy()
    np.testing.assert_array_equal(flat["blocks/mlp/gate/kernel"][1].astype(np.float32), last)

    convert.save("qwen_image_21", params, tmp_path / "back.safetensors", {"note": "x"})
    back = safetensors.torch.load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(back[k].dtype == state[k].dtype and torch.equal(back[k], state[k]) for k in state)
    assert convert.open_weights(tmp_path / "back.safetensors").metadata == {
        "format": "pt",
        "note": "x",
    }


def test_real_qwen_table_fills_32_layers_from_297_tensors():
    target = qwen_image_21.abstract(qwen_image_21.Config.qwen_image_21())
    with torch.device("meta"):
        state = QwenImage21Transformer2DModel().state_dict()
    source = {name: spec(*tensor.shape) for name, tensor in state.items()}
    assert len(planning.plan(convert.table_of("qwen_image_21"), source, target).moves) == 297


def test_sharded_folder_equals_single_file(qwen, tmp_path):
    state, folder, target, _ = qwen
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, keys in parts.items():
        safetensors.torch.save_file({k: state[k].contiguous() for k in keys}, tmp_path / shard)
    index = {"weight_map": {k: shard for shard, keys in parts.items() for k in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    one, many = (convert.load("qwen_image_21", f, target) for f in (folder, tmp_path))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(*map(lambda t: paths.flatten(t).values(), (one, many)), strict=True)
    )
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(convert.ConversionError, match=r"b\.safetensors is not in the folder"):
        convert.open_weights(tmp_path)


def test_a_fitting_plan_moves_and_drops_everything():
    source, target = fitting()
    todo = planning.plan(RULES, source, target)
    assert {move.source for move in todo.moves} | {name for name, _ in todo.dropped} == set(source)
    assert todo.dropped == (("pos_ids", "a constant"),)


def test_all_problems_are_reported_together():
    source, target = fitting()
    del source["h.0.k.weight"]
    source |= {
        "extra": spec(1),  # no row
        "in.weight": spec(2, 2),  # wrong shape
        "h.5.q.weight": spec(3, 3),  # no such layer
        "h.1.k.weight": spec(3, 3, dtype=np.int32),  # integers for floats
        "h.01.q.weight": spec(3, 3),  # a slot twice
    }
    target["blocks"]["v"] = {"kernel": spec(2, 3, 3)}
    both = table.Table((*RULES.rules, table.Rule("pos_ids", "pos")), RULES.drops)
    with pytest.raises(convert.ConversionError) as error:
        planning.plan(both, source, target)
    message = str(error.value)
    for words in (
        "8 problems",
        "extra: the table has no row",
        "in.weight: its shape [2, 2] does not become [2, 3] of in/kernel by transpose",
        "h.5.q.weight: belongs at blocks/q/kernel[5], but the model has 2 slots",
        "h.1.k.weight: int32 in the file cannot be float32",
        "blocks/q/kernel[1]: 2 tensors of the file fill it",
        "pos_ids: more than one row",
        "blocks/k/kernel: no tensor of the file fills layers 0.",
        "blocks/v/kernel: no tensor of the file fills this parameter",
    ):
        assert words in message


def test_targets_that_the_model_lacks_are_named():
    source, target = fitting()
    del target["in"]
    with pytest.raises(convert.ConversionError, match="in/kernel, which the model does not have"):
        planning.plan(RULES, source, target)


def test_export_names_parameters_without_a_row():
    params = {"in": {"kernel": np.zeros((2, 3))}, "x": np.zeros(1), "y": np.zeros(1)}
    with pytest.raises(convert.ConversionError, match=r"(?s)2 problems.*- x: no row.*- y: no row"):
        planning.export(RULES, params)


def test_rules_with_fields_on_one_side_are_refused():
    with pytest.raises(ValueError, match="one side only"):
        table.Rule("h.{l}.w", "h/w")


dims = st.integers(1, 3)
transforms = st.sampled_from(
    [(table.copy, 2), (table.transpose, 2), (table.permute(2, 3, 1, 0), 4)]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(transforms, st.booleans()), min_size=1, max_size=4), st.data())
def test_random_tables_are_inverted_exactly(rows, data):
    rules, source = [], {}
    layers = data.draw(dims)
    for i, ((transform, rank), stacked) in enumerate(rows):
        shape = tuple(data.draw(dims) for _ in range(rank))
        mid = ".{l}" if stacked else ""
        rules.append(
            table.Rule(f"m{i}{mid}.{{p:a|b}}", f"m{i}/{{p}}" + "[{l}]" * stacked, transform)
        )
        for layer in range(layers) if stacked else [None]:
            for p in "ab":
                name = f"m{i}.{p}" if layer is None else f"m{i}.{layer}.{p}"
                source[name] = np.random.default_rng(len(source)).normal(size=shape)
    rows = table.Table(tuple(rules))
    target = {}
    for name, array in source.items():
        path, slot = next(place for rule in rules if (place := rule.place(name)))
        shape = rules[int(path[1])].transform.shape(array.shape)
        target[path] = spec(*(shape if slot is None else (layers, *shape)), dtype=np.float64)
    todo = planning.plan(
        rows, {k: spec(*v.shape, dtype=v.dtype) for k, v in source.items()}, paths.unflatten(target)
    )
    back, specs = planning.export(rows, paths.unflatten(planning.execute(todo, source.__getitem__)))
    assert back.keys() == source.keys()
    assert all(
        specs[k].shape == v.shape and np.array_equal(back[k](), v) for k, v in source.items()
    )


@pytest.mark.parametrize("dtype", sorted(reader.DTYPES))
def test_writer_and_reader_agree_for_every_dtype(tmp_path, dtype):
    kind = reader.DTYPES[dtype]
    arrays = {
        "odd": np.arange(3).astype(np.uint8),
        "x": np.arange(6).reshape(2, 3).astype(kind),
        "scalar": np.array(1).astype(kind),
        "none": np.zeros((0, 4), kind),
        "strided": np.arange(6).reshape(2, 3).astype(kind).T,
    }
    writer.write_arrays(tmp_path / "w.safetensors", arrays)
    found = convert.open_weights(tmp_path / "w.safetensors")
    assert len(found) == len(arrays)
    for name, array in arrays.items():
        assert found.shapes()[name] == (array.shape, array.dtype)
        np.testing.assert_array_equal(found.read(name), array)
    theirs = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert theirs["strided"].double().tolist() == arrays["strided"].astype(float).tolist()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "w.safetensors"
    writer.write_arrays(path, {"a": np.zeros(2)})
    before = path.read_bytes()
    with pytest.raises(convert.ConversionError, match="announced"):
        writer.write_weights(path, {"a": lambda: [np.zeros(3, np.float32)]}, {"a": spec(2)})
    with pytest.raises(convert.ConversionError, match="cannot store"):
        writer.write_arrays(path, {"a": np.zeros(2, complex)})
    with pytest.raises(convert.ConversionError, match="is not text"):
        writer.write_arrays(path, {"a": np.zeros(2)}, {"step": 3})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unreadable_files_are_explained(tmp_path):
    good = tmp_path / "good.safetensors"
    writer.write_arrays(good, {"a": np.zeros((64, 64), ml_dtypes.bfloat16)})
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "stub.safetensors").write_bytes(good.read_bytes()[:20])
    (tmp_path / "page.safetensors").write_text("<html>404 not found, sorry</html>")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "w.bin").write_bytes(b"\x80\x04")
    (tmp_path / "folder").mkdir()
    for name, words in {
        "cut.safetensors": "truncated: a ends at byte",
        "stub.safetensors": "truncated",
        "page.safetensors": "not a safetensors file",
        "empty.safetensors": "not a safetensors file",
        "w.bin": "is a pickle, which is a program",
        "missing.safetensors": "There are no weights at",
        "folder": r"holds no \.safetensors file",
        "": "more than one choice",
    }.items():
        with pytest.raises(convert.ConversionError, match=words):
            convert.open_weights(tmp_path / name)


def test_unknown_model_is_named():
    with pytest.raises(convert.ConversionError, match="no conversion for 'x'; there is one for .*minilm"):
        convert.load("x", ".", {})


def test_what_a_shorter_model_has_no_place_for_is_dropped_only_where_the_rule_says_so():
    source, target = fitting()
    source |= {"h.2.q.weight": spec(3, 3), "tail.weight": spec(3)}
    rules = (*RULES.rules, table.Rule("tail.weight", "tail/scale", surplus="not used"))
    with pytest.raises(convert.ConversionError, match=r"h.2.q.weight: .* the model has 2 slots there"):
        planning.plan(table.Table(rules, RULES.drops), source, target)
    rules = (rules[0], table.Rule(rules[1].source, rules[1].target, table.transpose, surplus="behind"), rules[2])
    todo = planning.plan(table.Table(rules, RULES.drops), source, target)
    assert dict(todo.dropped) == {"h.2.q.weight": "behind", "tail.weight": "not used", "pos_ids": "a constant"}


def test_older_names_are_read_and_todays_are_written():
    source, target = fitting()
    renamed = table.Table(RULES.rules, RULES.drops, renames=((r"model[.]", ""),))
    old = {f"model.{name}": each for name, each in source.items()}
    moves = planning.plan(renamed, old, target).moves
    assert [(move.source, move.path, move.slot) for move in moves] == [
        (f"model.{move.source}", move.path, move.slot) for move in planning.plan(RULES, source, target).moves
    ]
    with pytest.raises(convert.ConversionError, match="in/kernel: 2 tensors of the file fill it"):
        planning.plan(renamed, source | old, target)
