"""Every error Touchmark raises on purpose, drawn as a tree.

    TouchmarkError
    ├── InvalidError            the request is wrong and says what to change
    │   ├── InvalidNameError, InvalidAliasError, InvalidTagError, InvalidReferenceError, InvalidDigestError,
    │   ├── InvalidPathError, InvalidManifestError, InvalidFilterError, InvalidCursorError, InvalidFieldError,
    │   ├── InvalidSourceError, LimitExceededError, NothingToRegisterError, UnsafeFormatError
    ├── NotFoundError           the thing named does not exist (or may not be seen)
    │   ├── ModelNotFoundError, VersionNotFoundError, AliasNotFoundError, TagNotFoundError,
    │   ├── ExperimentNotFoundError, RunNotFoundError, LoggedModelNotFoundError, ArtifactNotFoundError,
    │   ├── BlobNotFoundError, ManifestNotFoundError, UploadNotFoundError, EventNotFoundError, WebhookNotFoundError,
    │   ├── RouteNotFoundError
    ├── ConflictError           the thing is not in a state that allows this
    │   ├── ModelExistsError, NameTakenError, ExperimentExistsError, VersionDeletedError, VersionNotDeletedError,
    │   ├── VersionUnsealedError, VersionNotReadyError, VersionPurgedError, ParamChangedError, RunDeletedError,
    │   ├── LoggedModelNotReadyError, IdempotencyMismatchError, UploadOffsetError, SealedError
    ├── PreconditionError       If-Match or If-None-Match did not hold
    │   └── AliasMovedError
    ├── DeniedError             known, but not allowed
    ├── UnauthenticatedError    unknown
    ├── CorruptError            stored bytes or rows are not what was sealed
    │   ├── DigestMismatchError, CatalogueDamagedError
    ├── BusyError               try again: nothing was changed, unless it says otherwise
    │   ├── OutcomeUnknownError, BlobMissingError, ServerUnreachableError, OfflineError, StorageFullError, HomeBusyError
    └── UnsupportedError        this installation cannot do it, and says what to install or upgrade
        ├── SchemaTooNewError, MissingExtraError, UnsupportedHomeError

Each named case carries its fields and a stable `code`. No HTTP status here: each protocol has one table of its own
from class to wire form, looked up along the MRO. A case is built with keyword fields only, so that the client can
raise the same class from the `code` and `fields` of a problem document.
"""

from __future__ import annotations

from typing import ClassVar

__all__: list[str] = []  # filled below with every class of the tree


class TouchmarkError(Exception):
    """Anything Touchmark refuses or cannot do. `code` is stable; `fields` name what the sentence is about."""

    code: ClassVar[str] = "error"
    template: ClassVar[str] = "Something went wrong."

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        """Build the error from its fields; `message` replaces the sentence of the class."""
        self.fields = fields
        if message is None:
            try:
                message = self.template.format(**fields)
            except (KeyError, IndexError):
                message = self.template
        self.message = message
        super().__init__(message)


# ── the request is wrong ─────────────────────────────────────────────────────────────────────────────────────────


class InvalidError(TouchmarkError):
    """The request is wrong; the message says what is allowed."""

    code = "invalid"
    template = "The request is not valid."


class InvalidNameError(InvalidError):
    """A model name that breaks the naming rule. Fields: name, reason."""

    code = "invalid_name"
    template = "Invalid model name {name!r}: {reason}."


class InvalidAliasError(InvalidError):
    """An alias that breaks the naming rule. Fields: alias, reason."""

    code = "invalid_alias"
    template = "Invalid alias {alias!r}: {reason}."


class InvalidTagError(InvalidError):
    """A tag key or value outside its limits. Fields: key, reason."""

    code = "invalid_tag"
    template = "Invalid tag {key!r}: {reason}."


class InvalidReferenceError(InvalidError):
    """Text that is no reference. Fields: reference, reason."""

    code = "invalid_reference"
    template = "Invalid reference {reference!r}: {reason}."


