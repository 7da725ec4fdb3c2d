"""LightGBM models as `model.lgb.txt`: the library's own text, which holds numbers and names and nothing to run.

Source: LightGBM's Python API, `Booster.save_model` and `Booster(model_file=…)`.
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
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MODEL_FILE = "model.lgb.txt"


class LightgbmLoader:
    """Saves `lightgbm.Booster` and the booster of LightGBM's scikit-learn estimators; loads a Booster."""

    name = "lightgbm"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is one of LightGBM's."""
        return descends_from(model, "lightgbm", "Booster") or descends_from(model, "lightgbm", "LGBMModel")

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.lgb.txt` and `touchmark.json`. Raises InvalidFieldError if it is not fitted.

        Of a scikit-learn estimator the booster is kept: the names of its classes are not part of LightGBM's format.
        """
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'lightgbm' takes LightGBM's models")
        try:
            booster = model.booster_ if descends_from(model, "lightgbm", "LGBMModel") else model
            booster.save_model(folder / MODEL_FILE)
        except Exception as error:  # LGBMNotFittedError, LightGBMError
            raise InvalidFieldError(field="model", reason=f"LightGBM cannot save it ({shorten(error)})") from error
        write_description(folder, format_name=self.name, model=model, distributions=("lightgbm",))

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.lgb.txt`, or exactly one `.lgb.txt` file of another name."""
        return find_file(files, MODEL_FILE, ".lgb.txt") is not None

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return a Booster.

        Nothing here can run code, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError for a
        file LightGBM cannot read, MissingExtraError.
        """
        del allow_pickle, trusted_types
        path = find_file(files, MODEL_FILE, ".lgb.txt")
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        lightgbm = import_framework("lightgbm", what="A LightGBM model", install="pip install lightgbm")
        try:
            loaded: object = lightgbm.Booster(model_file=folder / path)
        except Exception as error:  # whatever a crafted file makes the parser raise, it is unreadable
            raise InvalidFieldError(field=path, reason=f"LightGBM cannot read it ({shorten(error)})") from error
        return loaded
