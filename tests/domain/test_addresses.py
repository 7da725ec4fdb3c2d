"""Addresses outside: how they are read, what the allow-list covers, which IP addresses may be connected to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.domain.addresses import ImportRules, find_address, is_public, may_connect, parse_import_prefix, parse_url
from touchmark.domain.errors import InvalidFieldError, InvalidSourceError


@pytest.mark.parametrize(
    ("text", "scheme", "place", "path", "revision"),
    [
        ("s3://bucket/a/b", "s3", "bucket", "a/b", None),
        ("S3A://bucket/a/b/", "s3", "bucket", "a/b", None),
        ("s3://bucket", "s3", "bucket", "", None),
        ("gs://bucket/a b", "gs", "bucket", "a b", None),
        ("az://box/a", "az", "box", "a", None),
        ("abfss://box@acc.dfs.core.windows.net/a", "az", "box@acc.dfs.core.windows.net", "a", None),
        ("https://Example.com/a/ü.bin", "https", "example.com:443", "a/%C3%BC.bin", None),
        ("http://[::1]:8080/a", "http", "[::1]:8080", "a", None),
        ("hf://org/repo", "hf", "", "org/repo", None),
        ("hf://org/repo@v1.0/sub/x.bin", "hf", "", "org/repo/sub/x.bin", "v1.0"),
    ],
)
def test_an_address_is_taken_apart(text: str, scheme: str, place: str, path: str, revision: str | None) -> None:
    found = find_address(text)

    assert found is not None
    assert (found.scheme, found.place, found.path, found.revision) == (scheme, place, path, revision)


@pytest.mark.parametrize("text", ["runs:/a/b", "models:/m/1", "file:///x", "/x", "ftp://h/x", "", "x", "1s3://b/x"])
def test_what_has_another_scheme_is_no_address(text: str) -> None:
    assert find_address(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "http://user@host/x", "http://user:pass@host/x", "http:///x", "http://host", "http://host/", "http://host:0/x",
        "http://host:99999/x", "http://host/a?b", "http://host/a#b", "http://host/a?", "http://host//a", "http://host/a/../b",
        "http://host/./b", "http://host/%2e%2e/b", "http://host/%252e%252e/b", "http://host/a%2Fb", "http://host/a%5cb",
        "http://host/a\\b", "http://ho st/a", "http://host/a\tb", "http://host/a\u202eb", "http://host/%00", "http://h%6fst/a",
        "http://[::1%eth0]/a", "http://host/%" + "25" * 20 + "2e", "s3://b/x", "s3:///key", "s3://bucket/../x",
        "s3://bucket@other/x", "s3://bucket:80/x", "az://box@evil.example/x", "az://box@a.dfs.core.windows.net.evil.example/x",
        "hf://org", "hf://", "hf://org/repo@a b", "hf://datasets/org/repo", "hf://org/re%70o", "hf://org/repo@../x",
    ],
)  # fmt: skip
def test_an_address_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(InvalidSourceError):
        find_address(text)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("https://a.example/m", ["https://a.example/m/x", "https://A.example:443/m"], [
            "https://a.example/mm/x", "http://a.example/m/x", "https://a.example.evil/m/x", "https://a.example:444/m/x",
            "https://b.a.example/m/x", "https://a.example./m/x", "https://a.example/%6d/x", "https://a.example/n/m/x",
        ]),
        ("https://a.example", ["https://a.example/x"], ["https://a.exampl/x"]),
        ("s3://bucket/a/", ["s3://bucket/a", "s3a://bucket/a/b"], ["s3://bucket/ab", "s3://bucket2/a", "gs://bucket/a"]),
        ("hf://org", ["hf://org/repo@x/y"], ["hf://org2/repo", "hf://orgs/repo"]),
        ("hf://org/repo@main", ["hf://org/repo@main/y"], ["hf://org/repo@dev/y", "hf://org/repo", "hf://org/repo2@main"]),
        ("hf://", ["hf://org/repo"], ["s3://org/repo"]),
        ("abfss://box@acc.dfs.core.windows.net", ["abfss://box@acc.dfs.core.windows.net/x"], [
            "abfss://box@other.dfs.core.windows.net/x", "az://box/x",
        ]),
    ],
)  # fmt: skip
def test_a_prefix_covers_what_lies_below_it_part_by_part(prefix: str, inside: list[str], outside: list[str]) -> None:
    rules = ImportRules((parse_import_prefix(prefix),))

    assert [text for text in inside if not rules.lists(text)] == []
    assert [text for text in outside if rules.lists(text)] == []


def test_the_longest_prefix_counts_for_an_address() -> None:
    rules = ImportRules((parse_import_prefix("s3://bucket"), parse_import_prefix("s3://bucket/a", private=True)))
    address = find_address("s3://bucket/a/b")

    assert address is not None
    found = rules.find(address)
    assert found is not None
    assert found.private


def test_a_redirect_is_covered_by_host_or_by_a_host_below_one() -> None:
    entry = parse_import_prefix("hf://org", redirects=("https://*.hf.example/", "https://cdn.example/files"))
    covered = ["https://a.hf.example/x?y=1", "https://a.b.hf.example/x", "https://cdn.example/files/x?sig=1"]
    others = [
        "https://hf.example/x", "http://a.hf.example/x", "https://a.hf.example.evil/x", "https://ahf.example/x",
        "https://cdn.example/filesx", "https://cdn.example/other", "https://cdn.example:444/files/x", "https://evil/?cdn.example",
    ]  # fmt: skip

    assert [text for text in covered if entry.find_redirect(parse_url(text)) is None] == []
    assert [text for text in others if entry.find_redirect(parse_url(text)) is not None] == []
    public = parse_import_prefix("hf://org")
    assert public.find_redirect(parse_url("https://cdn-lfs-us-1.hf.co/repos/x?Signature=y")) == "cdn-lfs-us-1.hf.co"
    assert (
        parse_import_prefix("hf://org", endpoint="https://hub.example").find_redirect(parse_url("https://a.hf.co/"))
        is None
    )


@pytest.mark.parametrize(
    "wrong", [{"prefix": "ftp://x"}, {"prefix": "x"}, {"prefix": "s3://bucket", "token": "t"},
              {"prefix": "hf://org", "token": "a\nb"}, {"prefix": "hf://org", "endpoint": "file:///x"},
              {"prefix": "hf://org", "redirects": ("https://a/?x",)}, {"prefix": "http://u:p@h/"}]
)  # fmt: skip
def test_a_wrong_entry_is_refused_without_its_secrets(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        parse_import_prefix(**wrong)  # type: ignore[arg-type]

    assert caught.value.fields["field"] == "import_from"


def test_credentials_are_never_shown() -> None:
    entry = parse_import_prefix("https://h.example/", token="s3cret", password="s3cret", options={"key": "s3cret"})

    assert "s3cret" not in repr(ImportRules((entry,)))


@pytest.mark.parametrize(
    ("address", "host", "private", "allowed"),
    [
        ("93.184.216.34", "h", False, True),
        ("127.0.0.1", "h", False, False),
        ("127.0.0.1", "127.0.0.1", False, True),
        ("127.0.0.1", "localhost", False, True),
        ("::1", "::1", False, True),
        ("10.0.0.1", "localhost", False, False),
        ("127.0.0.2", "127.0.0.1", False, False),
        ("::ffff:127.0.0.1", "h", False, False),
        ("::ffff:127.0.0.1", "127.0.0.1", False, True),
        ("10.1.2.3", "h", False, False),
        ("10.1.2.3", "h", True, True),
        ("fd00::1", "h", True, True),
        ("127.0.0.1", "h", True, True),
        ("169.254.169.254", "h", True, False),
        ("169.254.169.254", "169.254.169.254", False, True),
        ("fe80::1", "h", True, False),
        ("fd00:ec2::254", "h", True, False),
        ("100.100.100.200", "h", True, False),
        ("168.63.129.16", "h", True, False),
        ("64:ff9b::a9fe:a9fe", "h", True, False),
        ("64:ff9b::7f00:1", "h", False, False),
        ("2002:a9fe:a9fe::", "h", True, False),
        ("0.0.0.0", "h", True, False),
        ("224.0.0.1", "h", True, False),
        ("nonsense", "h", True, False),
    ],
)
def test_an_ip_address_that_is_not_public_must_be_named(address: str, host: str, private: bool, allowed: bool) -> None:
    assert may_connect(address, host=host, private=private) is allowed


@given(st.ip_addresses())
def test_a_public_address_may_always_be_connected_to_and_no_link_local_one_by_a_name(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert may_connect(str(address), host="h", private=False) == is_public(str(address))
    assert not (address.is_link_local and may_connect(str(address), host="h", private=True))


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading_of_addresses(text: str) -> None:
    for scheme in ("http://", "s3://b", "hf://", "abfss://a@"):
        try:
            found = find_address(scheme + text)
        except InvalidSourceError:
            continue
        assert found is None or ".." not in found.path.split("/")
