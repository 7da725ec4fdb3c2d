"""Bytes on the command line: a file of a version, the cache, work without a server, and a pull that was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

import touchmark
from tests.cli.running import COMMAND, Server, environment, run, run_in_terminal, run_json
from tests.client.proxy import open_proxy
from tests.served import wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(
        "tests.cli.running.environment", lambda **more: environment(**{"TOUCHMARK_CACHE": str(folder), **more})
    )
    return folder


@pytest.fixture
def name(registry: touchmark.Registry, folder: Path, request: pytest.FixtureRequest) -> str:
    """Register a model of two files under a name of its own, with an alias."""
    made = registry.register_model(folder, f"bytes.{request.node.name.partition('[')[0][:60]}")
    registry.set_alias(made.name, "champion", made.version)
    return made.name


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ── cat ──


def test_one_file_is_written_as_it_is(server: Server, name: str, folder: Path, cache: Path) -> None:
    env = environment(TOUCHMARK_URL=server.url, TOUCHMARK_CACHE=str(cache))
    for words in ([f"{name}@champion", "weights.bin"], [f"models:/{name}/1/weights.bin"]):
        done = subprocess.run([*COMMAND, "cat", *words], capture_output=True, env=env, check=True, timeout=60)
        assert done.stdout == (folder / "weights.bin").read_bytes()
        assert done.stderr == b""


def test_a_file_that_is_not_there_is_an_error(server: Server, name: str) -> None:
    missing, unnamed, model = (
        run("cat", f"{name}/1", "nothing", url=server.url), run("cat", f"{name}/1", url=server.url),
        run("cat", "no.such.model/1", "x", url=server.url),
    )  # fmt: skip

    assert (missing.returncode, missing.stdout) == (3, "")
    assert "'nothing'" in missing.stderr
    assert unnamed.returncode == 5
    assert "name a file of the version" in unnamed.stderr
    assert model.returncode == 3


def test_whoever_reads_may_stop(server: Server, registry: touchmark.Registry, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(9_000_000))
    registry.register_model(tmp_path / "big.bin", "bytes.stops")
    command = f"{' '.join(COMMAND)} cat bytes.stops/1 big.bin | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, check=True, timeout=60,
        env=environment(TOUCHMARK_URL=server.url, TOUCHMARK_CACHE=str(cache)),
    )  # fmt: skip

    assert done.stdout == (tmp_path / "big.bin").read_bytes()[:10] + b"141\n"
    assert done.stderr == b""


# ── the cache ──


def test_a_version_is_added_listed_verified_and_pruned(server: Server, name: str, folder: Path, cache: Path) -> None:
    added = run("cache", "add", f"{name}@champion", url=server.url)
    place = Path(added.stdout.strip())
    tree = read_tree(place)
    listed = json.loads(run("cache", "ls", "--json").stdout)
    shown = run("cache", "ls").stdout
    verified = run("cache", "verify")
    kept = run("cache", "prune", "--keep", "1GiB")
    pruned = run("cache", "prune", "--keep", "0")

    assert (added.returncode, added.stderr) == (0, "")
    assert tree == read_tree(folder)
    assert place.is_relative_to(cache)
    assert [each["references"] for each in listed] == [[f"{name}/1", f"{name}@champion"]]
    assert (listed[0]["file_count"], listed[0]["complete"], listed[0]["in_use"]) == (2, True, False)
    assert listed[0]["digest"] in shown
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "All is well.\n")
    assert (kept.returncode, kept.stdout) == (0, "")
    assert (pruned.returncode, pruned.stdout.strip()) == (0, listed[0]["digest"])
    assert pruned.stderr.startswith("Freed ")
    assert not place.exists()
    assert run("cache", "ls").stdout == ""


def test_damage_is_printed_and_exits_with_7(server: Server, name: str, cache: Path) -> None:
    run("cache", "add", f"{name}/1", url=server.url)
    blob = max((cache / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.chmod(0o600)
    blob.write_bytes(bytes(blob.stat().st_size))

    first, second = run("cache", "verify"), run("cache", "verify")

    assert first.returncode == 7
    assert blob.name in first.stdout
    assert second.returncode == 0


def test_how_much_may_stay_has_to_be_said() -> None:
    unsaid, wrong = run("cache", "prune"), run("cache", "prune", "--keep", "a lot")
    by_environment = run("cache", "prune", TOUCHMARK_CACHE_MAX_BYTES="10GiB")

    assert unsaid.returncode == 2
    assert "--keep 20GiB" in unsaid.stderr
    assert wrong.returncode == 5
    assert by_environment.returncode == 0


# ── without a server ──


def test_what_was_added_serves_without_a_server(server: Server, name: str, folder: Path, tmp_path: Path) -> None:
    run("cache", "add", f"{name}@champion", url=server.url)
    digest = run_json("resolve", f"{name}/1", url=server.url)["digest"]

    for flag, env in ((["--offline"], {}), ([], {"TOUCHMARK_OFFLINE": "1"})):
        target = tmp_path / f"pulled-{len(flag)}"
        for reference in (f"{name}@champion", f"models:/{name}@{digest}"):
            resolved = run("resolve", reference, "--pinned", *flag, url=server.url, **env)
            assert resolved.stdout == f"models:/{name}@{digest}\n", resolved.stderr
        pulled = run("pull", f"{name}/1", str(target), *flag, url=server.url, **env)
        assert pulled.returncode == 0, pulled.stderr
        assert read_tree(target) == read_tree(folder)
        said = run("cat", f"{name}/1", "inner/notes.txt", *flag, url=server.url, **env)
        assert said.stdout == (folder / "inner/notes.txt").read_text()


def test_what_is_missing_without_a_server_is_said(server: Server, name: str, tmp_path: Path) -> None:
    pulled = run("pull", f"{name}/1", str(tmp_path / "x"), "--offline", url=server.url)
    as_json = run("cache", "add", f"{name}/1", "--offline", "--json", url=server.url)
    both = run("pull", f"{name}/1", "--offline", "--home", str(tmp_path))

    assert pulled.returncode == 8
    assert pulled.stderr.startswith(f"Error: Offline, and '{name}/1' is not in the cache.")
    assert "touchmark cache add" in pulled.stderr
    assert json.loads(as_json.stderr)["code"] == "offline"
    assert both.returncode == 2


# ── a pull that was killed ──


def test_a_pull_that_was_killed_goes_on_when_the_same_command_is_run_again(
    server: Server, registry: touchmark.Registry, tmp_path: Path
) -> None:
    size_bytes = 64 << 20
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.bin").write_bytes(random.Random(1).randbytes(size_bytes))
    (tmp_path / "source" / "b.bin").write_bytes(b"small")
    registry.register_model(tmp_path / "source", "bytes.killed")
    target = tmp_path / "target"
    with open_proxy(int(server.url.rpartition(":")[2])) as proxy:
        words = [*COMMAND, "pull", "bytes.killed/1", str(target)]
        env = environment(TOUCHMARK_URL=proxy.url)
        with subprocess.Popen(words, env=env, stderr=subprocess.PIPE) as process:
            wait_for(lambda: proxy.down_bytes > size_bytes // 2, 60)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        again = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 0, again.stderr
        assert proxy.down_bytes < size_bytes + (24 << 20)
        third = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert read_tree(target) == read_tree(tmp_path / "source")
    assert third.returncode == 0, third.stderr
    assert proxy.down_bytes < size_bytes + (24 << 20), "it was whole: nothing is fetched again"


def test_the_beginning_of_another_pull_is_not_gone_on_with(server: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / ".touchmark-pull").mkdir()
    (tmp_path / ".touchmark-pull" / "version").write_text("sha256:" + "0" * 64)

    done = run("pull", f"{name}/1", str(tmp_path), url=server.url)

    assert done.returncode == 5
    assert "--force" in done.stderr


# ── bars ──


def test_each_large_file_has_a_bar_of_its_own_while_it_moves(
    server: Server, registry: touchmark.Registry, tmp_path: Path
) -> None:
    for name in ("first.bin", "second.bin"):
        (tmp_path / name).write_bytes(os.urandom(60_000_000))
    (tmp_path / "small.txt").write_text("small")

    seen = run_in_terminal("register", str(tmp_path), "bytes.bars", columns=120, url=server.url)

    assert "Registering bytes.bars" in seen
    assert "first.bin" in seen
    assert "second.bin" in seen
    assert "small.txt" not in seen
    assert seen.rstrip().endswith("bytes.bars/1")
