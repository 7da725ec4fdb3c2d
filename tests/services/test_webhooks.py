"""Webhooks: definitions and their log on both databases, secrets and their key, and deliveries to real receivers.

The name server is made up where a test needs one (`names`), the network in the middle where an address must be public;
both are the system's, not ours.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select, update

from touchmark.domain.access import Principal
from touchmark.domain.errors import (
    InvalidCursorError,
    InvalidFieldError,
    LimitExceededError,
    UnsupportedError,
    WebhookNotFoundError,
)
from touchmark.domain.events import EventKind
from touchmark.domain.webhooks import WebhookEvent, WebhookRules, WebhookStatus, sign_delivery
from touchmark.events import webhooks as sending
from touchmark.events.webhooks import Delivery, send, send_example
from touchmark.ops.fsck import check_registry
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import log, webhooks
from touchmark.storage import schema

KEY = Fernet.generate_key().decode()
RULES = WebhookRules(key=KEY)
LOOSE = WebhookRules(("https", "http"), allow_private=True, key=KEY)
PUBLIC = WebhookRules(("https", "http"), key=KEY)
URL = "https://8.8.8.8/hook"
EVENTS = [WebhookEvent.MODEL_VERSION_CREATED, WebhookEvent.MODEL_VERSION_ALIAS_CREATED]
SECRET = "s3cr3t-Überall"


def define(registry: Registry, who: Principal, name: str = "hook", url: str = URL, **more: Any) -> str:
    """Define a webhook and return its id."""
    more.setdefault("rules", RULES)
    return webhooks.create_webhook(registry, who, name, url, EVENTS, **more).webhook_id


def list_cells(registry: Registry) -> list[str]:
    """Return every cell of the tables a webhook leaves something in, as text."""
    tables = (schema.webhooks, schema.events, schema.event_texts)
    with registry.read() as tx:
        return [str(cell) for table in tables for row in tx.all(select(table)) for cell in row]


# ── definitions ──


def test_a_definition_is_kept_as_it_was_given(registry: Registry, who: Principal) -> None:
    made = webhooks.create_webhook(
        registry, who, "deploy", URL, EVENTS, description="tells", secret=SECRET, status=WebhookStatus.DISABLED, rules=RULES
    )  # fmt: skip

    assert (made.name, made.url, made.events, made.description) == ("deploy", URL, tuple(EVENTS), "tells")
    assert (made.status, made.has_secret, made.created_by) == (WebhookStatus.DISABLED, True, "user-ada")
    assert made.created_at == made.updated_at > 0
    assert webhooks.get_webhook(registry, who, made.webhook_id) == made
    assert webhooks.get_signing(registry, who, made.webhook_id, rules=RULES) == (made, SECRET)


def test_two_webhooks_may_have_one_name(registry: Registry, who: Principal) -> None:
    assert define(registry, who) != define(registry, who)


def test_what_is_given_is_changed_and_nothing_else(registry: Registry, who: Principal) -> None:
    webhook_id = define(registry, who, description="old", secret=SECRET)
    before = webhooks.get_webhook(registry, who, webhook_id)

    named = webhooks.update_webhook(registry, who, webhook_id, name="new", rules=RULES)
    emptied = webhooks.update_webhook(registry, who, webhook_id, description=None, secret=None, rules=RULES)
    stopped = webhooks.update_webhook(
        registry, who, webhook_id, status=WebhookStatus.DISABLED, events=EVENTS[:1], url=URL + "2", rules=RULES
    )

    assert (named.name, named.url, named.events, named.description) == ("new", URL, tuple(EVENTS), "old")
    assert (emptied.description, emptied.has_secret, emptied.name) == (None, False, "new")
    assert (stopped.status, stopped.events, stopped.url) == (WebhookStatus.DISABLED, tuple(EVENTS[:1]), URL + "2")
    assert before.updated_at < named.updated_at < emptied.updated_at < stopped.updated_at
    assert stopped.created_at == before.created_at


def test_each_change_is_one_entry_of_the_log_with_before_and_after(registry: Registry, who: Principal) -> None:
    webhook_id = define(registry, who, description="old")
    webhooks.update_webhook(registry, who, webhook_id, name="new", description="old", rules=RULES)
    webhooks.update_webhook(registry, who, webhook_id, name="new", rules=RULES)  # changes nothing
    webhooks.delete_webhook(registry, who, webhook_id)

    found = [entry.event for entry in log.list_events(registry, who)]
    whole = {"name": "hook", "url": URL, "description": "old", "status": "ACTIVE", "secret": None}
    whole["events"] = '["model_version.created", "model_version_alias.created"]'
    assert [event.kind for event in found] == [
        EventKind.WEBHOOK_CREATED, EventKind.WEBHOOK_UPDATED, EventKind.WEBHOOK_DELETED,
    ]  # fmt: skip
    assert [(event.effects[0].before, event.effects[0].after) for event in found] == [
        (None, whole), ({"name": "hook"}, {"name": "new"}), ({**whole, "name": "new"}, None),
    ]  # fmt: skip
    assert {effect.key["webhook_id"] for event in found for effect in event.effects} == {webhook_id}


def test_an_address_is_not_in_the_leaf_but_beside_it(registry: Registry, who: Principal) -> None:
    define(registry, who, url="https://8.8.8.8/token-in-the-path")

    assert b"token-in-the-path" not in log.get_event(registry, who, 0).leaf


def test_webhooks_are_listed_newest_first_page_by_page(registry: Registry, who: Principal) -> None:
    ids = [define(registry, who, f"hook-{n}") for n in range(5)]

    pages, cursor = [], None
    while True:
        page = webhooks.list_webhooks(registry, who, limit=2, cursor=cursor)
        pages.append([webhook.webhook_id for webhook in page.items])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    assert webhooks.list_webhooks(registry, who, limit=5).next_cursor is None


def test_a_page_beyond_its_bounds_or_with_a_foreign_cursor_is_refused(registry: Registry, who: Principal) -> None:
    with pytest.raises(InvalidFieldError):
        webhooks.list_webhooks(registry, who, limit=0)
    with pytest.raises(LimitExceededError):
        webhooks.list_webhooks(registry, who, limit=1_001)
    with pytest.raises(InvalidCursorError):
        webhooks.list_webhooks(registry, who, cursor="abc")


def test_a_webhook_that_is_gone_is_not_found(registry: Registry, who: Principal) -> None:
    webhook_id = define(registry, who)
    webhooks.delete_webhook(registry, who, webhook_id)

    for gone in (webhook_id, "00000000-0000-4000-8000-000000000000", "nope", "\x00", "%"):
        with pytest.raises(WebhookNotFoundError):
            webhooks.get_webhook(registry, who, gone)
        with pytest.raises(WebhookNotFoundError):
            webhooks.update_webhook(registry, who, gone, name="x", rules=RULES)
        with pytest.raises(WebhookNotFoundError):
            webhooks.delete_webhook(registry, who, gone)
        with pytest.raises(WebhookNotFoundError):
            send_example(registry, who, gone, rules=RULES)
    assert webhooks.list_webhooks(registry, who).items == ()


@pytest.mark.parametrize(
    "wrong",
    [{"name": "-"}, {"url": "http://8.8.8.8"}, {"url": "https://10.0.0.1"}, {"url": "https://[::1]:1"},
     {"url": "https://127.1"}, {"url": "https://0x7f000001"}, {"events": []}, {"description": "\x00"}, {"secret": "\x00"},
     {"secret": "s" * 1_001}],
    ids=str,
)  # fmt: skip
def test_what_is_not_allowed_changes_nothing(registry: Registry, who: Principal, wrong: dict[str, Any]) -> None:
    webhook_id = define(registry, who)
    before = webhooks.get_webhook(registry, who, webhook_id)
    given = {"name": "hook", "url": URL, "events": EVENTS}

    with pytest.raises((InvalidFieldError, LimitExceededError)):
        webhooks.create_webhook(registry, who, **{**given, **wrong}, rules=RULES)
    with pytest.raises((InvalidFieldError, LimitExceededError)):
        webhooks.update_webhook(registry, who, webhook_id, **wrong, rules=RULES)

    assert webhooks.list_webhooks(registry, who).items == (before,)
    assert log.get_head(registry, who).size == 1


def test_a_list_takes_one_statement_however_long(
    registry: Registry, who: Principal, statements: Callable[[], Any]
) -> None:
    for n in range(4):
        define(registry, who, f"hook-{n}")

    with statements() as sent:
        assert len(webhooks.list_webhooks(registry, who).items) == 4

    assert len([statement for statement in sent if "SELECT" in statement]) == 1


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_after_every_change_the_rows_are_what_the_log_makes(
    request: pytest.FixtureRequest, who: Principal, tmp_path: Path, database: str
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else None
    registry = open_registry(tmp_path / "home", url)
    try:
        kept, gone = define(registry, who, secret=SECRET), define(registry, who)
        webhooks.update_webhook(registry, who, kept, secret="other", description="new", rules=RULES)
        webhooks.delete_webhook(registry, who, gone)
        report = check_registry(registry)
        with registry.track() as tx:
            tx.run(update(schema.webhooks).values(url="https://evil.example/"))
        damaged = check_registry(registry)
    finally:
        registry.close()

    assert report.findings == []
    assert report.checked["webhooks"] == 1
    assert [finding.subject for finding in damaged.findings] == [f"webhooks[webhook_id={kept!r}].url"]


# ── secrets ──


def test_a_secret_stands_nowhere_in_plain_text(registry: Registry, who: Principal) -> None:
    webhook_id = define(registry, who, secret=SECRET)
    webhooks.update_webhook(registry, who, webhook_id, secret=SECRET * 2, rules=RULES)
    webhooks.delete_webhook(registry, who, webhook_id)

    said = [*list_cells(registry), repr(LOOSE)]
    assert any(cell.startswith("gAAAA") for cell in said), "the encrypted one is there"
    assert [cell for cell in said if SECRET in cell or SECRET.encode().hex() in cell or KEY in cell] == []


def test_the_key_is_made_in_the_home_for_the_first_secret(registry: Registry, who: Principal, tmp_path: Path) -> None:
    registry.home = tmp_path
    file = tmp_path / webhooks.KEY_FILE

    webhook_id = define(registry, who, rules=WebhookRules())
    assert not file.exists()
    webhooks.update_webhook(registry, who, webhook_id, secret=SECRET, rules=WebhookRules())
    made = file.read_text()
    second = define(registry, who, secret="other", rules=WebhookRules())

    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == made
    assert sorted(path.name for path in tmp_path.glob("webhook*")) == [webhooks.KEY_FILE]
    assert webhooks.get_signing(registry, who, webhook_id, rules=WebhookRules())[1] == SECRET
    assert webhooks.get_signing(registry, who, second, rules=WebhookRules())[1] == "other"


def test_of_many_who_make_the_key_at_once_all_use_the_same(registry: Registry, who: Principal, tmp_path: Path) -> None:
    registry.home = tmp_path
    start = threading.Barrier(4)
    ids: list[str] = []

    def run(name: str) -> None:
        start.wait()
        ids.append(define(registry, who, name, secret=name, rules=WebhookRules()))

    threads = [threading.Thread(target=run, args=(f"hook-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = [webhooks.get_signing(registry, who, webhook_id, rules=WebhookRules()) for webhook_id in ids]
    assert sorted(webhook.name for webhook, _ in found) == [f"hook-{n}" for n in range(4)]
    assert all(webhook.name == secret for webhook, secret in found)


@pytest.mark.parametrize("lost", ["gone", "another", "no key at all"])
def test_without_the_key_everything_works_but_signing(
    registry: Registry, who: Principal, tmp_path: Path, lost: str
) -> None:
    registry.home = tmp_path
    rules = WebhookRules()
    webhook_id = define(registry, who, secret=SECRET, rules=rules)
    file = tmp_path / webhooks.KEY_FILE
    if lost == "gone":
        file.unlink()
    else:
        file.write_text(Fernet.generate_key().decode() if lost == "another" else "xyz")

    before = webhooks.get_webhook(registry, who, webhook_id)
    renamed = webhooks.update_webhook(registry, who, webhook_id, name="new", rules=rules)
    tested = send_example(registry, who, webhook_id, rules=rules)

    assert before.has_secret
    assert webhooks.list_webhooks(registry, who).items == (renamed,)
    assert not tested.success
    assert tested.status is None
    assert {"gone": "the key is gone", "another": "another key", "no key at all": "is none"}[lost] in (
        tested.error or ""
    )
    assert file.exists() == (lost != "gone"), "looking for a lost key makes none"
    file.unlink(missing_ok=True)
    webhooks.update_webhook(registry, who, webhook_id, secret="fresh", rules=rules)
    assert webhooks.get_signing(registry, who, webhook_id, rules=rules)[1] == "fresh"


def test_without_a_home_and_a_key_a_secret_is_refused(registry: Registry, who: Principal) -> None:
    with pytest.raises(UnsupportedError, match="TOUCHMARK_WEBHOOK_KEY"):
        define(registry, who, secret=SECRET, rules=WebhookRules())

    assert log.get_head(registry, who).size == 0


def test_a_key_that_cannot_be_written_is_said(registry: Registry, who: Principal, tmp_path: Path) -> None:
    registry.home = tmp_path / "not there"

    with pytest.raises(UnsupportedError, match=r"webhook\.key cannot be written"):
        define(registry, who, secret=SECRET, rules=WebhookRules())


# ── a receiver ──


class Receiver:
    """An HTTP server that notes what it is sent and answers what it was told to, by path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.command, self.path, headers, body))
                if self.path == "/drip":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                    return
                if self.path == "/silence":
                    time.sleep(1)
                    return
                status, more, answer = receiver.answers.get(self.path, (200, {}, b"fine"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST  # noqa: N815 - the name http.server wants

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Expect clients that leave."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        """Answer for as long as the block runs."""
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver on loopback."""
    with Receiver().running() as running:
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Give a name server: each name's answers, one list of addresses for each time it is asked; the last one stays."""
    known: dict[str, list[list[str]]] = {}
    asked = socket.getaddrinfo

    def answer(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        answers = known.get(host)
        if answers is None:
            return asked(host, port, *more, **named)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for address in addresses for found in asked(address, port, *more, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, int]]:
    """Give the network in the middle: connections to an address end where this says; the others are made and noted."""
    known: dict[str, tuple[str, int]] = {}
    connect = socket.create_connection

    def route(address: tuple[str, int], *more: Any, **named: Any) -> socket.socket:
        return connect(known.get(address[0], address), *more, **named)

    monkeypatch.setattr(socket, "create_connection", route)
    return known


def deliver(url: str, rules: WebhookRules = LOOSE, secret: str | None = None) -> Delivery:
    return send(url, '{"a": 1}', secret, sent_at_seconds=1_700_000_000, rules=rules)


# ── deliveries ──


def test_a_test_sends_one_signed_example(registry: Registry, who: Principal, receiver: Receiver) -> None:
    receiver.answers["/in?x=1"] = (202, {}, "schön".encode())
    webhook_id = define(registry, who, url=receiver.url + "/in?x=1", secret=SECRET, rules=LOOSE)

    sent = send_example(registry, who, webhook_id, WebhookEvent.PROMPT_TAG_SET, rules=LOOSE)

    assert sent == Delivery(success=True, status=202, answer="schön")
    ((method, path, headers, body),) = receiver.requests
    document = json.loads(body)
    assert (method, path, headers["content-type"]) == ("POST", "/in?x=1", "application/json")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert (document["entity"], document["action"]) == ("prompt_tag", "set")
    assert set(document["data"]) == {"name", "key", "value"}
    assert dt.datetime.fromisoformat(document["timestamp"]).timestamp() >= int(headers["x-mlflow-timestamp"])
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert headers["x-mlflow-signature"] == f"v1,{expected}"


def test_without_a_secret_nothing_is_signed_and_the_first_event_is_the_example(
    registry: Registry, who: Principal, receiver: Receiver
) -> None:
    webhook_id = define(registry, who, url=receiver.url, status=WebhookStatus.DISABLED, rules=LOOSE)

    assert send_example(registry, who, webhook_id, rules=LOOSE).success
    ((_, path, headers, body),) = receiver.requests
    assert path == "/"
    assert "x-mlflow-signature" not in headers
    assert json.loads(body)["entity"] == "model_version"


def test_no_two_deliveries_have_one_id(receiver: Receiver) -> None:
    deliver(receiver.url, secret=SECRET)
    deliver(receiver.url, secret=SECRET)

    first, second = (headers for _, _, headers, _ in receiver.requests)
    assert first["x-mlflow-delivery-id"] != second["x-mlflow-delivery-id"]
    assert first["x-mlflow-signature"] == sign_delivery(SECRET, first["x-mlflow-delivery-id"], "1700000000", '{"a": 1}')


@pytest.mark.parametrize("status", [301, 302, 303, 304, 400, 404, 410, 429, 500, 503])
def test_an_answer_that_is_no_success_is_told_and_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers["/"] = (status, {"Location": "/elsewhere"}, b"" if status == 304 else b"no")

    sent = deliver(receiver.url)

    assert (sent.success, sent.status) == (False, status)
    assert str(status) in (sent.error or "")
    assert ("/elsewhere" in (sent.error or "")) == (status < 400)
    assert len(receiver.requests) == 1


def test_a_long_answer_is_read_and_shown_in_part(receiver: Receiver) -> None:
    receiver.answers["/"] = (200, {}, b"\xff" + b"a" * 10_000_000)

    sent = deliver(receiver.url)

    assert sent.success
    assert sent.answer == "\ufffd" + "a" * (sending.SHOWN_CHARACTERS - 1) + "…"


@pytest.mark.parametrize("path", ["/drip", "/silence"])
def test_a_receiver_that_takes_its_time_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.4)
    start = time.monotonic()

    sent = deliver(receiver.url + path)

    assert time.monotonic() - start < 3
    assert sent == Delivery(success=False, error="There was no complete answer within 0.4 seconds.")


def test_nobody_there_is_told(receiver: Receiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sent = deliver(f"http://127.0.0.1:{closed.getsockname()[1]}/")

    assert not sent.success
    assert "ConnectionRefusedError" in (sent.error or "")


def test_what_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(1_000)
                link.sendall(b"220 smtp.example ESMTP\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        sent = deliver(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()

    assert not sent.success
    assert "BadStatusLine" in (sent.error or "")


def test_a_user_in_the_url_is_sent_to_that_address_alone(receiver: Receiver) -> None:
    receiver.answers["/"] = (307, {"Location": f"{receiver.url}/next"}, b"")

    assert deliver(receiver.url.replace("//", "//ada:pass@")).success
    first, second = (headers for _, _, headers, _ in receiver.requests)
    assert first["authorization"] == "Basic " + base64.b64encode(b"ada:pass").decode()
    assert "authorization" not in second


# ── where it may lead ──


def test_a_host_that_is_not_public_is_refused_when_it_is_defined(
    registry: Registry, who: Principal, names: dict[str, list[list[str]]]
) -> None:
    names["inside.test"] = [["8.8.8.8", "10.1.2.3"]]
    names["nowhere.test"] = [[]]

    with pytest.raises(InvalidFieldError, match=r"'inside\.test' resolves to 10\.1\.2\.3"):
        define(registry, who, url="https://inside.test/")
    with pytest.raises(InvalidFieldError, match=r"Cannot resolve Webhook URL hostname 'nowhere\.test'"):
        define(registry, who, url="https://nowhere.test/")
    define(registry, who, url="https://nowhere.test/", rules=LOOSE)


def test_a_name_that_turns_to_the_inside_later_is_refused_when_it_is_used(
    registry: Registry, who: Principal, names: dict[str, list[list[str]]], receiver: Receiver
) -> None:
    names["hook.test"] = [["8.8.8.8"], ["127.0.0.1"]]
    webhook_id = define(registry, who, url=f"http://hook.test:{receiver.port}/", rules=PUBLIC)

    sent = send_example(registry, who, webhook_id, rules=PUBLIC)

    assert (sent.success, sent.status) == (False, None)
    assert "must not resolve to a non-public IP address. 'hook.test' resolves to 127.0.0.1." in (sent.error or "")
    assert receiver.requests == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    names: dict[str, list[list[str]]], routes: dict[str, tuple[str, int]], receiver: Receiver
) -> None:
    names["hook.test"] = [["8.8.8.8"], ["127.0.0.1"]]  # whoever asked a second time would be led inside
    routes["8.8.8.8"] = ("127.0.0.1", receiver.port)

    assert deliver("http://hook.test:81/", PUBLIC).success
    assert names["hook.test"] == [["127.0.0.1"]], "it was looked up once"
    assert [headers["host"] for _, _, headers, _ in receiver.requests] == ["hook.test:81"]


def test_the_next_address_of_a_host_is_tried_if_one_is_silent(
    names: dict[str, list[list[str]]], receiver: Receiver
) -> None:
    names["hook.test"] = [["127.0.0.2", "127.0.0.1"]]

    assert deliver(f"http://hook.test:{receiver.port}/").success


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1:{port}/inner", "'127.0.0.1' resolves to 127.0.0.1"),
        ("http://inside.test:{port}/inner", "'inside.test' resolves to 10.0.0.1"),
        ("//169.254.169.254/latest/meta-data", "'169.254.169.254' resolves to 169.254.169.254"),
        ("http://[::ffff:127.0.0.1]:{port}/", "non-public IP address"),
        ("ftp://front.test/", "Invalid webhook URL scheme: 'ftp'"),
        ("file:///etc/passwd", "Invalid webhook URL scheme: 'file'"),
    ],
)
@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_held_to_the_same_rules(
    names: dict[str, list[list[str]]], routes: dict[str, tuple[str, int]], receiver: Receiver,
    status: int, location: str, said: str,
) -> None:  # fmt: skip
    names |= {"front.test": [["8.8.8.8"]], "inside.test": [["10.0.0.1"]]}
    routes["8.8.8.8"] = ("127.0.0.1", receiver.port)
    receiver.answers["/"] = (status, {"Location": location.format(port=receiver.port)}, b"")

    sent = deliver("http://front.test/", PUBLIC)

    assert not sent.success
    assert said in (sent.error or "")
    assert [path for _, path, _, _ in receiver.requests] == ["/"]


