"""The `source` of a new model version, as MLflow's clients write it: which of our references it is, or why it is none.

    runs:/RUN/PATH, models:/m-…, models:/NAME/3, models:/NAME@alias     our own words, handed on
    mlflow-artifacts:/EXP/RUN/artifacts/PATH                           a folder of a run, by its proxied address
    mlflow-artifacts:/EXP/models/m-…/artifacts                         a logged model, by its proxied address
    s3://…, gs://…, dbfs:/…                                            an address this registry may not read: unsealed
    an address on the allow-list, http(s) among them                   imported by the server
    /path, file:…, other http://…, ftp://…, anything with `..`         refused

What MLflow's security advisories were about is refused before anything is looked up: local paths, parts that climb, in any
number of percent-encodings, and addresses that would make a server fetch from a host of the caller's choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from touchmark.domain.errors import InvalidError, InvalidSourceError
from touchmark.domain.names import ModelName, is_logged_model_id
from touchmark.domain.references import LoggedModelReference, RunReference, parse_reference
from touchmark.domain.text import SOURCE_LIMIT, check_text

DECODINGS = 10
"""How often an address is percent-decoded before it counts as hostile."""
PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What MLflow's clients send as the source of a prompt, whose text is in its tags."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST_ADDRESSED = frozenset(
    {"http", "https", "ftp", "sftp", "hdfs", "viewfs", "r2", "b2", "abfs", "abfss", "gopher", "ssh", "smb"}
)
_RUN_PLACE = re.compile(r"[0-9]+/([A-Za-z0-9_-]{1,64})/artifacts(?:/(.*))?", re.DOTALL)
_MODEL_PLACE = re.compile(r"[0-9]+/models/(m-[0-9a-f]{32})/artifacts/?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """What a source is: `reference` in our own words, or None with the `reason` why it cannot be read here.

    `copies` is the name of the registered model it copies a version of, if it does. `can_be_imported` says that another
    tracking server may know the run or logged model it belongs to, `is_listed` that the server may read the address itself.
    """

    reference: str | None
    reason: str | None = None
    copies: ModelName | None = None
    can_be_imported: bool = False
    is_listed: bool = False


def parse_source(
    text: str,
    *,
    run_id: str | None,
    model_id: str | None,
    is_prompt: bool = False,
    is_listed: Callable[[str], bool] = lambda _text: False,
) -> Source:
    """Return what a source is. `run_id` and `model_id` are what the same request says of it.

    `is_listed` says whether an address is on the server's allow-list.

    Raises InvalidSourceError, InvalidFieldError, LimitExceededError.
    """
    if is_prompt:
        if text not in PROMPT_SOURCES:
            _refuse(text, f"Invalid prompt source: '{text[:300]}'. Prompt sources must use an MLflow placeholder.")
        return Source(None, "It is a prompt: its text is in its tags, and it has no files.")
    check_text("source", text, SOURCE_LIMIT)  # first: to decode the largest body takes seconds
    _check_climbs(text)
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme in {"", "file"} or len(scheme) == 1:
        owner = "model_id" if model_id else "run_id"
        _refuse(
            text,
            f"Invalid model version source: '{text[:300]}'. To use a local path as a model version source, the {owner} "
            f"request parameter has to be specified and the local path has to be contained within the artifact directory "
            f"of the run specified by the {owner}.",
        )
    if scheme in {"runs", "models"}:
        return _parse_own(text, run_id, model_id)
    if scheme == "mlflow-artifacts":
        return _parse_proxied(text, run_id, model_id)
    _split(text)  # whoever imports it later will
    if is_listed(text):
        return Source(None, f"Its files lie at {scheme}:.", can_be_imported=bool(run_id or model_id), is_listed=True)
    if scheme in _HOST_ADDRESSED:
        _refuse(
            text,
            f"Invalid model version source: '{text[:300]}'. Addresses of a host ({scheme}) are not accepted: log the model "
            "through this server, and register runs:/ or models:/ instead.",
        )
    reason = f"Its files lie at {scheme}:, which this registry does not read."
    return Source(None, reason, can_be_imported=bool(run_id or model_id))


def _parse_own(text: str, run_id: str | None, model_id: str | None) -> Source:
    if _split(text).netloc:
        _refuse_stranger(text, "run_id" if text.startswith("runs") else "model_id")
    try:
        reference = parse_reference(text)
    except InvalidError as error:
        _refuse(text, f"Invalid model version source: '{text[:300]}'. {error.message}")
    if isinstance(reference, RunReference):
        if model_id:
            _refuse_stranger(text, "model_id")
        if run_id and reference.run_id != run_id:
            reason = f"The source lies in run {reference.run_id!r}, and run_id says {run_id!r}."
            return Source(None, reason)
        return Source(text, can_be_imported=True)
    if isinstance(reference, LoggedModelReference):
        if reference.model_id != model_id or reference.path is not None:
            _refuse_stranger(text, "model_id")
        return Source(text, can_be_imported=True)
    if reference.path is not None:
        _refuse(text, f"Invalid model version source: '{text[:300]}'. A version is registered whole.")
    return Source(text, copies=reference.name)


def _parse_proxied(text: str, run_id: str | None, model_id: str | None) -> Source:
    address = _split(text)
    place = address.path.strip("/")
    owner = "model_id" if model_id else "run_id"
    if address.netloc or address.query or address.fragment:
        _refuse_stranger(text, owner)
    of_run, of_model = _RUN_PLACE.fullmatch(place), _MODEL_PLACE.fullmatch(place)
    if of_model is not None and is_logged_model_id(of_model[1]):
        if of_model[1] != model_id:
            _refuse_stranger(text, "model_id")
        return Source(f"models:/{of_model[1]}", can_be_imported=True)
    if of_run is None or model_id or of_run[1] != run_id:
        _refuse_stranger(text, owner)
    return Source(f"runs:/{of_run[1]}/{(of_run[2] or '').strip('/')}", can_be_imported=True)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # such as of brackets that hold no IPv6 address
        _refuse(text, f"Invalid model version source: '{text[:300]}'. It is no address.")


def _check_climbs(text: str) -> None:
    seen = text
    for _ in range(DECODINGS):
        decoded = unquote(seen)
        if decoded == seen:
            break
        seen = decoded
    else:
        _refuse_climb(text)
    parts = re.split(r"[/\\]", seen)
    # Of control characters urlsplit drops some without a word, and what is left may climb then.
    if _CONTROL.search(seen) or "\\" in seen or ".." in parts or "." in parts[1:]:
        _refuse_climb(text)


def _refuse_climb(text: str) -> NoReturn:
    _refuse(
        text,
        f"Invalid model version source: '{text[:300]}'. If supplying a source as an http, https, local file path, ftp, "
        "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references present. "
        "Please provide an absolute path.",
    )


def _refuse_stranger(text: str, owner: str) -> NoReturn:
    _refuse(
        text,
        f"Invalid model version source: '{text[:300]}'. The {owner} request parameter must identify the resource that "
        "contains the source.",
    )


def _refuse(text: str, sentence: str) -> NoReturn:
    raise InvalidSourceError(sentence, source=text[:300], reason="it is not accepted")
