"""Every error ends in one sentence and an exit code that a script can tell apart."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from tests.cli.running import Server, find_port, run
from touchmark.cli import COMMANDS
from touchmark.cli.errors import (
    BROKEN_PIPE,
    EXIT_CODES,
    HINTS,
    INTERRUPTED,
    MEANINGS,
    OK,
    UNEXPECTED,
    USAGE,
    describe_unexpected,
    exit_code_of,
    find_hint,
)
from touchmark.cli.output import Output
from touchmark.domain import errors
from touchmark.domain.errors import TouchmarkError, list_error_classes

KINDS = [cls for cls in list_error_classes() if TouchmarkError in cls.__bases__]


@pytest.mark.parametrize("cls", list_error_classes())
def test_every_error_has_an_exit_code_with_a_meaning(cls: type[TouchmarkError]) -> None:
    code = exit_code_of(cls)

    assert code in MEANINGS
    assert code not in {OK, USAGE, INTERRUPTED, BROKEN_PIPE}
    assert (code == UNEXPECTED) == (cls is TouchmarkError)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stands_in_the_table_itself(kind: type[TouchmarkError]) -> None:
    assert kind in EXIT_CODES


def test_a_new_class_has_the_code_of_its_kind() -> None:
    new = type("NewError", (errors.AliasNotFoundError,), {})

    assert exit_code_of(new) == exit_code_of(errors.NotFoundError) == 3


def test_every_meaning_is_that_of_a_code_in_use() -> None:
    assert set(MEANINGS) == {OK, UNEXPECTED, USAGE, INTERRUPTED, BROKEN_PIPE, *EXIT_CODES.values()}


def test_every_command_a_hint_names_exists() -> None:
    known = {name for section in COMMANDS.values() for name in section}
    named = {name for hint in HINTS.values() for name in re.findall(r"touchmark (\w+)", hint)}

    assert named
    assert named <= known


@pytest.mark.parametrize("cls", list_error_classes())
def test_every_error_prints_as_one_sentence_without_control_characters(cls: type[TouchmarkError]) -> None:
    names = re.findall(r"\{(\w+)", cls.template)
    error = cls(**dict.fromkeys(names, "\x1b[2Jx\u202e"))
    err = io.StringIO()

    Output(err=err, out=io.StringIO()).fail(
        error.code, error.message, error.fields, exit_code_of(cls), find_hint(error)
    )

    said = err.getvalue()
    assert said.startswith("Error: ")
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert len(said.splitlines()) == 1 + (find_hint(error) is not None)


def test_what_the_machine_refuses_reads_as_a_sentence() -> None:
    try:
        Path("/nowhere/at/all").read_bytes()
    except OSError as error:
        sentence, hint = describe_unexpected(error)

    assert sentence == "No such file or directory: '/nowhere/at/all'."
    assert hint is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["ls", "--nonsense"], 2, "--nonsense"),
        (["tag", "risk.churn"], 2, "Name a tag"),
        (["tag", "risk.churn", "a=1", "a=2"], 2, "given twice"),
        (["tag", "risk.churn", "a=1", "--delete", "a"], 2, "at once"),
        (["evaluate", "risk.churn/1", "auc=high"], 2, "write a number"),
        (["ls", "--url", "http://a", "--home", "b"], 2, "not both"),
        (["show", "nothing.here"], 3, "no registered model"),
        (["ls", "nothing.here"], 3, "no registered model"),
        (["resolve", "nothing.here@champion"], 3, "touchmark ls lists the models."),
        (["undelete", "nothing.here/1"], 3, "no registered model"),
        (["register", "./nothing-here", "some.name"], 3, "nothing-here"),
        (["resolve", "a/b/c/d@"], 5, "Invalid reference"),
        (["search", "metrics.auc >"], 5, "Invalid filter at character"),
        (["rm", "risk.churn@champion"], 5, "write the number"),
        (["ls", "--url", "ftp://somewhere"], 5, "write http://"),
    ],
)
def test_a_command_that_fails_says_why_and_exits_with_its_code(
    server: Server, words: list[str], code: int, said: str
) -> None:
    done = run(*words, url=server.url) if "--url" not in words else run(*words)

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_with_json_an_error_is_one_line_of_json(server: Server) -> None:
    done = run("show", "nothing.here", "--json", url=server.url)

    said = json.loads(done.stderr)
    assert done.stderr.count("\n") == 1
    assert said.pop("detail") == "There is no registered model named 'nothing.here'."
    assert said == {
        "code": "model_not_found",
        "fields": {"name": "nothing.here"},
        "exit_code": 3,
        "hint": "touchmark ls lists the models.",
    }


def test_a_server_that_does_not_answer_exits_with_8_and_a_next_step() -> None:
    done = run("ls", "--url", f"http://127.0.0.1:{find_port()}")

    assert done.returncode == 8
    assert "Start one with: touchmark serve" in done.stderr
    assert "--home" in done.stderr


def test_a_folder_without_a_registry_is_not_made_into_one(tmp_path: Path) -> None:
    done = run("fsck", "--home", str(tmp_path / "mistyped"))

    assert done.returncode == 9
    assert "there is no registry in it" in done.stderr
    assert not (tmp_path / "mistyped").exists()


def test_an_address_that_is_taken_is_said_without_a_traceback(server: Server, tmp_path: Path) -> None:
    done = run("serve", "--home", str(tmp_path / "h"), "--port", server.url.rpartition(":")[2])

    assert done.returncode == 5
    assert "choose another with --port" in done.stderr


@pytest.mark.parametrize("words", [["resolve", "\udcff"], ["diff", "a/1", "b/\udcff"]])
def test_an_argument_that_is_no_text_is_refused_as_such(words: list[str]) -> None:
    done = run(*words, "--url", "http://127.0.0.1:9")

    assert done.returncode == exit_code_of(errors.InvalidFieldError), done.stderr
    assert "was not encoded in UTF-8" in done.stderr
