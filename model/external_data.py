"""Whether an ONNX graph keeps tensors in other files, which no manifest vouches for.

ONNX Runtime looks for such files beside the graph, or in the working directory where the graph comes from
memory, so loading cannot be trusted to refuse them. The service has no `onnx` to read graphs with; this
walks their Protocol Buffers encoding (https://protobuf.dev/programming-guides/encoding) and looks at every
tensor. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

MESSAGES: dict[str, dict[int, str]] = {  # in each message, the fields through which tensors are reached
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a TensorProto; the location is 0 for data in the graph itself
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups are long gone, and ONNX has none


def has_external_data(content: bytes) -> bool:
    """Whether any tensor of a graph lies outside it. Raises ValueError where this is no ONNX graph."""
    waiting = [("ModelProto", 0, len(content))]
    while waiting:
        message, start, end = waiting.pop()
        for field, wire, value, past in _fields(content, start, end):
            if message == "TensorProto" and field in (EXTERNAL_DATA, DATA_LOCATION):
                if field == EXTERNAL_DATA or wire != VARINT or value != 0:
                    return True
            elif wire == BYTES and field in MESSAGES[message]:
                waiting.append((MESSAGES[message][field], value, past))
    return False


def _fields(content: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, value (where it begins, for bytes), and where the field ends."""
    while place < end:
        tag, place = _varint(content, place, end)
        field, wire = tag >> 3, tag & 7
        if not 0 < tag < 2**32 or field == 0:
            raise ValueError(f"a field without a number at byte {place}")
        value = place
        if wire == VARINT:
            value, place = _varint(content, place, end)
        elif wire == BYTES:
            length, value = _varint(content, place, end)
            place = value + length
        elif wire in (FIXED64, FIXED32):
            place += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"a field of unknown type at byte {place}")
        if place > end:
            raise ValueError(f"cut off at byte {end}")
        yield field, wire, value, place


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError(f"cut off at byte {end}")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number without an end at byte {place}")
