"""Registering from elsewhere, on real processes: what is allowed comes here and is sealed, what is not is never asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

import touchmark
from tests.acceptance.import_peers import COMMIT, Peer, Repo, run_hub, run_peer
from tests.acceptance.import_peers import Served as Item
from tests.ceph import Ceph
from tests.served import Served, digest_of, launch, serve, wait_for
from touchmark.domain import errors

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
JSON = {"Content-Type": "application/json"}
WEIGHTS = random.Random(4).randbytes(3_000_000)
METADATA = "http://169.254.169.254/latest/meta-data/iam"


def start(tmp_path: Path, *entries: dict[str, Any] | str, flags: tuple[str, ...] = ()) -> Any:
    """Run a server whose allow-list has these entries."""
    lines = ["import_from = [", *(f"  {show_toml(entry)}," for entry in entries)]
    config = tmp_path / "touchmark.toml"
    config.write_text("\n".join([*lines, "]\n"]))
    return serve(tmp_path / "home", "--config", str(config), *flags)


def show_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {show_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def register(served: Served, source: str, name: str = "m") -> dict[str, Any]:
    answer = served.ask("POST", f"/api/v1/models/{name}/versions", {"source": source}, JSON)
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json()
    return found


def get(served: Served, version: int, name: str = "m") -> dict[str, Any]:
    found: dict[str, Any] = served.ask("GET", f"/api/v1/models/{name}/versions/{version}").json()
    return found


def settle(served: Served, version: int, name: str = "m", seconds: float = 60) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (found := get(served, version, name))["state"] == "PENDING_REGISTRATION":
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def bring(served: Served, source: str) -> dict[str, Any]:
    made = register(served, source)
    assert made["state"] == "PENDING_REGISTRATION", made
    return settle(served, made["version"])


def list_files(served: Served, version: int) -> dict[str, str]:
    files = served.ask("GET", f"/api/v1/models/m/versions/{version}/files").json()["items"]
    return {file["path"]: file["digest"] for file in files}


# ── one file of an HTTP server ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, dict[str, Item], Served]]:
    """Yield a peer, what lies on it, and a server that may import from below its /models."""
    files: dict[str, Item] = {}
    flags = ("--max-import-bytes", "4000000")
    with run_peer(files) as peer, start(tmp_path_factory.mktemp("shared"), f"{peer.url}/models", flags=flags) as served:
        yield peer, files, served


@pytest.fixture
def files(shared: tuple[Peer, dict[str, Item], Served]) -> dict[str, Item]:
    _peer, files, _served = shared
    files.clear()
    files.update(
        {"/models/net.bin": Item(WEIGHTS), "/models/sub/a%20b.bin": Item(b"small"), "/other.bin": Item(b"other")}
    )
    return files


@pytest.fixture
def peer(shared: tuple[Peer, dict[str, Item], Served], files: dict[str, Item]) -> Peer:
    """Return the peer; nothing was asked of it yet, as far as it tells."""
    peer, _files, _served = shared
    peer.forget()
    return peer


@pytest.fixture
def served(shared: tuple[Peer, dict[str, Item], Served]) -> Served:
    """Return the server that all tests of this file share, unless they start one of their own."""
    return shared[2]


def test_a_file_of_an_allowed_address_is_imported_and_sealed(served: Served, peer: Peer) -> None:
    found = bring(served, f"{peer.url}/models/net.bin")

    assert (found["state"], found["sealed"], found["size_bytes"]) == ("READY", True, len(WEIGHTS))
    assert list_files(served, found["version"]) == {"net.bin": digest_of(WEIGHTS)}
    imported = found["origin"]["imported"]
    assert (imported["from"], imported["source"]) == (f"{peer.url}/models", f"{peer.url}/models/net.bin")
    assert imported["revision"].startswith('"')
    assert (found["importing"], found["status_message"]) == (None, None)


def test_a_name_with_a_blank_is_spelled_out(served: Served, peer: Peer) -> None:
    found = bring(served, f"{peer.url}/models/sub/a%20b.bin")

    assert list_files(served, found["version"]) == {"a b.bin": digest_of(b"small")}


def test_an_empty_file_is_imported(served: Served, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/empty"] = Item(b"")

    assert bring(served, f"{peer.url}/models/empty")["size_bytes"] == 0


def test_a_version_by_mlflows_door_is_imported_too(served: Served, peer: Peer) -> None:
    served.ask("POST", "/api/2.0/mlflow/registered-models/create", {"name": "door"}, JSON)
    body = {"name": "door", "source": f"{peer.url}/models/net.bin"}

    made = served.ask("POST", "/api/2.0/mlflow/model-versions/create", body, JSON).json()["model_version"]

    assert made["status"] in {"PENDING_REGISTRATION", "READY"}
    assert settle(served, 1, "door")["sealed"] is True
    refused = served.ask(
        "POST", "/api/2.0/mlflow/model-versions/create", {"name": "door", "source": f"{peer.url}/other.bin"}, JSON
    )
    assert refused.status == 400


def test_what_breaks_off_is_gone_on_with_and_no_byte_comes_twice(
    served: Served, peer: Peer, files: dict[str, Item]
) -> None:
    files["/models/net.bin"] = Item(WEIGHTS, cut_after=800_000, cuts=3)

    found = bring(served, f"{peer.url}/models/net.bin")

    assert list_files(served, found["version"]) == {"net.bin": digest_of(WEIGHTS)}
    assert len(WEIGHTS) <= peer.sent_bytes <= 1.05 * len(WEIGHTS)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Item(status=404), "has nothing there"),
        (Item(WEIGHTS, headers={"Content-Encoding": "gzip"}), "encoded as 'gzip'"),
        (Item(b"x" * 100, cut_after=10), "broke off"),
        (Item(b"x" * 100, sized=False, ranges=False), "does not say how long it is"),
        (Item(b"x" * 4_000_001), "4000000 bytes"),
    ],
)
def test_what_was_readable_and_then_fails_fails_the_version(
    served: Served, peer: Peer, files: dict[str, Item], item: Item, said: str
) -> None:
    files["/models/bad"] = item

    found = bring(served, f"{peer.url}/models/bad")

    assert (found["state"], found["sealed"]) == ("FAILED_REGISTRATION", False)
    assert said in found["status_message"]


def test_a_file_that_changes_while_it_is_imported_fails_the_version(
    served: Served, peer: Peer, files: dict[str, Item]
) -> None:
    files["/models/net.bin"] = Item(WEIGHTS, rate=2_000_000, cut_after=1_000_000, cuts=1)
    made = register(served, f"{peer.url}/models/net.bin")
    wait_for(lambda: peer.sent_bytes > 100_000)
    files["/models/net.bin"] = Item(WEIGHTS[::-1])

    found = settle(served, made["version"])

    assert found["state"] == "FAILED_REGISTRATION"
    assert "changed while it was imported" in found["status_message"]


def test_what_lets_nobody_read_stays_unsealed_and_says_so(served: Served, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/closed"] = Item(status=403)

    found = bring(served, f"{peer.url}/models/closed")

    assert (found["state"], found["sealed"]) == ("READY", False)
    assert "does not let us read" in found["status_message"]


def test_credentials_go_to_their_own_server_and_to_no_other(tmp_path: Path, files: dict[str, Item]) -> None:
    elsewhere = {"/moved.bin": Item(b"moved")}
    with run_peer(elsewhere) as other, run_peer(files) as peer:
        files["/models/away"] = Item(status=302, headers={"Location": f"{other.url}/moved.bin"})
        entry = {"prefix": f"{peer.url}/models", "token": "s3cret", "redirects": [other.url + "/"]}
        with start(tmp_path, entry, f"{other.url}/") as served:
            found = bring(served, f"{peer.url}/models/away")

            assert list_files(served, found["version"]) == {"away": digest_of(b"moved")}
            assert {seen.headers.get("authorization") for seen in peer.seen} == {"Bearer s3cret"}
            assert {seen.headers.get("authorization") for seen in other.seen} == {None}
            assert "s3cret" not in json.dumps(found)
            assert all("s3cret" not in line for line in served.log)


# ── what is not allowed is never asked ───────────────────────────────────────────────────────────────────────────


def test_an_address_that_is_not_listed_is_unsealed_and_never_asked(tmp_path: Path, peer: Peer) -> None:
    port = peer.port
    with start(tmp_path, f"{peer.url}/models", f"http://localhost:{port}/models") as served:
        for source in (
            f"{peer.url}/other.bin",
            f"{peer.url}/models-evil/net.bin",
            f"{peer.url}/%6dodels/net.bin",
            f"http://2130706433:{port}/models/net.bin",
            f"http://0x7f.1:{port}/models/net.bin",
            f"http://127.1:{port}/models/net.bin",
            f"http://127.0.0.1.nip.example:{port}/models/net.bin",
            f"http://[::1]:{port}/models/net.bin",
            f"http://[::ffff:127.0.0.1]:{port}/models/net.bin",
            f"https://127.0.0.1:{port}/models/net.bin",
            METADATA,
            "s3://bucket/key",
            "hf://org/repo",
            "gs://bucket/key",
            "abfss://box@account.dfs.core.windows.net/key",
        ):
            made = register(served, source)
            assert (made["state"], made["sealed"]) == ("READY", False), source
            assert "on no list" in made["status_message"]

        assert peer.connections == 0


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:{port}@evil.example/models/net.bin",
        "http://evil@127.0.0.1:{port}/models/net.bin",
        "http://127.0.0.1:{port}/models/../other.bin",
        "http://127.0.0.1:{port}/models/%2e%2e/other.bin",
        "http://127.0.0.1:{port}/models/%252e%252e/other.bin",
        "http://127.0.0.1:{port}/models%2fnet.bin",
        "http://127.0.0.1:{port}/models\\..\\other.bin",
        "http://127.0.0.1:{port}/models/net.bin?x=1",
        "http://127.0.0.1:{port}/models/net.bin#x",
        "http://127.0.0.1:{port}#@evil/models/net.bin",
        "s3://bucket/a/../b",
        "s3://bucket/a/%2e%2e/b",
        "s3://evil@bucket/a",
        "hf://org/repo@../../x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
    ],
)
def test_an_address_that_two_readers_could_read_differently_is_refused(served: Served, peer: Peer, source: str) -> None:
    answer = served.ask("POST", "/api/v1/models/m/versions", {"source": source.format(port=peer.port)}, JSON)

    assert (answer.status, answer.json()["code"]) == (400, "invalid_source")
    assert peer.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost.", "ip6-localhost", "[::ffff:7f00:1]"])
def test_a_listed_name_that_leads_to_this_machine_is_not_connected_to(tmp_path: Path, peer: Peer, host: str) -> None:
    if host == "[::ffff:7f00:1]":
        pytest.skip("it is an address, so the settings name it")
    with start(tmp_path, f"http://{host}:{peer.port}/") as served:
        found = settle(served, register(served, f"http://{host}:{peer.port}/models/net.bin")["version"])

        assert (found["state"], found["sealed"]) == ("READY", False)
        assert "is not public" in found["status_message"] or "No answer" in found["status_message"]
        assert peer.connections == 0


def test_a_private_host_is_connected_to_if_its_entry_says_so(tmp_path: Path, peer: Peer) -> None:
    prefix = f"http://127.1:{peer.port}/"
    with start(tmp_path, {"prefix": prefix, "private": True}) as served:
        assert bring(served, f"{prefix}models/net.bin")["sealed"] is True


@pytest.mark.parametrize(
    "location",
    [
        METADATA,
        "http://[fd00:ec2::254]/latest",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://127.0.0.1:{canary}/x",
        "http://localhost:{canary}/x",
        "http://2130706433:{canary}/x",
        "http://[::ffff:127.0.0.1]:{canary}/x",
        "//127.0.0.1:{canary}/x",
        "http://127.0.0.1:{peer}@127.0.0.1:{canary}/x",
        "/other.bin",
        "/models/%2e%2e/other.bin",
        "../other.bin",
    ],
)
def test_a_redirect_leads_nowhere_that_is_not_listed(
    served: Served, peer: Peer, files: dict[str, Item], location: str
) -> None:
    with run_peer({"/x": Item(b"secret")}) as canary:
        files["/models/away"] = Item(
            status=302, headers={"Location": location.format(canary=canary.port, peer=peer.port)}
        )

        found = bring(served, f"{peer.url}/models/away")

        assert (found["state"], found["sealed"]) == ("READY", False)
        assert "It leads to" in found["status_message"]
        assert canary.connections == 0
        assert not any("other.bin" in seen.path for seen in peer.seen)


def test_redirects_that_never_end_are_given_up(served: Served, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/round"] = Item(status=302, headers={"Location": "/models/round"})

    found = bring(served, f"{peer.url}/models/round")

    assert "more than 5 times" in found["status_message"]
    assert len(peer.seen) == 6


def test_no_proxy_of_the_environment_is_used(tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_peer({}) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with start(tmp_path, f"{peer.url}/models") as served:
            assert bring(served, f"{peer.url}/models/net.bin")["sealed"] is True
        assert proxy.connections == 0


def test_where_unsealed_versions_are_refused_so_is_an_address_that_is_not_listed(tmp_path: Path, peer: Peer) -> None:
    with start(tmp_path, f"{peer.url}/models", flags=("--unsealed", "refuse")) as served:
        answer = served.ask("POST", "/api/v1/models/m/versions", {"source": "s3://bucket/key"}, JSON)
        assert (answer.status, answer.json()["code"]) == (400, "invalid_source")
        assert "import_from" in answer.json()["detail"]

        found = settle(served, register(served, f"{peer.url}/models/none")["version"])
        assert found["state"] == "FAILED_REGISTRATION"


# ── a hub ────────────────────────────────────────────────────────────────────────────────────────────────────────

REPO = {
    "config.json": b'{"layers": 2}', "model.safetensors": WEIGHTS, "onnx/model.onnx": b"onnx", "onnx/deep/vocab.txt": b"v",
    ".gitattributes": b"*.bin",
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[tuple[Peer, dict[str, Repo]]]:
    repos = {"acme/net": Repo(dict(REPO), {"model.safetensors": ""}, page=2)}
    with run_hub(repos) as peer:
        yield peer, repos


def test_a_repository_of_a_hub_is_imported_at_its_commit(tmp_path: Path, hub: tuple[Peer, dict[str, Repo]]) -> None:
    peer, repos = hub
    repos["acme/net"].token = "hf_s3cret"
    with run_peer({"/model.safetensors": Item(WEIGHTS)}) as cdn:
        repos["acme/net"].cdn = cdn.url
        entry = {"prefix": "hf://acme", "endpoint": peer.url, "redirects": [f"{cdn.url}/"], "token": "hf_s3cret"}
        with start(tmp_path, entry) as served:
            found = bring(served, "hf://acme/net@main")

            assert list_files(served, found["version"]) == {path: digest_of(data) for path, data in REPO.items()}
            assert found["origin"]["imported"] == {
                "from": "hf://acme", "source": "hf://acme/net@main", "revision": COMMIT,
            }  # fmt: skip
            assert all("authorization" not in seen.headers for seen in cdn.seen)
            assert all(f"/resolve/{COMMIT}/" in seen.path for seen in peer.seen if "/resolve/" in seen.path)


def test_a_folder_and_a_file_of_a_repository_are_imported_alone(
    tmp_path: Path, hub: tuple[Peer, dict[str, Repo]]
) -> None:
    with start(tmp_path, {"prefix": "hf://acme/net", "endpoint": hub[0].url}) as served:
        folder = bring(served, "hf://acme/net/onnx")
        file = bring(served, f"hf://acme/net@{COMMIT}/onnx/model.onnx")

        assert sorted(list_files(served, folder["version"])) == ["deep/vocab.txt", "model.onnx"]
        assert list_files(served, file["version"]) == {"model.onnx": digest_of(b"onnx")}
        nothing = bring(served, "hf://acme/net/nowhere")
        assert nothing["state"] == "FAILED_REGISTRATION"


def test_a_hub_that_lies_about_a_digest_a_size_or_a_place_fails_the_version(
    tmp_path: Path, hub: tuple[Peer, dict[str, Repo]]
) -> None:
    peer, repos = hub
    repos["acme/digest"] = Repo({"w.bin": b"weights"}, {"w.bin": "0" * 64})
    repos["acme/size"] = Repo({"w.bin": b"weights"}, sizes={"w.bin": 3})
    repos["acme/place"] = Repo({"../w.bin": b"weights"})
    repos["acme/cdn"] = Repo({"a.txt": b"a", "w.bin": b"weights"}, {"w.bin": ""}, cdn=METADATA)
    with start(tmp_path, {"prefix": "hf://acme", "endpoint": peer.url}) as served:
        said = {name: bring(served, f"hf://acme/{name}") for name in ("digest", "size", "place", "cdn")}

        assert {found["state"] for found in said.values()} == {"FAILED_REGISTRATION"}
        assert "not those whose digest was said" in said["digest"]["status_message"]
        assert "7 bytes where 3 were said" in said["size"]["status_message"]
        assert "'../w.bin'" in said["place"]["status_message"]
        assert "169.254.169.254" in said["cdn"]["status_message"]


def test_a_repository_nobody_may_read_stays_unsealed(tmp_path: Path, hub: tuple[Peer, dict[str, Repo]]) -> None:
    with start(tmp_path, {"prefix": "hf://acme", "endpoint": hub[0].url}) as served:
        found = bring(served, "hf://acme/other")

        assert (found["state"], found["sealed"]) == ("READY", False)


# ── progress, and the end of a process ───────────────────────────────────────────────────────────────────────────


def test_progress_is_visible_while_a_version_waits(served: Served, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/slow"] = Item(WEIGHTS, rate=1_000_000)
    made = register(served, f"{peer.url}/models/slow")
    seen: list[dict[str, Any]] = []
    while (found := get(served, made["version"]))["state"] == "PENDING_REGISTRATION":
        if found["importing"] is not None:
            seen.append(found["importing"])
        time.sleep(0.2)

    assert {each["total_bytes"] for each in seen} == {len(WEIGHTS)}
    assert {each["total_files"] for each in seen} == {1}
    done = [each["done_bytes"] for each in seen]
    assert done == sorted(done)
    assert any(0 < each < len(WEIGHTS) for each in done)


def test_a_killed_import_goes_on_after_a_restart_and_fetches_no_file_twice(tmp_path: Path) -> None:
    files = {f"part-{n:02}.bin": WEIGHTS[n * 1000 :] for n in range(8)}
    repos = {"acme/net": Repo(dict(files))}
    with run_hub(repos) as peer:
        slow = peer._find
        peer._find = lambda path: _slow_down(slow(path), path)
        entry = {"prefix": "hf://acme", "endpoint": peer.url}
        with start(tmp_path, entry) as served:
            register(served, "hf://acme/net")
            wait_for(lambda: (get(served, 1)["importing"] or {}).get("done_files", 0) >= 3, 60)
            served.process.kill()
        fetched = sum("/resolve/" in seen.path for seen in peer.seen)
        peer._find = slow
        before = len(peer.seen)
        with start(tmp_path, entry) as served:
            found = settle(served, 1, seconds=60)
            again = sum("/resolve/" in seen.path for seen in peer.seen[before:])

            assert found["sealed"] is True
            assert list_files(served, 1) == {path: digest_of(data) for path, data in files.items()}
            assert fetched >= 4
            assert again <= len(files) - 3


def _slow_down(found: Item | None, path: str) -> Item | None:
    if found is not None and "/resolve/" in path:
        found.rate = 20_000 if path.endswith(("4.bin", "5.bin", "6.bin", "7.bin")) else None
    return found


def test_a_server_that_ends_in_order_is_followed_at_once(tmp_path: Path, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/slow"] = Item(WEIGHTS, rate=500_000)
    with start(tmp_path, f"{peer.url}/models") as served:
        register(served, f"{peer.url}/models/slow")
        wait_for(lambda: get(served, 1)["importing"] is not None)
        assert served.stop() == 0
    files["/models/slow"] = Item(WEIGHTS)
    with start(tmp_path, f"{peer.url}/models") as served:
        assert settle(served, 1, seconds=10)["sealed"] is True


def test_two_servers_on_one_home_import_a_version_once(tmp_path: Path, peer: Peer) -> None:
    with start(tmp_path, f"{peer.url}/models") as served:
        config = str(tmp_path / "touchmark.toml")
        other = launch(tmp_path / "home", "--config", config)
        try:
            other.wait_until_ready()
            for _ in range(5):
                assert bring(served, f"{peer.url}/models/net.bin")["sealed"] is True
            assert peer.sent_bytes <= 5 * (len(WEIGHTS) + 1)
        finally:
            other.process.kill()
            other.wait()


# ── the SDK and the command line ─────────────────────────────────────────────────────────────────────────────────


def test_the_sdk_waits_for_an_import_and_tells_of_its_progress(
    served: Served, peer: Peer, files: dict[str, Item]
) -> None:
    files["/models/slow"] = Item(WEIGHTS, rate=1_500_000)
    told: list[tuple[int, int]] = []
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        version = registry.register_model(
            f"{peer.url}/models/slow", "sdk", wait=True, progress=lambda t: told.append((t.done_bytes, t.total_bytes))
        )
        assert version.sealed
        assert registry.list_files("sdk/1").files[0].digest == digest_of(WEIGHTS)
        assert {total for _done, total in told} == {len(WEIGHTS)}

        early = registry.register_model(f"{peer.url}/models/slow", "sdk", wait=0.3)
        assert early.state.value == "PENDING_REGISTRATION"
        settle(served, early.version, "sdk")
        with pytest.raises(errors.VersionNotReadyError, match="has nothing there"):
            registry.register_model(f"{peer.url}/models/none", "sdk", wait=60)
        assert registry.register_model("s3://bucket/key", "sdk", wait=True).sealed is False


def test_the_command_line_shows_how_far_an_import_is(served: Served, peer: Peer, files: dict[str, Item]) -> None:
    files["/models/slow"] = Item(WEIGHTS, rate=500_000)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "TOUCHMARK_URL": f"http://127.0.0.1:{served.port}"}
        return subprocess.run(
            [sys.executable, "-m", "touchmark", *words],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    assert "The server imports it" in run("register", f"{peer.url}/models/slow", "cli").stderr
    wait_for(lambda: get(served, 1, "cli")["importing"] is not None)
    shown = dict(line.split("\t", 1) for line in run("show", "cli/1").stdout.splitlines())
    assert int(shown["importing.done_bytes"]) <= int(shown["importing.total_bytes"]) == len(WEIGHTS)
    assert "cli/2 is unsealed: Its address is on no list" in run("register", "hf://other/net", "cli").stderr
    assert run("register", f"{peer.url}/models/net.bin", "cli", "--alias", "best").stdout == "cli/3\n"


# ── a bucket ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.ceph
def test_a_prefix_of_a_real_bucket_is_imported(tmp_path: Path, ceph_cluster: Ceph) -> None:
    name = ceph_cluster.make_bucket()
    options = {
        "aws_access_key_id": "touchmark", "aws_secret_access_key": ceph_cluster.environ()["AWS_SECRET_ACCESS_KEY"],
        "aws_region": "default",
    }  # fmt: skip
    store = S3Store(
        name, config={**options, "aws_endpoint": ceph_cluster.endpoint}, client_options={"allow_http": True}
    )
    objects = {"a/net/w.bin": WEIGHTS, "a/net/deep/config.json": b"{}", "a/network/x": b"x", "b/y": b"y"}
    for key, data in objects.items():
        obstore.put(store, key, data)
    entry = {"prefix": f"s3://{name}/a", "endpoint": ceph_cluster.endpoint, "options": options}
    wrong = {**entry, "prefix": f"s3://{name}/b", "options": {**options, "aws_secret_access_key": "wrong"}}
    with start(tmp_path, entry, wrong) as served:
        folder = bring(served, f"s3://{name}/a/net")
        assert list_files(served, folder["version"]) == {
            "w.bin": digest_of(WEIGHTS), "deep/config.json": digest_of(b"{}"),
        }  # fmt: skip
        assert folder["origin"]["imported"]["revision"].startswith("sha256:")
        one = bring(served, f"s3a://{name}/a/net/deep/config.json")
        assert list_files(served, one["version"]) == {"config.json": digest_of(b"{}")}

        nothing = bring(served, f"s3://{name}/a/none")
        assert (nothing["state"], "no file" in nothing["status_message"]) == ("FAILED_REGISTRATION", True)
        denied = bring(served, f"s3://{name}/b/y")
        assert (denied["state"], denied["sealed"]) == ("READY", False)
        assert "does not let us read" in denied["status_message"]
        unlisted = register(served, f"s3://{name}/c")
        assert "on no list" in unlisted["status_message"]


def test_a_buckets_server_is_not_followed_to_other_hosts(tmp_path: Path) -> None:
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_region": "r"}
    with run_peer({"/bucket": Item(b"<x/>"), "/bucket/a": Item(b"secret")}) as canary, run_peer({}) as peer:
        for location in (canary.url, METADATA):
            with start(tmp_path, {"prefix": "s3://bucket", "endpoint": peer.url, "options": keys}) as served:
                peer._find = partial(_send_on, location)
                found = bring(served, "s3://bucket/a")

                assert (found["state"], found["sealed"]) == ("READY", False)
                assert "sent on" in found["status_message"] or "leads to" in found["status_message"]
        assert canary.connections == 0


def _send_on(location: str, path: str) -> Item:
    return Item(status=307, headers={"Location": location + path})


def test_a_bucket_without_credentials_does_not_make_the_server_ask_its_cloud_for_some(tmp_path: Path) -> None:
    with run_peer({}) as peer, start(tmp_path, {"prefix": "s3://bucket", "endpoint": peer.url}) as served:
        found = bring(served, "s3://bucket/a")

        assert (found["state"], found["sealed"]) == ("READY", False)
        assert "no credentials" in found["status_message"]