class InvalidDigestError(InvalidError):
    """Text that is no `sha256:` digest. Fields: digest."""

    code = "invalid_digest"
    template = "Invalid digest {digest!r}: write sha256: and 64 lower-case hexadecimal digits."


class InvalidPathError(InvalidError):
    """A file path that may not stand in a manifest or under a run. Fields: path, reason."""

    code = "invalid_path"
    template = "Invalid path {path!r}: {reason}."


class InvalidManifestError(InvalidError):
    """Bytes that are no manifest Touchmark can hold. Fields: reason."""

    code = "invalid_manifest"
    template = "Invalid manifest: {reason}."


class InvalidFilterError(InvalidError):
    """A search filter or order that does not parse. Fields: text, position, reason."""

    code = "invalid_filter"
    template = "Invalid filter at character {position}: {reason}."


class InvalidCursorError(InvalidError):
    """A page cursor that was edited, or belongs to another query. Fields: none."""

    code = "invalid_cursor"
    template = "The cursor does not belong to this query. Start again without it."


class InvalidFieldError(InvalidError):
    """A field of a request with a wrong type, range or length. Fields: field, reason."""

    code = "invalid_field"
    template = "Invalid value for {field!r}: {reason}."


class InvalidSourceError(InvalidError):
    """A registration source that is not allowed or not understood. Fields: source, reason."""

    code = "invalid_source"
    template = "Invalid source {source!r}: {reason}."


class LimitExceededError(InvalidError):
    """More, longer or larger than a written limit. Fields: what, limit, unit."""

    code = "limit_exceeded"
    template = "{what} may be at most {limit} {unit}."


class NothingToRegisterError(InvalidError):
    """The source holds no file. Fields: source."""

    code = "nothing_to_register"
    template = "There is no file under {source!r}: nothing can be registered until there is one."


class UnsafeFormatError(InvalidError):
    """Loading would execute what is stored (a pickle). Fields: path."""

    code = "unsafe_format"
    template = (
        "{path!r} is a pickle: loading it runs whatever code is in it. "
        "Pass allow_pickle=True if you trust everybody who could have written it."
    )


# ── the thing does not exist ─────────────────────────────────────────────────────────────────────────────────────


class NotFoundError(TouchmarkError):
    """The thing named does not exist, or may not be seen."""

    code = "not_found"
    template = "Not found."


class ModelNotFoundError(NotFoundError):
    """No registered model has this name. Fields: name."""

    code = "model_not_found"
    template = "There is no registered model named {name!r}."


class VersionNotFoundError(NotFoundError):
    """The model has no such version. Fields: name, version."""

    code = "version_not_found"
    template = "Model {name!r} has no version {version}."


class AliasNotFoundError(NotFoundError):
    """The model has no such alias. Fields: name, alias."""

    code = "alias_not_found"
    template = "Model {name!r} has no alias {alias!r}."


class TagNotFoundError(NotFoundError):
    """No such tag. Fields: key."""

    code = "tag_not_found"
    template = "There is no tag {key!r}."


class ExperimentNotFoundError(NotFoundError):
    """No such experiment. Fields: experiment."""

    code = "experiment_not_found"
    template = "There is no experiment {experiment!r}."


class RunNotFoundError(NotFoundError):
    """No such run. Fields: run_id."""

    code = "run_not_found"
    template = "There is no run {run_id!r}."


class LoggedModelNotFoundError(NotFoundError):
    """No such logged model. Fields: model_id."""

    code = "logged_model_not_found"
    template = "There is no logged model {model_id!r}."


class ArtifactNotFoundError(NotFoundError):
    """No file at this path. Fields: path."""

    code = "artifact_not_found"
    template = "There is no file {path!r}."


class BlobNotFoundError(NotFoundError):
    """No blob with this digest here. Fields: digest."""

    code = "blob_not_found"
    template = "There is no blob {digest} here."


class ManifestNotFoundError(NotFoundError):
    """No manifest with this digest or tag here. Fields: reference."""

    code = "manifest_not_found"
    template = "There is no manifest {reference!r} here."


