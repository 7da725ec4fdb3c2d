"""Pickles: written when asked for by name, loaded when told to. The only file of Touchmark that unpickles."""

from __future__ import annotations

import pickle
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from touchmark.client.loaders.frameworks import import_framework, write_description
from touchmark.domain.errors import InvalidFieldError, UnsafeFormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MODEL_FILE = "model.pkl"
_PROTOCOL = 4  # readable by every Python since 3.4; pinned, so that a newer Python does not change the bytes
_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")
_SUFFIXES = (".pkl", ".pickle", ".joblib", *_TORCH_SUFFIXES)
_TORCH_WEIGHTS = re.compile(r"(pytorch|adapter|diffusion_pytorch)_model(-\d+-of-\d+)?\.bin")
"""Names that Transformers, PEFT and Diffusers gave to what torch.save wrote."""


class PickleLoader:
    """Saves any object with pickle, and loads one file of pickle, joblib or torch.save, as code that runs."""

    name = "pickle"

    def can_save(self, model: object) -> bool:
        """Answer False: a pickle is never chosen, only asked for with format="pickle"."""
        del model
        return False

    def save(self, model: object, folder: Path) -> None:
        """Write `model.pkl` and `touchmark.json`. Raises InvalidFieldError if the object cannot be pickled."""
        try:
            with (folder / MODEL_FILE).open("wb") as file:
                pickle.dump(model, file, protocol=_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidFieldError(field="model", reason=f"it cannot be pickled ({error})") from error
        write_description(
            folder,
            format_name=self.name,
            model=model,
            distributions=("joblib", "numpy", "pandas", "scikit-learn", "scipy"),
        )

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether a file is named as a pickle."""
        return bool(_list_pickles(files))

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> object:
        """Unpickle the version's one pickle; joblib's files go through joblib, those of torch.save through PyTorch.

        Whatever they raise comes through as it is.

        Raises UnsafeFormatError unless `allow_pickle`, before a byte is read; InvalidFieldError if there is no pickle
        or more than one; MissingExtraError. A pickle is code, so `trusted_types` cannot narrow it and change nothing.
        """
        del trusted_types
        pickles = _list_pickles(files)
        if not pickles:
            raise InvalidFieldError(field="files", reason=f"there is no {', '.join(_SUFFIXES)} file")
        if not allow_pickle:
            message = (
                f"{pickles[0]!r} is a pickle: loading it runs whatever code is in it. Pass allow_pickle=True if you "
                "trust everybody who could have written it, or loader='files' to get its path."
            )
            raise UnsafeFormatError(message, path=pickles[0])
        if len(pickles) > 1:
            reason = f"{len(pickles)} pickles ({', '.join(pickles)}): get their folder with loader='files'"
            raise InvalidFieldError(field="files", reason=reason)
        path = folder / pickles[0]
        loaded: object
        if _is_torch(pickles[0]):
            torch = import_framework("torch", what="A file of torch.save", install="pip install torch")
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        elif path.suffix.lower() == ".joblib":
            joblib = import_framework("joblib", what="A joblib model", install="pip install joblib")
            loaded = joblib.load(path)
        else:
            with path.open("rb") as file:
                loaded = pickle.load(file)  # noqa: S301 - the caller said allow_pickle=True
        return loaded


def _list_pickles(files: Mapping[str, int]) -> list[str]:
    return sorted(path for path in files if PurePosixPath(path).suffix.lower() in _SUFFIXES or _is_torch(path))


def _is_torch(path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in _TORCH_SUFFIXES or _TORCH_WEIGHTS.fullmatch(name.name) is not None
