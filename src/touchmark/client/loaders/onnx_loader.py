"""ONNX models as `model.onnx`: a graph of the operators that ONNX defines. Custom operators need a library, and get none.

Source: ONNX's IR specification; ONNX Runtime's Python API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    descends_from,
    find_file,
    import_framework,
    shorten,
    write_description,
)
from touchmark.domain.errors import InvalidFieldError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MODEL_FILE = "model.onnx"


class OnnxLoader:
    """Saves `onnx.ModelProto`; loads an `onnxruntime.InferenceSession` on the processor, or the ModelProto without it."""

    name = "onnx"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is an ONNX model in memory."""
        return descends_from(model, "onnx", "ModelProto")

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.onnx` and `touchmark.json`. Raises InvalidFieldError for what protobuf cannot write (2 GiB)."""
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'onnx' takes an onnx.ModelProto")
        try:
            (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
        except Exception as error:  # google.protobuf's EncodeError, ValueError above 2 GiB
            reason = f"it cannot be written ({shorten(error)}): save it with external data, and pass the folder"
            raise InvalidFieldError(field="model", reason=reason) from error
        write_description(folder, format_name=self.name, model=model, distributions=("onnx",))

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.onnx`, or exactly one `.onnx` file of another name."""
        return find_file(files, MODEL_FILE, ".onnx") is not None

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return a session with the processor's operators alone, or the model where ONNX Runtime is not installed.

        Nothing stored here can run, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError for a
        file that cannot be read, or weights kept outside the model's folder; MissingExtraError without either library.
        """
        del allow_pickle, trusted_types
        path = find_file(files, MODEL_FILE, ".onnx")
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        try:
            runtime = import_framework("onnxruntime", what="An ONNX model", install="pip install onnxruntime")
        except MissingExtraError:
            runtime = None
        try:
            if runtime is not None:
                session: object = runtime.InferenceSession(str(folder / path), providers=["CPUExecutionProvider"])
                return session
            onnx = import_framework("onnx", what="An ONNX model", install="pip install onnxruntime")
            loaded: object = onnx.load(str(folder / path))
        except MissingExtraError:
            raise
        except Exception as error:  # whatever a crafted file makes the parser raise, it is unreadable
            raise InvalidFieldError(field=path, reason=f"it cannot be read as ONNX ({shorten(error)})") from error
        return loaded
