"""A registry in a folder: its private server is only this user's, and never outlives the process that began it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import touchmark
from touchmark import embedded, errors

pytestmark = pytest.mark.processes


def list_servers(home: Path) -> list[psutil.Process]:
    """Return the running servers of a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(home) in process.cmdline() and "serve" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            pass
    return found


def wait_for_end(home: Path) -> bool:
    """Wait until no server of the home is left, and answer whether that happened."""
    _gone, alive = psutil.wait_procs(list_servers(home), timeout=20)
    return not alive


def run(program: str, home: Path, **more: str) -> subprocess.Popen[str]:
    """Start Python with a program; `home` is its first argument."""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE, text=True, env={**os.environ, **more}
    )


def test_registries_on_one_home_share_a_server_that_ends_with_the_last(home: Path) -> None:
    first = touchmark.open(home)
    second = touchmark.open(str(home))
    first.create_model("churn")
    folder = Path(first.url.removeprefix("unix://")).parent

    assert first.url == second.url
    assert len(list_servers(home)) == 1
    first.close()
    first.close()
    assert second.get_model("churn").name == "churn"
    second.close()
    assert list_servers(home) == []
    assert not folder.exists()

    with touchmark.open(home) as third:
        assert third.get_model("churn").name == "churn"


def test_nobody_else_can_reach_the_socket(home: Path) -> None:
    with touchmark.open(home) as registry:
        path = Path(registry.url.removeprefix("unix://"))

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        listening = [connection for process in list_servers(home) for connection in process.net_connections("inet")]
        assert listening == []


def test_the_home_comes_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHMARK_HOME", str(home))
    with touchmark.open() as registry:
        registry.create_model("churn")

    assert (home / "registry.db").exists()


@pytest.mark.parametrize("end", ["signal.SIGKILL", "signal.SIGTERM", None])
def test_the_server_ends_with_its_process_however_that_ends(home: Path, end: str | None) -> None:
    program = "import os, signal, sys, touchmark\nprint(touchmark.open(sys.argv[1]).url, flush=True)\n"
    program += f"os.kill(os.getpid(), {end})" if end else ""
    with run(program, home) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("unix://")

    assert wait_for_end(home)


def test_a_server_that_was_killed_is_started_again(home: Path) -> None:
    with touchmark.open(home) as first:
        first.create_model("churn")
        (server,) = list_servers(home)
        server.send_signal(signal.SIGKILL)
        server.wait(10)
        with touchmark.open(home) as second:
            assert second.get_model("churn").name == "churn"
    assert wait_for_end(home)


def test_two_processes_use_one_home(home: Path) -> None:
    with touchmark.open(home) as registry:
        registry.create_model("mine")
        other = "import sys, touchmark\nwith touchmark.open(sys.argv[1]) as r: r.create_model('yours'); print('done')"
        with run(other, home) as process:
            assert process.communicate(timeout=60)[0] == "done\n"

        assert [model.name for model in registry.list_models()] == ["mine", "yours"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_use_the_registry_and_its_close_ends_nothing_of_the_parents(home: Path) -> None:
    with touchmark.open(home) as registry:
        registry.create_model("before")
        child = os.fork()
        if child == 0:
            found = registry.get_model("before").name
            registry.close()
            os._exit(0 if found == "before" else 1)
        _pid, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert registry.get_model("before").name == "before"


def test_a_home_that_cannot_be_is_said_so_in_the_server_s_own_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(errors.TouchmarkError) as caught:
        touchmark.open(tmp_path / "file")

    assert "file" in str(caught.value)
    assert list_servers(tmp_path / "file") == []


def test_a_file_named_like_a_module_in_the_working_folder_is_not_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sqlite3.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)

    touchmark.open(home).close()

    assert not (tmp_path / "ran").exists()


def test_without_the_server_s_parts_it_says_what_to_install(home: Path) -> None:
    program = (
        "import sys, touchmark, touchmark.embedded\n"
        "sys.path_importer_cache.clear()\n"
        "sys.path[:] = [entry for entry in sys.path if 'site-packages' not in entry]\n"
        "try: touchmark.open(sys.argv[1])\n"
        "except touchmark.MissingExtraError as error: print(error)\n"
    )
    with run(program, home, PYTHONPATH="") as process:
        said = process.communicate(timeout=60)[0]

    assert "pip install 'touchmark[server]'" in said


def test_a_long_temporary_folder_leaves_room_for_the_socket(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    folder = embedded._make_folder()
    folder.rmdir()

    with socket.socket(socket.AF_UNIX) as probe:
        folder.mkdir(0o700)
        probe.bind(str(folder / "s"))
        (folder / "s").unlink()
        folder.rmdir()
    assert list(deep.iterdir()) == []
