"""What a person sees: tables as wide as the terminal, and nothing that a stored text could do to it."""

from __future__ import annotations

import os
import re
import subprocess
import time
import unicodedata
from pathlib import Path

import pytest

import touchmark
from tests.cli.running import COMMAND, Server, environment, find_port, run, run_in_terminal, run_json

HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;title\x07 \u202egnp.exe \x9b31m :smile: [link=http://e]l[/link]"


@pytest.fixture(scope="module")
def name(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model whose every text is hostile, with two versions, an alias and evaluations."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "weights.bin").write_bytes(os.urandom(3000))
    with touchmark.connect(server.url) as registry:
        tags = {"team": HOSTILE, "[red]key": "v"}
        registry.register_model(folder, "risk.churn", description=HOSTILE, tags=tags)
        registry.register_model(
            folder, "risk.churn", description="line one\nline two\rhidden", tags={"long": "y" * 300}
        )
        registry.update_model("risk.churn", description=HOSTILE, owner=HOSTILE)
        registry.set_tags("risk.churn", tags)
        registry.set_alias("risk.churn", "champion", 1)
        registry.record_evaluation("risk.churn", 1, {"auc": 0.9, "[red]loss": float("nan")}, dataset=HOSTILE)
        registry.deprecate("risk.churn", 2, HOSTILE)
    return "risk.churn"


def list_widths(text: str) -> list[int]:
    """Return how many cells each line takes on a terminal."""
    wide = {"W", "F"}
    return [sum(1 + (unicodedata.east_asian_width(char) in wide) for char in line) for line in text.split("\n")]


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", "risk.churn"],
        ["show", "risk.churn"],
        ["show", "risk.churn/1"],
        ["show", "risk.churn/2"],
        ["show", "risk.churn/1", "--json"],
        ["search", "--words", "line"],
        ["search", "--models"],
        ["diff", "risk.churn/1", "risk.churn/2"],
        ["lineage", "risk.churn/1"],
        ["resolve", "risk.churn/2"],
        ["alias", "ls", "risk.churn"],
        ["history", "risk.churn"],
        ["log"],
        ["log", "--json"],
    ],
    ids=" ".join,
)
def test_no_stored_text_reaches_the_terminal_as_a_command_or_as_markup(
    server: Server, name: str, words: list[str]
) -> None:
    seen = run_in_terminal(*words, columns=400, url=server.url)

    assert not [char for char in seen if unicodedata.category(char) in {"Cc", "Cf"} and char != "\n"]
    assert "😄" not in seen


def test_hostile_text_is_shown_as_what_it_is(server: Server, name: str) -> None:
    seen = run_in_terminal("show", name, columns=200, url=server.url)

    assert "[bold red]x[/] \\x1b[2J\\x1b]0;title\\x07 \\u202egnp.exe \\x9b31m :smile:" in seen


@pytest.mark.parametrize("columns", [20, 60, 120, 250])
@pytest.mark.parametrize("words", [["ls"], ["ls", "risk.churn"], ["search"]], ids=" ".join)
def test_a_table_is_no_wider_than_the_terminal_and_keeps_what_names_a_row(
    server: Server, name: str, words: list[str], columns: int
) -> None:
    seen = run_in_terminal(*words, columns=columns, url=server.url)

    assert max(list_widths(seen)) <= columns
    key = "VERSION" if words == ["ls", "risk.churn"] else "NAME"
    assert key in seen
    if columns >= 40 and key == "NAME":
        assert "risk.churn" in seen


def test_a_wide_terminal_shows_more_columns_than_a_narrow_one(server: Server, name: str) -> None:
    narrow = run_in_terminal("ls", name, columns=50, url=server.url).split("\n")[0].split()
    wide = run_in_terminal("ls", name, columns=250, url=server.url).split("\n")[0].split()

    assert narrow[:2] == wide[:2] == ["VERSION", "STATE"]
    assert len(narrow) < len(wide)
    assert {"DIGEST", "DESCRIPTION", "TAGS"} <= set(wide)


