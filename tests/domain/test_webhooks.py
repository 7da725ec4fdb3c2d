"""Webhooks' rules: names, events, addresses, what is public, signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities.webhook import VALID_ENTITY_ACTIONS
from mlflow.webhooks.types import get_example_payload_for_event

from touchmark.domain.addresses import is_public
from touchmark.domain.errors import InvalidFieldError, LimitExceededError, WebhookNotFoundError
from touchmark.domain.webhooks import (
    WebhookEvent,
    WebhookRules,
    build_example,
    check_webhook_events,
    check_webhook_name,
    parse_webhook_event,
    parse_webhook_id,
    parse_webhook_url,
    sign_delivery,
)

RULES = WebhookRules()
LOOSE = WebhookRules(("https", "http"), allow_private=True)


@pytest.mark.parametrize("name", ["a", "1", "web_hook-123.test", "A" * 63, "a-b", "0.0"])
def test_a_name_mlflow_allows_is_allowed(name: str) -> None:
    assert check_webhook_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "   ", "a b", "a<", "a>", "a@", "a#", "a/", "a\\", "-a", "a-", "_a", "a_", ".a", "a.", "a" * 64,
             "é", "a\n", "\u017fa", "\u212a"],
)  # fmt: skip
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidFieldError, match=r"Webhook name .* is invalid"):
        check_webhook_name(name)


def test_the_events_are_the_pairs_mlflow_allows_and_no_other() -> None:
    pairs = {(entity.value, action.value) for entity, actions in VALID_ENTITY_ACTIONS.items() for action in actions}

    assert {(event.entity, event.action) for event in WebhookEvent} == pairs
    for entity, action in pairs:
        assert parse_webhook_event(entity, action).value == f"{entity}.{action}"


@pytest.mark.parametrize(
    ("entity", "action", "said"),
    [
        ("model_version", "deleted", "Invalid action 'deleted' for entity 'model_version'. Valid actions are: ['created']"),
        ("prompt_tag", "created", "Invalid action 'created' for entity 'prompt_tag'. Valid actions are: ['deleted', 'set']"),
        ("model_version", "", "Invalid action '' for entity 'model_version'. Valid actions are: ['created']"),
        ("run", "created", "Invalid entity 'run'."),
        ("", "", "Invalid entity ''."),
    ],
)  # fmt: skip
def test_another_pair_is_refused_in_mlflows_words(entity: str, action: str, said: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        parse_webhook_event(entity, action)

    assert caught.value.message == said


def test_events_keep_their_order_and_stand_once() -> None:
    first, second = WebhookEvent.PROMPT_CREATED, WebhookEvent.MODEL_VERSION_CREATED

    assert check_webhook_events([first, second, first]) == (first, second)
    with pytest.raises(InvalidFieldError, match="must be a non-empty list"):
        check_webhook_events([])


@pytest.mark.parametrize("event", WebhookEvent, ids=str)
def test_an_example_has_the_fields_of_mlflows(event: WebhookEvent) -> None:
    from mlflow.entities.webhook import WebhookEvent as Theirs

    theirs = get_example_payload_for_event(Theirs.from_str(event.value))  # type: ignore[arg-type]

    assert list(build_example(event)) == list(theirs)


@pytest.mark.parametrize("text", ["", "x", "../x", "\x00", "0" * 36, "0D1B9F2C-1111-4111-8111-000000000000"])
def test_what_is_no_id_is_not_found(text: str) -> None:
    with pytest.raises(WebhookNotFoundError):
        parse_webhook_id(text)


# ── addresses ──


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://example.org", "example.org", 443, "/"),
        ("HTTPS://Example.ORG:8443/a/b?c=d#e", "example.org", 8443, "/a/b?c=d"),
        ("https://bücher.example/ä?ö=ü", "xn--bcher-kva.example", 443, "/%C3%A4?%C3%B6=%C3%BC"),
        ("https://[2001:db8::1]:1/x%20y", "2001:db8::1", 1, "/x%20y"),
        ("http://127.1/a//b;c=1", "127.1", 80, "/a//b;c=1"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, target: str) -> None:
    address = parse_webhook_url(url, LOOSE)

    assert (address.host, address.port, address.target, address.credentials) == (host, port, target, None)


def test_a_user_in_a_url_becomes_basic_credentials_that_no_repr_shows() -> None:
    address = parse_webhook_url("https://us%40er:pa%3Ass@example.org/", RULES)

    assert base64.b64decode(address.credentials or "") == b"us@er:pa:ss"
    assert str(address.credentials) not in repr(address)
    assert address.host == "example.org"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "cannot be empty or just whitespace"), ("  ", "cannot be empty or just whitespace"),
        ("http://example.org", "Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
        ("ftp://example.org", "Invalid webhook URL scheme: 'ftp'"), ("file:///etc/passwd", "scheme: 'file'"),
        ("example.org", "Invalid webhook URL scheme: ''"), ("https://", "must include a hostname"),
        ("https:///x", "must include a hostname"), ("https://@/", "must include a hostname"),
        ("https://[::1", "Invalid webhook URL 'https://[::1': ValueError('Invalid IPv6 URL')"),
        ("https://example.org:0/", "there is no port 0"), ("https://example.org:65536/", "Invalid webhook URL"),
        ("https://example.org:x/", "Invalid webhook URL"), ("https://a..b/", "Invalid webhook URL"),
        ("https://exa mple.org/", "blanks or invisible"), ("https://example.org/\r\nHost: x", "blanks or invisible"),
        (" https://example.org", "blanks or invisible"), ("https://example.org\t/", "blanks or invisible"),
        ("https://example.org/\u202e", "blanks or invisible"), ("https://[fe80::1%25eth0]/", "Invalid webhook URL"),
        ("https://exam|ple/", "characters that none has"), ("https://" + "a" * 64 + ".org/", "its host is none"),
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_with_the_reason(url: str, said: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        parse_webhook_url(url, RULES)

    assert said in caught.value.message


def test_a_url_beyond_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        parse_webhook_url("https://example.org/" + "a" * 4_000, RULES)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org{text}"):
        try:
            address = parse_webhook_url(url, LOOSE)
        except (InvalidFieldError, LimitExceededError):
            continue
        assert (address.host + address.target).isascii()
        assert not any(char.isspace() for char in address.host + address.target)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "192.88.99.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "192.0.0.8",
        "192.0.0.192", "168.63.129.16",
        "192.0.2.1", "192.168.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1",
        "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1", "localhost", "", "1",
    ],
)  # fmt: skip
def test_any_other_address_is_not(address: str) -> None:
    assert not is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_an_ipv6_address_that_carries_an_ipv4_one_is_as_public_as_that(number: int) -> None:
    inner = ipaddress.IPv4Address(number)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    tunnelled = ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)

    assert {is_public(str(each)) for each in (mapped, translated, tunnelled)} == {is_public(str(inner))}


# ── signatures ──


def test_a_signature_is_what_mlflow_documents() -> None:
    body = '{"entity": "prompt", "ü": 1}'
    expected = hmac.new(b"s\xc3\xa9cret", f"id-1.1700000000.{body}".encode(), hashlib.sha256).digest()

    assert sign_delivery("sécret", "id-1", "1700000000", body) == "v1," + base64.b64encode(expected).decode()
