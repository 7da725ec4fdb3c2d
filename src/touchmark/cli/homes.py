"""The registry that fsck, backup, restore, import and export work on themselves: its home and its database."""

from __future__ import annotations

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
    """Return the settings a server would have here. Raises MissingExtraError, InvalidFieldError."""
    with require_server(what):
        from touchmark.server.settings import load_settings
    return load_settings({"home": invocation.home, "database": database})


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
