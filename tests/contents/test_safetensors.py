"""Safetensors headers: true ones, lying ones, and how little of a big file is read."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.contents.files import facts_of, raw_safetensors, read_files
from touchmark.contents import FileEntry, read_contents

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_tensors_are_summed_over_files(safetensors_bytes: bytes) -> None:
    contents = read_files({"a.safetensors": safetensors_bytes, "b.safetensors": safetensors_bytes})
    assert contents.tensors == {"count": 4, "parameters": 32, "bytes": 112, "dtypes": {"F16": 8, "F32": 24}}
    assert facts_of(contents, "a.safetensors")["metadata"] == {"format": "np"}
    assert facts_of(contents, "a.safetensors")["tensors"]["parameters"] == 16
    assert contents.framework == "safetensors"
    assert contents.pickles == []
    assert contents.warnings == []


def test_a_file_is_recognised_without_its_suffix(safetensors_bytes: bytes) -> None:
    contents = read_files({"weights.bin": safetensors_bytes})
    assert facts_of(contents, "weights.bin")["format"] == "safetensors"


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length: int) -> None:
    for pad in range(2000):
        data = safetensors.numpy.save({"w": np.zeros(1, dtype=np.float32)}, metadata={"pad": "x" * pad})
        if struct.unpack_from("<Q", data)[0] == length:
            break
    else:
        pytest.fail("no padding gives this length")
    assert data[0] == 0x80
    contents = read_files({"m.safetensors": data})
    assert contents.pickles == []
    assert contents.tensors is not None


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (struct.pack("<Q", 2**63) + b"{}", "its header says"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "its header says"),
        (b"\x02", "ends at byte 1"),
        (b"", "ends at byte 0"),
        (raw_safetensors(b"{]" + b" " * 10), "JSON cannot be read"),
        (raw_safetensors(b"[1]      "), "not a JSON object"),
        (raw_safetensors(b'{"a":' + b"[" * 5000), "nested too deeply"),
        (raw_safetensors(b'{"a": 1, "a": 2}'), "'a' appears twice"),
        (raw_safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 9**999}}, b""), "outside"),
        (raw_safetensors({"a": 3}), "lacks a dtype"),
        (raw_safetensors({"a": {**F32, "shape": [2.0]}}, b"\0" * 8), "not a whole number"),
        (raw_safetensors({"a": {**F32, "shape": [True, 2]}}, b"\0" * 8), "not a whole number"),
        (raw_safetensors({"a": {**F32, "shape": [-2]}}, b"\0" * 8), "negative dimension"),
        (raw_safetensors({"a": {**F32, "shape": [2**40, 2**40]}}, b"\0" * 8), "63 bits"),
        (raw_safetensors({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8), "outside the file"),
        (raw_safetensors({"a": {**F32, "data_offsets": [-8, 0]}}, b"\0" * 8), "outside the file"),
        (raw_safetensors({"a": {**F32, "data_offsets": [0, 2**70]}}, b"\0" * 8), "outside the file"),
        (raw_safetensors({"a": {**F32, "shape": [3]}}, b"\0" * 8), "do not make"),
        (raw_safetensors({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12), "overlaps"),
        (raw_safetensors({"a": F32, "b": F32}, b"\0" * 8), "overlaps"),
    ],
)
def test_a_lying_header_is_said_and_counts_nothing(header: bytes, reason: str) -> None:
    contents = read_files({"m.safetensors": header})
    assert facts_of(contents, "m.safetensors")["format"] == "safetensors"
    assert contents.tensors is None
    assert len(contents.warnings) == 1
    assert reason in contents.warnings[0]


def test_bytes_that_belong_to_no_tensor_are_mentioned() -> None:
    contents = read_files({"m.safetensors": raw_safetensors({"a": F32}, b"\0" * 9)})
    assert contents.tensors is not None
    assert "belong to no tensor" in contents.warnings[0]


def test_invented_element_types_share_one_entry() -> None:
    header = {f"t{n}": {"dtype": f"X{n}", "shape": [1], "data_offsets": [n, n + 1]} for n in range(500)}
    contents = read_files({"m.safetensors": raw_safetensors(header, b"\0" * 500)})
    assert contents.tensors is not None
    assert contents.tensors["dtypes"] == {"OTHER": 500}


def test_a_header_above_8_mib_is_not_read() -> None:
    header = b"{" + b" " * (8 * 1024 * 1024) + b"}"
    contents = read_files({"m.safetensors": raw_safetensors(header)})
    assert "8388608 bytes" in contents.warnings[0]


def test_a_header_made_to_fill_memory_is_not_parsed() -> None:
    contents = read_files({"m.safetensors": raw_safetensors(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}")})
    assert "more brackets than tensors" in contents.warnings[0]


def test_less_than_one_mib_is_read_of_a_4_gib_file(tmp_path: Path) -> None:
    tensors = 1000
    size = 4 * 1024**3
    each = size // tensors // 4 * 4
    header = {
        f"layers.{n}.weight": {"dtype": "F32", "shape": [each // 4], "data_offsets": [n * each, (n + 1) * each]}
        for n in range(tensors)
    }
    path = tmp_path / "big.safetensors"
    path.write_bytes(raw_safetensors(header))
    os.truncate(path, path.stat().st_size + tensors * each)  # sparse: takes no room
    counted = 0
    with path.open("rb") as stream:

        def read_at(name: str, offset: int, length: int) -> bytes:
            nonlocal counted
            assert name == "big.safetensors"
            stream.seek(offset)
            data = stream.read(length)
            counted += len(data)
            return data

        contents = read_contents([FileEntry("big.safetensors", path.stat().st_size)], read_at)
    assert contents.warnings == []
    assert contents.tensors is not None
    assert contents.tensors["bytes"] == tensors * each
    assert counted < 1024 * 1024
