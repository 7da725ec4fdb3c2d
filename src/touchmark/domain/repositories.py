"""Repositories on `/v2`: whose bytes a path there means.

    models/NAME            a registered model, where NAME is valid as an OCI name
    m/<model id>           the same by its number, always; what the SDK uses
    runs/<run id>          the files of a run, before anything is registered
    logged-models/<id>     the files of a logged model

A blob can be read in a repository if it was uploaded into it or if a version of its model holds it: to know a digest
is not to have access.
"""

from __future__ import annotations

from dataclasses import dataclass

from touchmark.domain.errors import ManifestNotFoundError
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tracking import ArtifactOwner


@dataclass(frozen=True, slots=True)
class Repository:
    """A parsed repository: exactly one of `model_name`, `model_id` and `owner` is set."""

    path: str
    model_name: str | None = None
    model_id: int | None = None
    owner: ArtifactOwner | None = None


def parse_repository(path: str) -> Repository:
    """Return the repository a path on `/v2` names. Raises ManifestNotFoundError if there can be none."""
    kind, _, rest = path.partition("/")
    if kind == "models" and rest and "/" not in rest:
        return Repository(path, model_name=rest)
    if kind == "m" and rest.isascii() and rest.isdigit() and len(rest) < 19:
        return Repository(path, model_id=int(rest))
    if kind == "runs" and rest and "/" not in rest and len(rest) <= 64:
        return Repository(path, owner=ArtifactOwner("run", rest))
    if kind == "logged-models" and is_logged_model_id(rest):
        return Repository(path, owner=ArtifactOwner("logged_model", rest))
    raise ManifestNotFoundError(reference=path[:300])
