"""From a model in memory to files in a folder, and back: which format is used, and who may be asked to read it.

One format a module beside this one. Importing this imports no framework: a loader imports its own when it is used.
What is fetched, checked and cached is not decided here; a loader is handed a folder of verified files.

What a version is loaded as follows from its files alone, the first that fits; if `touchmark.json` is among them and names
another format of this list that fits as well, that is taken (arrays of PyTorch and of NumPy lie in the same kind of file):

    MLmodel at the root   mlflow        mlflow.pyfunc.PyFuncModel
    model.ubj             xgboost       XGBoost's estimator or Booster
    model.lgb.txt         lightgbm      lightgbm.Booster
    model.cbm             catboost      CatBoost's model
    model.onnx            onnx          onnxruntime.InferenceSession (onnx.ModelProto without it)
    model.keras           keras         the Keras model
    model.skops           skops         the scikit-learn estimator
    config.json, weights  transformers  the model of Transformers, or the pipeline
    *.safetensors         safetensors   dict[str, numpy.ndarray]
    *.safetensors         torch         dict[str, torch.Tensor], or the module that was handed over
    (other packages)      their name    what an installed entry point of `touchmark.loaders` takes
    *.pkl, *.joblib, *.pt pickle        the object, only with allow_pickle=True
    anything else         files         the pathlib.Path of the one file, or of the folder

`loader="files"` gives the path of any version, and never runs anything.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from touchmark.client.loaders.catboost_loader import CatboostLoader
from touchmark.client.loaders.file_loader import FileLoader
from touchmark.client.loaders.frameworks import get_class_name, read_description
from touchmark.client.loaders.keras_loader import KerasLoader
from touchmark.client.loaders.lightgbm_loader import LightgbmLoader
from touchmark.client.loaders.mlflow_loader import MlflowLoader
from touchmark.client.loaders.onnx_loader import OnnxLoader
from touchmark.client.loaders.pickle_loader import PickleLoader
from touchmark.client.loaders.safetensors_loader import SafetensorsLoader
from touchmark.client.loaders.skops_loader import SkopsLoader
from touchmark.client.loaders.torch_loader import TorchLoader
from touchmark.client.loaders.transformers_loader import TransformersLoader
from touchmark.client.loaders.xgboost_loader import XgboostLoader
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ENTRY_POINT_GROUP", "Loader", "list_loaders", "load_model", "save_model"]

ENTRY_POINT_GROUP = "touchmark.loaders"
"""Another package adds a format by an entry point of this group that names a class, built without arguments."""


class Loader(Protocol):
    """One format: how an object becomes files, and how those files become an object.

    A loader may have `options`, a set of names: keyword arguments of its own that its `load` takes as well.
    """

    @property
    def name(self) -> str:
        """What `format=` and `loader=` call it, and `touchmark.json` records."""
        ...

    def can_save(self, model: object) -> bool:
        """Answer whether this format is right for `model` when nobody named one. Must not import the framework."""
        ...

    def save(self, model: object, folder: Path) -> None:
        """Write `model` into the empty `folder`. Raises InvalidFieldError, MissingExtraError."""
        ...

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer by the paths (with sizes in bytes) of a version whether this loader takes it. Reads no file."""
        ...

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str]
    ) -> object:
        """Build the object from `folder`, which holds `files`; it runs nothing stored unless `allow_pickle`."""
        ...


def list_loaders() -> list[Loader]:
    """Return the loaders in order of preference.

    Built-in formats need no installed metadata. Those of other packages come behind the formats that cannot run
    code, by name, so that installing a package never changes what an existing version is loaded as; a name of a
    built-in cannot be taken. One that does not import is left out with a RuntimeWarning.
    """
    # A booster's own format before skops: its estimators are scikit-learn's too, and skops would trust nothing in them.
    # Keras and Transformers before PyTorch: their models may be modules, too.
    first: list[Loader] = [
        MlflowLoader(),
        *(XgboostLoader(), LightgbmLoader(), CatboostLoader(), OnnxLoader(), KerasLoader()),
        *(SkopsLoader(), TransformersLoader(), SafetensorsLoader(), TorchLoader()),
    ]
    last: list[Loader] = [PickleLoader(), FileLoader()]
    taken = {loader.name for loader in (*first, *last)}
    others: list[Loader] = []
    for entry_point in _find_entry_points(_note_installed()):
        if entry_point.name in taken:
            continue
        try:
            others.append(entry_point.load()())
        except Exception as error:  # noqa: BLE001 - another package's fault must not keep this one from loading
            text = f"loader {entry_point.name!r} ({entry_point.value}) is left out: {type(error).__name__}: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        else:
            taken.add(entry_point.name)
    return [*first, *others, *last]


