"""scikit-learn estimators as `model.skops`: the types in the file are checked before any of them is built.

How the file becomes the same bytes for the same model is `skops_archive.py`'s business.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from touchmark.client.loaders.frameworks import descends_from, find_file, import_framework, write_description
from touchmark.client.loaders.pickles import is_pickle
from touchmark.client.loaders.skops_archive import write_canonical_archive
from touchmark.domain.errors import InvalidFieldError, UnsafeFormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import ModuleType

MODEL_FILE = "model.skops"


class SkopsLoader:
    """Saves and loads scikit-learn estimators, pipelines and what derives from them."""

    name = "skops"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a scikit-learn estimator."""
        return descends_from(model, "sklearn", "BaseEstimator")

    def save(self, model: object, folder: Path) -> None:
        """Write `model.skops` and `touchmark.json`; the same fitted model gives the same bytes each time.

        `touchmark.json` lists as `untrusted_types` what a loader will be asked to trust: classes and functions that
        neither scikit-learn nor NumPy brought. Raises InvalidFieldError if skops cannot write the model, or writes a
        function that no other process could find (a lambda, a class defined inside a function); MissingExtraError.
        """
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'skops' takes scikit-learn estimators")
        skops_io = _import_skops()
        target = folder / MODEL_FILE
        with tempfile.TemporaryFile(dir=folder) as raw:
            try:
                skops_io.dump(model, raw)
            except Exception as error:  # any type deep inside may refuse, each in its own way
                reason = f"skops cannot save it ({type(error).__name__}: {error}); format='pickle' can, at its risks"
                raise InvalidFieldError(field="model", reason=reason) from error
            write_canonical_archive(raw, target)
        untrusted = skops_io.get_untrusted_types(file=target)
        nowhere = [name for name in untrusted if "<" in name]
        if nowhere:
            reason = f"{', '.join(nowhere)} has no name to load it by: define it at the top of an importable module"
            raise InvalidFieldError(field="model", reason=reason)
        write_description(
            folder,
            format_name=self.name,
            model=model,
            distributions=("numpy", "scikit-learn", "scipy", "skops"),
            untrusted_types=untrusted,
        )

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `model.skops`, or exactly one `.skops` file of another name."""
        return _find_model_file(files) is not None

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return the estimator.

        Raises UnsafeFormatError naming every type that is neither trusted by skops nor listed in `trusted_types`,
        before anything is built; `allow_pickle=True` trusts them all. Raises InvalidFieldError if there is no skops
        file or it cannot be read; MissingExtraError.
        """
        path = _find_model_file(files)
        if path is None:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE}")
        trusted = check_types(folder, path, allow_pickle=allow_pickle, trusted_types=trusted_types)
        loaded: object = _import_skops().load(folder / path, trusted=trusted)
        return loaded


def check_types(folder: Path, path: str, *, allow_pickle: bool, trusted_types: Collection[str]) -> list[str]:
    """Return the types beyond skops's own that `folder/path` holds and the caller trusts; build nothing.

    Raises UnsafeFormatError if it holds others, or is a pickle under a skops name (never loaded as skops, whatever
    is allowed); InvalidFieldError if it is no skops file; MissingExtraError.
    """
    skops_io = _import_skops()
    if is_pickle(folder / path):
        raise UnsafeFormatError(f"{path!r} is a pickle under the name of a skops file: it is not loaded.", path=path)
    try:
        found: list[str] = skops_io.get_untrusted_types(file=folder / path)
    except Exception as error:  # whatever a crafted file makes the parser raise, it is unreadable
        reason = f"not a skops file that this skops can read ({error})"
        raise InvalidFieldError(field=path, reason=reason) from error
    unknown = [] if allow_pickle else sorted(set(found) - set(trusted_types))
    if unknown:
        message = (
            f"{path!r} holds types that are not trusted: {', '.join(unknown)}. If you trust them, pass "
            f"trusted_types={unknown!r}; allow_pickle=True trusts every type."
        )
        raise UnsafeFormatError(message, path=path, types=unknown)
    return found


def _find_model_file(files: Mapping[str, int]) -> str | None:
    return find_file(files, MODEL_FILE, ".skops")


def _import_skops() -> ModuleType:
    return import_framework("skops.io", what="A skops model", install="pip install 'touchmark[sklearn]'")