def test_a_redirect_to_plain_http_is_refused_where_only_https_is_allowed(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names["hook.test"] = [["127.0.0.1"]]
    with Receiver().running() as plain, open_tls("hook.test", tmp_path, monkeypatch) as receiver:
        receiver.answers["/"] = (308, {"Location": plain.url}, b"")
        sent = deliver(f"https://hook.test:{receiver.port}/", WebhookRules(allow_private=True))

    assert "Invalid webhook URL scheme: 'http'" in (sent.error or "")
    assert plain.requests == []


def test_a_redirect_that_keeps_the_method_is_followed_with_the_same_body(receiver: Receiver) -> None:
    receiver.answers["/"] = (308, {"Location": "next"}, b"")

    assert deliver(receiver.url, secret=SECRET).success
    first, second = receiver.requests
    assert (first[1], second[1]) == ("/", "/next")
    assert (first[0], first[3], first[2]["x-mlflow-signature"]) == (
        second[0],
        second[3],
        second[2]["x-mlflow-signature"],
    )


def test_a_circle_of_redirects_ends(receiver: Receiver) -> None:
    receiver.answers["/"] = (307, {"Location": "/"}, b"")

    sent = deliver(receiver.url)

    assert (sent.success, sent.status) == (False, 307)
    assert len(receiver.requests) == sending.REDIRECTS + 1


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver().running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert deliver(receiver.url).success

    assert proxy.requests == []


# ── TLS ──


@contextmanager
def open_tls(host: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool = True) -> Iterator[Receiver]:
    """Run a receiver with a certificate for a host, signed by itself; `trusted` makes it one of the system's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    now = dt.datetime.now(dt.UTC)
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "server.pem").write_bytes(private + public)
    (folder / "trusted.pem").write_bytes(public)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "trusted.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    receiver = Receiver()
    # The handshake belongs to the thread of the request: one that fails must not end the server.
    receiver.server.socket = context.wrap_socket(
        receiver.server.socket, server_side=True, do_handshake_on_connect=False
    )
    with receiver.running():
        yield receiver


@pytest.mark.parametrize("host", ["hook.test", "127.0.0.1"])
def test_a_delivery_over_tls_is_made_to_the_name_in_the_certificate(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    names["hook.test"] = [["127.0.0.1"]]

    with open_tls(host, tmp_path, monkeypatch) as receiver:
        sent = deliver(f"https://{host}:{receiver.port}/in", secret=SECRET)

    assert sent == Delivery(success=True, status=200, answer="fine")
    assert [(path, headers["host"]) for _, path, headers, _ in receiver.requests] == [
        ("/in", f"{host}:{receiver.port}")
    ]


@pytest.mark.parametrize(("host", "trusted"), [("other.test", True), ("hook.test", False)])
def test_a_certificate_that_is_another_hosts_or_nobodys_is_refused(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, trusted: bool
) -> None:
    names["hook.test"] = [["127.0.0.1"]]

    with open_tls(host, tmp_path, monkeypatch, trusted=trusted) as receiver:
        sent = deliver(f"https://hook.test:{receiver.port}/in", secret=SECRET)

    assert not sent.success
    assert "CERTIFICATE_VERIFY_FAILED" in (sent.error or "")
    assert receiver.requests == []


def test_a_receiver_that_never_ends_the_handshake_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        sent = deliver(f"https://127.0.0.1:{listener.getsockname()[1]}/")

    assert time.monotonic() - start < 3
    assert sent.error == "There was no complete answer within 0.4 seconds."
