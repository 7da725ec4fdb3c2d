"""`touchmark log`: the entries of the log, oldest first, and those to come."""

from __future__ import annotations

import click

from touchmark.cli.invocation import Invocation, command

__all__ = ["log_command"]

FOLLOW_SECONDS = 1.0


@command("log", "touchmark log --model risk.churn", "touchmark log --after 120 --follow --json")
@click.option(
    "--after", type=click.IntRange(min=-1), default=-1, metavar="N", help="Only entries with an index above N."
)
@click.option("--model", metavar="NAME", help="Only entries about this model.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N; all if left out.")
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until interrupted.")
@click.pass_obj
def log_command(invocation: Invocation, *, after: int, model: str | None, limit: int | None, follow: bool) -> None:
    """Print the log: who did what, and when. With --json one entry a line, its effects with it."""
    import time

    from touchmark.cli.columns import EVENT_TABLE

    left = limit
    with invocation.open_registry() as registry:
        while True:
            for event in registry.list_events(after=after, model=model, limit=left):
                invocation.output.print_event(event, EVENT_TABLE)
                after = event["index"]
                left = None if left is None else left - 1
            if not follow or left == 0:
                return
            time.sleep(FOLLOW_SECONDS)