def test_a_table_shortens_a_digest_and_a_record_and_a_pipe_do_not(server: Server, name: str) -> None:
    digest = server.get(f"/models/{name}/versions/1")["digest"]

    table = run_in_terminal("ls", name, columns=200, url=server.url)
    record = run_in_terminal("show", f"{name}/1", columns=200, url=server.url)
    pipe = run("ls", name, url=server.url).stdout

    assert digest.removeprefix("sha256:")[:12] in table
    assert digest not in table
    assert digest in record
    assert digest in pipe


def test_line_ends_of_a_description_stay_in_a_record_and_hide_nothing(server: Server, name: str) -> None:
    seen = run_in_terminal("show", f"{name}/2", columns=100, url=server.url)

    lines = [line.strip() for line in seen.split("\n")]
    at = next(number for number, line in enumerate(lines) if line.startswith("Description"))
    assert lines[at : at + 3] == ["Description     line one", "line two", "hidden"]


def test_times_are_local_with_their_offset_and_how_long_ago(server: Server, name: str) -> None:
    seen = run_in_terminal("show", name, columns=100, url=server.url, TZ="Asia/Kolkata")

    assert re.search(r"Created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+05:30 \((now|\d+ (second|minute)s? ago)\)", seen)


def test_wide_letters_are_counted_as_the_cells_they_take(server: Server, registry: touchmark.Registry) -> None:
    registry.create_model("模型.信用", description="说明" * 60)

    seen = run_in_terminal("ls", "模型*", columns=60, url=server.url)

    assert "模型.信用" in seen
    assert max(list_widths(seen)) <= 60


def test_a_person_is_asked_before_a_whole_model_is_deleted(server: Server, registry: touchmark.Registry) -> None:
    registry.create_model("dear")

    kept = run_in_terminal("rm", "dear", columns=80, url=server.url, answer="n\n")
    still = registry.get_model("dear")
    gone = run_in_terminal("rm", "dear", columns=80, url=server.url, answer="y\n")

    assert "Delete dear with all its versions (0)? [y/N]: " in kept
    assert "Nothing was deleted." in kept
    assert still.name == "dear"
    assert "Deleted dear." in gone
    assert "dear" not in [model.name for model in registry.list_models()]


def test_an_empty_registry_says_what_to_do_and_prints_no_data(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    touchmark.open(home).close()

    listed = run("ls", "--home", home)
    quiet = run("ls", "--home", home, "--quiet")
    found = run("search", "--home", home, "--json")

    assert (listed.stdout, listed.stderr) == ("", "There are no models yet: touchmark register SOURCE NAME\n")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert (found.stdout, found.stderr) == ("[]\n", "")


def test_a_bar_is_drawn_on_a_terminal_and_nowhere_else(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(os.urandom(9_000_000))

    seen = run_in_terminal("register", str(tmp_path), "with.bar", columns=100, url=server.url)
    quiet = run_in_terminal("register", str(tmp_path), "with.bar", "--quiet", columns=100, url=server.url)
    piped = run("register", str(tmp_path), "with.bar", url=server.url)

    assert "Registering with.bar" in seen
    assert "9.0" in seen or "8.6 MiB" in seen
    assert quiet == "with.bar/2\n"
    assert (piped.stdout, piped.stderr) == ("with.bar/3\n", "")


def test_a_thousand_versions_are_listed_in_a_few_seconds(
    server: Server, name: str, registry: touchmark.Registry
) -> None:
    first = registry.get_version(name, 1)
    for _ in range(1000):
        registry.register_model(f"models:/{first.logged_model_id}", "many")

    start = time.monotonic()
    rows = run("ls", "many", url=server.url).stdout.splitlines()
    items = run_json("ls", "many", url=server.url)
    seen = run_in_terminal("ls", "many", columns=120, url=server.url)
    seconds = time.monotonic() - start

    assert [row.split("\t")[0] for row in rows] == [str(number) for number in range(1000, 0, -1)]
    assert [item["version"] for item in items] == list(range(1000, 0, -1))
    assert len(seen.rstrip("\n").split("\n")) == 1001
    assert seconds < 30, "three lists; on an idle machine two seconds together"


def test_ctrl_c_while_waiting_leaves_no_traceback() -> None:
    port = find_port()
    with subprocess.Popen(
        [*COMMAND, "ls", "--url", f"http://127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        time.sleep(1.0)  # it tries again for some seconds
        process.send_signal(2)
        said = process.stderr.read()

        assert process.wait(30) == 130
    assert said == ""
