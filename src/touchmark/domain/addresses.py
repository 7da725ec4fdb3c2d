"""Addresses outside the registry: which there are, which the settings allow, and which IP addresses are public.

    s3://BUCKET/KEY    gs://BUCKET/KEY    az://CONTAINER/KEY    abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY
    http(s)://HOST[:PORT]/PATH            one file
    hf://ORG/REPO[@REVISION][/PATH]       a repository of a Hugging Face hub, or a part of it

What lives here: `is_public` and `may_connect`, the rule for every request that the server makes on somebody's behalf;
`Address`, and `ImportRules`, the allow-list a source is held against. What must not: looking a host up, connecting.

An address is compared with a prefix of the list part by part, as it is spelled: what is spelled in another way (percent-
encoded, a number for a host, a dot at its end) is another address, and not on the list.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from touchmark.domain.errors import InvalidFieldError, InvalidSourceError
from touchmark.domain.text import find_invisible

SCHEMES: Mapping[str, str] = {
    "s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "abfs": "az",
    "abfss": "az", "http": "http", "https": "https", "hf": "hf",
}  # fmt: skip
"""Schemes of addresses, and which of the kinds above each means."""
HUB = "https://huggingface.co"
HUB_REDIRECTS = ("https://*.huggingface.co/", "https://*.hf.co/")
"""Where the public hub sends those who ask for a large file: hosts of its own."""

_PORTS = {"http": 80, "https": 443}
_DECODINGS = 10
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}[A-Za-z0-9]")
_AZURE_HOST = re.compile(r"[a-z0-9]{3,24}\.(?:dfs|blob)\.core\.windows\.net")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")  # no zone of IPv6: it names this machine's own links
_USER = re.compile(r"//[^/@]*@")
_HUB_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NOT_MODELS = frozenset({"datasets", "spaces", "buckets"})
_PATH_SAFE = "/%:=&~+!$,;'@()*"


# ── which IP addresses may be connected to ───────────────────────────────────────────────────────────────────────

_NEVER_PUBLIC = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments (RFC 6890); Python before 3.12.4 knows a part of them
    ipaddress.IPv4Network("168.63.129.16/32"),  # a public number, but inside Azure the platform's own services
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out of IPv6 (RFC 4291, 2.4)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1: the last 32 bits are an IPv4 address
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)
# Where a cloud tells a machine its own credentials, if that is not link-local but lies among private addresses.
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254"))


def is_public(address: str) -> bool:
    """Answer whether an IP address belongs to the public internet, by IANA's registries of special purposes.

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4, Teredo) is as public as that one: what translates
    them would lead there. Text that is no address is not public.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast and not any(found in network for network in _NEVER_PUBLIC)
    if found.ipv4_mapped is not None:
        return is_public(str(found.ipv4_mapped))
    if found in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    if found.sixtofour is not None:
        return is_public(str(found.sixtofour))
    if found.teredo is not None:
        return all(is_public(str(part)) for part in found.teredo)
    return found in _GLOBAL_UNICAST and found.is_global


