"""Keras models as `model.keras`: weights, and a config whose every name is checked before Keras builds it.

Which names may be built is `keras_archive.py`'s business. Keras' older `.h5` files, which cannot be checked so, are loaded
as a path.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    descends_from,
    find_file,
    import_framework,
    shorten,
    write_description,
)
from touchmark.client.loaders.keras_archive import check_archive, write_canonical_archive
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from types import ModuleType

MODEL_FILE = "model.keras"


class KerasLoader:
    """Saves and loads Keras models of version 3 and on, whatever their backend."""

    name = "keras"
    options = frozenset({"compile"})

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a Keras model."""
        return descends_from(model, "keras", "Model")

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.keras` and `touchmark.json`; the same model gives the same bytes each time.

        Raises InvalidFieldError if Keras cannot save it; MissingExtraError.
        """
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'keras' takes Keras models")
        with tempfile.TemporaryDirectory(prefix="touchmark-") as place:
            raw = Path(place, MODEL_FILE)
            try:
                model.save(raw)
                write_canonical_archive(raw, folder / MODEL_FILE)
            except Exception as error:  # whatever a layer's get_config raises
                raise InvalidFieldError(field="model", reason=f"Keras cannot save it ({shorten(error)})") from error
        write_description(
            folder, format_name=self.name, model=model, distributions=("jax", "keras", "tensorflow", "torch")
        )

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.keras`, or exactly one `.keras` file of another name."""
        return find_file(files, MODEL_FILE, ".keras") is not None

    def load(
        self,
        folder: Path,
        files: Mapping[str, int],
        *,
        allow_pickle: bool,
        trusted_types: Collection[str] = (),
        compile: bool = True,  # noqa: A002 - the word of keras.saving.load_model
    ) -> object:
        """Return the model; with `compile=False` without its optimizer and loss.

        Raises UnsafeFormatError, before Keras sees the file, naming what it would build that is not Keras' own and not in
        `trusted_types`, Lambda layers among them; `allow_pickle=True` trusts it all. Raises InvalidFieldError for a file
        that is damaged or that Keras cannot load, MissingExtraError.
        """
        path = find_file(files, MODEL_FILE, ".keras")
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        check_archive(folder / path, path, allow_code=allow_pickle, trusted_types=trusted_types)
        keras = _import_keras()
        # What Keras' own mode refuses beyond the check is bytecode, which is there only if somebody trusted it by name.
        safe_mode = not allow_pickle and "__lambda__" not in trusted_types
        try:
            loaded: object = keras.saving.load_model(str(folder / path), compile=compile, safe_mode=safe_mode)
        except Exception as error:  # TypeError, ValueError and others, by what does not fit
            raise InvalidFieldError(field=path, reason=f"Keras cannot load it ({shorten(error)})") from error
        return loaded


def _import_keras() -> ModuleType:
    install = "pip install keras, and a backend: torch, jax or tensorflow (KERAS_BACKEND says which)"
    return import_framework("keras", what="A Keras model", install=install)
