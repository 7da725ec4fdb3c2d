"""Repositories on `/v2`: whose bytes a path there means.

    models/NAME            a registered model, where NAME is valid as an OCI name
    m/<model id>           the same by its number, always; what the SDK uses
    runs/<run id>          the files of a run, before anything is registered
    logged-models/<id>     the files of a logged model

A blob can be read in a repository if it was uploaded into it or if a version of its model holds it: to know a digest
is not to have access.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from touchmark.domain.errors import InvalidError, ManifestNotFoundError
from touchmark.domain.names import parse_model_name
from touchmark.domain.tracking import ArtifactOwner, check_logged_model_id, check_run_id

_MODEL_ID = re.compile(r"0|[1-9][0-9]{0,17}")


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
    try:
        if kind == "models":
            return Repository(path, model_name=parse_model_name(rest))
        if kind == "m" and _MODEL_ID.fullmatch(rest):
            return Repository(path, model_id=int(rest))
        if kind == "runs":
            return Repository(path, owner=ArtifactOwner("run", check_run_id(rest)))
        if kind == "logged-models":
            return Repository(path, owner=ArtifactOwner("logged_model", check_logged_model_id(rest)))
    except InvalidError:  # what is no name names nothing; some such texts no database would even take
        pass
    raise ManifestNotFoundError(reference=path[:300])
