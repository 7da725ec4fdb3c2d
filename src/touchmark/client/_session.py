"""What Registry and ActiveRun both need: sending to /api/v1, walking pages, saving a model and its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from touchmark.client._transport import Transport, quote_part, write_query
from touchmark.client._types import to_version
from touchmark.domain.errors import ServerUnreachableError, TouchmarkError
from touchmark.domain.names import parse_model_name
from touchmark.domain.versions import ModelVersion

if TYPE_CHECKING:
    from pathlib import Path

    from touchmark.client._transfer import Progress

T = TypeVar("T")
API = "/api/v1"
EARLIER = 4
"""Attempts at one model that are remembered until one succeeds: what each brought there need not be sent again."""


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that was saved; `version` is set if it was registered at once."""

    model_id: str
    name: str
    run_id: str | None
    format: str
    version: ModelVersion | None = None

    @property
    def uri(self) -> str:
        """Return the reference to register or load it by."""
        return f"models:/{self.model_id}"


class _Answered(dict[str, Any]):
    """The object a server answered with. A field it has not means that the server is none of ours, and is told so."""

    def __init__(self, found: object, url: str) -> None:
        """Keep the fields, and the server's address. Raises ServerUnreachableError for what is no object."""
        if not isinstance(found, dict):
            raise _not_ours(url, "it sent no JSON object")
        super().__init__(found)
        self._url = url

    def __missing__(self, key: str) -> Any:
        raise _not_ours(self._url, f"its answer has no {key!r}")


def _not_ours(url: str, reason: str) -> ServerUnreachableError:
    return ServerUnreachableError(f"What answers at {url} is no Touchmark: {reason}.", address=url, reason=reason)


class Session:
    """One transport, and the few sequences of requests that more than one method needs."""

    def __init__(self, transport: Transport) -> None:
        """Speak through a transport."""
        self.transport = transport

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
    ) -> Any:
        """Send to /api/v1 and return the answer's JSON, an object; None for 204.

        Raises what the server answers; ServerUnreachableError for anything else, and for a field that is asked of the object
        and that it has not.
        """
        answer = self.transport.request(method, API + path, body=body, headers=headers, again=again)
        try:
            found = answer.json()
        except (ValueError, RecursionError):
            raise _not_ours(self.transport.url, "it sent no JSON") from None
        return None if answer.status == 204 else _Answered(found, self.transport.url)

    def get(self, path: str, field: str) -> dict[str, Any]:
        """Return an object of /api/v1 as it is, for users; one without `field` is not ours. Raises what `send` raises."""
        found = self.send("GET", path)
        found[field]
        return dict(found)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST with a random Idempotency-Key: a re-sent request answers with what the first one made."""
        given = {name: value for name, value in body.items() if value is not None}
        return self.send("POST", path, given, headers={"Idempotency-Key": os.urandom(16).hex()})

    def pages(self, path: str, query: Mapping[str, Any], make: Callable[[Any], T], limit: int | None) -> Iterator[T]:
        """Yield every item of a list, page by page, at most `limit`."""
        given = {name: _to_query(value) for name, value in query.items() if value is not None}
        left = limit
        cursor: str | None = None
        while left is None or left > 0:
            size = 100 if left is None else min(left, 1000)
            more = {"cursor": cursor} if cursor else {}
            page = self.send("GET", f"{path}?{write_query({**given, 'limit': size, **more})}")
            for item in page["items"]:
                yield make(_Answered(item, self.transport.url))
            cursor = page.get("next_cursor")
            if not cursor:
                return
            if left is not None:
                left -= len(page["items"])

    def put_artifacts(
        self,
        kind: str,
        owner: str,
        files: dict[str, Path],
        progress: Progress | None = None,
        *,
        known: Mapping[str, str] | None = None,
        earlier: Sequence[str] = (),
        is_new: bool = False,
    ) -> None:
        """Upload files into a run's or logged model's repository, and list them among its artifacts.

        `known`, `earlier` and `is_new` say where the server may have them already (_uploads.py).
        """
        from touchmark.client._uploads import upload_files

        repository = f"{kind}/{owner}"
        digests = upload_files(self.transport, repository, files, progress, known=known, earlier=earlier, is_new=is_new)
        self.send("PUT", f"/{kind}/{owner}/artifacts", {"files": digests})

    def register(
        self,
        source: str,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
        run_link: str | None = None,
    ) -> ModelVersion:
        """Register what a reference names as the next version of a model."""
        body = {
            "source": source, "description": description, "tags": to_texts(tags), "parents": list(parents) or None,
            "run_link": run_link,
        }  # fmt: skip
        return to_version(self.create(model_path(name, "versions"), body))

    def log_model(
        self,
        model: object,
        name: str,
        *,
        run_id: str | None = None,
        registered_model_name: str | None = None,
        format: str | None = None,  # noqa: A002 - the word users know from every saver
        model_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        known: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """Save a model, upload its files as a logged model, and register it if `registered_model_name` is given.

        What an attempt that was cut or killed has brought there is not sent again; `known` is what `upload_files` takes.
        """
        import tempfile
        from pathlib import Path

        from touchmark.client._uploads import Note, list_local_files

        if registered_model_name is not None:
            parse_model_name(registered_model_name)  # before any byte is sent
        place = os.path.realpath(model) if isinstance(model, str | os.PathLike) else ""
        with (
            tempfile.TemporaryDirectory(prefix="touchmark-") as folder,
            Note(self.transport.known_as, "model", name, run_id or "", os.fsdecode(place)) as note,
        ):
            source, saved_as = _save(model, Path(folder), format)
            files = list_local_files(source)  # before anything is created on the server
            body = {"name": name, "run_id": run_id, "model_type": model_type, "params": to_texts(params)}
            made = self.send("POST", "/logged-models", {key: value for key, value in body.items() if value})
            model_id: str = made["model_id"]
            earlier = note.read()
            note.write(f"logged-models/{model_id}", *earlier[: EARLIER - 1])
            try:
                self.put_artifacts(
                    "logged-models", model_id, files, progress, known=known, earlier=earlier, is_new=True
                )
            except BaseException:
                with suppress(TouchmarkError):  # what went wrong first is what the user has to know
                    self._finish(model_id, "UPLOAD_FAILED")
                raise
            note.forget()
        self._finish(model_id, "READY")
        version = None
        if registered_model_name is not None:
            version = self.register(f"models:/{model_id}", registered_model_name, tags=tags)
        return LoggedModel(model_id, name, run_id, saved_as, version)

    def _finish(self, model_id: str, status: str) -> None:
        self.send("POST", f"/logged-models/{model_id}/finish", {"status": status}, again=True)


def model_path(name: str, *parts: object) -> str:
    """Return the path of a model or of what is below it. Raises InvalidNameError: a name with `/` would be another route."""
    parse_model_name(name)
    return "/".join(["/models", quote_part(name), *(quote_part(str(part)) for part in parts)])


def to_texts(values: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return tags or params with text for keys and values; None if there are none."""
    return {str(key): str(value) for key, value in values.items()} if values else None


def _to_query(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _save(model: object, folder: Path, format_name: str | None) -> tuple[Path, str]:
    """Return where a model's files are, and their format: a path as it stands, an object saved into `folder`."""
    if isinstance(model, str | os.PathLike) and format_name in {None, "files"}:
        from pathlib import Path

        return Path(os.fsdecode(os.fspath(model))), "files"
    from touchmark.client.loaders import save_model

    return folder, save_model(model, folder, format=format_name)
