"""Skops files, other archives, and pickles wherever they hide."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import pickletools
import random
import time
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.contents.files import StoredFiles, facts_of, read_files, zip_of


class Touch:
    """Unpickling one of these makes a file: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


def test_a_skops_file_lists_its_types_without_building_them(skops_bytes: bytes) -> None:
    contents = read_files({"model.skops": skops_bytes})
    facts = facts_of(contents, "model.skops")
    assert facts["format"] == "skops"
    assert facts["root"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert "numpy.ndarray" in facts["types"]
    assert facts["skops_version"] == skops.__version__
    assert contents.pickles == []
    assert contents.warnings == []


def test_functions_in_a_skops_file_are_listed(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    contents = read_files({"m.skops": skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED)})
    assert "sklearn.pipeline.Pipeline" in facts_of(contents, "m.skops")["types"]
    assert any("log1p" in name or "ufunc" in name for name in facts_of(contents, "m.skops")["types"])


def test_a_skops_file_is_recognised_without_its_suffix(skops_bytes: bytes) -> None:
    assert facts_of(read_files({"model.zip": skops_bytes}), "model.zip")["format"] == "skops"


def test_a_forest_is_read_within_the_limits() -> None:
    rng = np.random.default_rng(0)
    forest = RandomForestClassifier(n_estimators=30, n_jobs=1, random_state=0)
    forest.fit(rng.normal(size=(100, 3)), rng.integers(0, 2, 100))
    contents = read_files({"model.skops": skops.io.dumps(forest)})
    assert contents.warnings == []
    assert "sklearn.tree._tree.Tree" in facts_of(contents, "model.skops")["types"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_schema_that_is_too_long_gives_the_types_of_its_beginning(method: int) -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=5_000_000))
    schema = f'{{"__class__": "A", "__module__": "m", "__loader__": "ObjectNode", "content": "\\"__class__\\": \\"B\\", {noise}"}}'
    contents = read_files({"m.skops": zip_of({"schema.json": schema.encode()}, method)})
    assert facts_of(contents, "m.skops")["types"] == ["m.A"]
    assert any("types may be missing" in warning for warning in contents.warnings)


def test_a_zip_bomb_is_not_inflated() -> None:
    data = zip_of({"schema.json": b"[" + b" " * 200_000_000 + b"]"}, zipfile.ZIP_DEFLATED)
    stored = StoredFiles({"m.skops": data})
    begun = time.monotonic()
    contents = stored.read()
    assert time.monotonic() - begun < 20
    assert stored.bytes_read < 64 * 1024
    assert any("like a bomb" in warning for warning in contents.warnings)


@pytest.mark.parametrize(
    "schema", [b"", b"nonsense", b"[]", b"{}", b'{"__class__": 1}', b'{"a":' + b"[" * 100_000, b'{"a": 1, "a": 2}']
)
def test_a_broken_schema_is_said(schema: bytes) -> None:
    contents = read_files({"m.skops": zip_of({"schema.json": schema})})
    assert facts_of(contents, "m.skops")["format"] == "skops"
    assert len(contents.warnings) == 1
    assert "unforeseen" not in contents.warnings[0]


def test_a_member_without_a_name_is_no_trouble() -> None:
    data = zip_of({"x": b"text", "y": b"text"}).replace(b"x", b"\0")
    assert all("unforeseen" not in warning for warning in read_files({"m.zip": data}).warnings)


def test_a_skops_file_without_a_schema_is_said() -> None:
    assert "no schema.json" in read_files({"m.skops": zip_of({"a": b"1"})}).warnings[0]


def test_every_truncation_of_a_skops_file_gives_a_sentence(skops_bytes: bytes) -> None:
    for length in range(1, len(skops_bytes), 97):
        contents = read_files({"m.skops": skops_bytes[:length]})
        assert facts_of(contents, "m.skops")["format"] in ("zip", "skops")
        assert contents.warnings
        assert all("unforeseen" not in warning for warning in contents.warnings)


def test_a_directory_above_its_limit_is_not_read() -> None:
    data = zip_of({f"{n:040}": b"" for n in range(15_000)})
    assert "1048576 bytes" in read_files({"many.zip": data}).warnings[0]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("path", ["model.pkl", "weights.bin", "model.pt", "README", "model.safetensors", "MLmodel"])
