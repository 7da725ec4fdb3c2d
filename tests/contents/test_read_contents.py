"""The whole: budgets, order, canonical bytes, and anything at all as input."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contents.files import StoredFiles, facts_of, raw_safetensors, read_files, zip_of
from touchmark.contents import READER_VERSION, FileEntry, read_contents
from touchmark.contents.reading import TOTAL_BYTES, TOTAL_READS
from touchmark.domain.errors import InvalidError


def has_float(value: object) -> bool:
    if isinstance(value, dict):
        return any(has_float(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_float(inner) for inner in value)
    return isinstance(value, float)


def test_every_format_is_recognised_and_nothing_is_warned_about(every_format: dict[str, bytes]) -> None:
    contents = read_files(every_format)
    assert {entry["path"]: entry["format"] for entry in contents.files} == {
        "MLmodel": "mlmodel",
        "arrays.npz": "numpy",
        "conda.yaml": "conda",
        "model.gguf": "gguf",
        "model.onnx": "onnx",
        "model.pkl": "pickle",
        "model.pt": "torch",
        "model.safetensors": "safetensors",
        "model.skops": "skops",
        "python_env.yaml": "python_env",
        "requirements.txt": "requirements",
    }
    assert contents.pickles == ["model.pkl", "model.pt"]
    assert facts_of(contents, "model.gguf")["tensor_count"] == 291
    assert contents.framework == "sklearn"
    assert contents.warnings == []
    assert contents.size_bytes == sum(map(len, every_format.values()))
    assert contents.reader_version == READER_VERSION


def test_equal_files_in_any_order_give_equal_canonical_bytes(every_format: dict[str, bytes]) -> None:
    one = read_files(every_format)
    other = read_files(dict(reversed(every_format.items())))
    assert one.to_bytes() == other.to_bytes()
    assert json.loads(one.to_bytes()) == one.to_json()
    assert not has_float(one.to_json())


def test_to_json_is_a_copy(every_format: dict[str, bytes]) -> None:
    contents = read_files(every_format)
    before = contents.to_bytes()
    contents.to_json()["flavors"].clear()  # type: ignore[attr-defined]
    assert contents.to_bytes() == before


def test_no_files_are_nothing() -> None:
    contents = read_contents([], lambda *_: pytest.fail("nothing to read"))
    assert contents.to_json() == {
        "reader_version": READER_VERSION, "file_count": 0, "size_bytes": 0, "framework": None, "python_version": None,
        "flavors": {}, "schema": None, "requirements": [], "tensors": None, "files": [], "pickles": [], "warnings": [],
    }  # fmt: skip


@pytest.mark.parametrize("failure", [OSError("disk"), InvalidError("refused"), ValueError("odd"), KeyError("gone")])
def test_what_read_at_raises_escapes_wherever_it_happens(failure: Exception, every_format: dict[str, bytes]) -> None:
    counted = StoredFiles(every_format)
    counted.read()
    entries = [FileEntry(path, len(data)) for path, data in every_format.items()]
    assert counted.calls > len(entries)
    for which in range(counted.calls):
        stored = StoredFiles(every_format)

        def read_at(path: str, offset: int, length: int, stored: StoredFiles = stored, which: int = which) -> bytes:
            if stored.calls == which:
                raise failure
            return stored.read_at(path, offset, length)

        with pytest.raises(type(failure)) as caught:
            read_contents(entries, read_at)
        assert caught.value is failure


def test_a_file_shorter_than_said_is_said(safetensors_bytes: bytes) -> None:
    stored = StoredFiles({"m.safetensors": safetensors_bytes[:20]}, sizes={"m.safetensors": len(safetensors_bytes)})
    warnings = stored.read().warnings
    assert any("shorter than its size says" in warning for warning in warnings)
    assert any("ends at byte 20" in warning for warning in warnings)


def test_the_65th_header_is_not_read_and_this_is_said(safetensors_bytes: bytes) -> None:
    contents = read_files({f"{n:03}.safetensors": safetensors_bytes for n in range(70)})
    assert contents.tensors is not None
    assert contents.tensors["count"] == 128
    assert len(contents.files) == 70
    assert contents.warnings == ["The headers of 6 recognised files were not read: 64 is the limit."]


def test_of_many_files_128_are_looked_at_and_what_may_be_a_pickle_first() -> None:
    files = {f"data/{n:04}.txt": b"text" for n in range(1000)} | {"z/z/last.bin": b"\x80\x04K\x01."}
    stored = StoredFiles(files)
    contents = stored.read()
    assert contents.pickles == ["z/z/last.bin"]
    assert stored.calls == 128
    assert contents.warnings == ["873 of 1001 files were not looked at: 128 is the limit."]


def test_unseen_files_named_like_pickles_are_listed() -> None:
    contents = read_files({f"{n:04}.pt": b"harmless" for n in range(600)})
    assert len(contents.pickles) == 600 - 128


def test_headers_larger_than_the_budget_together_end_in_one_sentence() -> None:
    header = b'{"a": "' + b"x" * (7 * 1024 * 1024) + b'"}'
    stored = StoredFiles({f"{n}.safetensors": raw_safetensors(header) for n in range(8)})
    contents = stored.read()
    assert stored.bytes_read <= TOTAL_BYTES
    assert contents.warnings[-1] == "The headers of 3 recognised files were not read: the reading budget is spent."


def test_the_stored_form_stays_small_whatever_comes() -> None:
    schema = json.dumps(
        {"__class__": "A", "__module__": "m", "__loader__": "ObjectNode", "content": [
            {"__class__": f"C{n}" + "x" * 150, "__module__": "m"} for n in range(1000)
        ]}
    ).encode()  # fmt: skip
    contents = read_files({f"{n}.skops": zip_of({"schema.json": schema}) for n in range(30)})
    assert len(contents.to_bytes()) < 1024 * 1024
    assert any("more than can be kept" in warning for warning in contents.warnings)


SUFFIXES = st.sampled_from(
    ["m.safetensors", "m.onnx", "m.skops", "m.pkl", "m.pt", "m.npy", "m.npz", "m.gguf", "MLmodel", "conda.yaml",
     "requirements.txt", "python_env.yaml", "m.bin", "m"]
)  # fmt: skip


def check_harmless(files: dict[str, bytes], sizes: dict[str, int] | None = None) -> None:
    stored = StoredFiles(files, sizes=sizes or {})
    begun = time.monotonic()
    contents = stored.read()
    assert time.monotonic() - begun < 10
    assert stored.bytes_read <= TOTAL_BYTES
    assert stored.calls <= TOTAL_READS
    assert json.loads(contents.to_bytes()) == contents.to_json()
    assert not has_float(contents.to_json())
    assert b"\\u0000" not in contents.to_bytes()
    assert not [warning for warning in contents.warnings if "unforeseen" in warning]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(SUFFIXES, st.binary(max_size=600), max_size=4), st.integers(0, 2**63))
def test_random_bytes_never_raise(files: dict[str, bytes], size: int) -> None:
    check_harmless(files)
    check_harmless(files, dict.fromkeys(files, size))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_real_files_never_raise(data: st.DataObject, every_format: dict[str, bytes]) -> None:
    path = data.draw(st.sampled_from(sorted(every_format)))
    content = bytearray(every_format[path])
    for _ in range(data.draw(st.integers(1, 6))):
        # Damage near the ends matters most: that is where headers and directories are.
        near = st.integers(0, min(300, len(content) - 1))
        place = data.draw(st.one_of(near, near.map(lambda n: len(content) - 1 - n), st.integers(0, len(content) - 1)))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "repeat"]))
        if kind == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=12))
        elif kind == "repeat":
            content[place:place] = content[max(0, place - 40) : place]
        elif len(content) > 20:
            del content[place : place + data.draw(st.integers(1, 8))]
    check_harmless({path: bytes(content)})


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
                        st.sampled_from(["type", "name", "items", "properties", "values", "tensor-spec", "dtype",
                                         "shape", "required", "default", "data_offsets", "__class__", "__module__",
                                         "__metadata__", "content"]), inner, max_size=5), max_leaves=25))  # fmt: skip
def test_documents_with_the_right_words_in_the_wrong_places_never_raise(document: object) -> None:
    text = json.dumps(document)
    quoted = json.dumps(text)
    check_harmless(
        {
            "MLmodel": f"flavors: {text if isinstance(document, dict) else '{}'}\nsignature:\n  inputs: {quoted}\n"
            f"  params: {quoted}\n".encode("utf-8", "replace"),
            "conda.yaml": f"dependencies: {text}\npython: {text}\n".encode("utf-8", "replace"),
            "m.safetensors": raw_safetensors(document, b"\0" * 8),
            "m.skops": zip_of({"schema.json": text.encode("utf-8", "replace")}),
        }
    )
