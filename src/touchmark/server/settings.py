"""Settings: flags before environment (`TOUCHMARK_…`) before a TOML file before defaults."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from touchmark.domain.addresses import ImportPrefix, ImportRules, parse_import_prefix
from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.webhooks import WebhookRules
from touchmark.ops.mlflow_http import Credentials
from touchmark.ops.setup import default_home
from touchmark.ops.upstreams import Upstream

PREFIX = "TOUCHMARK_"
_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=")  # 32 bytes
_ADDRESS = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?(?:/[A-Za-z0-9._~/-]*)?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a server can be told.

    `uds` listens on a Unix socket instead of host and port. `public_url` is the address clients reach this server at, for
    the download addresses given to them; by default the one each request came to. `unsealed` says what becomes of a
    registration through MLflow's door whose files cannot be found: `allow` keeps it, marked unsealed, `refuse` does not.
    `upstreams` are MLflow tracking servers from whose runs such a registration is imported. `webhook_http` lets webhooks
    have http addresses, `webhook_private` such as are not public; `webhook_key` encrypts their secrets instead of the key
    in the home. `artifacts` is the bucket that bytes are in, instead of the home; with `presign` clients fetch whole blobs
    from it themselves, by addresses that are signed for a few minutes. `import_from` are the addresses outside from which
    versions are imported, `max_import_bytes` how much for one of them. For `drain_seconds` after it was asked to stop a
    server says at /health that it will, and goes on, so that whoever spreads requests over several turns to another.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    uds: Path | None = None
    home: Path = field(default_factory=default_home)
    database: str | None = None
    artifacts: str | None = None
    presign: bool = False
    log_format: str = "text"
    log_requests: bool = True
    max_upload_bytes: int = 5 << 40
    public_url: str | None = None
    unsealed: str = "allow"
    upstreams: tuple[Upstream, ...] = ()
    import_from: tuple[ImportPrefix, ...] = ()
    max_import_bytes: int = 1 << 40
    drain_seconds: int = 0
    webhook_http: bool = False
    webhook_private: bool = False
    webhook_key: str | None = field(default=None, repr=False)
    exit_with_parent: bool = False

    @property
    def webhook_rules(self) -> WebhookRules:
        """Return what is said about webhooks, as the services want it."""
        schemes = ("https", "http") if self.webhook_http else ("https",)
        return WebhookRules(schemes, self.webhook_private, self.webhook_key)

    @property
    def imports(self) -> ImportRules:
        """Return what is said about imports, as the services want it."""
        return ImportRules(self.import_from, self.max_import_bytes, self.unsealed == "allow")

    @property
    def address(self) -> str:
        """Return where the server answers, for people and clients."""
        if self.uds is not None:
            return f"unix://{self.uds}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def load_settings(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings from flags (None: not given), environment and the TOML file named by `config`.

    Raises InvalidFieldError for an unknown key, a wrong type, or a host that is not loopback.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    config = given.pop("config", None) or environ.get(PREFIX + "CONFIG")
    known = {item.name: item for item in fields(Settings)}
    values: dict[str, Any] = _read_file(Path(config)) if config else {}
    for name in known:
        text = environ.get(PREFIX + name.upper())
        if text is not None:
            values[name] = text
    values |= given
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise InvalidFieldError(field=unknown[0], reason=f"there is no such setting; there are {', '.join(known)}")
    settings = Settings(**{name: _convert(name, str(known[name].type), value) for name, value in values.items()})
    _check(settings)
    return settings


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidFieldError(field="config", reason=f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:  # TOMLDecodeError, and UnicodeDecodeError for what is no text
        raise InvalidFieldError(field="config", reason=f"{path} is no TOML: {error}") from None


def _convert(name: str, kind: str, value: Any) -> Any:
    try:
        if kind == "int" and isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if kind == "bool":
            return (
                value
                if isinstance(value, bool)
                else {"1": True, "true": True, "0": False, "false": False}[value.lower()]
            )
        if name == "upstreams":
            return _read_upstreams(value)
        if name == "import_from":
            return _read_prefixes(value)
        if "Path" in kind:
            return Path(value).expanduser()
        if isinstance(value, str):
            return value
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    raise InvalidFieldError(field=name, reason=f"{str(value)[:100]!r} is no {kind.removesuffix(' | None')}")


def _read_upstreams(value: Any) -> tuple[Upstream, ...]:
    """Return upstream servers: addresses in one text, or a list of addresses and of TOML tables with url, username …."""
    found = []
    for item in value.split() if isinstance(value, str) else value:
        table = {"url": item} if isinstance(item, str) else dict(item)
        url, names = table.pop("url"), {"token", "username", "password"}
        if not isinstance(url, str) or table.keys() - names or not all(isinstance(one, str) for one in table.values()):
            raise InvalidFieldError(field="upstreams", reason="write url, and token or username and password")
        if not _is_address(url):
            reason = f"write http://HOST:PORT or https://HOST, not {_hide_user(url)[:100]!r}; credentials go into the config file"
            raise InvalidFieldError(field="upstreams", reason=reason)
        found.append(Upstream(url, Credentials(**table)))
    return tuple(found)


def _is_address(url: str) -> bool:
    """Answer whether a text is an http address that can be asked, or given to clients: with a port there can be."""
    try:
        return _ADDRESS.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:  # a port beyond 65535, a bracket that is not closed, what stands in brackets is no IPv6 address
        return False


def _hide_user(url: str) -> str:
    return re.sub(r"//[^/]*@", "//...@", url)


def _read_prefixes(value: Any) -> tuple[ImportPrefix, ...]:
    """Return the allow-list: addresses in one text, or a list of addresses and of TOML tables with prefix, token …."""
    kinds: dict[str, type] = {
        "prefix": str, "private": bool, "endpoint": str, "redirects": list, "token": str, "username": str, "password": str,
        "options": dict, "machine_identity": bool,
    }  # fmt: skip
    found = []
    for item in value.split() if isinstance(value, str) else value:
        table: dict[str, Any] = {"prefix": item} if isinstance(item, str) else dict(item)
        if "prefix" not in table or not all(key in kinds and isinstance(one, kinds[key]) for key, one in table.items()):
            reason = f"write a prefix, and of {', '.join(list(kinds)[1:])} what is needed"
            raise InvalidFieldError(field="import_from", reason=reason)
        table["redirects"] = tuple(str(each) for each in table.get("redirects", ()))
        options = table.get("options", {})
        table["options"] = {
            key: str(one).lower() if isinstance(one, bool) else str(one) for key, one in options.items()
        }
        found.append(parse_import_prefix(table.pop("prefix"), **table))
    return tuple(found)


def _check(settings: Settings) -> None:
    if not 1 <= settings.port <= 65535:
        raise InvalidFieldError(field="port", reason="write 1 to 65535")
    if settings.log_format not in {"text", "json"}:
        raise InvalidFieldError(field="log_format", reason="write text or json")
    if settings.unsealed not in {"allow", "refuse"}:
        raise InvalidFieldError(field="unsealed", reason="write allow or refuse")
    if settings.max_upload_bytes < 0:
        raise InvalidFieldError(field="max_upload_bytes", reason="write a number of bytes")
    if settings.max_import_bytes < 0:
        raise InvalidFieldError(field="max_import_bytes", reason="write a number of bytes")
    if not 0 <= settings.drain_seconds <= 3600:
        raise InvalidFieldError(field="drain_seconds", reason="write 0 to 3600")
    if settings.public_url is not None and not _is_address(settings.public_url):
        raise InvalidFieldError(
            field="public_url", reason="write http://HOST or https://HOST, with a port and path if need be"
        )
    if settings.webhook_key is not None and _FERNET_KEY.fullmatch(settings.webhook_key) is None:
        reason = "write 32 random bytes in URL-safe Base64 (head -c 32 /dev/urandom | base64 | tr +/ -_)"
        raise InvalidFieldError(field="webhook_key", reason=reason)
    if settings.uds is None and not is_loopback(settings.host):
        reason = (
            f"{settings.host} can be reached from other machines, and this server asks nobody who they are: "
            "it listens on loopback only (127.0.0.1, ::1, localhost)"
        )
        raise InvalidFieldError(field="host", reason=reason)


def is_loopback(host: str) -> bool:
    """Answer whether a host name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
