"""Folders of Transformers (`config.json` and weights as safetensors), with its own classes and nobody's code.

What a folder may do is checked before Transformers sees it: code of its own, kernels fetched from a hub, weights or
vocabularies that are pickles. Source: `from_pretrained` and `save_pretrained` of Transformers 4.50 to 5.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import (
    descends_from,
    import_framework,
    read_description,
    read_object,
    shorten,
    write_description,
)
from touchmark.client.loaders.pickles import is_pickle
from touchmark.client.loaders.safetensors_loader import SafetensorsLoader
from touchmark.domain.errors import InvalidFieldError, UnsafeFormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SAFE_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED_WEIGHTS = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_UNREAD = frozenset({".bin", ".pt", ".pth", ".ckpt"})
"""Suffixes of pickles that lie in such folders and are never opened beside safetensors: weights, states of a trainer."""

_PARTS = {
    "tokenizer": "AutoTokenizer",
    "processor": "AutoProcessor",
    "image_processor": "AutoImageProcessor",
    "feature_extractor": "AutoFeatureExtractor",
}
"""What may be saved with a model, and what loads it."""


class TransformersLoader:
    """Saves a model of Transformers, a pipeline, or a dict of a model and its tokenizer; loads what it was."""

    name = "transformers"
    options = frozenset({"task", "trust_remote_code"})

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a model, a pipeline, or a dict with a `model` and parts such as a `tokenizer`."""
        if isinstance(model, dict):
            return _is_model(model.get("model")) and set(model) <= {"model", *_PARTS}
        return _is_model(model) or _is_pipeline(model)

    def save(self, model: Any, folder: Path) -> None:
        """Write what `save_pretrained` writes, weights as safetensors, and `touchmark.json`, which says what it was.

        Raises InvalidFieldError if it cannot be saved.
        """
        if not self.can_save(model):
            reason = "format 'transformers' takes a model, a pipeline, or a dict of a model and its tokenizer"
            raise InvalidFieldError(field="model", reason=reason)
        more: dict[str, object] = {}
        if isinstance(model, dict):
            parts = model
            more["parts"] = sorted(model)
        elif _is_pipeline(model):
            found = {name: getattr(model, name, None) for name in ("model", *_PARTS)}
            parts = {name: part for name, part in found.items() if part is not None}
            more["task"] = model.task
        else:
            parts = {"model": model}
        try:
            for part in parts.values():
                part.save_pretrained(folder, **({"safe_serialization": True} if _is_old() and _is_model(part) else {}))
        except Exception as error:
            raise InvalidFieldError(field="model", reason=f"it cannot be saved ({shorten(error)})") from error
        distributions = ("safetensors", "tokenizers", "torch", "transformers")
        write_description(folder, format_name=self.name, model=parts["model"], distributions=distributions, **more)

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether `config.json` and a model's weights, under the names Transformers gives them, are at the root."""
        return _CONFIG in files and any(
            _SAFE_WEIGHTS.fullmatch(path) or _PICKLED_WEIGHTS.fullmatch(path) for path in files
        )

    def load(
        self,
        folder: Path,
        files: Mapping[str, int],
        *,
        allow_pickle: bool,
        trusted_types: Collection[str] = (),
        task: str | None = None,
        trust_remote_code: bool = False,
    ) -> object:
        """Return the model, the dict that was saved, or a pipeline if one was saved or `task` asks for one.

        The class is that of Transformers which `config.json` names. A folder whose `config.json` is not
        one of Transformers is loaded as arrays. What a configuration names elsewhere, as the audio tokenizer of a processor,
        is taken from Transformers' own cache or not at all, never fetched. Raises UnsafeFormatError, before Transformers sees the folder, for code or
        kernels that its configuration names (unless `trust_remote_code`), and for weights or vocabularies that are pickles
        (unless `allow_pickle`); InvalidFieldError for what it cannot load, MissingExtraError.
        """
        if _CONFIG not in files:
            raise InvalidFieldError(field="files", reason=f"there is no {_CONFIG}")
        config = read_object(folder, _CONFIG)
        if not isinstance(config.get("model_type"), str):
            return SafetensorsLoader().load(folder, files, allow_pickle=False, trusted_types=trusted_types)
        is_safe = any(_SAFE_WEIGHTS.fullmatch(path) for path in files)
        if not trust_remote_code:
            _check_configuration(folder, files)
        if not allow_pickle:
            _check_pickles(folder, files, has_safetensors=is_safe)
        _check_index(folder, files)
        transformers = _import("transformers")
        _import("torch")
        common = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        described = read_description(folder, files)
        said, place = described.get("parts"), str(folder)
        wanted = [name for name in _PARTS if name in said] if isinstance(said, list) else []
        task = task or _get_text(described, "task")
        try:
            if task is not None:  # what a task needs beside the model is known to Transformers
                return _load_pipeline(transformers, task, place, config=config, is_safe=is_safe, common=common)
            loads = _get_class(transformers, config, trust_remote_code=trust_remote_code)
            model: object = loads.from_pretrained(place, use_safetensors=is_safe, **common)
            parts = {name: getattr(transformers, _PARTS[name]).from_pretrained(place, **common) for name in wanted}
        except Exception as error:  # OSError, ValueError, KeyError: by what does not fit
            reason = f"Transformers cannot load it ({shorten(error)}); loader='files' gives the folder"
            raise InvalidFieldError(field=_CONFIG, reason=reason) from error
        return {"model": model, **parts} if isinstance(said, list) else model


