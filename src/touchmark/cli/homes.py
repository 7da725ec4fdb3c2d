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

    Raises click.UsageError where a server was named instead, MissingExtraError, InvalidFieldError.
    """
    _check_no_server(invocation, what)
    with require_server(what):
        from touchmark.server.settings import load_settings
    settings = load_settings({"home": invocation.home, "database": database})
    place = "" if settings.database is None else f", its database at {hide_password(settings.database)}"
    invocation.output.say(f"The registry in {settings.home.expanduser().absolute()}{place}.")
    return settings


def _check_no_server(invocation: Invocation, what: str) -> None:
    """Refuse --url, and TOUCHMARK_URL where nothing names a home: another registry than the one meant would be worked on."""
    said = [os.environ.get(f"TOUCHMARK_{name}") for name in ("HOME", "CONFIG")]
    named = "--url" if invocation.url else "TOUCHMARK_URL" if os.environ.get("TOUCHMARK_URL") else None
    if invocation.url or (named and not invocation.home and not any(said)):
        raise click.UsageError(
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
