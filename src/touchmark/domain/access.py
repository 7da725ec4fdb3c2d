"""Who asks, what they ask for, and on what: the words the permission gate speaks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    """What sort of principal acts."""

    USER = "user"
    SERVICE = "service"
    ANONYMOUS = "anonymous"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an opaque id, never a display name; `verified` is false where nobody was asked who they are."""

    kind: PrincipalKind
    id: str
    token_id: str | None = None
    verified: bool = False
    request_id: str | None = None


SYSTEM = Principal(PrincipalKind.SYSTEM, "system", verified=True)
"""Touchmark itself: set-up, migrations, clean-up."""


class Action(StrEnum):
    """Everything that can be allowed or denied; the value completes "You may not …"."""

    READ_MODEL = "read this model"
    LIST_MODELS = "list models"
    CREATE_MODEL = "create this model"
    EDIT_MODEL = "edit this model"
    RENAME_MODEL = "rename this model"
    DELETE_MODEL = "delete this model"
    REGISTER_VERSION = "register a version of this model"
    EDIT_VERSION = "edit this version"
    DELETE_VERSION = "delete this version"
    RESTORE_VERSION = "restore this version"
    DEPRECATE_VERSION = "deprecate this version"
    RECORD_EVALUATION = "record an evaluation of this version"
    SET_TAG = "set tags here"
    SET_ALIAS = "move this alias"
    DELETE_ALIAS = "delete this alias"
    SET_STAGE = "change this version's stage"
    READ_BLOB = "read these bytes"
    WRITE_BLOB = "upload bytes here"
    READ_LOG = "read the log"
    READ_TRACKING = "read experiments and runs"
    WRITE_TRACKING = "write experiments and runs"
    MANAGE_WEBHOOKS = "manage webhooks"
    ADMINISTER = "administer this registry"


@dataclass(frozen=True, slots=True)
class Resource:
    """What an action is on: a kind and which one of it.

    Kinds: `model`, `run`, `experiment`, `logged_model`, `repository`, `manifest`, `upload`; `registry` and `tracking` are
    the whole of either and have no name.
    """

    kind: str
    name: str | None = None


REGISTRY = Resource("registry")
TRACKING = Resource("tracking")
