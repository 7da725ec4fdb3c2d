"""Is this a pickle? Detection by bytes alone; nothing is ever unpickled.

Source: the opcodes of Python's `pickletools`. Here: the start of a stream, names that only pickles have, object
arrays of NumPy. Not here: judging whether a pickle is harmless. It is not asked: a pickle is refused.
"""

from __future__ import annotations

import bz2
import io
import lzma
import pickletools
import re
import zlib

PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})
"""Suffixes of files whose only loader is an unpickler."""

TORCH_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin"})
"""Suffixes of files that often are pickles and often are not: their bytes decide."""

_OPCODES = frozenset(ord(op.code) for op in pickletools.opcodes)
_HIGHEST_PROTOCOL = 5
_NAMES_SOMETHING = frozenset({"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})  # GLOBAL and INST carry the name as argument
_ENOUGH_OPCODES = 8  # before a head that ends within the stream: prose and random bytes get a few by chance
_FEWEST_OPCODES = 4  # two strings, STACK_GLOBAL, STOP
_PEEK_BYTES = 4096
_LZMA_MEMORY_BYTES = 64 * 1024 * 1024
_OBJECT_TYPE = re.compile(rb"'[|<>=]?O\d*'")


def has_pickle_name(path: str) -> bool:
    """Answer whether the name (`model.joblib`, `model.pkl.gz`) is one that only an unpickler would open."""
    name = path[path.rfind("/") + 1 :].lower().lstrip(".")
    return "." in name and any("." + part in PICKLE_SUFFIXES for part in name.split(".")[1:])


def is_pickle(head: bytes, *, is_whole: bool) -> bool:
    """Answer whether a stream starting with `head` would be taken by an unpickler. `is_whole`: nothing follows `head`.

    Protocols 2 to 5 start with a header. Older ones, and streams written to hide, have none: these are recognised by
    following the opcodes, and count when they name something to import or go on to the end of a long head.
    """
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= _HIGHEST_PROTOCOL:
        return len(head) == 2 or head[2] in _OPCODES  # 80 04 00 … is a length (safetensors), no pickle
    if not head or head[0] not in _OPCODES:
        return False
    stream = io.BytesIO(head)
    count, imports, may_import = 0, False, False
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            count += 1
            if opcode.name in ("GLOBAL", "INST"):
                if not all(part.isidentifier() for part in re.split("[. ]", str(argument))):
                    return False
                imports = True
            may_import = may_import or opcode.name in _NAMES_SOMETHING
    except Exception:  # noqa: BLE001 - genops raises what its argument readers happen to raise
        return not is_whole and stream.tell() >= len(head) and (imports or count >= _ENOUGH_OPCODES)
    return imports or (may_import and count >= _FEWEST_OPCODES)  # STOP was reached


def peek_compressed(head: bytes) -> bytes | None:
    """Return the first bytes inside a gzip, zlib, bzip2 or xz stream, or None if they cannot be had from `head`.

    At most _PEEK_BYTES come out, whatever the stream would expand to.
    """
    try:
        if head.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
            return zlib.decompressobj(wbits=47).decompress(head, _PEEK_BYTES) or None
        if head.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(head, _PEEK_BYTES) or None
        if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES).decompress(head, _PEEK_BYTES) or None
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, MemoryError):
        return None
    return None


def holds_objects(npy: bytes) -> bool:
    """Answer whether the start of a .npy file announces Python objects, which NumPy stores as a pickle.

    Also True if the header does not end within `npy`: what cannot be read cannot be trusted.
    """
    if len(npy) < 10:
        return False
    begin = 10 if npy[6] == 1 else 12
    length = int.from_bytes(npy[8:begin], "little")
    return begin + length > len(npy) or _OBJECT_TYPE.search(npy, begin, begin + length) is not None