def _note_installed() -> tuple[tuple[str, float], ...]:
    """Return the folders that packages are found in, each with the time it changed: another one after an installation."""
    found = []
    for place in sys.path:
        with suppress(OSError):
            found.append((place, Path(place).stat().st_mtime))
    return tuple(found)


@lru_cache(maxsize=1)
def _find_entry_points(_installed: tuple[tuple[str, float], ...]) -> list[metadata.EntryPoint]:
    # Kept, for it reads the metadata of every installed package: 10 ms and more, on each load of what is in the cache.
    return sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)


def save_model(model: object, folder: Path, *, format: str | None = None) -> str:  # noqa: A002 - the word users know
    """Write `model` into `folder`, which is made if absent, and return the name of the loader that did.

    A path to a file or folder is taken as it stands ("files", see `FileLoader.save` for what that means). Without
    `format` a pickle is never written. Raises InvalidFieldError if `folder` is not empty, `format` is unknown, or
    the object is none that is supported; what the loader raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidFieldError(field="folder", reason=f"{str(folder)!r} is not empty")
    loaders = list_loaders()
    if format is not None:
        loader = _get_loader(loaders, "format", format)
    else:
        takers = [loader for loader in loaders if loader.can_save(model)]
        if not takers:
            reason = (
                f"no format takes {get_class_name(model)}: pass a model of scikit-learn, XGBoost, LightGBM, CatBoost, "
                "ONNX, Keras, PyTorch or Transformers, a dict of arrays or tensors, or the path of a file or folder (of "
                "mlflow.<flavor>.save_model, for one); format='pickle' saves any object, as code that runs when it is loaded"
            )
            raise InvalidFieldError(field="model", reason=reason)
        loader = takers[0]
    loader.save(model, folder)
    return loader.name


def load_model(
    folder: Path,
    files: Mapping[str, int],
    *,
    allow_pickle: bool = False,
    trusted_types: Collection[str] = (),
    loader: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> object:
    """Build what `folder` holds; `files` are its paths with sizes in bytes, as the manifest lists them.

    Nothing stored runs unless `allow_pickle`. `trusted_types` is the narrow way for a skops or Keras model that uses
    classes of your own: full names, as the refusal lists them. `loader` names one instead of choosing by the files;
    `options` are arguments of that loader alone. Raises UnsafeFormatError if loading would run code that was not allowed,
    InvalidFieldError if `loader` or an option is unknown or the files are not what it reads, MissingExtraError; errors of
    the framework, and of code that was allowed to run, come through as they are.
    """
    loaders, options = list_loaders(), options or {}
    chosen = _choose(loaders, folder, files, options) if loader is None else _get_loader(loaders, "loader", loader)
    for name in options:
        if name not in _get_options(chosen):
            reason = f"loader {chosen.name!r} takes {', '.join(sorted(_get_options(chosen))) or 'no options'}"
            raise InvalidFieldError(field=name, reason=reason)
    return chosen.load(folder, files, allow_pickle=allow_pickle, trusted_types=trusted_types, **options)


def _choose(loaders: list[Loader], folder: Path, files: Mapping[str, int], options: Collection[str]) -> Loader:
    takers = [taker for taker in loaders if taker.can_load(files)]
    if not takers:
        raise InvalidFieldError(field="files", reason="the version has none")
    # An option says what is wanted: `into=` a module, for one, is nothing that arrays of NumPy could be loaded by.
    takers = [taker for taker in takers if _get_options(taker).issuperset(options)] or takers
    described = read_description(folder, files).get("format")
    for taker in takers:
        # Whoever wrote the description can choose among ours, each of which runs nothing by itself, and no others.
        if taker.name == described and type(taker).__module__.startswith(f"{__name__}."):
            return taker
    return takers[0]


def _get_options(loader: Loader) -> frozenset[str]:
    return frozenset(getattr(loader, "options", ()))


def _get_loader(loaders: list[Loader], field: str, name: str) -> Loader:
    for loader in loaders:
        if loader.name == name:
            return loader
    reason = f"there is no {name!r}, only {', '.join(loader.name for loader in loaders)}"
    raise InvalidFieldError(field=field, reason=reason)
