"""What is in a model: bounded readers of foreign headers (MLmodel, safetensors, ONNX, skops, NumPy, GGUF, archives).

Here: recognising a file by its bytes, reading the few facts people search and compare, finding pickles. One module a
format. Not here: loading or converting anything, hashing, storage, permissions. Nothing in this package executes,
imports or unpickles what it reads, and nothing but what `read_at` raises may escape `read_contents`.
"""

from __future__ import annotations

from touchmark.contents.compare import compare_contents
from touchmark.contents.contents import READER_VERSION, Contents
from touchmark.contents.inspection import read_contents
from touchmark.contents.reading import FileEntry, ReadAt

__all__ = ["READER_VERSION", "Contents", "FileEntry", "ReadAt", "compare_contents", "read_contents"]
