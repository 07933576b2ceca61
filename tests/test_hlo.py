"""What compiled programs move: of real ones of the CPU's compiler by closed forms, and of what TPUs write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flashjax import hlo
from flashjax.parallel import mesh as meshes

LAYERS, WIDTH, ROWS = 5, 64, 128
TPU = """HloModule jit_f, is_scheduled=true

%fused (p0: bf16[5,64], p1: s32[]) -> bf16[1,64] {
  %p0 = bf16[5,64]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %slice = bf16[1,64]{1,0:T(8,128)(2,1)} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,64}
}

%all-reduce-scatter.1 (input.1: bf16[64,32]) -> bf16[16,32] {
  %input.1 = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  %sum = bf16[64,32]{1,0:T(8,128)(2,1)} all-reduce(%input.1), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %own = bf16[16,32]{1,0:T(8,128)(2,1)} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={16,32}
}

%body (state: (s32[], bf16[5,64])) -> (s32[], bf16[5,64]) {
  %state = (s32[]{:T(128)}, bf16[5,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = bf16[5,64]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %row = bf16[1,64]{1,0:T(8,128)(2,1)} fusion(%stack, %i), kind=kLoop, calls=%fused
  %near = bf16[1,64]{1,0:T(8,128)(2,1)S(1)} copy(%row)
  %whole = bf16[4,64]{1,0:T(8,128)(2,1)} all-gather(%row), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %next = (s32[]{:T(128)}, /*index=1*/bf16[5,64]{1,0:T(8,128)(2,1)}) tuple(%i, %stack)
}

%condition (state: (s32[], bf16[5,64])) -> pred[] {
  %state = (s32[]{:T(128)}, bf16[5,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %layers = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %layers), direction=LT
}

ENTRY %main (x: (s32[], bf16[5,64]), g: bf16[64,32]) -> bf16[16,32] {
  %x = (s32[]{:T(128)}, bf16[5,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %g = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(1)
  %while = (s32[]{:T(128)}, bf16[5,64]{1,0:T(8,128)(2,1)}) while(%x), condition=%condition, body=%body
  %send = (bf16[8,32]{1,0}, bf16[8,32]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%g), channel_id=1
  %sent = bf16[8,32]{1,0} collective-permute-done(%send)
  ROOT %part = bf16[16,32]{1,0:T(8,128)(2,1)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def compiled(f, mesh, *placed):
    with jax.set_mesh(mesh):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh, p)) for shape, p in placed]
        return hlo.parse(jax.jit(f).lower(*shapes).compile().as_text())


def test_a_scan_gathers_each_layer():
    """A stack of layers that is divided over 8 devices: a call gathers 7 / 8 of every layer once."""
    mesh = meshes.make_mesh(dict(data=1, fsdp=8, context=1, tensor=1))

    def f(w, x):
        def body(x, w):
            w = jax.lax.with_sharding_constraint(w, P())
            return jnp.tanh(jax.lax.with_sharding_constraint(x @ w, P("fsdp"))), None

        return jax.lax.scan(body, x, w)[0]

    program = compiled(f, mesh, ((LAYERS, WIDTH, WIDTH), P(None, "fsdp")), ((ROWS, WIDTH), P("fsdp")))
    assert hlo.links(*program, 8) == {"all-gather": LAYERS * WIDTH * WIDTH * 4 * 7 / 8}
    # Each layer's part is read and gathered, the whole read with the stream; the stream is read and written.
    least = LAYERS * 4 * (WIDTH * WIDTH + 2 * ROWS // 8 * WIDTH)
    assert least <= hlo.traffic(*program) <= 4 * least
    assert hlo.largest(*program)[0]["bytes"] == WIDTH * WIDTH * 4


def test_a_sum_over_devices():
    """x^T y with rows divided over 8 devices: an all-reduce, which takes a reduce-scatter and an all-gather."""
    mesh = meshes.make_mesh(dict(data=1, fsdp=8, context=1, tensor=1))

    def f(x, y):
        return jax.lax.with_sharding_constraint(x.T @ y, P())

    program = compiled(f, mesh, ((ROWS, WIDTH), P("fsdp")), ((ROWS, WIDTH), P("fsdp")))
    assert hlo.links(*program, 8) == {"all-reduce": 2 * WIDTH * WIDTH * 4 * 7 / 8}


def test_what_tpus_write():
    computations, entry = hlo.parse(TPU)
    assert entry == "main" and hlo.trips(computations["condition"]) == 5
    row = 64 * 2
    links = hlo.links(computations, entry, 8)
    # A gather of 4 of 8 devices' rows in each of 5 loops; of the sum 3 parts of 4; what is sent on arrives whole.
    expected = {"all-gather": 5 * 4 * row * 3 / 4, "reduce-scatter": 64 * 32 * 2 * 3 / 4, "collective-permute": 512}
    assert links == expected
    by_name = {one.name: hlo._touched(one, computations, where) for one, where, _ in hlo.executed(computations, entry)}
    assert by_name["row"] == 2 * row + 4  # of the stack one row, and the loop's counter
    assert by_name["near"] == row  # what stays on the chip is not written to memory
    assert hlo.arrays("(f32[2,3]{1,0:T(8,128)S(1)}, bf16[4]{0}, pred[])") == [8, 1]
    assert hlo.largest(computations, entry, 1)[0]["shape"] == "bf16[16,32]"


NEAR = """HloModule jit_f, is_scheduled=true

ENTRY %main (w: bf16[8,32]) -> bf16[32,32] {
  %w = bf16[8,32]{1,0:T(8,128)(2,1)} parameter(0)
  %sum = f32[32]{0:T(128)S(1)} all-reduce(%w), replica_groups={{0,1,2,3}}, to_apply=%add
  %send = (f32[8,8]{1,0:T(8,128)S(1)}, f32[8,8]{1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%w), channel_id=1
  %sent = f32[8,8]{1,0:T(8,128)S(1)} collective-permute-done(%send)
  %two = ((bf16[8,32]{1,0}, bf16[8,16]{1,0}), (bf16[32,32]{1,0:S(1)}, bf16[32,16]{1,0})) all-gather-start(%w, %w), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %both = (bf16[32,32]{1,0:S(1)}, bf16[32,16]{1,0}) all-gather-done(%two)
}
"""  # noqa: E501  as compiled for a v6e, and two that were combined to one


def test_what_stays_on_the_chip_has_come_over_the_links():
    """Nearly all collectives of a small program; once counted as nothing, and of combined ones the largest alone."""
    expected = {"all-reduce": 32 * 4 * 2 * 3 / 4, "collective-permute": 256, "all-gather": 32 * 48 * 2 * 3 / 4}
    assert hlo.links(*hlo.parse(NEAR), 4) == expected


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("{}", 8),
        ("{{0,1,2},{3,4,5}}", 3),
        ("[16,4]<=[64]", 4),
        ("[4,16]<=[16,4]T(1,0)", 16),
        ("mesh['a'=2,'b'=4] {'b'}", 4),
        # Of 256 chips, whose order is not that of their numbers; once taken for one device, whose bytes were 0.
        ("mesh['axis_0'=16,'axis_1'=1,'axis_2'=16], device_ids=([16,16]T(1,0)) {'axis_0','axis_1'}", 16),
    ],
)
def test_who_takes_part_in_a_collective(written, group):
    assert hlo._group(f", channel_id=1, replica_groups={written}, dimensions={{0}}, to_apply=%add", 8) == group


def test_who_takes_part_is_never_guessed():
    with pytest.raises(ValueError, match="in a way that hlo.py does not know"):
        hlo._group(", channel_id=1, replica_groups=all, dimensions={0}", 8)


HOST = """HloModule jit_f, is_scheduled=true

ENTRY %main (w: bf16[6,128,512], v: bf16[512,512]) -> bf16[1,512,512] {
  %w = bf16[6,128,512]{2,1,0:T(8,128)(2,1)S(5)} parameter(0)
  %v = bf16[512,512]{1,0:T(8,128)(2,1)} parameter(1)
  %i = s32[]{:T(128)} constant(0)
  %start = ((bf16[6,128,512]{2,1,0:S(5)}, s32[], s32[], s32[]), bf16[1,128,512]{2,1,0}, u32[]{:S(2)}) dynamic-slice-start(%w, %i, %i, %i), dynamic_slice_sizes={1,128,512}
  %layer = bf16[1,128,512]{2,1,0:T(8,128)(2,1)} dynamic-slice-done(%start)
  %near = (bf16[512,512]{1,0:S(1)}, bf16[512,512]{1,0}, u32[]{:S(2)}) copy-start(%v)
  %v.near = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} copy-done(%near)
  %streams = bf16[6,512,512]{2,1,0:T(8,128)(2,1)S(5)} custom-call(), custom_call_target="AllocateBuffer"
  %stream = bf16[1,512,512]{2,1,0:T(8,128)(2,1)} bitcast(%v)
  %put = ((bf16[6,512,512]{2,1,0:S(5)}, bf16[1,512,512]{2,1,0}, s32[], s32[], s32[]), bf16[6,512,512]{2,1,0:S(5)}, u32[]{:S(2)}) dynamic-update-slice-start(%streams, %stream, %i, %i, %i)
  %kept = bf16[6,512,512]{2,1,0:T(8,128)(2,1)S(5)} dynamic-update-slice-done(%put)
  ROOT %back = bf16[1,512,512]{2,1,0:T(8,128)(2,1)} slice(%kept), slice={[0:1], [0:512], [0:512]}
}
"""  # noqa: E501  as compiled for a v6e, of a stack of weights in the host's memory and of a stream that remat puts there


def test_what_comes_from_the_host_and_goes_there():
    layer, stream = 128 * 512 * 2, 512 * 512 * 2
    program = hlo.parse(HOST)
    assert hlo.host(*program) == {"from": layer + stream, "to": stream}
    assert hlo.host(*hlo.parse(TPU)) == {"from": 0, "to": 0}


def test_what_is_asynchronous_touches_memory_once():
    """Its beginning names its operands among its results: once read as if they were written too."""
    layer, stream = 128 * 512 * 2, 512 * 512 * 2
    computations, entry = hlo.parse(HOST)
    by_name = {one.name: hlo._touched(one, computations, entry) for one in computations[entry].values()}
    assert by_name["start"] == layer  # what comes from the host is written
    assert by_name["near"] == stream  # what stays on the chip is read
    assert by_name["put"] == stream
    assert hlo.traffic(computations, entry) == layer + 3 * stream


BRANCHES = """HloModule jit_f, is_scheduled=true

%near (p: bf16[8,32]) -> bf16[32,32] {
  %p = bf16[8,32]{1,0} parameter(0)
  ROOT %filled = bf16[32,32]{1,0} broadcast(%p), dimensions={0}
}

%far (q: bf16[8,32]) -> bf16[32,32] {
  %q = bf16[8,32]{1,0} parameter(0)
  %whole = bf16[32,32]{1,0} all-gather(%q), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %twice = bf16[32,32]{1,0} add(%whole, %whole)
}

ENTRY %main (i: s32[], w: bf16[8,32]) -> bf16[32,32] {
  %i = s32[] parameter(0)
  %w = bf16[8,32]{1,0} parameter(1)
  ROOT %one = bf16[32,32]{1,0} conditional(%i, %w, %w), WRITTEN
}
"""


@pytest.mark.parametrize(
    "written",
    ["branch_computations={%near, %far}", "branch_computations={%far, %near}, metadata={op_name=\"jit(f)/cond\"}",
     "true_computation=%near, false_computation=%far"],
)  # fmt: skip
def test_of_a_conditional_the_branch_that_moves_most_counts(written):
    """What is written as a list of branches moved nothing; of two that are named both were counted."""
    computations, entry = hlo.parse(BRANCHES.replace("WRITTEN", written))
    part, whole = 8 * 32 * 2, 32 * 32 * 2
    assert hlo.links(computations, entry, 4) == {"all-gather": whole * 3 / 4}
    assert hlo.traffic(computations, entry) == part + whole + 3 * whole


def test_the_compilers_own_conditional():
    branches = [lambda x: x, lambda x: jnp.sin(x @ x), lambda x: jnp.sin(x @ x) @ x @ x]
    lowered = jax.jit(lambda i, x: jax.lax.switch(i, branches, x)).lower(0, jnp.ones((WIDTH, WIDTH)))
    computations, entry = hlo.parse(lowered.compile().as_text())
    moved = sorted(hlo.traffic(computations, name) for name in computations if name.startswith("region"))
    assert len(moved) == 3 and moved[1] < moved[2] <= hlo.traffic(computations, entry) < moved[2] + 100


def test_bytes_of_arrays_agree_with_numpy():
    for kind, dtype in dict(f32=np.float32, s64=np.int64, pred=np.bool_, u8=np.uint8).items():
        assert hlo.arrays(f"{kind}[3,5]{{1,0}}") == [np.zeros((3, 5), dtype).nbytes]
