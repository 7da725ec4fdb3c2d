"""One tensor of a safetensors file, without the rest of the file.

The format: 8 bytes that say how long the header is (little-endian), the header as JSON (name to dtype, shape and
data_offsets from the header's end), then the numbers, row by row (safetensors' README, "Format").
"""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

from touchmark.domain.errors import InvalidFieldError, MissingExtraError
from touchmark.domain.text import list_first

if TYPE_CHECKING:
    from numpy import ndarray

MAX_HEADER_BYTES = 100_000_000
"""As safetensors itself has it."""

DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "BF16": "<u2",
}  # fmt: skip


def read_tensor(stream: BinaryIO, path: str, name: str) -> ndarray[Any, Any]:
    """Return one tensor of an open safetensors file as an array of its own memory; bfloat16 becomes float32, exactly.

    Raises InvalidFieldError for a file that is none, a tensor that is not in it, and a dtype NumPy does not have;
    MissingExtraError without NumPy.
    """
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise MissingExtraError(what="Reading a tensor", install="pip install 'touchmark[safetensors]'") from None
    header, begin = read_header(stream, path)
    entry = header.get(name)
    if entry is None or name == "__metadata__":
        known = list_first([each for each in header if each != "__metadata__"])
        raise InvalidFieldError(field=path, reason=f"it holds no tensor {name!r}, only {known or 'none'}")
    try:
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype = DTYPES.get(kind)
        if dtype is None:
            raise InvalidFieldError(field=path, reason=f"{name!r} is {kind}, which NumPy does not have: pull the file")
        numbers = np.dtype(dtype)
        if not all(type(each) is int and each >= 0 for each in (*shape, first, last)):
            raise ValueError(entry)
        if last - first != prod(shape) * numbers.itemsize:
            raise ValueError(entry)
    except (KeyError, TypeError, ValueError):
        raise InvalidFieldError(field=path, reason=f"its header does not say what {name!r} is") from None
    stream.seek(begin + first)
    data = bytearray(last - first)
    if _fill(stream, memoryview(data)) != len(data):
        raise InvalidFieldError(field=path, reason=f"it ends within {name!r}")
    array: ndarray[Any, Any] = np.frombuffer(data, numbers).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array


def read_header(stream: BinaryIO, path: str) -> tuple[dict[str, Any], int]:
    """Return the header, and where the numbers begin."""
    stream.seek(0)
    size_bytes = int.from_bytes(stream.read(8), "little")
    try:
        if not 2 <= size_bytes <= MAX_HEADER_BYTES:
            raise ValueError(size_bytes)
        header = json.loads(stream.read(size_bytes))
        if not isinstance(header, dict):
            raise TypeError(header)
    except (ValueError, TypeError, RecursionError):
        raise InvalidFieldError(field=path, reason="it is no safetensors file") from None
    return header, 8 + size_bytes


def _fill(stream: BinaryIO, target: memoryview) -> int:
    done = 0
    while done < len(target) and (count := stream.readinto(target[done:])):  # type: ignore[attr-defined]
        done += count
    return done
