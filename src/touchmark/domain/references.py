"""References: every way to say which model, version, run or logged model is meant.

    models:/NAME/3   models:/NAME@champion   models:/NAME@sha256:<hex>   models:/NAME/latest   models:/NAME/Production
    runs:/RUN/PATH   models:/m-<32 hex>

`models:/` may be left out before a NAME; what begins with `.`, `/` or `scheme:` is never shorthand. A reference to a
version may end in `/path`, a file in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from touchmark.domain.aliases import AliasName, parse_alias
from touchmark.domain.digest import Digest, parse_digest
from touchmark.domain.errors import InvalidError, InvalidReferenceError
from touchmark.domain.names import ModelName, is_logged_model_id, parse_model_name
from touchmark.domain.tracking import is_run_id
from touchmark.domain.versions import Stage, find_stage

REFERENCE_LIMIT = 4_000
"""Characters in a reference."""
MAX_VERSION = 2**31 - 1
"""The highest version number."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class VersionReference:
    """`models:/NAME/3[/path]`."""

    name: ModelName
    version: int
    path: str | None = None


@dataclass(frozen=True, slots=True)
class AliasReference:
    """`models:/NAME@champion[/path]`."""

    name: ModelName
    alias: AliasName
    path: str | None = None


@dataclass(frozen=True, slots=True)
class DigestReference:
    """`models:/NAME@sha256:…[/path]`."""

    name: ModelName
    digest: Digest
    path: str | None = None


@dataclass(frozen=True, slots=True)
class LatestReference:
    """`models:/NAME/latest[/path]`."""

    name: ModelName
    path: str | None = None


@dataclass(frozen=True, slots=True)
class StageReference:
    """`models:/NAME/Production[/path]`, for MLflow's clients."""

    name: ModelName
    stage: Stage
    path: str | None = None


@dataclass(frozen=True, slots=True)
class RunReference:
    """`runs:/RUN/PATH`: a folder or file among a run's artifacts, or the name of a model logged in it."""

    run_id: str
    path: str


@dataclass(frozen=True, slots=True)
class LoggedModelReference:
    """`models:/m-<32 hex>[/path]`: a model saved in a run and not yet registered."""

    model_id: str
    path: str | None = None


ModelReference = VersionReference | AliasReference | DigestReference | LatestReference | StageReference
"""What names one version of a registered model."""

Reference = ModelReference | RunReference | LoggedModelReference
"""Anything that can be registered or read."""


def parse_reference(text: object) -> Reference:
    """Return the reference that `text` spells. Raises InvalidReferenceError."""
    if not isinstance(text, str) or not text or len(text) > REFERENCE_LIMIT:
        raise InvalidReferenceError(reference=str(text)[:200], reason=f"write 1 to {REFERENCE_LIMIT} characters")
    try:
        if text.startswith("runs:/"):
            return _parse_run(text)
        if text.startswith("models:/"):
            return _parse_model(text, text[len("models:/") :])
        if text[0] in "./\\" or _SCHEME.match(text):
            raise InvalidReferenceError(
                reference=text[:300], reason="write models:/NAME/3, NAME@alias or runs:/RUN/PATH"
            )
        return _parse_model(text, text)
    except InvalidReferenceError:
        raise
    except InvalidError as error:
        raise InvalidReferenceError(reference=text[:300], reason=error.message.rstrip(".")) from None


def parse_model_reference(text: object) -> ModelReference:
    """Return a reference to a version of a registered model. Raises InvalidReferenceError."""
    reference = parse_reference(text)
    if isinstance(reference, RunReference | LoggedModelReference):
        raise InvalidReferenceError(reference=str(text)[:300], reason="it names no version of a registered model")
    return reference


def _parse_run(text: str) -> RunReference:
    run_id, _, path = text[len("runs:/") :].partition("/")
    if not is_run_id(run_id):
        raise InvalidReferenceError(reference=text[:300], reason="write runs:/RUN_ID/PATH")
    return RunReference(run_id, _check_inner_path(text, path) or "")


def _parse_model(text: str, rest: str) -> ModelReference | LoggedModelReference:
    end = min((at for at in (rest.find("/"), rest.find("@")) if at >= 0), default=len(rest))
    head, separator, tail = rest[:end], rest[end : end + 1], rest[end + 1 :]
    if is_logged_model_id(head) and separator != "@":
        return LoggedModelReference(head, _check_inner_path(text, tail))
    name = parse_model_name(head)
    selector, _, path = tail.partition("/")
    inner = _check_inner_path(text, path)
    if separator == "@":
        if selector.startswith("sha256:"):
            return DigestReference(name, parse_digest(selector), inner)
        return AliasReference(name, parse_alias(selector), inner)
    if _NUMBER.fullmatch(selector) and selector.isascii():
        return VersionReference(name, parse_version_number(selector), inner)
    if selector.lower() == "latest":
        return LatestReference(name, inner)
    stage = find_stage(selector)
    if stage is not None:
        return StageReference(name, stage, inner)
    reason = "after the name write /3, /latest, @alias or @sha256:<digest>"
    raise InvalidReferenceError(reference=text[:300], reason=reason)


def _check_inner_path(text: str, path: str) -> str | None:
    if not path:
        return None
    if any(part in {"", ".", ".."} for part in path.split("/")) or "\\" in path or "\x00" in path:
        raise InvalidReferenceError(reference=text[:300], reason="the path after it may hold no empty, . or .. part")
    return path


def parse_version_number(text: object) -> int:
    """Return a version number, 1 to 2**31 - 1, written in plain digits. Raises InvalidReferenceError."""
    shown = str(text)[:50]
    if not isinstance(text, str) or not text.isascii() or _NUMBER.fullmatch(text) is None or text.startswith("0"):
        raise InvalidReferenceError(reference=shown, reason="a version is a whole number from 1, in plain digits")
    if len(text) > 10 or int(text) > MAX_VERSION:
        raise InvalidReferenceError(reference=shown, reason=f"the highest version number is {MAX_VERSION}")
    return int(text)
