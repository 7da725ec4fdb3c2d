"""Folders that MLflow saved (an `MLmodel` file at the root), loaded through `mlflow.pyfunc`.

`mlflow.pyfunc.load_model` imports the module that MLmodel names, puts the model's own code folder on `sys.path`, and
most flavors unpickle; the types a skops file may build are read from MLmodel itself, so from whoever wrote it. So what
may load without `allow_pickle=True` is a list of what is known to be safe, not of what is known to be dangerous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import import_framework
from touchmark.client.loaders.pickles import is_pickle
from touchmark.client.loaders.skops_loader import check_types
from touchmark.domain.errors import InvalidFieldError, UnsafeFormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import ModuleType

MODEL_FILE = "MLmodel"
_SAFE_MODULE = "mlflow.sklearn"
_SAFE_OPTIONS = frozenset(
    {
        "env",
        "loader_module",
        "model_path",
        "predict_fn",
        "predict_stream_fn",
        "python_version",
        "streamable",
    }
)


class MlflowLoader:
    """Loads an MLflow model as `mlflow.pyfunc.PyFuncModel`. Saving is MLflow's: save the folder it wrote."""

    name = "mlflow"

    def can_save(self, model: object) -> bool:
        """Answer False: an MLflow model is a folder already, which is saved as it stands."""
        del model
        return False

    def save(self, model: object, folder: Path) -> None:
        """Raise InvalidFieldError: `mlflow.<flavor>.save_model` writes the folder, and its path is what to save."""
        del model, folder
        reason = "MLflow models are saved by mlflow.<flavor>.save_model(); pass the folder it wrote"
        raise InvalidFieldError(field="format", reason=reason)

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether `MLmodel` stands at the root."""
        return MODEL_FILE in files

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Return the `PyFuncModel`.

        Without `allow_pickle` only a scikit-learn model in skops format loads, whose types skops or `trusted_types`
        trusts; anything else raises UnsafeFormatError with the reason, before MLflow sees the folder. Raises
        InvalidFieldError if MLmodel cannot be read; MissingExtraError.
        """
        if MODEL_FILE not in files:
            raise InvalidFieldError(field="files", reason=f"there is no {MODEL_FILE} at the root")
        if not allow_pickle:
            _check_safe(folder, files, trusted_types)
        loaded: object = _import("mlflow.pyfunc").load_model(str(folder.absolute()))
        return loaded


def _check_safe(folder: Path, files: Mapping[str, int], trusted_types: Collection[str]) -> None:
    for path in sorted(files):
        if is_pickle(folder / path):
            raise UnsafeFormatError(path=path)
    flavors = _read_flavors(folder)
    pyfunc = flavors.get("python_function")
    sklearn = flavors.get("sklearn")
    if not isinstance(pyfunc, dict):
        raise InvalidFieldError(field=MODEL_FILE, reason="it has no python_function flavor; use loader='files'")
    module = pyfunc.get("loader_module")
    if module != _SAFE_MODULE or not isinstance(sklearn, dict):
        raise _refuse(f"it is loaded by {module!r}, which can run what is stored with the model")
    options = sorted(str(key) for key, value in pyfunc.items() if value is not None and key not in _SAFE_OPTIONS)
    if options:
        raise _refuse(f"its python_function sets {', '.join(options)}, which can run code stored with the model")
    if sklearn.get("serialization_format") != "skops":
        raise _refuse("it is a scikit-learn model saved as a pickle")
    model_path = pyfunc.get("model_path")
    if not isinstance(model_path, str) or model_path not in files:  # a manifest has no "..", so it stays inside
        raise _refuse(f"its model_path {model_path!r} is not a file of this version")
    check_types(folder, model_path, allow_pickle=False, trusted_types=trusted_types)


def _read_flavors(folder: Path) -> dict[str, Any]:
    yaml = _import("yaml")  # comes with MLflow, which parses the same file with the same function
    try:
        with (folder / MODEL_FILE).open() as file:
            document = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidFieldError(field=MODEL_FILE, reason=f"it is not YAML ({error})") from error
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict):
        raise InvalidFieldError(field=MODEL_FILE, reason="it lists no flavors")
    return flavors


def _refuse(reason: str) -> UnsafeFormatError:
    message = (
        f"This MLflow model may run code when it is loaded: {reason}. "
        "Pass allow_pickle=True if you trust everybody who could have written it."
    )
    return UnsafeFormatError(message, path=MODEL_FILE)


def _import(module: str) -> ModuleType:
    return import_framework(module, what="An MLflow model", install="pip install mlflow")