def may_connect(address: str, *, host: str, private: bool) -> bool:
    """Answer whether the server may connect to an IP address that `host`, a host of the settings, leads to.

    A public one always. Another only if the settings name it: `host` is that very address (or `localhost`, and it is
    loopback), or they say `private` and it is of a private network; but never then one that tells a machine of a cloud its
    credentials.
    """
    if is_public(address):
        return True
    try:
        found = _unwrap(ipaddress.ip_address(address))
    except ValueError:
        return False
    if host == "localhost":
        return found.is_loopback
    try:
        return found == _unwrap(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    return private and found not in _METADATA and any(found in network for network in _PRIVATE)


def _unwrap(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Address:
    """An address of files, taken apart once so that what is compared is what is asked for.

    `place` is the bucket, the container (`CONTAINER@HOST` where the account is named), or the `HOST:PORT` of a URL; empty
    for a hub, of which only the settings say where it is. `path` has no slash at either end; a URL's is percent-encoded,
    a hub's begins with ORG/REPO.
    """

    text: str
    scheme: str
    place: str
    path: str
    revision: str | None = None

    @property
    def host(self) -> str:
        """The host of a URL, without port and brackets."""
        return self.place.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of a URL."""
        return int(self.place.rpartition(":")[2])


def find_address(text: str) -> Address | None:
    """Return the address a source is, None if its scheme is none of SCHEMES. Raises InvalidSourceError."""
    found = _SCHEME.match(text)
    if found is None or found[1].lower() not in SCHEMES:
        return None
    address = _parse(text, SCHEMES[found[1].lower()])
    parts = address.path.split("/")
    if address.scheme == "hf" and (len(parts) < 2 or parts[0] in _NOT_MODELS):
        raise _invalid(text, "write hf://ORG/REPO, of a model")
    if not address.path and address.scheme in _PORTS:
        raise _invalid(text, "it names no file")
    return address


def parse_prefix(text: str) -> Address:
    """Return a prefix of the allow-list: an address, or its beginning. Raises InvalidSourceError."""
    found = _SCHEME.match(text)
    if found is None or found[1].lower() not in SCHEMES:
        raise _invalid(text, "write s3://, gs://, az://, https://, http:// or hf:// and what follows")
    return _parse(text, SCHEMES[found[1].lower()])


def parse_url(text: str) -> Address:
    """Return the address of a URL that another server sent us on to: its query stays, in `path`. Raises InvalidSourceError."""
    parts = _split(text)
    if parts.scheme not in _PORTS:
        raise _invalid(text, "it is no http(s) address")
    _check_climbs(text, parts.path)
    query = f"?{quote(parts.query, safe=_PATH_SAFE + '?[]')}" if parts.query else ""
    return Address(text, parts.scheme, _read_authority(text, parts.netloc, parts.scheme), _quote(parts.path) + query)


def _parse(text: str, scheme: str) -> Address:
    _check_spelling(text)
    parts = _split(text)
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise _invalid(
            text, "leave out the query and the fragment: an address is kept for ever, and may hold no secret"
        )
    path = parts.path.strip("/")
    if "//" in parts.path:
        raise _invalid(text, "there is an empty part in its path")
    if scheme in _PORTS:
        return Address(text, scheme, _read_authority(text, parts.netloc, scheme), _quote(path))
    if scheme == "hf":
        return _parse_hub(text, f"{parts.netloc}/{path}".strip("/"))
    container, at, account = parts.netloc.partition("@")
    if at and (scheme != "az" or _AZURE_HOST.fullmatch(account) is None):
        raise _invalid(text, "a user or another host has no place in it")
    if _BUCKET.fullmatch(container) is None or ".." in container:
        raise _invalid(text, "it names no bucket")
    return Address(text, scheme, parts.netloc, path)


def _parse_hub(text: str, path: str) -> Address:
    parts = path.split("/") if path else []
    revision = None
    if len(parts) > 1 and "@" in parts[1]:
        parts[1], _, revision = parts[1].partition("@")
        if _HUB_PART.fullmatch(revision) is None:
            raise _invalid(text, f"{revision[:100]!r} is no revision")
    if any(_HUB_PART.fullmatch(part) is None for part in parts[:2]):
        raise _invalid(text, "write hf://ORG/REPO, of a model")
    return Address(text, "hf", "", "/".join(parts), revision)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # such as of brackets that hold no IPv6 address
        raise _invalid(text, "it is no address") from None


def _read_authority(text: str, netloc: str, scheme: str) -> str:
    """Return `HOST:PORT` of a URL. Raises InvalidSourceError."""
    if "@" in netloc:
        raise _invalid(text, "leave out the user and the password")
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port
        host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        raise _invalid(text, "its host is none") from None
    if _HOST.fullmatch(host) is None or port == 0:
        raise _invalid(text, "its host is none")
    return f"{host}:{port or _PORTS[scheme]}"


def _check_spelling(text: str) -> None:
    """Refuse what different readers of an address would read differently, however often it is encoded."""
    if find_invisible(text) is not None or any(char.isspace() and char != " " for char in text):
        raise _invalid(text, "it holds invisible characters")
    seen = _check_climbs(text, text)
    if seen.count("/") != text.count("/"):
        raise _invalid(text, "it holds an encoded slash")


def _check_climbs(text: str, path: str) -> str:
    """Return a path decoded until it does not change any more. Raises InvalidSourceError if it climbs then."""
    seen = path
    for _ in range(_DECODINGS):
        decoded = unquote(seen)
        if decoded == seen:
            break
        seen = decoded
    else:
        raise _invalid(text, "it is percent-encoded too often")
    parts = re.split(r"[/\\]", seen)
    if "\\" in seen or ".." in parts or "." in parts or find_invisible(seen) is not None:
        raise _invalid(text, "its path climbs, or holds a character that no path has")
    return seen


def _quote(path: str) -> str:
    return quote(path.strip("/"), safe=_PATH_SAFE)


def _invalid(text: str, reason: str) -> InvalidSourceError:
    return InvalidSourceError(source=_USER.sub("//…@", text)[:300], reason=reason)  # a password may stand there


# ── the allow-list ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ImportPrefix:
    """What the settings say of one prefix of the allow-list.

    `private` lets its host be one of your own networks. `endpoint` is where the hub, or the object store, answers if that is
    not the public one. `redirects` are URLs, up to any part of their path, to which a server may send us on; a host may
    begin with `*.`. `machine_identity` lets the object store's client ask this machine's cloud for credentials. Those given,
    and `options` of the object store (obstore's names), are never shown.
    """

    prefix: str
    address: Address
    private: bool = False
    endpoint: str | None = None
    redirects: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    machine_identity: bool = False

    def covers(self, address: Address) -> bool:
        """Answer whether an address lies at or below this prefix."""
        mine = self.address
        if (mine.scheme, mine.place) != (address.scheme, address.place) or mine.revision not in {
            None,
            address.revision,
        }:
            return False
        path = address.path.partition("?")[0]
        return not mine.path or path == mine.path or path.startswith(mine.path + "/")

    def find_redirect(self, target: Address) -> str | None:
        """Return the host, as the settings spell it, of the entry of `redirects` that covers a URL; None if none does."""
        for each in self.redirects or (HUB_REDIRECTS if self.address.scheme == "hf" and self.endpoint is None else ()):
            wild = "://*." in each
            known = parse_url(each.replace("://*.", "://", 1))
            is_host = target.host.endswith(f".{known.host}") if wild else target.host == known.host
            is_path = (
                not known.path or target.path.split("?")[0] == known.path or target.path.startswith(known.path + "/")
            )
            if target.scheme == known.scheme and target.port == known.port and is_host and is_path:
                return target.host if wild else known.host
        return None


@dataclass(frozen=True, slots=True)
class ImportRules:
    """From where files may be imported, how many bytes at once, and whether a version may stay without its files."""

    prefixes: tuple[ImportPrefix, ...] = ()
    max_bytes: int = 1 << 40
    allow_unsealed: bool = True

    def find(self, address: Address) -> ImportPrefix | None:
        """Return the longest prefix that covers an address, or None: it is not allowed."""
        return max(
            (each for each in self.prefixes if each.covers(address)), key=lambda each: len(each.prefix), default=None
        )

    def lists(self, text: str) -> bool:
        """Answer whether a source is an address on the list; what is no address is not."""
        try:
            address = find_address(text)
        except InvalidSourceError:
            return False
        return address is not None and self.find(address) is not None

    def find_refusal(self, address: Address) -> str | None:
        """Return why the files of an address are not imported, None if they are.

        Raises InvalidSourceError where the settings want no version without its files, or name no address at all.
        """
        if self.find(address) is not None:
            return None
        if not self.prefixes:
            reason = "the server opens no file and no address of its own, and its setting import_from names none"
            raise InvalidSourceError(source=address.text[:300], reason=reason)
        reason = "Its address is on no list of this server, which reads only what its setting import_from names."
        if not self.allow_unsealed:
            raise InvalidSourceError(source=address.text[:300], reason=reason[:1].lower() + reason[1:].rstrip("."))
        return reason


def parse_import_prefix(
    prefix: str,
    *,
    private: bool = False,
    endpoint: str | None = None,
    redirects: tuple[str, ...] = (),
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    options: Mapping[str, str] | None = None,
    machine_identity: bool = False,
) -> ImportPrefix:
    """Return an entry of the allow-list. Raises InvalidFieldError for what is no address."""
    try:
        address = parse_prefix(prefix)
        for each in (*redirects, *([endpoint] if endpoint else [])):
            if "?" in parse_url(each.replace("://*.", "://", 1)).path:
                raise _invalid(each, "leave out the query")
    except InvalidSourceError as error:
        raise InvalidFieldError(field="import_from", reason=error.message.rstrip(".")) from None
    found = ImportPrefix(
        prefix, address, private, endpoint, redirects, token, username, password, options or {}, machine_identity
    )
    for text in (token, username, password):
        if text is not None and not (text.isascii() and text.isprintable()):
            raise InvalidFieldError(field="import_from", reason=f"the credentials of {prefix} hold what none has")
    if (token or username) and address.scheme not in {"http", "https", "hf"}:
        reason = f"{prefix} takes its credentials as options, such as aws_access_key_id"
        raise InvalidFieldError(field="import_from", reason=reason)
    return found
