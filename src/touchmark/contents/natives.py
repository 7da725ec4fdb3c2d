"""What files of model libraries say of themselves: XGBoost, LightGBM, Keras, a folder of Transformers, `touchmark.json`.

Source: the formats those libraries write (XGBoost 3, LightGBM 4, Keras 3, Transformers 5); `touchmark.json` is the SDK's own
(client/loaders/frameworks.py). Everything here is a claim of whoever wrote the file. Nothing is built, imported or run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from touchmark.contents.archives import Archive
from touchmark.contents.documents import clean_text, parse_json
from touchmark.domain.errors import InvalidError

DOCUMENT_BYTES = 1024 * 1024
"""The largest `touchmark.json` or `config.json` of Transformers that is read."""

KERAS_BYTES = 8 * 1024 * 1024
"""The largest config of a Keras model that is read."""

TAIL_BYTES = 4096
"""What is read of the end of an XGBoost file, where it says what the model is for and who wrote it."""

_FACTS = 20
_FORMAT = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_KERAS_CODE = frozenset({"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"})
_UBJ_VERSION = re.compile(rb"\x07version\[#L\x00{7}\x03(?:i|U)(.)(?:i|U)(.)(?:i|U)(.)\}", re.DOTALL)
_UBJ_OBJECTIVE = re.compile(rb"\x09objective\{L\x00{7}\x04nameSL\x00{7}(?:[\x01-\x64])([\w:]{1,100})L?")
_JSON_VERSION = re.compile(rb'"version":\[(\d{1,4}),(\d{1,4}),(\d{1,4})\]')
_JSON_OBJECTIVE = re.compile(rb'"objective":\{"name":"([\w:]{1,100})"')
_LIGHTGBM_LINE = re.compile(rb"^(version|num_class|max_feature_idx|objective)=([^\n]{0,100})$", re.MULTILINE)


@dataclass
class Described:
    """What `touchmark.json` says: the format, facts of it as texts, and the Python it was saved with."""

    format: str
    facts: dict[str, str] = field(default_factory=dict)
    python_version: str | None = None


def is_lightgbm(head: bytes) -> bool:
    """Answer whether a file begins like a model of LightGBM."""
    return head.startswith(b"tree\nversion=v")


def is_xgboost(head: bytes) -> bool:
    """Answer whether a file begins like a model of XGBoost, in UBJSON or JSON."""
    return head.startswith((b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{", b'{"learner":{'))


def read_lightgbm(head: bytes) -> dict[str, object]:
    """Return {version, num_class, max_feature_idx, objective} as far as the first lines have them."""
    return {key.decode(): clean_text(value.decode("utf-8", "replace")) for key, value in _LIGHTGBM_LINE.findall(head)}


def read_xgboost(tail: bytes) -> dict[str, object]:
    """Return {version, objective} as far as the last bytes of a file have them."""
    facts: dict[str, object] = {}
    if found := _JSON_VERSION.search(tail):
        facts["version"] = b".".join(found.groups()).decode()
    elif found := _UBJ_VERSION.search(tail):
        facts["version"] = ".".join(str(number[0]) for number in found.groups())
    objective = None
    if found := _JSON_OBJECTIVE.search(tail):
        objective = found.group(1)
    elif found := _UBJ_OBJECTIVE.search(tail):
        objective = found.group(1)[: tail[found.start(1) - 1]]  # its length stands before it
    if objective:
        facts["objective"] = objective.decode()
    return facts


def read_keras(archive: Archive) -> dict[str, object]:
    """Return {class, keras_version, code} of a `.keras` archive; `code` lists layers that hold code. Raises InvalidError."""
    facts: dict[str, object] = {}
    for info in archive.members:
        if info.filename not in ("config.json", "metadata.json"):
            continue
        data = archive.read_member(info, KERAS_BYTES + 1)
        if len(data) > KERAS_BYTES:
            raise InvalidError(f"its {info.filename} is too large to be read")
        document = parse_json(data)
        if not isinstance(document, dict):
            raise InvalidError(f"its {info.filename} is not a JSON object")
        if info.filename == "metadata.json":
            facts["keras_version"] = clean_text(document.get("keras_version"), 50)
        else:
            facts["class"] = clean_text(document.get("class_name"))
            facts["code"] = sorted(_find_keras_code(document))
    return facts


def _find_keras_code(config: object) -> set[str]:
    """Return the kinds of code in a config. No recursion: the nesting is the file's to choose."""
    found: set[str] = set()
    waiting: list[object] = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            name = node.get("class_name")
            if isinstance(name, str) and name in _KERAS_CODE:
                found.add(name)
            waiting.extend(child for child in node.values() if isinstance(child, (dict, list)))
        elif isinstance(node, list):
            waiting.extend(child for child in node if isinstance(child, (dict, list)))
    return found


def read_transformers(data: bytes) -> dict[str, object] | None:
    """Return {model_type, architectures, transformers_version, code} of a `config.json`, or None if it is none of theirs.

    `code` says whether it names code of its own (`auto_map`). Raises InvalidError for what is no JSON.
    """
    document = parse_json(data)
    if not isinstance(document, dict) or not isinstance(document.get("model_type"), str):
        return None
    named = document.get("architectures")
    return {
        "model_type": clean_text(document["model_type"]),
        "architectures": [clean_text(name) for name in named[:_FACTS]] if isinstance(named, list) else [],
        "transformers_version": clean_text(document.get("transformers_version"), 50),
        "code": bool(document.get("auto_map")),
    }


def read_description(data: bytes) -> Described | None:
    """Return what `touchmark.json` says, or None if it does not name a format. Raises InvalidError for what is no JSON."""
    document = parse_json(data)
    if not isinstance(document, dict):
        return None
    name = document.get("format")
    if not isinstance(name, str) or _FORMAT.fullmatch(name) is None:
        return None
    facts = {"class": clean_text(document.get("class"))}
    libraries = document.get("libraries")
    if isinstance(libraries, dict):
        known = [(key, value) for key, value in sorted(libraries.items()) if isinstance(value, str)]
        facts |= {clean_text(f"{key}_version"): clean_text(value, 50) for key, value in known[:_FACTS]}
    if isinstance(document.get("task"), str):
        facts["task"] = clean_text(document["task"])
    python = document.get("python")
    return Described(name, facts, clean_text(python, 20) if isinstance(python, str) else None)