def test_a_pickle_is_found_by_its_bytes_under_any_name(protocol: int, path: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    contents = read_files({path: pickle.dumps(Touch(mark), protocol=protocol)})
    assert contents.pickles == [path]
    assert facts_of(contents, path)["format"] == "pickle"
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_longer_than_what_is_sniffed_is_found(protocol: int) -> None:
    model = LogisticRegression().fit(np.arange(4000.0).reshape(-1, 1), np.arange(4000) % 2)
    data = pickle.dumps([model, list(range(5000))], protocol=protocol)
    assert read_files({"data": data}).pickles == ["data"]


def test_a_pickle_without_its_header_is_found(tmp_path: Path) -> None:
    data = pickle.dumps(Touch(tmp_path / "executed"), protocol=4)[2:]
    assert next(iter(pickletools.genops(data)))[0].name == "FRAME"
    assert read_files({"data.bin": data}).pickles == ["data.bin"]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_a_compressed_pickle_is_found(compress: object) -> None:
    data = compress(pickle.dumps(LogisticRegression()))  # type: ignore[operator]
    assert read_files({"model": data}).pickles == ["model"]


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_what_joblib_writes_is_found(compress: object, tmp_path: Path) -> None:
    path = tmp_path / "m"
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path, compress=compress)
    assert read_files({"model": path.read_bytes()}).pickles == ["model"]


def test_a_name_only_an_unpickler_opens_is_listed_when_its_bytes_say_nothing() -> None:
    contents = read_files({"a.joblib": b"\x04\x22\x4d\x18rest", "b.pkl.gz": b"\x1f\x8bbroken", "c.pkl": b"?????"})
    assert contents.pickles == ["a.joblib", "b.pkl.gz", "c.pkl"]


def test_object_arrays_are_pickles_and_plain_arrays_are_not() -> None:
    def saved(array: np.ndarray, **options: bool) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, **options)
        return buffer.getvalue()

    plain, objects = io.BytesIO(), io.BytesIO()
    np.savez_compressed(plain, a=np.zeros(1_000_000))
    np.savez(objects, a=np.zeros(2), b=np.array([{}], dtype=object))
    contents = read_files(
        {
            "a.npy": saved(np.zeros(3)),
            "b.npy": saved(np.array([{}], dtype=object), allow_pickle=True),
            "c.npy": saved(np.array([(1, None)], dtype=[("x", "<i4"), ("y", "O")]), allow_pickle=True),
            "d.npz": plain.getvalue(),
            "e.npz": objects.getvalue(),
        }
    )
    assert contents.pickles == ["b.npy", "c.npy", "e.npz"]
    assert contents.warnings == []


def test_pickles_inside_archives_are_found() -> None:
    data = pickle.dumps([LogisticRegression()])
    contents = read_files(
        {
            "a.pt": zip_of({"a/data.pkl": data}),
            "b.zip": zip_of({"notes.txt": data}, zipfile.ZIP_DEFLATED),
            "c.zip": zip_of({"model.joblib": b"anything"}),
            "d.bin": zip_of({"x.txt": b"text"}, zipfile.ZIP_BZIP2),
            "e.zip": zip_of({"one.txt": b"text"}),
            "f.bin": zip_of({"first": b"x" * 99}, zipfile.ZIP_BZIP2)[:-1],
        }
    )
    assert contents.pickles == ["a.pt", "b.zip", "c.zip", "d.bin", "f.bin"]
    assert facts_of(contents, "a.pt")["format"] == "torch"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_both_of_two_members_with_one_name_are_looked_at() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", pickle.dumps(LogisticRegression()))
        archive.writestr("x", b"harmless")
    assert read_files({"a.zip": buffer.getvalue()}).pickles == ["a.zip"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x80",
        b"(1). Introduction\n",
        b"channels:\n- conda-forge\ndependencies:\n",
        b"c1,c2,c3\n1,2,3\n4,5,6\n",
        b"cat\ndog\nNone of this is a pickle.\n",
        b"# A model card\n\nIt predicts. (See below.)\n",
        b"import os\n\nclass A:\n    pass\n",
        b"V" + b"olume," * 2000,
        b"{}\n",
        b"x^2 + y^2 = z^2\n",
        b"\x00" * 5000,
    ],
)
def test_ordinary_text_is_no_pickle(text: bytes) -> None:
    contents = read_files({"file": text, "weights.bin": text})
    assert contents.pickles == []
    assert contents.warnings == []


def test_random_bytes_are_rarely_taken_for_a_pickle() -> None:
    rng = random.Random(7)
    found = sum(bool(read_files({"weights.bin": rng.randbytes(5000)}).pickles) for _ in range(3000))
    assert found <= 3
