"""A model in memory that counts what is read of it, and the files to put in it."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from touchmark.contents import Contents, FileEntry, read_contents


@dataclass
class StoredFiles:
    """Files by path, as `read_at` sees them. Counts calls and bytes."""

    files: dict[str, bytes]
    calls: int = 0
    bytes_read: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        self.calls += 1
        data = self.files[path][offset : offset + length]
        self.bytes_read += len(data)
        return data

    def read(self) -> Contents:
        entries = [FileEntry(path, self.sizes.get(path, len(data))) for path, data in self.files.items()]
        return read_contents(entries, self.read_at)


def read_files(files: dict[str, bytes], **sizes: int) -> Contents:
    """Read a model made of these files; `sizes` overrides what their size is said to be."""
    return StoredFiles(files, sizes=sizes).read()


def read_folder(folder: Path) -> Contents:
    """Read a model from a folder, as `read_files` would."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return read_files({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def facts_of(contents: Contents, path: str) -> dict[str, Any]:
    """Return the entry of one file."""
    (found,) = [entry for entry in contents.files if entry["path"] == path]
    return found


def raw_safetensors(header: object, data: bytes = b"") -> bytes:
    """Write a safetensors file whose header says whatever the test wants."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Write a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_onnx(weight_bytes: int = 4000, *, external: str | None = None, ir_version: int = 8) -> onnx.ModelProto:
    """Build `y = x W` with a symbolic batch dimension; the weight has `weight_bytes` of float32."""
    columns = weight_bytes // 40
    weight = numpy_helper.from_array(np.ones((10, columns), dtype=np.float32), name="W")
    if external is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=external)
        weight.external_data.add(key="length", value=str(weight_bytes))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 10])]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [10, columns]))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "linear",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [weight],
    )
    model = helper.make_model(graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = ir_version
    helper.set_model_props(model, {"author": "somebody"})
    return model


MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.skops
    predict_fn: predict
    python_version: 3.10
  sklearn:
    code: null
    pickled_model: model.skops
    serialization_format: skops
    sklearn_version: 1.9.1
mlflow_version: 3.17.2
model_uuid: 471e89f2a97748b3b99b5b50ae5f4b5e
run_id: 0123456789abcdef0123456789abcdef
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "array", "items":
    {"type": "object", "properties": {"role": {"type": "string", "required": true}, "note":
    {"type": "string", "required": false}}}, "name": "turns", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 2]}}]'
  params: '[{"name": "threshold", "default": 0.5, "shape": null, "type": "double"}]'
utc_time_created: '2026-01-02 03:04:05.000006'
"""
