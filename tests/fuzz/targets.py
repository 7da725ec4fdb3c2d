"""Every reader of bytes that others wrote, and small files to begin with: real ones where their writer is here."""

from __future__ import annotations

import atexit
import io
import json
import pickle
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import safetensors.numpy
import skops.io
from sklearn.linear_model import LogisticRegression

import touchmark.artifacts.manifests
import touchmark.client._manifests
import touchmark.client._tensors
import touchmark.client.loaders.keras_archive
import touchmark.client.loaders.xgboost_file
import touchmark.contents.archives
import touchmark.contents.documents
import touchmark.contents.inspection
import touchmark.contents.mlmodel
import touchmark.contents.natives
import touchmark.contents.onnx
import touchmark.contents.pickles
import touchmark.contents.requirements
import touchmark.contents.safetensors
import touchmark.contents.skops
import touchmark.domain.search
import touchmark.protocols.mlflow.filters
from tests.contents.files import MLMODEL, make_onnx, raw_safetensors, zip_of
from tests.fuzz.growing import Target
from touchmark.contents import FileEntry, read_contents
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import TouchmarkError
from touchmark.domain.search import Searchable

contents = touchmark.contents
_FILTERS = (
    b"name = 'a' AND version > 3",
    b"tags.`a b` LIKE '%x_' OR NOT (created_at >= 1.5e3)",
    b"alias IN ('a', \"b\") and metrics.`f1` < -0.5 and params.x != 'y' and status = 'READY'",
    b"name ILIKE 'caf\xc3\xa9%' AND tags.k IS NULL and attributes.run_id IN ('a')",
)


def _read_file(name: str) -> Callable[[bytes], object]:
    """Return what reads bytes as a file of a model, by its name."""

    def read(data: bytes) -> object:
        found = read_contents([FileEntry(name, len(data))], lambda _path, at, length: data[at : at + length])
        caught = f"{name} could not be read: unforeseen damage ("  # the last net; the bytes may have these words, too
        assert not any(warning.startswith(caught) for warning in found.warnings), found.warnings
        return found.to_bytes()

    return read


