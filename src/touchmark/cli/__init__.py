"""The command line `touchmark`: which command lies in which file, and the one place where errors end.

One file a noun. A command asks a registry through the SDK (or, for upkeep of a home, through ops) and prints through
`Output`; it holds no rule and no SQL. Nothing but click is imported until a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from touchmark.cli.invocation import Invocation, shared_options

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "list_commands", "main", "touchmark"]

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Models and versions": {
        "register": "versions",
        "ls": "models",
        "show": "models",
        "search": "search",
        "diff": "versions",
        "lineage": "lineage",
        "tag": "tags",
        "evaluate": "versions",
        "deprecate": "versions",
        "rename": "models",
        "rm": "models",
        "undelete": "versions",
    },
    "Aliases": {"alias": "aliases", "history": "aliases"},
    "Taking models out": {"resolve": "references", "pull": "references", "cat": "cat", "cache": "cache"},
    "The record": {"log": "log"},
    "Moving in and out": {"import": "import_", "export": "export"},
    "Running a registry": {
        "serve": "serve",
        "fsck": "fsck",
        "backup": "backup",
        "restore": "backup",
        "version": "version",
    },
}
"""Every command by the section of --help it stands in, with the module of this package that holds it."""

_MODULES = {name: module for section in COMMANDS.values() for name, module in section.items()}


def get_command(name: str) -> click.Command:
    """Import one command. Raises KeyError."""
    found = getattr(import_module(f"touchmark.cli.{_MODULES[name]}"), f"{name}_command")
    assert isinstance(found, click.Command)  # noqa: S101 - a slip in COMMANDS, met by every test
    return found


def list_commands() -> list[tuple[str, click.Command]]:
    """Return every command with its whole name (`alias set`), in the order of --help."""
    found = []
    for name in _MODULES:
        command = get_command(name)
        if isinstance(command, click.Group):
            found += [(f"{name} {verb}", each) for verb, each in command.commands.items()]
        else:
            found.append((name, command))
    return found


class Commands(click.Group):
    """Imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - what click calls
        """Return the names, in the order of COMMANDS."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - what click calls
        """Import the command, or return None for click to complain."""
        return get_command(cmd_name) if cmd_name in _MODULES else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - what click calls
        """Write the commands in their sections."""
        for section, names in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, get_command(name).get_short_help_str(60)) for name in names])


touchmark = Commands(
    "touchmark",
    params=[*shared_options()],
    help="""A model registry: immutable, versioned, audited.

    Data goes to standard output, everything else to standard error. A registry is named by --url or TOUCHMARK_URL (a
    server), or by --home or TOUCHMARK_HOME (a folder on this machine).""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code that says how it went (cli/errors.py)."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _give_up_output()
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    from touchmark.cli import errors
    from touchmark.domain.errors import TouchmarkError

    invocation = Invocation()
    if asked := os.environ.get("_TOUCHMARK_COMPLETE"):  # a shell asks for the rest of a word (docs/reference/cli.md)
        from click.shell_completion import shell_complete

        return shell_complete(touchmark, {}, "touchmark", "_TOUCHMARK_COMPLETE", asked)
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        with touchmark.make_context("touchmark", words, obj=invocation) as context:
            touchmark.invoke(context)
        return errors.OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        error.show()
        return errors.USAGE
    except (KeyboardInterrupt, click.Abort):
        return errors.INTERRUPTED
    except TouchmarkError as error:
        code = errors.exit_code_of(type(error))
        invocation.output.fail(error.code, error.message, error.fields, code, errors.find_hint(error))
        return code
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("TOUCHMARK_TRACEBACK"):
            raise
        message, hint = errors.describe_unexpected(error)
        invocation.output.fail("error", message, {}, errors.UNEXPECTED, hint)
        return errors.UNEXPECTED


def _give_up_output() -> int:
    """Leave quietly when nobody reads any more, also from what Python would still flush at its end."""
    from touchmark.cli.errors import BROKEN_PIPE

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return BROKEN_PIPE
