"""A reader with a fault behind a magic word, a length and a flag: what the fuzzer must find by itself."""

from __future__ import annotations


def read(data: bytes) -> int:
    """Return a quotient of what stands in the data."""
    if data[:4] != b"TMRK":
        return 0
    if len(data) < 12:
        return 1
    if not data[4] & 0x40:
        return 2
    return 100 // (data[11] - 7) if data[8] == data[9] else 3
