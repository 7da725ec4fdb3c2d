"""Numbers in JSON: finite ones as numbers, the others as the strings `nan`, `inf` and `-inf`, in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from touchmark.domain.errors import InvalidFieldError
from touchmark.protocols.native.schemas import Number


def to_number(value: float) -> Number:
    """Return a float as JSON can say it."""
    return value if math.isfinite(value) else cast("Number", repr(float(value)))


def to_numbers(values: Mapping[str, float]) -> dict[str, Number]:
    """Return metrics as JSON can say them."""
    return {key: to_number(value) for key, value in values.items()}


def from_number(field: str, value: Number) -> float:
    """Return the float a client wrote. Raises InvalidFieldError for a JSON number beyond a double, such as 1e999."""
    if isinstance(value, str):
        return float(value)
    if not math.isfinite(value):
        raise InvalidFieldError(field=field, reason="it does not fit a double; write the string inf if it is infinite")
    return value