class UploadNotFoundError(NotFoundError):
    """No upload session with this id. Fields: upload_id."""

    code = "upload_not_found"
    template = "There is no upload {upload_id!r}: it ended, or it never began. Start a new one."


class EventNotFoundError(NotFoundError):
    """The log has no entry at this index. Fields: index."""

    code = "event_not_found"
    template = "The log has no entry {index}."


class WebhookNotFoundError(NotFoundError):
    """No webhook has this id. Fields: webhook_id."""

    code = "webhook_not_found"
    template = "There is no webhook {webhook_id!r}."


class RouteNotFoundError(NotFoundError):
    """No such address. Fields: method, path."""

    code = "route_not_found"
    template = "There is nothing at {method} {path}."


# ── the thing is not in a state that allows this ─────────────────────────────────────────────────────────────────


class ConflictError(TouchmarkError):
    """The thing is not in a state that allows this."""

    code = "conflict"
    template = "The present state does not allow this."


class ModelExistsError(ConflictError):
    """A registered model has this name already. Fields: name."""

    code = "model_exists"
    template = "A registered model named {name!r} exists already."


class NameTakenError(ConflictError):
    """The name belongs for ever to a model that has since been renamed. Fields: name, moved_to."""

    code = "name_taken"
    template = "The name {name!r} belongs to the model now called {moved_to!r}: a name means one model forever."


class ExperimentExistsError(ConflictError):
    """An experiment has this name already. Fields: experiment."""

    code = "experiment_exists"
    template = "An experiment named {experiment!r} exists already."


class VersionDeletedError(ConflictError):
    """The version is deleted. Fields: name, version."""

    code = "version_deleted"
    template = "Version {version} of {name!r} is deleted. Restore it first."


class VersionNotDeletedError(ConflictError):
    """The version is not deleted, so it cannot be restored. Fields: name, version."""

    code = "version_not_deleted"
    template = "Version {version} of {name!r} is not deleted."


class VersionUnsealedError(ConflictError):
    """The registry does not hold this version's bytes. Fields: name, version, reason."""

    code = "version_unsealed"
    template = "Version {version} of {name!r} is unsealed, its bytes are not held here: {reason}"


class VersionNotReadyError(ConflictError):
    """The version is not READY. Fields: name, version, state."""

    code = "version_not_ready"
    template = "Version {version} of {name!r} is {state}."


class VersionPurgedError(ConflictError):
    """The version's bytes were purged by an administrator. Fields: name, version."""

    code = "version_purged"
    template = "The bytes of version {version} of {name!r} were purged."


class ParamChangedError(ConflictError):
    """A param of a run is written once. Fields: key, old, new."""

    code = "param_changed"
    template = "Param {key!r} is already {old!r} and cannot become {new!r}: params are written once."


class RunDeletedError(ConflictError):
    """The run is deleted and takes no more writes. Fields: run_id."""

    code = "run_deleted"
    template = "Run {run_id!r} is deleted."


class LoggedModelNotReadyError(ConflictError):
    """The logged model is not READY: its upload did not end. Fields: model_id, status."""

    code = "logged_model_not_ready"
    template = "Logged model {model_id!r} is {status}: finish logging it before it is registered."


class IdempotencyMismatchError(ConflictError):
    """The same Idempotency-Key came with another request. Fields: key."""

    code = "idempotency_mismatch"
    template = "The Idempotency-Key {key!r} was used for another request. Use a new key."


class UploadOffsetError(ConflictError):
    """A piece of an upload does not begin where the upload ends. Fields: offset."""

    code = "upload_offset_mismatch"
    template = "{offset} bytes of this upload are here: send those that follow."


class SealedError(ConflictError):
    """Somebody tried to write below a sealed version. Fields: path."""

    code = "sealed"
    template = "{path!r} is sealed and cannot be written or deleted."


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────────


class PreconditionError(TouchmarkError):
    """If-Match or If-None-Match did not hold; nothing was changed."""

    code = "precondition_failed"
    template = "The precondition did not hold; nothing was changed."


