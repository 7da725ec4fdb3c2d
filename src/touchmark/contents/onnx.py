"""The outline of an ONNX model, by walking the protobuf wire format and skipping what is big.

Source: onnx.proto (ModelProto, GraphProto, TensorProto, ValueInfoProto, TypeProto) and protobuf's encoding page.
Here: versions, opsets, inputs, outputs, counts of initializers, where external data is said to be. Not here: nodes,
tensor bytes, opening external data. Field numbers stand beside the names they have in onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from touchmark.contents.documents import clean_text
from touchmark.contents.reading import BoundedFile, Window
from touchmark.contents.tensors import ELEMENT_BITS, Tally, count_elements
from touchmark.domain.errors import InvalidError

_VALUES = 1024
_TEXT_BYTES = 1024
_METADATA_ENTRIES = 32
_EXTERNAL_PATHS = 256
_DIMENSIONS = 64
_TYPE_DEPTH = 16
_IR_WITH_OPTIONAL_INPUTS = 4  # from IR version 4 on, an input with an initializer is an input with a default

_ELEMENTS = {
    1: ("float32", "F32"), 2: ("uint8", "U8"), 3: ("int8", "I8"), 4: ("uint16", "U16"), 5: ("int16", "I16"),
    6: ("int32", "I32"), 7: ("int64", "I64"), 8: ("string", "STRING"), 9: ("bool", "BOOL"), 10: ("float16", "F16"),
    11: ("float64", "F64"), 12: ("uint32", "U32"), 13: ("uint64", "U64"), 14: ("complex64", "C64"),
    15: ("complex128", "C128"), 16: ("bfloat16", "BF16"), 17: ("float8e4m3fn", "F8_E4M3"),
    18: ("float8e4m3fnuz", "F8_E4M3FNUZ"), 19: ("float8e5m2", "F8_E5M2"), 20: ("float8e5m2fnuz", "F8_E5M2FNUZ"),
    21: ("uint4", "U4"), 22: ("int4", "I4"), 23: ("float4e2m1", "F4"), 24: ("float8e8m0", "F8_E8M0"),
    25: ("uint2", "U2"), 26: ("int2", "I2"), 27: ("float6e2m3", "F6_E2M3"), 28: ("float6e3m2", "F6_E3M2"),
}  # fmt: skip
"""TensorProto.DataType -> the name in a schema (NumPy's, as in MLflow's signatures) and in a tally (safetensors')."""

Column = dict[str, object]


@dataclass
class OnnxModel:
    """What was found; filled as the walk goes, so that a broken file still shows what came before the damage."""

    ir_version: int = 0
    producer: str = ""
    producer_version: str = ""
    graph_name: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    inputs: list[Column] = field(default_factory=list)
    outputs: list[Column] = field(default_factory=list)
    initializers: Tally = field(default_factory=Tally)
    metadata: dict[str, str] = field(default_factory=dict)
    external_paths: list[str] = field(default_factory=list)


class _Field(NamedTuple):
    number: int
    value: int  # of a varint; 0 for what has a length or a fixed width
    start: int
    end: int
    has_length: bool


def read_onnx(file: BoundedFile, warn: Callable[[str], None]) -> OnnxModel:
    """Walk the model. Never raises for bad bytes: what is wrong is said through `warn`, and what was found stands.

    Raises LimitExceededError when the budget of the whole model is spent.
    """
    walk = _Walk(file, warn)
    try:
        walk.read_model()
    except InvalidError as problem:
        if file.budget.is_spent or file.budget.failure is not None:
            raise
        warn(f"only a part of it could be read: {problem.message}")
    return walk.finish()


class _Walk:
    def __init__(self, file: BoundedFile, warn: Callable[[str], None]) -> None:
        self.found = OnnxModel()
        self._file = file
        self._warn = warn
        self._window = Window(file)
        self._names: set[str] = set()  # of initializers
        self._bad_tensors = 0

    # ── the wire (protobuf encoding: tag = number << 3 | type; varint, fixed64, length, fixed32) ──

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        data = self._window.read(at, min(10, end - at))
        value = 0
        for index, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
        raise InvalidError(f"there is no whole number at byte {at}")

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        at = start
        while at < end:
            self._file.budget.take_step()
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            value, begin = 0, at
            if kind == 0:
                value, at = self._varint(at, end)
            elif kind == 1:
                at += 8
            elif kind == 2:
                length, begin = self._varint(at, end)
                at = begin + length
            elif kind == 5:
                at += 4
            else:
                raise InvalidError(f"there is no protobuf field at byte {begin}")
            if number == 0 or at > end:
                raise InvalidError(f"the field at byte {begin} does not fit")
            yield _Field(number, value, begin, at, kind == 2)

    def _text(self, part: _Field) -> str:
        if not part.has_length:
            raise InvalidError(f"the field at byte {part.start} should be text")
        data = self._window.read(part.start, min(part.end - part.start, _TEXT_BYTES))
        return clean_text(data.decode("utf-8", "replace"))

    def _integers(self, part: _Field) -> Iterator[int]:
        """Yield a repeated int64, written one by one (proto2) or packed (proto3)."""
        if not part.has_length:
            yield _signed(part.value)
            return
        at = part.start
        while at < part.end:
            self._file.budget.take_step()
            value, at = self._varint(at, part.end)
            yield _signed(value)

    # ── the messages ──

    def read_model(self) -> None:
        for part in self._fields(0, self._file.size_bytes):
            if part.number == 1:  # ir_version
                self.found.ir_version = _signed(part.value)
            elif part.number == 2:  # producer_name
                self.found.producer = self._text(part)
            elif part.number == 3:  # producer_version
                self.found.producer_version = self._text(part)
            elif part.number == 7 and part.has_length:  # graph
                self._read_graph(part)
            elif part.number == 8 and part.has_length:  # opset_import
                self._read_opset(part)
            elif part.number == 14 and part.has_length:  # metadata_props
                self._read_pair(part, self.found.metadata)

    def finish(self) -> OnnxModel:
        """Settle which inputs need a value, which is known only once every initializer was seen."""
        found = self.found
        if found.ir_version < _IR_WITH_OPTIONAL_INPUTS:  # initializers had to be listed as inputs as well
            found.inputs = [column for column in found.inputs if column["name"] not in self._names]
        for column in found.inputs:
            column["required"] = column["name"] not in self._names
        found.external_paths.sort()
        if self._bad_tensors:
            self._warn(f"{self._bad_tensors} of its initializers have no size that can be, and are not counted")
        return found

    def _read_graph(self, graph: _Field) -> None:
        for part in self._fields(graph.start, graph.end):
            if part.number == 2:  # name
                self.found.graph_name = self._text(part)
            elif part.number == 5 and part.has_length:  # initializer
                self._read_tensor(part)
            elif part.number == 15 and part.has_length:  # sparse_initializer
                for inner in self._fields(part.start, part.end):
                    if inner.number == 1 and inner.has_length:  # values
                        self._read_tensor(inner)
            elif part.number == 11 and part.has_length:  # input
                self._read_value(part, self.found.inputs)
            elif part.number == 12 and part.has_length:  # output
                self._read_value(part, self.found.outputs)

    def _read_opset(self, opset: _Field) -> None:
        domain, version = "ai.onnx", 0
        for part in self._fields(opset.start, opset.end):
            if part.number == 1:  # domain; empty means ai.onnx
                domain = self._text(part) or domain
            elif part.number == 2:  # version
                version = _signed(part.value)
        if len(self.found.opsets) < _METADATA_ENTRIES:
            self.found.opsets[domain] = version

    def _read_pair(self, entry: _Field, into: dict[str, str]) -> None:
        key = value = ""
        for part in self._fields(entry.start, entry.end):
            if part.number == 1:
                key = self._text(part)
            elif part.number == 2:
                value = self._text(part)
        if key in into or len(into) < _METADATA_ENTRIES:
            into[key] = value

    def _read_tensor(self, tensor: _Field) -> None:
        kind = 0
        dimensions: list[int] = []
        external: dict[str, str] = {}
        for part in self._fields(tensor.start, tensor.end):
            if part.number == 1:  # dims
                dimensions.extend(self._integers(part))
            elif part.number == 2:  # data_type
                kind = part.value
            elif part.number == 8:  # name
                self._names.add(self._text(part))
            elif part.number == 13 and part.has_length:  # external_data
                self._read_pair(part, external)
        _, dtype = _ELEMENTS.get(kind, ("", "OTHER"))
        try:
            elements = count_elements(dimensions)
            self.found.initializers.add(dtype, elements, (elements * ELEMENT_BITS.get(dtype, 0) + 7) // 8)
        except InvalidError:
            self._bad_tensors += 1
        place = external.get("location")
        paths = self.found.external_paths
        if place is not None and place not in paths and len(paths) < _EXTERNAL_PATHS:
            paths.append(place)
            if place.startswith(("/", "\\")) or ".." in place.replace("\\", "/").split("/") or ":" in place:
                self._warn(f"its external data {place!r} lies outside the model")

    def _read_value(self, value: _Field, into: list[Column]) -> None:
        if len(into) >= _VALUES:
            return
        column: Column = {"name": "", "type": "any", "shape": None, "required": True}
        for part in self._fields(value.start, value.end):
            if part.number == 1:  # name
                column["name"] = self._text(part)
            elif part.number == 2 and part.has_length:  # type
                column["type"], column["shape"] = self._read_type(part, 0)
        into.append(column)
        if len(into) == _VALUES:
            self._warn(f"only its first {_VALUES} inputs or outputs are shown")

    def _read_type(self, type_proto: _Field, depth: int) -> tuple[str, list[int | str] | None]:
        if depth > _TYPE_DEPTH:
            raise InvalidError(f"a type is nested deeper than {_TYPE_DEPTH} levels")
        for part in self._fields(type_proto.start, type_proto.end):
            if not part.has_length:
                continue
            if part.number in (1, 8):  # tensor_type, sparse_tensor_type
                name, shape = self._read_tensor_type(part)
                return (f"sparse({name})" if part.number == 8 else name), shape
            if part.number in (4, 9):  # sequence_type, optional_type: elem_type = 1
                inner = next((p for p in self._fields(part.start, part.end) if p.number == 1 and p.has_length), None)
                name = "any" if inner is None else self._read_type(inner, depth + 1)[0]
                return f"{'sequence' if part.number == 4 else 'optional'}({name})", None
            if part.number == 5:  # map_type
                key, name = "any", "any"
                for inner in self._fields(part.start, part.end):
                    if inner.number == 1:  # key_type
                        key = _element_name(inner.value)
                    elif inner.number == 2 and inner.has_length:  # value_type
                        name = self._read_type(inner, depth + 1)[0]
                return f"map({key}, {name})", None
            if part.number == 7:  # opaque_type
                return "opaque", None
        return "any", None

    def _read_tensor_type(self, tensor: _Field) -> tuple[str, list[int | str] | None]:
        name = "any"
        shape: list[int | str] | None = None
        for part in self._fields(tensor.start, tensor.end):
            if part.number == 1:  # elem_type
                name = _element_name(part.value)
            elif part.number == 2 and part.has_length:  # shape
                shape = []
                for dimension in self._fields(part.start, part.end):
                    if dimension.number == 1 and dimension.has_length and len(shape) < _DIMENSIONS:
                        shape.append(self._read_dimension(dimension))
        return name, shape

    def _read_dimension(self, dimension: _Field) -> int | str:
        found: int | str = -1
        for part in self._fields(dimension.start, dimension.end):
            if part.number == 1 and not part.has_length:  # dim_value
                found = _signed(part.value)
            elif part.number == 2:  # dim_param
                found = self._text(part) or -1
        return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _element_name(kind: int) -> str:
    return _ELEMENTS[kind][0] if kind in _ELEMENTS else f"type {kind}"
