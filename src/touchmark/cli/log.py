"""`touchmark log`: the entries of the log, oldest first, and those to come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from touchmark.cli.invocation import Invocation, command

__all__ = ["log_command"]

if TYPE_CHECKING:
    from touchmark.cli.output import Json

FOLLOW_SECONDS = 1.0
VALUE_CHARS = 60
"""How much of a tag's value is shown before and after."""


@command("log", "touchmark log --model risk.churn", "touchmark log --after 120 --follow --json")
@click.option(
    "--after", type=click.IntRange(min=-1), default=-1, metavar="N", help="Only entries with an index above N."
)
@click.option("--model", metavar="NAME", help="Only entries about this model.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N; all if left out.")
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until interrupted.")
@click.pass_obj
def log_command(invocation: Invocation, *, after: int, model: str | None, limit: int | None, follow: bool) -> None:
    """Print the log: who did what, when, and how an alias or a tag changed. With --json one entry a line, with all effects."""
    import time

    from touchmark.cli.columns import EVENT_TABLE

    left = limit
    with invocation.open_registry() as registry:
        while True:
            for event in registry.list_events(after=after, model=model, limit=left):
                shown = event if invocation.as_json else {**event, "change": _describe(event["effects"])}
                invocation.output.print_event(shown, EVENT_TABLE)
                after = event["index"]
                left = None if left is None else left - 1
            if not follow or left == 0:
                return
            time.sleep(FOLLOW_SECONDS)


def _describe(effects: Iterable[Json]) -> str:
    """Return what became of aliases and tags: `champion: 1 -> 2`, or `none`."""
    said = []
    for effect in effects:
        name = effect["subject"].get("alias") or effect["subject"].get("key")
        if name is not None:
            said.append(f"{name}: {_value_of(effect['before'])} -> {_value_of(effect['after'])}")
    return ", ".join(said)


def _value_of(side: Json | None) -> str:
    values = list((side or {}).values())
    return str(values[0])[:VALUE_CHARS] if len(values) == 1 else "none"