def _is_model(value: object) -> bool:
    return descends_from(value, "transformers", "PreTrainedModel")


def _is_pipeline(value: object) -> bool:
    return descends_from(value, "transformers", "Pipeline")


def _is_old() -> bool:
    return int(str(_import("transformers").__version__).partition(".")[0]) < 5


def _get_text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None


def _get_class(transformers: ModuleType, config: Mapping[str, Any], *, trust_remote_code: bool) -> Any:
    """Return the class that the configuration names if it is one of Transformers, else the class that looks for one."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    mapped = config.get("auto_map")
    if trust_remote_code and isinstance(mapped, dict):
        autos = [each for each in mapped if each.startswith("AutoModel") and hasattr(transformers, each)]
        if autos:
            return getattr(transformers, autos[0])
    found = getattr(transformers, name, None) if name.isidentifier() else None
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if is_model else transformers.AutoModel


class _WithoutHub:
    """A class of pipelines that does not see `local_files_only`, and else is what it was.

    `pipeline` hands that word to whatever loads a part, as it should, and then to the pipeline too, most of which refuse it
    or pass it on to a tokenizer with every text.
    """

    def __init__(self, made: Any) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)

    def __call__(self, **parts: Any) -> object:
        parts.pop("local_files_only", None)
        made: object = self._made(**parts)
        return made


def _load_pipeline(
    transformers: ModuleType, task: str, place: str, *, config: Mapping[str, Any], is_safe: bool, common: dict[str, Any]
) -> object:
    """Return a pipeline of the folder `place`, none of whose parts is fetched."""
    options = {"use_safetensors": is_safe}
    piped: object
    if task in (config.get("custom_pipelines") or ()):  # the folder's own code, which the caller trusts
        trusted = common["trust_remote_code"]
        piped = transformers.pipeline(task, model=place, trust_remote_code=trusted, model_kwargs=options)
    else:
        made = transformers.pipelines.check_task(task)[1]["impl"]
        if isinstance(made, str):  # a class, or the dotted path of one that is imported when it is used
            made = getattr(transformers, made.rpartition(".")[2])
        made = _WithoutHub(made)
        piped = transformers.pipeline(task, model=place, pipeline_class=made, model_kwargs=options, **common)
    return piped


def _check_configuration(folder: Path, files: Mapping[str, int]) -> None:
    """Raise UnsafeFormatError if a JSON document of the folder asks for code from elsewhere."""
    for path in sorted(files):
        if path != _CONFIG and ("/" in path or not path.endswith("_config.json")):
            continue
        if path == "adapter_config.json":
            raise _refuse(path, "it asks for an adapter of another library")
        for key, value in _list_entries(read_object(folder, path)):
            if key in ("auto_map", "custom_pipelines") and value:
                raise _refuse(path, f"its {key} names code of its own")
            if key.endswith("_implementation") and any("/" in text for text in _list_texts(value)):
                raise _refuse(path, f"its {key} names a kernel from elsewhere")
            if key == "transformers_weights" and not str(value).endswith((".safetensors", ".safetensors.index.json")):
                raise _refuse(path, f"its {key} names weights that are not safetensors")


def _refuse(path: str, reason: str) -> UnsafeFormatError:
    message = (
        f"This folder of Transformers may run code when it is loaded: in {path!r}, {reason}. Pass trust_remote_code=True if "
        "you trust everybody who could have written it, or loader='safetensors' to get its tensors alone."
    )
    return UnsafeFormatError(message, path=path)


def _check_pickles(folder: Path, files: Mapping[str, int], *, has_safetensors: bool) -> None:
    for path in sorted(files):
        is_unread = PurePosixPath(path).suffix.lower() in _UNREAD
        if is_unread and has_safetensors:
            continue
        if _PICKLED_WEIGHTS.fullmatch(path) or is_pickle(folder / path):
            message = (
                f"{path!r} is a pickle, and loading it may run code. Pass allow_pickle=True if you trust everybody who could "
                "have written it, or save the model anew: safetensors are loaded without."
            )
            raise UnsafeFormatError(message, path=path)


def _check_index(folder: Path, files: Mapping[str, int]) -> None:
    """Raise InvalidFieldError if the index of the weights leads out of the folder, or to what is no safetensors file."""
    if _INDEX not in files:
        return
    mapped = read_object(folder, _INDEX).get("weight_map")
    for shard in list(mapped.values()) if isinstance(mapped, dict) else ():
        if not isinstance(shard, str) or shard not in files or not shard.endswith(".safetensors"):
            raise InvalidFieldError(field=_INDEX, reason=f"{str(shard)[:200]!r} is no weights of this version")


def _list_entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield every key and value of a JSON document. No recursion: the nesting is the file's to choose."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _list_texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for _, text in _list_entries(value) if isinstance(text, str)]


def _import(module: str) -> ModuleType:
    return import_framework(module, what="A model of Transformers", install="pip install transformers torch")
