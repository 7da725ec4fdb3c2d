"""Tensors by name, as safetensors files: a header and raw numbers, with nothing in them to run.

No model class is built here: what comes back are arrays. A folder that another framework reads whole
(`config.json` and its weights) is loaded as a path with loader="files".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import descends_from, import_framework
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import ModuleType

MODEL_FILE = "model.safetensors"
_INSTALL = "pip install 'touchmark[safetensors]'"


class SafetensorsLoader:
    """Saves `dict[str, numpy.ndarray]`, and loads the tensors of every `.safetensors` file into one such dict."""

    name = "safetensors"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a dict, not empty, from text to NumPy arrays."""
        return (
            isinstance(model, dict)
            and bool(model)
            and all(isinstance(key, str) and descends_from(value, "numpy", "ndarray") for key, value in model.items())
        )

    def save(self, model: object, folder: Path) -> None:
        """Write `model.safetensors`; equal arrays give equal bytes, whatever the order of the dict.

        Raises InvalidFieldError for anything but a dict of arrays, for masked arrays (their mask would be lost) and
        for dtypes the format does not have (text, objects, dates, complex128); MissingExtraError.
        """
        if not isinstance(model, dict) or not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'safetensors' takes a dict of NumPy arrays by name")
        masked = [name for name, array in model.items() if descends_from(array, "numpy", "MaskedArray")]
        if masked:
            reason = f"safetensors cannot hold the mask of {masked[0]!r}: save .filled() and the mask as two arrays"
            raise InvalidFieldError(field="model", reason=reason)
        safetensors = _import_safetensors()
        safetensors_error = import_framework("safetensors", what="Saving arrays", install=_INSTALL).SafetensorError
        numpy = import_framework("numpy", what="Saving arrays", install=_INSTALL)
        # Trap: safetensors reads nbytes from the first element on, whatever the strides. A transposed array or a
        # slice would be saved as other numbers, or as memory that is not the array's.
        tensors: dict[str, Any] = {name: numpy.asarray(array, order="C") for name, array in model.items()}
        try:
            safetensors.save_file(tensors, folder / MODEL_FILE)
        except safetensors_error as error:
            raise InvalidFieldError(field="model", reason=f"safetensors cannot save it ({error})") from error

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `.safetensors` file."""
        return any(path.endswith(".safetensors") for path in files)

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> dict[str, Any]:
        """Return every tensor by name, as a NumPy array of its own memory; other files are left alone.

        Nothing here can run code, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError if
        there is no such file, two files hold a tensor of the same name, a file is damaged, or a dtype is one NumPy
        does not have; MissingExtraError.
        """
        del allow_pickle, trusted_types
        paths = sorted(path for path in files if path.endswith(".safetensors"))
        if not paths:
            raise InvalidFieldError(field="files", reason="there is no .safetensors file")
        safetensors = _import_safetensors()
        tensors: dict[str, Any] = {}
        came_from: dict[str, str] = {}
        for path in paths:
            try:
                found: dict[str, Any] = safetensors.load_file(folder / path)
            except Exception as error:  # its own error, or TypeError and others for a dtype
                reason = f"safetensors cannot read it into NumPy ({type(error).__name__}: {error})"
                raise InvalidFieldError(field=path, reason=reason) from error
            for name in found:
                if name in tensors:
                    reason = f"tensor {name!r} is also in {came_from[name]!r}: load the files with loader='files'"
                    raise InvalidFieldError(field=path, reason=reason)
                came_from[name] = path
            tensors.update(found)
        return tensors


def _import_safetensors() -> ModuleType:
    return import_framework("safetensors.numpy", what="A safetensors model", install=_INSTALL)
