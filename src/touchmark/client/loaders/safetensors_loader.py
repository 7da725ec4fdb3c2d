"""Tensors by name, as safetensors files: a header and raw numbers, with nothing in them to run.

No model class is built here: what comes back are arrays, which map the file. PyTorch's tensors are `torch_loader.py`'s
business, a folder of Transformers (`config.json` and its weights) is that of `transformers_loader.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client._tensors import DTYPES, read_header
from touchmark.client.loaders.frameworks import descends_from, import_framework, shorten
from touchmark.domain.errors import InvalidFieldError, TouchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path
    from types import ModuleType

MODEL_FILE = "model.safetensors"
_INSTALL = "pip install 'touchmark[safetensors]'"


class SafetensorsLoader:
    """Saves `dict[str, numpy.ndarray]`, and loads the tensors of every `.safetensors` file into one such dict."""

    name = "safetensors"
    options = frozenset({"tensors"})

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
        self,
        folder: Path,
        files: Mapping[str, int],
        *,
        allow_pickle: bool,
        trusted_types: Collection[str] = (),
        tensors: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Return every tensor, or those named by `tensors`, as NumPy arrays that map the files; other files are left alone.

        Only what is touched is read from the disk, and it is shared with other processes; writing to an array changes a
        private copy. Nothing here can run code, so `allow_pickle` and `trusted_types` change nothing. Raises
        InvalidFieldError if there is no such file or tensor, two files hold a tensor of the same name, a file is damaged,
        or a dtype is one NumPy does not have; MissingExtraError.
        """
        del allow_pickle, trusted_types
        return collect_tensors(folder, files, tensors, _map_arrays, {})


def collect_tensors(
    folder: Path,
    files: Mapping[str, int],
    wanted: Collection[str] | None,
    map_tensors: Callable[[Path, Collection[str]], dict[str, Any]],
    shared: Mapping[str, object],
) -> dict[str, Any]:
    """Return the tensors `wanted` (all of them if None) of every `.safetensors` file, as `map_tensors` gives them.

    `shared` says which names stand for a tensor stored under another one. safetensors checks each header first: lengths,
    gaps, overlaps, at most 100 MB. Raises InvalidFieldError, MissingExtraError.
    """
    paths = sorted(path for path in files if path.endswith(".safetensors"))
    if not paths:
        raise InvalidFieldError(field="files", reason="there is no .safetensors file")
    if isinstance(wanted, str):
        raise InvalidFieldError(field="tensors", reason="it is one text, not a list of names")
    safetensors = _import_safetensors("safetensors")
    homes: dict[str, str] = {}
    for path in paths:
        try:
            with safetensors.safe_open(str(folder / path), framework="np") as opened:
                names = list(opened.keys())
        except Exception as error:  # its own error, UnicodeDecodeError
            raise InvalidFieldError(field=path, reason=f"safetensors cannot read it ({shorten(error)})") from error
        for name in names:
            if name in homes:
                reason = f"tensor {name!r} is also in {homes[name]!r}: load the files with loader='files'"
                raise InvalidFieldError(field=path, reason=reason)
            homes[name] = path
    stored = {name: name for name in homes}
    stored |= {name: kept for name, kept in shared.items() if name not in homes and kept in homes}
    asked = list(stored) if wanted is None else list(dict.fromkeys(wanted))
    absent = [name for name in asked if name not in stored]
    if absent:
        raise InvalidFieldError(field="tensors", reason=f"there is no {', '.join(map(repr, absent[:5]))}")
    found: dict[str, Any] = {}
    for path in paths:
        names = [name for name in dict.fromkeys(stored[name] for name in asked) if homes[name] == path]
        try:
            found |= map_tensors(folder / path, names) if names else {}
        except Exception as error:  # InvalidFieldError for a dtype; whatever else a damaged file leads to
            if isinstance(error, TouchmarkError):
                raise
            raise InvalidFieldError(field=path, reason=f"safetensors cannot read it ({shorten(error)})") from error
    return {name: found[stored[name]] for name in asked}


def _map_arrays(file: Path, names: Collection[str]) -> dict[str, Any]:
    numpy = _import_safetensors("numpy")
    with file.open("rb") as stream:
        header, begin = read_header(stream, file.name)
    mapped = numpy.memmap(file, dtype="u1", mode="c")  # copy on write: the file in the cache cannot be changed by this
    arrays: dict[str, Any] = {}
    for name in names:
        entry = header[name]
        dtype = None if entry["dtype"] == "BF16" else DTYPES.get(entry["dtype"])
        if dtype is None:
            reason = f"{name!r} is {entry['dtype']}, which NumPy does not have: loader='torch' can load it"
            raise InvalidFieldError(field=file.name, reason=reason)
        arrays[name] = numpy.ndarray(tuple(entry["shape"]), dtype, mapped, begin + entry["data_offsets"][0])
    return arrays


def _import_safetensors(module: str = "safetensors.numpy") -> ModuleType:
    return import_framework(module, what="A safetensors model", install=_INSTALL)
