"""Which format is it? Magic bytes first, then the name.

Here: one word for a file from its first bytes and its path. Not here: whether the rest of the file keeps the promise.
"""

from __future__ import annotations

from functools import lru_cache

from touchmark.contents.natives import is_lightgbm, is_xgboost
from touchmark.contents.pickles import PICKLE_SUFFIXES, TORCH_SUFFIXES, is_pickle, peek_compressed
from touchmark.contents.safetensors import is_safetensors

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"GGUF", "gguf"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (4, b"TFL3", "tflite"),
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1", "arrow"),
    (0, b"CBM1", "catboost"),
    (0, b"\x1f\x8b", "gzip"),
    (4, b"1AY&SY", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x5d\x00\x00", "lzma"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"\x04\x22\x4d\x18", "lz4"),
    (257, b"ustar", "tar"),
    (0, b"\x78\x01", "zlib"),
    (0, b"\x78\x5e", "zlib"),
    (0, b"\x78\x9c", "zlib"),
    (0, b"\x78\xda", "zlib"),
)

_NAMES = {
    "MLmodel": "mlmodel",
    "requirements.txt": "requirements",
    "conda.yaml": "conda",
    "python_env.yaml": "python_env",
    "saved_model.pb": "tensorflow",
    "touchmark.json": "touchmark",
}

_SUFFIXES = {
    ".safetensors": "safetensors", ".onnx": "onnx", ".skops": "skops", ".gguf": "gguf", ".npy": "numpy", ".npz": "zip",
    ".h5": "hdf5", ".hdf5": "hdf5", ".keras": "zip", ".tflite": "tflite", ".cbm": "catboost", ".ubj": "xgboost",
    ".xgb": "xgboost", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text", ".md": "text",
    ".py": "python", ".csv": "csv", ".parquet": "parquet", ".zip": "zip",
}  # fmt: skip

COMPRESSED = frozenset({"gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "zlib"})
"""Formats that hold one other file."""

MODEL_FORMATS = frozenset(
    {"safetensors", "onnx", "skops", "gguf", "hdf5", "keras", "tflite", "catboost", "lightgbm", "xgboost", "torch", "tensorflow",
     "pickle"}
)  # fmt: skip
"""Formats that can be what a model is made of, and so name its framework when no MLmodel does."""


def sniff_format(path: str, head: bytes, size_bytes: int) -> str | None:
    """Return the format of a file from its first bytes (up to 4 KiB) and its path, or None if it is not recognised."""
    if is_safetensors(head, size_bytes):
        return "safetensors"
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset) and (name != "zlib" or peek_compressed(head) is not None):
            return name  # two bytes are a weak sign of zlib: `x^2` is one, too
    if is_xgboost(head):
        return "xgboost"
    if is_lightgbm(head):
        return "lightgbm"
    if is_pickle(head, is_whole=len(head) >= size_bytes):
        return "pickle"
    return sniff_name(path)


def sniff_name(path: str) -> str | None:
    """Return the format a path promises, or None."""
    name, suffix = split_name(path)
    return _NAMES.get(name) or _SUFFIXES.get(suffix)


@lru_cache(4096)
def split_name(path: str) -> tuple[str, str]:
    """Return the last part of a path, and its suffix in lower case with the dot (empty if there is none).

    As PurePosixPath would say, at a tenth of its cost: registering a thousand files asks for each several times.
    """
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name, name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def interest(path: str) -> int:
    """Rank a path for when not every file can be looked at: 0 first; what may be a pickle goes before weights."""
    name, suffix = split_name(path)
    if name in _NAMES:
        return 0
    if suffix in PICKLE_SUFFIXES or suffix in TORCH_SUFFIXES:
        return 1
    return 2 if _SUFFIXES.get(suffix) in MODEL_FORMATS or suffix in (".npy", ".npz", ".zip", ".keras") else 3
