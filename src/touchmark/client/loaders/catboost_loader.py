"""CatBoost models as `model.cbm`: the library's own binary form, which holds numbers and names and nothing to run.

Source: CatBoost's Python reference, `save_model` and `load_model` with format="cbm".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    descends_from,
    find_file,
    import_framework,
    read_description,
    shorten,
    write_description,
)
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MODEL_FILE = "model.cbm"
_CLASSES = frozenset(
    {"CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor"}
)  # classes of catboost that a description may name


class CatboostLoader:
    """Saves and loads `catboost.CatBoost` and the classes derived from it."""

    name = "catboost"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is one of CatBoost's."""
        return descends_from(model, "catboost", "CatBoost")

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.cbm` and `touchmark.json`, which says the class. Raises InvalidFieldError if it is not fitted."""
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'catboost' takes CatBoost's models")
        try:
            model.save_model(str(folder / MODEL_FILE), format="cbm")
        except Exception as error:  # CatBoostError
            raise InvalidFieldError(field="model", reason=f"CatBoost cannot save it ({shorten(error)})") from error
        write_description(folder, format_name=self.name, model=model, distributions=("catboost",))

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.cbm`, or exactly one `.cbm` file of another name."""
        return find_file(files, MODEL_FILE, ".cbm") is not None

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return a model of the class `touchmark.json` names, if that is one of CatBoost's, else a `CatBoost`.

        Nothing here can run code, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError for a
        file CatBoost cannot read, MissingExtraError.
        """
        del allow_pickle, trusted_types
        path = find_file(files, MODEL_FILE, ".cbm")
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        catboost = import_framework("catboost", what="A CatBoost model", install="pip install catboost")
        name = str(read_description(folder, files).get("class")).rpartition(".")[2]
        model: object = getattr(catboost, name if name in _CLASSES else "CatBoost")()
        try:
            model.load_model(str(folder / path), format="cbm")  # type: ignore[attr-defined]
        except Exception as error:  # whatever a crafted file makes the parser raise, it is unreadable
            raise InvalidFieldError(field=path, reason=f"CatBoost cannot read it ({shorten(error)})") from error
        return model
