"""Touchmark: a model registry. `touchmark.open()` keeps one in a folder here, `touchmark.connect(url)` speaks to a server.

Names are loaded when first used; importing this module imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from touchmark.domain.about import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from touchmark.client._registry import Registry
    from touchmark.client._runs import ActiveRun
    from touchmark.client._session import LoggedModel
    from touchmark.client._transfer import Transfer
    from touchmark.client._types import DeprecatedVersionWarning, Resolved
    from touchmark.domain import errors
    from touchmark.domain.aliases import Alias, AliasMove
    from touchmark.domain.models import RegisteredModel
    from touchmark.domain.versions import ModelVersion

__version__ = VERSION
_HOMES = {
    "ActiveRun": "touchmark.client._runs",
    "Alias": "touchmark.domain.aliases",
    "AliasMove": "touchmark.domain.aliases",
    "DeprecatedVersionWarning": "touchmark.client._types",
    "LoggedModel": "touchmark.client._session",
    "ModelVersion": "touchmark.domain.versions",
    "RegisteredModel": "touchmark.domain.models",
    "Registry": "touchmark.client._registry",
    "Resolved": "touchmark.client._types",
    "Transfer": "touchmark.client._transfer",
}
__all__ = [
    "ActiveRun",
    "Alias",
    "AliasMove",
    "DeprecatedVersionWarning",
    "LoggedModel",
    "ModelVersion",
    "RegisteredModel",
    "Registry",
    "Resolved",
    "Transfer",
    "__version__",
    "connect",
    "errors",
    "open",
]


def connect(url: str | None = None, *, token: str | None = None, offline: bool | None = None) -> Registry:
    """Return the registry of a server: `http://host:5000`, `unix:///path`; without an address that of TOUCHMARK_URL.

    No request is made yet. With `offline` (or TOUCHMARK_OFFLINE) none ever is: what is in the cache can be used, all else
    raises OfflineError. Raises InvalidFieldError.
    """
    import os

    from touchmark.client._registry import Registry
    from touchmark.client._transport import Transport

    address = url or os.environ.get("TOUCHMARK_URL") or "http://127.0.0.1:5000"
    if offline is None:
        offline = os.environ.get("TOUCHMARK_OFFLINE", "").lower() not in {"", "0", "false", "no"}
    token = token or os.environ.get("TOUCHMARK_TOKEN")
    return Registry(Transport(address, token=token, is_offline=offline))


def open(home: str | Path | None = None) -> Registry:  # noqa: A001 - touchmark.open() reads as what it is
    """Return the registry in a folder here (TOUCHMARK_HOME, or ~/.touchmark), behind a private server.

    The server ends with this process, or when the registry is closed. Several processes may open one home at once.
    Raises MissingExtraError, UnsupportedHomeError.
    """
    import os
    from pathlib import Path

    from touchmark.client._registry import Registry
    from touchmark.client._transport import Transport
    from touchmark.embedded import open_embedded

    folder = Path(home or os.environ.get("TOUCHMARK_HOME") or Path.home() / ".touchmark")
    url, leave = open_embedded(folder)
    # The socket is another each time; what the cache knows of a home is known by its folder.
    return Registry(Transport(url, known_as=f"home:{os.path.realpath(folder.expanduser())}"), leave)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("touchmark.domain.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    errors = import_module("touchmark.domain.errors")
    if name in errors.__all__:
        return getattr(errors, name)
    message = f"module 'touchmark' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return __all__
