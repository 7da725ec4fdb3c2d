"""Reading addresses, in this process: what is slow, lies, or leads elsewhere; and the gate before object stores."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.acceptance.import_peers import Peer, Served, run_peer
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.addresses import Address, ImportRules, find_address, parse_import_prefix
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import BusyError, DeniedError, InvalidError
from touchmark.domain.versions import VersionFile
from touchmark.ops import addresses
from touchmark.ops.addresses import Meter, fetch_listing, open_place
from touchmark.ops.addresses_gate import Gate
from touchmark.services import hosts

DATA = bytes(range(256)) * 8000


@pytest.fixture
def files() -> dict[str, Served]:
    return {"/m/w.bin": Served(DATA)}


@pytest.fixture
def peer(files: dict[str, Served]) -> Iterator[Peer]:
    with run_peer(files) as peer:
        yield peer


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[LocalBlobStore]:
    store = LocalBlobStore(tmp_path / "blobs")
    yield store
    store.close()


def fetch(blobs: LocalBlobStore, url: str, *entries: str) -> VersionFile:
    rules = ImportRules(tuple(parse_import_prefix(entry) for entry in entries or (url.rpartition("/")[0],)))
    address = find_address(url)
    assert address is not None
    place = open_place(rules, address)
    (file,) = fetch_listing(blobs, place, place.list_files(), {}, Meter(rules.max_bytes, lambda: False))
    return file


def test_a_server_that_knows_no_ranges_is_gone_on_with_if_the_etag_is_the_same(
    blobs: LocalBlobStore, peer: Peer, files: dict[str, Served]
) -> None:
    files["/m/w.bin"] = Served(DATA, ranges=False, cut_after=1_500_000, cuts=2)

    assert fetch(blobs, f"{peer.url}/m/w.bin").digest == digest_of(DATA)
    assert len(peer.seen) == 3


def test_a_file_without_an_etag_is_begun_anew(blobs: LocalBlobStore, peer: Peer, files: dict[str, Served]) -> None:
    files["/m/w.bin"] = Served(DATA, etag=None, cut_after=1_500_000, cuts=1)

    assert fetch(blobs, f"{peer.url}/m/w.bin").digest == digest_of(DATA)
    assert [seen.headers.get("range") for seen in peer.seen] == ["bytes=0-0", None, None]


def test_a_server_that_always_cuts_is_given_up(
    blobs: LocalBlobStore, peer: Peer, files: dict[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "PAUSE_SECONDS", 0.001)
    for etag in ("auto", None):
        files["/m/w.bin"] = Served(DATA, etag=etag, cut_after=1000)
        peer.seen.clear()
        with pytest.raises(BusyError, match="broke off"):
            fetch(blobs, f"{peer.url}/m/w.bin")
        assert len(peer.seen) == 1 + addresses.ATTEMPTS
    assert list(blobs.list_blobs()) == []


def test_an_answer_that_is_too_slow_is_given_up(
    blobs: LocalBlobStore, peer: Peer, files: dict[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "ATTEMPTS", 1)
    monkeypatch.setattr(hosts, "PACE_SECONDS", 0.5)
    files["/m/w.bin"] = Served(DATA, rate=50_000)
    begun = time.monotonic()

    with pytest.raises(BusyError, match="broke off"):
        fetch(blobs, f"{peer.url}/m/w.bin")

    assert time.monotonic() - begun < 5


def test_bytes_that_would_be_unpacked_are_not_taken(
    blobs: LocalBlobStore, peer: Peer, files: dict[str, Served]
) -> None:
    files["/m/w.bin"] = Served(DATA, headers={"Content-Encoding": "br"})

    with pytest.raises(InvalidError, match="nobody asked for"):
        fetch(blobs, f"{peer.url}/m/w.bin")
    assert {seen.headers["accept-encoding"] for seen in peer.seen} == {"identity"}


def test_a_name_is_looked_up_once_and_what_it_leads_to_is_checked(
    blobs: LocalBlobStore, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if host == "files.example" else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    with pytest.raises(DeniedError, match=r"127\.0\.0\.1, which is not public"):
        fetch(blobs, f"http://files.example:{peer.port}/m/w.bin")
    assert asked == ["files.example"]
    assert peer.connections == 0


def test_tls_is_verified_by_the_name_in_the_address(
    blobs: LocalBlobStore, files: dict[str, Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    with run_peer(files) as peer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        peer.server.socket = context.wrap_socket(peer.server.socket, server_side=True)
        url = f"https://localhost:{peer.port}/m/w.bin"
        with pytest.raises(BusyError, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
            fetch(blobs, url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        assert fetch(blobs, url).digest == digest_of(DATA)
        with pytest.raises(BusyError, match=r"(?i)mismatch|not valid"):
            fetch(blobs, url.replace("localhost", "127.0.0.1"))


def make_certificate(folder: Path, name: str) -> Path:
    """Return a PEM file with a key and a certificate for a host."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(pem)
    return file


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────


def ask(gate: Gate, request: str, *, password: bool = True) -> bytes:
    secret, _, place = gate.url.removeprefix("http://").partition("@")
    host, _, port = place.partition(":")
    head = f"{request} HTTP/1.1\r\nHost: x\r\n"
    if password:
        head += f"Proxy-Authorization: Basic {base64.b64encode(secret.encode()).decode()}\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(head.encode() + b"\r\n")
        found = b""
        while piece := link.recv(65536):
            found += piece
            if request.startswith("CONNECT") and b"\r\n\r\n" in found and b"200 Conn" in found:
                return found
    return found


@pytest.fixture
def gate(peer: Peer) -> Iterator[Gate]:
    def check(target: Address) -> tuple[str, bool]:
        if target.place in {f"127.0.0.1:{peer.port}", f"127.1:{peer.port}"}:
            return target.host, False
        raise DeniedError(f"{target.place} is not listed.")

    before = threading.active_count()
    with Gate(check) as gate:
        yield gate
    end = time.monotonic() + 5
    while threading.active_count() > before + 1 and time.monotonic() < end:
        time.sleep(0.02)


def test_the_gate_passes_on_what_its_check_allows(gate: Gate, peer: Peer) -> None:
    assert ask(gate, f"GET {peer.url}/m/w.bin").endswith(DATA)
    assert ask(gate, f"CONNECT 127.0.0.1:{peer.port}").startswith(b"HTTP/1.1 200")
    assert "proxy-authorization" not in peer.seen[0].headers


@pytest.mark.parametrize(
    "request_line",
    [
        "GET http://127.0.0.1:1/x", "CONNECT 169.254.169.254:80", "CONNECT localhost:{port}", "GET http://127.1:{port}/m/w.bin",
        "CONNECT 127.1:{port}", "GET https://127.0.0.1:{port}/x", "GET file:///etc/passwd", "GET /m/w.bin",
        "DELETE http://127.0.0.1:{port}/x", "GET http://127.0.0.1:{port}@evil/x", "CONNECT 2130706433:{port}",
    ],
)  # fmt: skip
def test_the_gate_refuses_everything_else(gate: Gate, peer: Peer, request_line: str) -> None:
    assert ask(gate, request_line.format(port=peer.port)).startswith(b"HTTP/1.1 403")
    assert len(gate.refusals) == 1
    assert peer.connections == 0


def test_the_gate_is_for_whoever_has_its_password(gate: Gate, peer: Peer) -> None:
    assert ask(gate, f"GET {peer.url}/m/w.bin", password=False).startswith(b"HTTP/1.1 407")
    assert ask(gate, f"CONNECT 127.0.0.1:{peer.port}", password=False).startswith(b"HTTP/1.1 407")
    assert peer.connections == 0
