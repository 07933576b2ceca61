"""A network as an ONNX file, encoded by hand (protobuf's wire format): means of squares of 4 px, as features."""

from collections.abc import Sequence


def network(
    shape: Sequence[int | str] = ("n", 3, 8, 8), outputs: Sequence[str] = ("features",), kind: int = 1
) -> bytes:
    """The file's bytes.

    Args:
        shape: of the input; texts are free axes. kind: of its elements, 1 for float32.
        outputs: of "features" [n, 12] and "pooled" [n, 3, 2, 2].
    """
    pool = _field(1, "x") + _field(2, "pooled") + _field(4, "AveragePool")
    pool += _ints("kernel_shape", 4, 4) + _ints("strides", 4, 4)
    flat = _field(1, "pooled") + _field(2, "features") + _field(4, "Flatten")
    shapes = dict(features=(shape[0], 12), pooled=(shape[0], 3, 2, 2))
    graph = _field(1, pool) + _field(1, flat) + _field(2, "tiny") + _field(11, _value("x", shape, kind))
    graph += b"".join(_field(12, _value(name, shapes[name], kind)) for name in outputs)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))  # IR version 8, operators of version 13


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _ints(name: str, *values: int) -> bytes:
    return _field(5, _field(1, name) + b"".join(_field(8, v) for v in values) + _field(20, 7))


def _value(name: str, shape: Sequence[int | str], kind: int) -> bytes:
    axes = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, axes)))
