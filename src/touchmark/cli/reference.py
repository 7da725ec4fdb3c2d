"""docs/reference/cli.md, written from the commands themselves; a test compares. `python -m touchmark.cli.reference > FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from touchmark.cli import COMMANDS, list_commands
from touchmark.cli.errors import EXIT_CODES, MEANINGS
from touchmark.cli.invocation import Command

__all__ = ["render_reference"]

_HEAD = """\
# The command line

<!-- Written by `python -m touchmark.cli.reference`; a test compares it with the commands. -->

`touchmark COMMAND --help` says what stands here.

## Which registry

1. `--url URL` (a server) or `--home FOLDER` (a registry in a folder on this machine; needs `touchmark[server]`).
2. The environment: `TOUCHMARK_URL`, else `TOUCHMARK_HOME`.
3. The server at `http://127.0.0.1:5000`, where `touchmark serve` listens.

`fsck`, `backup`, `restore`, `import` and `export` work on the home and its database themselves, and `serve` offers them to
others: these six take `--home` and `--database`, with `~/.touchmark` where neither is said.

## What is printed

Data goes to standard output, everything else to standard error; `--quiet` leaves only data, warnings and errors.

| standard output is | lists | one thing |
| --- | --- | --- |
| a terminal | a table as wide as the terminal; columns that do not fit are left out, the most dispensable first | its fields, those that are set |
| a file or a pipe | one line a row, tabs between cells, no heading, nothing shortened or left out | one line a field: key, tab, value |
| either, with `--json` | an array of the objects of the HTTP API; `log` prints one object a line | the object of the HTTP API |

Times are local, with their offset; in JSON they are microseconds since 1970 UTC. A table shows twelve digits of a digest.
Characters that a terminal would obey are written out (`\\x1b`), wherever the text came from. With `--json` an error is one
line of JSON on standard error: `{"code", "detail", "fields", "exit_code", "hint"}`.

## Exit codes

`fsck` has codes of its own for what it finds: 3 only bytes nobody needs, 4 bytes missing or damaged, 5 rows broken, 6 the
log broken. `import` and `export` exit with 4 if something did not come or go, or not as it was; the rest did, and the same
command may be run again.

| code | means | errors |
| --- | --- | --- |
"""

_COMPLETION = """\
## Completion

The shell asks `touchmark` itself. Put one line into the shell's start file:

```
eval "$(_TOUCHMARK_COMPLETE=bash_source touchmark)"          # ~/.bashrc, bash 4.4 or newer
eval "$(_TOUCHMARK_COMPLETE=zsh_source touchmark)"           # ~/.zshrc
_TOUCHMARK_COMPLETE=fish_source touchmark | source           # ~/.config/fish/config.fish
```
"""


def render_reference() -> str:
    """Return the whole page as Markdown."""
    return "\n".join([_HEAD + "\n".join(_list_exit_codes()), "", _COMPLETION, *_list_sections()]).rstrip("\n") + "\n"


def _list_exit_codes() -> Iterator[str]:
    for code, meaning in MEANINGS.items():
        kinds = ", ".join(f"`{cls.__name__}`" for cls, known in EXIT_CODES.items() if known == code)
        yield f"| {code} | {_escape(meaning)} | {kinds} |"


def _list_sections() -> Iterator[str]:
    commands = list_commands()
    for section, names in COMMANDS.items():
        yield f"## {section}\n"
        for name, command in commands:
            if name.partition(" ")[0] in names:
                yield from _list_lines(name, command)


def _list_lines(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"touchmark {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    shared = [option for option in command.params if isinstance(option, click.Option) and not option.expose_value]
    own = [option for option in command.params if isinstance(option, click.Option) and option.expose_value]
    yield f"### touchmark {name}\n"
    yield f"```\ntouchmark {name} {usage}\n```\n"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n")) + "\n"
    rows = [record for option in own if (record := option.get_help_record(context)) is not None]
    if rows:
        yield "| option | |\n| --- | --- |"
        yield "\n".join(f"| `{names}` | {_escape(text)} |" for names, text in rows) + "\n"
    yield "Also: " + ", ".join(f"`{option.opts[-1]}`" for option in shared) + ".\n"
    if isinstance(command, Command):
        yield "```\n" + "\n".join(command.examples) + "\n```\n"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(render_reference())
