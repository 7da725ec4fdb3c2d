"""The header of a safetensors file: 8 bytes little-endian length, JSON of that length, then the tensors' bytes.

Source: the format section of safetensors' README. Here: the header and its checks. Not here: any tensor's bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from touchmark.contents.documents import clean_text, parse_json
from touchmark.contents.reading import BoundedFile
from touchmark.contents.tensors import ELEMENT_BITS, Tally, count_elements
from touchmark.domain.errors import InvalidError, LimitExceededError

HEADER_BYTES = 8 * 1024 * 1024
"""The largest header read; 50,000 tensors take about 5 MiB."""

_SMALL_BYTES = 1024 * 1024
_METADATA_ENTRIES = 32


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a safetensors header says: the sum over its tensors and its `__metadata__` (text to text, shortened)."""

    tensors: Tally
    metadata: dict[str, str]


def is_safetensors(head: bytes, size_bytes: int) -> bool:
    """Answer whether the first bytes are a safetensors length that fits the file, followed by a JSON object.

    A header of 640, 896, 1152 or 1408 bytes begins like a pickle (80 02 … 80 05): the zero bytes after it, which are
    no pickle opcode, and the brace tell them apart.
    """
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack_from("<Q", head)
    return bool(2 <= length <= size_bytes - 8)


def read_safetensors(file: BoundedFile, warn: Callable[[str], None]) -> SafetensorsHeader:
    """Read and check the header. Raises InvalidError for a header that lies, LimitExceededError above HEADER_BYTES."""
    (length,) = struct.unpack("<Q", file.read_exactly(0, 8))
    data_bytes = file.size_bytes - 8 - length
    if data_bytes < 0:
        raise InvalidError(f"its header says it is {length} bytes long, but the file has {file.size_bytes}")
    if length > HEADER_BYTES:
        raise LimitExceededError(what="The header of a safetensors file", limit=HEADER_BYTES, unit="bytes")
    text = file.read_exactly(8, length)
    if length > _SMALL_BYTES and text.count(b"[") + text.count(b"{") > length // 8:
        raise InvalidError("its header is more brackets than tensors")  # 8 MiB of `[],` are 250 MiB of lists
    header = parse_json(text)
    if not isinstance(header, dict):
        raise InvalidError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    tally = Tally()
    spans: list[tuple[int, int, str]] = []
    for name, tensor in header.items():
        spans.append((*_read_tensor(name, tensor, data_bytes, tally), name))
    _check_spans(spans, data_bytes, warn)
    return SafetensorsHeader(tensors=tally, metadata=_read_metadata(metadata, warn))


def _read_tensor(name: str, tensor: object, data_bytes: int, tally: Tally) -> tuple[int, int]:
    shown = clean_text(name, 100)
    dtype = tensor.get("dtype") if isinstance(tensor, dict) else None
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise InvalidError(f"tensor {shown!r} lacks a dtype, a shape or two data_offsets")
    if any(type(number) is not int for number in (*shape, *offsets)):
        raise InvalidError(f"tensor {shown!r} has a shape or an offset that is not a whole number")
    begin, end = offsets
    if not 0 <= begin <= end <= data_bytes:
        raise InvalidError(f"tensor {shown!r} lies outside the file")
    elements = count_elements(shape)
    bits = ELEMENT_BITS.get(dtype)
    if bits is not None and (elements * bits + 7) // 8 != end - begin:
        raise InvalidError(f"tensor {shown!r} has {end - begin} bytes, which its dtype and shape do not make")
    tally.add(dtype, elements, end - begin)
    return begin, end


def _check_spans(spans: list[tuple[int, int, str]], data_bytes: int, warn: Callable[[str], None]) -> None:
    spans.sort()
    covered, has_holes = 0, False
    for begin, end, name in spans:
        if begin < covered:
            raise InvalidError(f"tensor {clean_text(name, 100)!r} overlaps another one")
        has_holes = has_holes or begin > covered
        covered = end
    if has_holes or covered != data_bytes:
        warn("some of its bytes belong to no tensor, which strict readers refuse")


def _read_metadata(metadata: object, warn: Callable[[str], None]) -> dict[str, str]:
    if not isinstance(metadata, dict):
        warn("its __metadata__ is not a JSON object")
        return {}
    texts = {key: value for key, value in sorted(metadata.items()) if isinstance(value, str)}
    if len(texts) < len(metadata):
        warn("some of its __metadata__ is not text")
    if len(texts) > _METADATA_ENTRIES:
        warn(f"only {_METADATA_ENTRIES} of its {len(texts)} __metadata__ entries are shown")
    return {clean_text(key): clean_text(texts[key]) for key in list(texts)[:_METADATA_ENTRIES]}
