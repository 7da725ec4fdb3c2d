"""The registry that fsck, backup, restore, import and export work on themselves: its home and its database."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from touchmark.cli.invocation import Invocation, require_server

if TYPE_CHECKING:
    from touchmark.cli.output import Output
    from touchmark.registry import Registry
    from touchmark.server.settings import Settings

__all__ = ["LOCAL", "database_option", "open_home", "read_settings", "tell_person"]

LOCAL = ("home", "json", "quiet")
"""The shared options that a command working on a home understands."""

TELL_SECONDS = 2.0
"""How often the person is told how far it has got."""

database_option: Callable[[Any], Any] = click.option(
    "--database",
    metavar="URL",
    help="postgresql://... or sqlite:///..., if not in the home.  [env: TOUCHMARK_DATABASE]",
)


def read_settings(invocation: Invocation, what: str, database: str | None) -> Settings:
    """Return the settings a server would have here, and say which registry it is.

    A home is named by --home, the environment or a file of settings. Raises click.UsageError where only a server was, MissingExtraError, InvalidFieldError.
    """
    if invocation.url:
        raise _refuse_server(what, "--url")
    with require_server(what):
        from touchmark.server.settings import Settings, load_settings
    settings = load_settings({"home": invocation.home, "database": database})
    is_named = bool(invocation.home or os.environ.get("TOUCHMARK_HOME")) or settings.home != Settings().home
    if os.environ.get("TOUCHMARK_URL") and not is_named:
        raise _refuse_server(what, "TOUCHMARK_URL")
    place = "" if settings.database is None else f", its database at {hide_password(settings.database)}"
    invocation.output.say(f"The registry in {settings.home.expanduser().absolute()}{place}.")
    return settings


def _refuse_server(what: str, named: str) -> click.UsageError:
    """Return the refusal of --url, and of TOUCHMARK_URL where nothing names a home: another registry would be worked on."""
    return click.UsageError(
        f"{what} works on a home, the folder where a registry lies, and not through a server as {named} names one: "
        "run it on the server's machine with --home FOLDER."
    )


def hide_password(url: str) -> str:
    """Return a database's URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", url)


@contextmanager
def open_home(invocation: Invocation, what: str, database: str | None) -> Iterator[Registry]:
    """Open the registry of a home as it lies there, damaged or not: nothing is made and nothing migrated.

    Raises UnsupportedHomeError if there is none, MissingExtraError, InvalidFieldError.
    """
    settings = read_settings(invocation, what, database)
    from touchmark.ops.fsck import open_for_check

    registry = open_for_check(settings.home, settings.database)
    try:
        yield registry
    finally:
        registry.close()


def tell_person(output: Output) -> Callable[[str, int, int | None], None]:
    """Return what ops reports to: now and then a line for a person at a terminal."""
    last = time.monotonic()

    def tell(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if output.err.isatty() and time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            output.say(f"{what}: {done}" + (f" of {total}" if total else ""))

    return tell
