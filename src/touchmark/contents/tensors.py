"""Counting tensors: one tally for every format, with element types in safetensors' spelling (F32, BF16, I64).

Here: the tally and the bits an element takes. Not here: where tensors are written down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from touchmark.domain.errors import InvalidError

MAX_INT64 = 2**63 - 1

ELEMENT_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "C128": 128, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "U4": 4, "I4": 4, "U2": 2, "I2": 2,
}  # fmt: skip
"""Bits of one element, by safetensors' name of the type."""


def count_elements(shape: Iterable[int]) -> int:
    """Multiply a shape out. Raises InvalidError for a negative dimension or a product beyond 63 bits."""
    count = 1
    dimensions = list(shape)
    for dimension in dimensions:
        if dimension < 0:
            raise InvalidError("a tensor has a negative dimension")
    if 0 in dimensions:
        return 0
    for dimension in dimensions:
        count *= dimension
        if count > MAX_INT64:
            raise InvalidError("a tensor has more elements than 63 bits can count")
    return count


@dataclass
class Tally:
    """A sum over tensors: how many, their elements (`parameters`, and by type in `dtypes`), their size in bytes."""

    count: int = 0
    parameters: int = 0
    bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)

    def add(self, dtype: str, elements: int, size_bytes: int) -> None:
        """Count one tensor. Raises InvalidError when a sum leaves 63 bits, having changed nothing."""
        if self.parameters + elements > MAX_INT64 or self.bytes + size_bytes > MAX_INT64:
            raise InvalidError("the tensors together have more elements than 63 bits can count")
        self.count += 1
        self.parameters += elements
        self.bytes += size_bytes
        self._count_dtype(dtype, elements)

    def add_all(self, other: Tally) -> None:
        """Add another sum to this one."""
        self.count += other.count
        self.parameters += other.parameters
        self.bytes += other.bytes
        for dtype, elements in other.dtypes.items():
            self._count_dtype(dtype, elements)

    def _count_dtype(self, dtype: str, elements: int) -> None:
        """Invented types share one entry, so that a file full of them does not fill a row of the catalogue."""
        known = dtype in ELEMENT_BITS or dtype == "STRING"
        name = dtype if known else "OTHER"
        self.dtypes[name] = self.dtypes.get(name, 0) + elements

    def to_json(self) -> dict[str, object]:
        """Return {count, parameters, bytes, dtypes: {name: elements}}."""
        return {
            "count": self.count,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "dtypes": dict(sorted(self.dtypes.items())),
        }
