"""ONNX files of a few hundred bytes, written field by field after onnx.proto3 (opset 13)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FLOAT, INT32, INT64 = 1, 6, 7
_INTS = 7


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _value(name: str, kind: int, axes: Sequence[str]) -> bytes:
    shape = b"".join(_field(1, _field(2, axis)) for axis in axes)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


def _node(operation: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, operation) + attributes


def lookup_model(
    weights: NDArray[np.float32],
    outputs: Sequence[Literal["token_embeddings", "sentence_embedding", "logits"]],
    *,
    kind: int = INT64,
    input_name: str = "input_ids",
) -> bytes:
    """A model whose token vectors are rows of `weights`; a text's own is their mean, padding included."""
    axes = _field(1, "axes") + _field(8, 1) + _field(20, _INTS)
    keep = _field(1, "keepdims") + _field(3, 0) + _field(20, 2)
    nodes = {
        "token_embeddings": _node("Gather", ["weights", "whole"], "token_embeddings"),
        "sentence_embedding": _node(
            "ReduceMean", ["token_embeddings"], "sentence_embedding", _field(5, axes) + _field(5, keep)
        ),
        "logits": _node("Identity", ["sentence_embedding"], "logits"),
    }
    cast = _node("Cast", [input_name], "whole", _field(5, _field(1, "to") + _field(3, INT64) + _field(20, 2)))
    tensor = b"".join(_field(1, size) for size in weights.shape) + _field(2, FLOAT) + _field(8, "weights")
    graph = (
        b"".join(_field(1, node) for node in (cast, *nodes.values()))
        + _field(2, "lookup")
        + _field(5, tensor + _field(9, weights.astype("<f4").tobytes()))
        + _field(11, _value(input_name, kind, ["batch", "sequence"]))
        + b"".join(
            _field(
                12, _value(name, FLOAT, ["batch", "sequence", "d"] if name == "token_embeddings" else ["batch", "d"])
            )
            for name in outputs
        )
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
