"""Every command explains itself, and its explanations are true: they are parsed, and the reference is made of them."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from tests.cli.running import run
from tests.house.source import ROOT
from touchmark.cli import COMMANDS, list_commands, touchmark
from touchmark.cli.errors import MEANINGS
from touchmark.cli.invocation import Command, Invocation
from touchmark.cli.reference import render_reference

LISTED = list_commands()
NAMES = [name for name, _ in LISTED]


@pytest.mark.parametrize(("name", "command"), LISTED, ids=NAMES)
def test_every_command_and_option_says_what_it_does(name: str, command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.help
    first = command.get_short_help_str(200)
    assert first == "" or first[0].isupper()
    silent = [each.name for each in command.params if isinstance(each, click.Option) and not each.help]
    assert silent == []


@pytest.mark.parametrize(("name", "command"), LISTED, ids=NAMES)
def test_every_example_is_a_command_line_that_parses(name: str, command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.examples
    for example in command.examples:
        program, *words = shlex.split(example)
        assert (program, " ".join(words).startswith(name)) == ("touchmark", True)
        rest = words[len(name.split()) :]
        with command.make_context(name, rest, parent=click.Context(touchmark, obj=Invocation())) as context:
            assert context.args == []


def test_an_example_that_is_wrong_would_not_parse() -> None:
    command = dict(LISTED)["alias set"]

    with pytest.raises(click.UsageError):
        command.make_context(
            "set", ["name", "alias", "not-a-number"], parent=click.Context(touchmark, obj=Invocation())
        )


@pytest.mark.parametrize("name", [*NAMES, "alias", ""])
def test_help_fits_a_narrow_terminal_and_comes_without_a_registry(name: str) -> None:
    done = run(*name.split(), "--help", COLUMNS="60", TOUCHMARK_URL="http://127.0.0.1:9")

    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: touchmark {name}".rstrip())
    assert done.stderr == ""
    usage, _, _ = done.stdout.partition("Example")  # an example is a line to copy, and may be long
    assert max(map(len, usage.splitlines())) <= 80


def test_the_help_of_the_whole_names_every_command() -> None:
    said = run("--help").stdout

    for section, names in COMMANDS.items():
        assert f"\n{section}:\n" in said
        for name in names:
            assert re.search(rf"^  {name} +\S", said, re.MULTILINE), name


def test_the_reference_is_what_the_commands_say() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

    assert page == render_reference(), "run: python -m touchmark.cli.reference > docs/reference/cli.md"


def test_the_reference_names_every_exit_code_and_command() -> None:
    page = render_reference()

    assert [code for code in MEANINGS if f"\n| {code} | " not in page] == []
    assert [name for name in NAMES if f"\n### touchmark {name}\n" not in page] == []


def test_the_shells_learn_the_commands_from_the_program() -> None:
    done = run(_TOUCHMARK_COMPLETE="bash_complete", COMP_WORDS="touchmark al", COMP_CWORD="1")
    script = run(_TOUCHMARK_COMPLETE="bash_source")

    assert "complete -o nosort -F _touchmark_completion touchmark" in script.stdout
    assert done.stdout == "plain,alias\n"


def test_version_is_printed_without_a_registry() -> None:
    done = run("version", TOUCHMARK_URL="http://127.0.0.1:9")

    assert re.fullmatch(r"touchmark\t\d+\.\d+\.\d+\npython\t\d+\.\d+\.\d+\n", done.stdout)
