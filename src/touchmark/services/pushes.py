"""A push by tag: a stored manifest becomes a version, and an alias points at it."""

from __future__ import annotations

from touchmark import permissions
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.aliases import parse_alias
from touchmark.domain.digest import Digest
from touchmark.domain.errors import SealedError
from touchmark.domain.names import ModelName
from touchmark.registry import Registry
from touchmark.services.aliases import set_alias
from touchmark.services.registration import register_manifest


def check_tag(tag: str) -> str | None:
    """Return the alias a push by `tag` moves, None for `latest`, which is the newest version by itself.

    Raises SealedError for a number, which only the registry gives; InvalidAliasError.
    """
    if tag.isdigit():
        message = f"A version's number is given by the registry and never moved: push {tag!r} by an alias or a digest."
        raise SealedError(message, path=tag)
    return None if tag == "latest" else parse_alias(tag)


def push_version(registry: Registry, who: Principal, name: ModelName, digest: Digest, alias: str | None) -> int:
    """Register a manifest that the model's repository holds, unless a version has it already, and point `alias` at it.

    Two entries of the log: a push that was cut between them is sent again, and finds the version there. Returns the
    version's number. Raises ManifestNotFoundError, InvalidManifestError, BlobMissingError, InvalidAliasError.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.REGISTER_VERSION, Resource("model", name))
        if alias is not None:
            permissions.require(tx, who, Action.SET_ALIAS, Resource("model", name))
    number = register_manifest(registry, who, name, digest).version
    if alias is not None:
        set_alias(registry, who, name, alias, number)
    return number