def _on_disk(suffix: str, check: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return what writes bytes to one file, again and again, and has it looked at."""
    folder = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = Path(folder) / f"file{suffix}"

    def read(data: bytes) -> object:
        place.write_bytes(data)
        return check(place)

    return read


def _filter(name: str, parse: Callable[[str], object], module: ModuleType) -> Target:
    """Return a target that reads text."""
    return Target(
        name, lambda data: parse(data.decode("utf-8", "surrogateescape")), _FILTERS, [module], (TouchmarkError,)
    )


def _parse_filter(searchable: Searchable, text: str) -> object:
    return touchmark.domain.search.parse_filter(text, searchable)


@cache
def list_targets() -> dict[str, Target]:
    """Return every target by name. Training a small model takes a moment."""
    skops_bytes = skops.io.dumps(LogisticRegression().fit(np.array([[0.0], [1.0], [2.0]]), [0, 0, 1]))
    tensors = safetensors.numpy.save({"weight": np.zeros((3, 4), np.float32)}, metadata={"format": "np"})
    arrays = io.BytesIO()
    np.savez(arrays, a=np.zeros(3), b=np.zeros(5))
    keras = zip_of(
        {
            "metadata.json": b'{"keras_version": "3.0"}',
            "config.json": json.dumps(
                {"module": "keras", "class_name": "Sequential", "config": {"layers": [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}]}, "registered_name": None}
            ).encode(),
            "model.weights.json": b"{}",
        }
    )  # fmt: skip
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
            "layers": [
                {"mediaType": "application/octet-stream", "digest": digest_of(b"a"), "size": 1, "annotations": {"org.opencontainers.image.title": "a/b.bin"}}
            ],
        }
    ).encode()  # fmt: skip
    index = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
    ubjson = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L\x00\x00\x00\x00\x00\x00\x00\x01a[$d#L\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00i\x00\x00\x01bSL\x00\x00\x00\x00\x00\x00\x00\x01x}}"

    def file(name: str, seeds: list[bytes], *more: object) -> Target:
        modules = [contents.inspection, contents.documents, *more]
        return Target(name, _read_file(name), seeds, modules)  # type: ignore[arg-type]

    conda = b"name: x\ndependencies:\n- python=3.11.7\n- pip:\n  - mlflow==3.17.2\n  - numpy\n"
    onnx = [make_onnx(40).SerializeToString(), make_onnx(4, external="w.bin").SerializeToString()]
    npy = io.BytesIO()
    np.save(npy, np.zeros(2))
    found = [
        file("MLmodel", [MLMODEL.encode(), b"flavors: {}\n"], contents.mlmodel),
        file("model.safetensors", [tensors, raw_safetensors({"a": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}})], contents.safetensors),
        file("model.onnx", onnx, contents.onnx),
        file("model.skops", [skops_bytes], contents.skops, contents.archives),
        file("model.keras", [keras], contents.natives, contents.archives),
        file("arrays.npz", [arrays.getvalue()], contents.archives, contents.pickles),
        file("model.pt", [zip_of({"a/data.pkl": pickle.dumps([1]), "a/data/0": b"\0" * 8}, zipfile.ZIP_DEFLATED)], contents.archives, contents.pickles),
        file("model.pkl", [pickle.dumps({"a": [1, 2]}, 4), pickle.dumps([1], 0), npy.getvalue()], contents.pickles),
        file("model.gguf", [struct.pack("<4sIQQ", b"GGUF", 3, 291, 24)]),
        file("model.ubj", [ubjson], contents.natives),
        file("model.json", [b'{"learner": {"objective": {"name": "x"}}, "version": [2, 1, 0]}'], contents.natives),
        file("model.txt", [b"tree\nversion=v4\nnum_class=1\nobjective=binary\n"], contents.natives),
        file("config.json", [b'{"architectures": ["Bert"], "model_type": "bert", "transformers_version": "4"}'], contents.natives),
        file("conda.yaml", [conda], contents.requirements),
        file("python_env.yaml", [b"python: 3.11.7\ndependencies:\n- -r requirements.txt\n"], contents.requirements),
        file("requirements.txt", [b"numpy==2.4.6\nscikit-learn # x\n-r other\n"], contents.requirements),
        Target(
            "manifest", touchmark.artifacts.manifests.parse_document, [manifest, index],
            [touchmark.artifacts.manifests], (TouchmarkError,),
        ),
        Target(
            "client manifest", lambda data: touchmark.client._manifests.read_manifest(data, digest_of(data)), [manifest],
            [touchmark.client._manifests], (TouchmarkError,),
        ),
        Target(
            "tensor", lambda data: touchmark.client._tensors.read_tensor(io.BytesIO(data), "f", "weight").tolist(), [tensors],
            [touchmark.client._tensors], (TouchmarkError,),
        ),
        Target(
            "keras archive",
            _on_disk(".keras", lambda place: touchmark.client.loaders.keras_archive.check_archive(place, "f", allow_code=False, trusted_types=())),
            [keras], [touchmark.client.loaders.keras_archive], (TouchmarkError,),
        ),
        Target(
            "xgboost ubjson", _on_disk(".ubj", lambda place: touchmark.client.loaders.xgboost_file.check_nesting(place, "f.ubj")),
            [ubjson], [touchmark.client.loaders.xgboost_file], (TouchmarkError,),
        ),
        Target(
            "xgboost json", _on_disk(".json", lambda place: touchmark.client.loaders.xgboost_file.check_nesting(place, "f.json")),
            [b'{"learner": {"a": [1, "b\\""]}}'], [touchmark.client.loaders.xgboost_file], (TouchmarkError,),
        ),
    ]  # fmt: skip
    mlflow = touchmark.protocols.mlflow.filters
    for searchable in Searchable:
        found.append(_filter(f"filter {searchable}", partial(_parse_filter, searchable), touchmark.domain.search))  # noqa: PERF401 - two lists in a row read better so
    for name in ("model", "version", "experiment", "run", "logged_model"):
        found.append(_filter(f"mlflow filter {name}", getattr(mlflow, f"parse_{name}_filter"), mlflow))  # noqa: PERF401
    return {target.name: target for target in found}
