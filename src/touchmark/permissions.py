"""The only gate: may this principal do this to that? Until identity exists, an open server allows everything."""

from __future__ import annotations

from touchmark.domain.access import Action, Principal, Resource
from touchmark.storage.engine import Tx


def require(tx: Tx, who: Principal, action: Action, resource: Resource) -> None:
    """Let `who` do `action` on `resource`, or refuse. Will raise DeniedError, UnauthenticatedError.

    Every service calls this first (a test reads their source), so that closing the gate is a change to this function
    alone. On an open server, which listens on loopback only, everything is allowed.
    """
    _ = tx, who, action, resource
