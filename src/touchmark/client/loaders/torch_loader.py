"""PyTorch's modules and state dicts as `model.safetensors`: the numbers by name, and no class to build.

The class of a module is code of its author's, so it is not in the file: `load` gives the state dict, or fills a module that
the caller built. Files of `torch.save` (`.pt`, `.pth`, `.ckpt`, `.bin`) are pickles, and `pickle_loader.py`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    descends_from,
    import_framework,
    read_description,
    shorten,
    write_description,
)
from touchmark.client.loaders.safetensors_loader import MODEL_FILE, collect_tensors
from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import ModuleType


class TorchLoader:
    """Saves `torch.nn.Module` and `dict[str, torch.Tensor]`; loads a state dict, or fills a module."""

    name = "torch"
    options = frozenset({"into", "tensors"})

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a module, or a dict, not empty, from text to tensors."""
        return _is_module(model) or (
            isinstance(model, dict)
            and bool(model)
            and all(isinstance(key, str) and descends_from(value, "torch", "Tensor") for key, value in model.items())
        )

    def save(self, model: Any, folder: Path) -> None:
        """Write `model.safetensors` and `touchmark.json`; equal tensors give equal bytes.

        Tensors are brought to the processor. One that stands under several names (tied weights) is written once;
        `touchmark.json` lists the others as `shared`. Raises InvalidFieldError for what is no tensor (an extra state of a
        module) and for tensors the format does not have (sparse, quantised, without data); MissingExtraError.
        """
        if not self.can_save(model):
            raise InvalidFieldError(field="model", reason="format 'torch' takes a module or a dict of tensors by name")
        state: dict[str, Any] = dict(model.state_dict() if _is_module(model) else model)
        odd = [name for name, value in state.items() if not descends_from(value, "torch", "Tensor")]
        if odd:
            reason = f"{odd[0]!r} is a {type(state[odd[0]]).__name__}, and safetensors holds nothing but tensors"
            raise InvalidFieldError(field="model", reason=reason)
        torch, safetensors = _import("torch"), _import("safetensors.torch")
        seen: dict[Any, str] = {}
        tensors: dict[str, Any] = {}
        shared: dict[str, str] = {}
        try:
            for name in sorted(state):
                tensor = state[name].detach()
                place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
                view = (*place, tensor.dtype, tuple(tensor.shape), tensor.stride())
                if tensor.numel() and view in seen:
                    shared[name] = seen[view]
                    continue
                seen[view] = name
                # A copy when it is a part of something larger: safetensors refuses tensors that lie in each other.
                tensors[name] = tensor.cpu().contiguous().clone(memory_format=torch.contiguous_format)
            # The key is what Transformers and others ask for before they read a file.
            safetensors.save_file(tensors, str(folder / MODEL_FILE), metadata={"format": "pt"})
        except (
            Exception
        ) as error:  # RuntimeError, NotImplementedError, ValueError, SafetensorError: by the kind of tensor
            raise InvalidFieldError(field="model", reason=f"safetensors cannot save it ({shorten(error)})") from error
        write_description(
            folder, format_name=self.name, model=model, distributions=("safetensors", "torch"), shared=shared
        )

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is a `.safetensors` file; without `touchmark.json` those are loaded as NumPy arrays."""
        return any(path.endswith(".safetensors") for path in files)

    def load(
        self,
        folder: Path,
        files: Mapping[str, int],
        *,
        allow_pickle: bool,
        trusted_types: Collection[str] = (),
        tensors: Collection[str] | None = None,
        into: Any = None,
    ) -> object:
        """Return the state dict, or the module given as `into`, filled.

        The tensors map the file: only what is touched is read, and writing to one changes a private copy. With `tensors`
        only those named come; a module then keeps the rest of what it has. Nothing here can run code, so `allow_pickle`
        and `trusted_types` change nothing. Raises InvalidFieldError if a file is damaged, a tensor asked for is not there,
        or the module does not fit; MissingExtraError.
        """
        del allow_pickle, trusted_types
        if into is not None and not _is_module(into):
            raise InvalidFieldError(field="into", reason="it is not a torch.nn.Module")
        _import("torch")
        shared = read_description(folder, files).get("shared")
        state = collect_tensors(folder, files, tensors, _map_tensors, shared if isinstance(shared, dict) else {})
        if into is None:
            return state
        _fill(into, state, is_partial=tensors is not None)
        filled: object = into
        return filled


def _is_module(model: object) -> bool:
    return descends_from(model, "torch", "Module")


def _map_tensors(file: Path, names: Collection[str]) -> dict[str, Any]:
    with _import("safetensors").safe_open(str(file), framework="pt", device="cpu") as opened:
        return {name: opened.get_tensor(name) for name in names}


def _fill(module: Any, state: dict[str, Any], *, is_partial: bool) -> None:
    try:
        found = module.load_state_dict(state, strict=False)
    except Exception as error:  # RuntimeError with every shape that differs
        reason = f"the module does not fit ({shorten(error)} {' '.join(str(error).split())[:500]})"
        raise InvalidFieldError(field="into", reason=reason) from error
    unexpected, missing = list(found.unexpected_keys), list(found.missing_keys)
    if missing and not is_partial:  # files of others leave tied weights out, and name nobody
        own = module.state_dict(keep_vars=True)
        given = {id(own[name]) for name in state if name in own}
        missing = [name for name in missing if id(own.get(name)) not in given]
    if unexpected or (missing and not is_partial):
        parts = {"it has no": unexpected, "nothing is stored for": [] if is_partial else missing}
        said = [f"{text} {', '.join(names[:5])}" for text, names in parts.items() if names]
        raise InvalidFieldError(field="into", reason=f"the module does not fit: {'; '.join(said)}")


def _import(module: str) -> ModuleType:
    return import_framework(module, what="A PyTorch model", install="pip install torch safetensors")
