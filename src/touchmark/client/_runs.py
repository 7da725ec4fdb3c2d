"""A run while it is going on, and what it logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsFloat

from touchmark.client._session import LoggedModel, Session, to_texts
from touchmark.client._transport import quote_part
from touchmark.client._types import from_number
from touchmark.domain.errors import TouchmarkError
from touchmark.domain.paths import check_path

if TYPE_CHECKING:
    from touchmark.client._transfer import Progress


class ActiveRun:
    """A run to log to. As a context manager it ends FINISHED, or FAILED when an exception leaves."""

    def __init__(self, session: Session, data: Mapping[str, Any]) -> None:
        """Take over a run that was created."""
        self._session = session
        self.id: str = data["run_id"]
        self.name: str = data["name"]
        self.experiment_id: int = data["experiment_id"]

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        """End the run."""
        if error is None:
            self.end()
            return
        try:
            self.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        except TouchmarkError as lost:  # the user's own error is the one to be seen
            error.add_note(f"The run {self.id} could not be ended: {lost.message}")

    def end(self, status: str = "FINISHED") -> None:
        """Say that the run is over: FINISHED, FAILED or KILLED."""
        self._session.send("PATCH", f"/runs/{self.id}", {"status": status})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, once each; values are kept as text. Raises ParamChangedError."""
        self._log(params=to_texts(params) or {})

    def log_param(self, key: str, value: Any) -> None:
        """Record one param. Raises ParamChangedError."""
        self.log_params({key: value})

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Record measurements at a step (0 if None); every one is kept, that of the highest step is the one shown."""
        at = time.time_ns() // 1000  # set here, so that the same batch sent twice is one
        items = [
            {"key": key, "value": from_number(value), "step": step or 0, "at": at} for key, value in metrics.items()
        ]
        self._log(metrics=items)

    def log_metric(self, key: str, value: SupportsFloat, step: int | None = None) -> None:
        """Record one measurement."""
        self.log_metrics({key: value}, step)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""
        self._log(tags=to_texts(tags) or {})

    def set_tag(self, key: str, value: Any) -> None:
        """Set one tag of the run."""
        self.set_tags({key: value})

    def _log(self, **batch: Any) -> None:
        self._session.send("POST", f"/runs/{self.id}/log", batch, again=True)

    def log_dataset(
        self,
        name: str,
        digest: str,
        *,
        context: str | None = None,
        source: str | None = None,
        source_type: str | None = None,
        schema: str | None = None,
        profile: str | None = None,
    ) -> None:
        """Record a data set the run read.

        Args:
            name: what people call it.
            digest: what tells its content from any other's, at most 100 characters.
            context: how it was used, such as `training`.
            source: where it came from, an address for one.
            source_type: what kind of address that is.
            schema: its columns, as text.
            profile: statistics about it, as text.

        Raises InvalidFieldError, LimitExceededError, RunDeletedError.

        """
        item = {
            "name": name, "digest": digest, "context": context, "source": source, "source_type": source_type,
            "schema": schema, "profile": profile,
        }  # fmt: skip
        dataset = {key: value for key, value in item.items() if value is not None}
        self._session.send("POST", f"/runs/{self.id}/datasets", {"datasets": [dataset]}, again=True)

    def log_artifact(self, source: str | Path, to: str | None = None, *, progress: Progress | None = None) -> None:
        """Upload a file or folder below the run's path `to` (the root if None); what was at those paths is replaced."""
        from touchmark.client._uploads import list_local_files

        source = Path(source)
        files = list_local_files(source)
        prefix = f"{check_path(to)}/" if to else ""
        self._session.put_artifacts("runs", self.id, {prefix + path: file for path, file in files.items()}, progress)

    def log_artifacts(self, folder: str | Path, to: str | None = None, *, progress: Progress | None = None) -> None:
        """Upload what is in a folder below the run's path `to`; `log_artifact` does the same with a folder."""
        self.log_artifact(folder, to, progress=progress)

    def log_text(self, text: str, path: str) -> None:
        """Write a text as a file of the run."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="touchmark-") as folder:
            file = Path(folder, "text")
            file.write_text(text, encoding="utf-8")
            self._session.put_artifacts("runs", self.id, {check_path(path): file}, None)

    def delete_artifact(self, path: str) -> None:
        """Take a file or folder out of the run. What was registered from it stays as it is."""
        self._session.send("DELETE", f"/runs/{self.id}/artifacts?path={quote_part(path)}")

    def log_model(
        self,
        model: object,
        name: str,
        *,
        registered_model_name: str | None = None,
        format: str | None = None,  # noqa: A002 - the word users know from every saver
        model_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> LoggedModel:
        """Save a model in this run, and register it at once if `registered_model_name` is given.

        Args:
            model: a file, a folder, or an object one of the savers knows (docs/reference/formats.md).
            name: the logged model's name in the run: `runs:/RUN/NAME` finds it.
            registered_model_name: registers it as the next version of this model.
            format: the saver, if not the one that knows the object; `pickle` is only ever used when named here.
            model_type: free text, such as `classifier`.
            params: params of the model itself.
            tags: tags of the new version.
            progress: called while bytes move.

        Raises InvalidFieldError, InvalidPathError, and what registering raises.

        """
        return self._session.log_model(
            model,
            name,
            run_id=self.id,
            registered_model_name=registered_model_name,
            format=format,
            model_type=model_type,
            params=params,
            tags=tags,
            progress=progress,
        )
