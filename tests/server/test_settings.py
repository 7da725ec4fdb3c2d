"""Settings: flags before environment before file before defaults, and nothing that is not understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from touchmark.domain.errors import InvalidFieldError
from touchmark.server.app import find_refusal, join_headers
from touchmark.server.settings import load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "touchmark.toml"
    file.write_text('port = 6001\nlog_format = "json"\nlog_requests = false\nmax_upload_bytes = 10\n')
    return file


def test_a_flag_stands_over_the_environment_and_that_over_the_file(config: Path) -> None:
    environ = {"TOUCHMARK_CONFIG": str(config), "TOUCHMARK_PORT": "6002", "TOUCHMARK_MAX_UPLOAD_BYTES": "20"}

    settings = load_settings({"port": 6003, "host": None}, environ)

    assert (settings.port, settings.max_upload_bytes, settings.log_format) == (6003, 20, "json")
    assert (settings.log_requests, settings.host) == (False, "127.0.0.1")
    assert load_settings({"config": str(config)}, {}).port == 6001


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings({}, {})

    assert (settings.host, settings.port, settings.uds, settings.database) == ("127.0.0.1", 5000, None, None)
    assert settings.address == "http://127.0.0.1:5000"
    assert load_settings({"host": "::1"}, {}).address == "http://[::1]:5000"
    assert load_settings({"uds": "/tmp/s"}, {}).address == "unix:///tmp/s"


def test_a_variable_of_the_client_is_none_of_the_servers_business() -> None:
    assert load_settings({}, {"TOUCHMARK_URL": "http://elsewhere", "TOUCHMARK_CACHE": "/tmp/c"}).port == 5000


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"prot": 5000}, "prot"), ({"port": "x"}, "port"), ({"port": 0}, "port"), ({"port": 65536}, "port"),
        ({"port": True}, "port"), ({"port": 5000.5}, "port"), ({"log_format": "xml"}, "log_format"),
        ({"log_requests": "perhaps"}, "log_requests"), ({"database": 7}, "database"), ({"home": 7}, "home"),
        ({"config": "/nowhere/touchmark.toml"}, "config"), ({"max_upload_bytes": -1}, "max_upload_bytes"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_its_name(flags: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings(flags, {})

    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    "address",
    [
        "localhost:5741", "http://", "http://h:99999", "http://h:abc", "http://h:", "http://h:0", "http://:80", "http://[::1",
        "http://[", "http://[zz]", "http://[:::::]", "http://h[::1]", "ftp://h", "http://user:secret@h", "http://h?x=1",
    ],
)  # fmt: skip
def test_an_address_that_nobody_can_ask_is_a_wrong_setting(address: str) -> None:
    for field, value in (("upstreams", (address,)), ("public_url", address)):
        with pytest.raises(InvalidFieldError) as caught:
            load_settings({field: value}, {})
        assert caught.value.fields["field"] == field
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://h", "https://a-b.c_d:65535/x/", "http://[::1]:5000", "http://127.0.0.1/"])
def test_an_address_that_can_be_asked_is_a_setting(address: str) -> None:
    settings = load_settings({"upstreams": (address,), "public_url": address}, {})

    assert (settings.public_url, settings.upstreams[0].url) == (address, address)


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"prot = 5000", b"[server]\nport = 1"])
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "touchmark.toml"
    file.write_bytes(content)

    with pytest.raises(InvalidFieldError):
        load_settings({"config": str(file)}, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"])
def test_a_server_that_asks_nobody_who_they_are_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(InvalidFieldError, match="loopback only"):
        load_settings({"host": host}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_every_loopback_address_is_fine(host: str) -> None:
    assert load_settings({"host": host}, {}).host == host


# ── who may come in ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:5000", "localhost", "localhost:80", "LocalHost:80", "[::1]:5000", "[::1]"]
)
def test_this_machine_may_come_in(host: str) -> None:
    assert find_refusal("POST", {b"host": host.encode()}, local=False) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]:1",
        "[::1].evil.example",
        "[127.0.0.1]",
        "[::1]5000",
        "localhost:80@evil.example",
        "127.0.0.1:evil",
        "127.0.0.1/evil.example",
        "127.0.0.1#evil.example",
        "127.0.0.1, evil.example",
        "localhost localhost",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_only_leads_here_may_not(host: str, method: str) -> None:
    assert find_refusal(method, {b"host": host.encode()} if host else {}, local=False)


@pytest.mark.parametrize("name", [b"host", b"origin"])
@pytest.mark.parametrize("hidden", [0, 1])
def test_of_two_headers_of_one_name_none_hides_the_other(name: bytes, hidden: int) -> None:
    values = {b"host": b"127.0.0.1:5000", b"origin": b"http://127.0.0.1:5000"}
    pairs = [*values.items(), (name, b"http://evil.example" if name == b"origin" else b"evil.example")]
    if hidden:
        pairs.reverse()

    assert find_refusal("POST", join_headers(pairs), local=False)
    assert find_refusal("POST", join_headers(list(values.items())), local=False) is None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1", "https://evil.example:5000", ""],
)
def test_a_page_from_elsewhere_changes_nothing(origin: str) -> None:
    headers = {b"host": b"127.0.0.1:5000", b"origin": origin.encode()}

    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert find_refusal(method, headers, local=False)
    assert find_refusal("GET", headers, local=False) is None


def test_a_page_of_this_server_may_change_things() -> None:
    headers = {b"host": b"127.0.0.1:5000", b"origin": b"http://127.0.0.1:5000"}

    assert find_refusal("POST", headers, local=False) is None


# ── from where versions are imported ─────────────────────────────────────────────────────────────────────────────


def test_prefixes_come_from_flags_environment_or_tables(tmp_path: Path) -> None:
    file = tmp_path / "touchmark.toml"
    file.write_text(
        'import_from = ["hf://acme", {prefix = "s3://bucket/a", endpoint = "http://10.0.0.1:9000", private = true, '
        'options = {aws_access_key_id = "s3cret", skip_signature = true}}]\nmax_import_bytes = 10\n'
    )
    flags = load_settings({"import_from": ("hf://a", "https://h.example/m")}, {})
    environ = load_settings({}, {"TOUCHMARK_IMPORT_FROM": "hf://a  s3://bucket"})
    tables = load_settings({"config": str(file)}, {})

    assert [each.prefix for each in flags.import_from] == ["hf://a", "https://h.example/m"]
    assert [each.prefix for each in environ.import_from] == ["hf://a", "s3://bucket"]
    assert (tables.import_from[1].private, tables.import_from[1].endpoint) == (True, "http://10.0.0.1:9000")
    assert tables.import_from[1].options == {"aws_access_key_id": "s3cret", "skip_signature": "true"}
    assert (tables.imports.max_bytes, tables.imports.allow_unsealed) == (10, True)
    assert "s3cret" not in repr(tables)


@pytest.mark.parametrize(
    "line",
    [
        'import_from = ["file:///etc"]', 'import_from = ["/etc"]', "import_from = [1]", "import_from = 1",
        'import_from = [{endpoint = "http://h"}]', 'import_from = [{prefix = "hf://a", other = "x"}]',
        'import_from = [{prefix = "hf://a", private = "yes"}]', 'import_from = [{prefix = "http://u:s3cret@h/"}]',
        'import_from = [{prefix = "hf://a", redirects = "https://x/"}]', 'import_from = [{prefix = "s3://bucket", token = "s3cret"}]',
        "max_import_bytes = -1",
    ],
)  # fmt: skip
def test_a_prefix_that_is_none_stops_the_server_with_a_sentence(tmp_path: Path, line: str) -> None:
    file = tmp_path / "touchmark.toml"
    file.write_text(line + "\n")

    with pytest.raises(InvalidFieldError) as caught:
        load_settings({"config": str(file)}, {})

    assert caught.value.fields["field"] in {"import_from", "max_import_bytes"}
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:5741", "ftp://mlflow", "http://", "http://user:secret@mlflow:5000", "http://a b"]
)
def test_an_upstream_that_is_no_address_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(InvalidFieldError, match="write http://HOST:PORT") as caught:
        load_settings({"upstreams": [url]}, {})

    assert "secret" not in str(caught.value)