class AliasMovedError(PreconditionError):
    """The alias has moved since the caller last looked. Fields: name, alias, expected, found."""

    code = "alias_moved"
    template = "Alias {alias!r} of {name!r} has moved since you looked (it is at {found}, not {expected}). Look again."


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────


class DeniedError(TouchmarkError):
    """The principal is known and not allowed to do this. Fields: action."""

    code = "denied"
    template = "You may not {action}."


class UnauthenticatedError(TouchmarkError):
    """No valid credential came with the request."""

    code = "unauthenticated"
    template = "Say who you are: send a valid token."


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────


class CorruptError(TouchmarkError):
    """Stored bytes or rows are not what was sealed."""

    code = "corrupt"
    template = "Stored data is damaged."


class DigestMismatchError(CorruptError):
    """Bytes do not hash to the digest they came under. Fields: expected, found, path."""

    code = "digest_mismatch"
    template = "The bytes hash to {found}, not to {expected}."


class CatalogueDamagedError(CorruptError):
    """A row contradicts the log. Fields: reason."""

    code = "catalogue_damaged"
    template = "The catalogue is damaged: {reason}. Run touchmark fsck."


# ── try again ────────────────────────────────────────────────────────────────────────────────────────────────────


class BusyError(TouchmarkError):
    """Nothing was changed; the same request may succeed later."""

    code = "busy"
    template = "Busy: try again in a moment."


class OutcomeUnknownError(BusyError):
    """The database was lost while it committed: the change was made, or it was not. Look before sending it again."""

    code = "outcome_unknown"
    template = (
        "The database was lost while the change was written: it may have been made. Look before you send it again."
    )


class BlobMissingError(BusyError):
    """A file of the registration is not stored (any more); upload it and register again. Fields: digest, path."""

    code = "blob_missing"
    template = "The bytes of {path!r} ({digest}) are not stored: upload them and try again."


class ServerUnreachableError(BusyError):
    """The server did not answer. Fields: address, reason."""

    code = "server_unreachable"
    template = "No answer from {address}: {reason}. Is the server running? Start one with: touchmark serve"


class OfflineError(BusyError):
    """Something is needed that is not on this machine, and no request may be made. Fields: what."""

    code = "offline"
    template = "Offline, and {what} is not in the cache. While the server can be reached: touchmark cache add REF"


class StorageFullError(BusyError):
    """The disk (or a quota) is full; nothing was changed. Fields: none."""

    code = "storage_full"
    template = "The server's storage is full; nothing was changed. Free some space and try again."


class HomeBusyError(BusyError):
    """Another process has this home open, migrates or restores it. Fields: home."""

    code = "home_busy"
    template = "{home} is in use: a server or a program has it open, or another process migrates or restores it."


# ── this installation cannot ─────────────────────────────────────────────────────────────────────────────────────


class UnsupportedError(TouchmarkError):
    """This installation cannot do it; the message says what to install or change."""

    code = "unsupported"
    template = "This installation cannot do that."


class SchemaTooNewError(UnsupportedError):
    """The database was written by a newer Touchmark. Fields: found, known."""

    code = "schema_too_new"
    template = "The database has schema {found}, newer than this Touchmark knows ({known}). Upgrade Touchmark."


class MissingExtraError(UnsupportedError):
    """An optional part is not installed. Fields: what, install."""

    code = "missing_extra"
    template = "{what} needs a part that is not installed. Install it with: {install}"


class UnsupportedHomeError(UnsupportedError):
    """The home folder lies where SQLite cannot be trusted. Fields: home, reason."""

    code = "unsupported_home"
    template = "{home} cannot be a home: {reason}."


def list_error_classes() -> list[type[TouchmarkError]]:
    """Return every class of the tree, the root first, depth first: what each protocol's table is tested against."""
    found: list[type[TouchmarkError]] = []

    def walk(cls: type[TouchmarkError]) -> None:
        found.append(cls)
        for child in cls.__subclasses__():
            if child.__module__ == __name__:
                walk(child)

    walk(TouchmarkError)
    return found


__all__ = [cls.__name__ for cls in list_error_classes()]
__all__ += ["list_error_classes"]
