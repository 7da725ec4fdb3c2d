"""Telling a pickle by its content, whatever its name says. Nothing here unpickles.

A negative answer is no promise: protocols 0 and 1 have no signature, and a pickle may be compressed. What protects
the caller is that loaders unpickle nothing unless told to; this only finds what another framework would unpickle.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# The PROTO opcode opens every pickle since protocol 2 (PEP 307); the protocol's number follows.
_PROTO_HEADS = frozenset(bytes([0x80, protocol]) for protocol in range(2, 6))
_ZIP_SIGNATURE = b"PK"
_ZIP_PICKLE = "data.pkl"  # where torch.save puts its pickle, in a folder of the archive


def is_pickle(path: Path) -> bool:
    """Answer whether the file begins as a pickle of protocol 2 to 5, or is a zip archive that holds a `data.pkl`."""
    with path.open("rb") as file:
        head = file.read(2)
        if head in _PROTO_HEADS:
            return True
        # The whole file decides, not only its head: a zip archive may have anything in front of it.
        if head != _ZIP_SIGNATURE and not zipfile.is_zipfile(file):
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                return any(name.rpartition("/")[2] == _ZIP_PICKLE for name in archive.namelist())
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            return False
