"""XGBoost models as `model.ubj`: the library's own binary JSON, which holds numbers and names and nothing to run.

Source: XGBoost's "Introduction to Model IO" (stable documentation): save_model and load_model, format by suffix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    DESCRIPTION_FILE,
    descends_from,
    find_file,
    import_framework,
    read_description,
    shorten,
    write_description,
)
from touchmark.client.loaders.xgboost_file import check_nesting
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MODEL_FILE = "model.ubj"
_WRAPPERS = frozenset(
    {"XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"}
)  # classes of xgboost that a description may name


class XgboostLoader:
    """Saves and loads `xgboost.Booster` and XGBoost's scikit-learn estimators."""

    name = "xgboost"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is one of XGBoost's."""
        return descends_from(model, "xgboost", "Booster") or descends_from(model, "xgboost", "XGBModel")

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.ubj` and `touchmark.json`, which says the class. Raises InvalidFieldError if it is not fitted."""
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'xgboost' takes XGBoost's models")
        try:
            model.save_model(folder / MODEL_FILE)
        except Exception as error:  # NotFittedError of scikit-learn, XGBoostError
            raise InvalidFieldError(field="model", reason=f"XGBoost cannot save it ({shorten(error)})") from error
        write_description(folder, format_name=self.name, model=model, distributions=("xgboost", "xgboost-cpu"))

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.ubj`, or exactly one `.ubj` file of another name."""
        return find_file(files, MODEL_FILE, ".ubj") is not None

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return the estimator `touchmark.json` names, if that is one of XGBoost's, else a Booster.

        When this loader was asked for by name, a version's one `.json` file is taken, too: XGBoost's other format. Nothing
        here can run code, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError for a file XGBoost
        cannot read or that is nested too deeply for it, MissingExtraError.
        """
        del allow_pickle, trusted_types
        texts = {path: size for path, size in files.items() if path != DESCRIPTION_FILE}
        path = find_file(files, MODEL_FILE, ".ubj") or find_file(texts, "model.json", ".json")
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        check_nesting(folder / path, path)
        xgboost = import_framework("xgboost", what="An XGBoost model", install="pip install xgboost")
        name = str(read_description(folder, files).get("class")).rpartition(".")[2]
        model: object = getattr(xgboost, name)() if name in _WRAPPERS else xgboost.Booster()
        try:
            model.load_model(folder / path)  # type: ignore[attr-defined]
        except Exception as error:  # whatever a crafted file makes the parser raise, it is unreadable
            raise InvalidFieldError(field=path, reason=f"XGBoost cannot read it ({shorten(error)})") from error
        return model
