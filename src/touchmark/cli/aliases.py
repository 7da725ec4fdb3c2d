"""`touchmark alias set|rm|ls` and `history`: where aliases point, and where they pointed."""

from __future__ import annotations

import click

from touchmark.cli.arguments import Number
from touchmark.cli.invocation import Group, Invocation, command

__all__ = ["alias_command", "history_command"]


@click.group("alias", cls=Group)
def alias_command() -> None:
    """Point aliases such as `champion` at versions."""


@command("set", "touchmark alias set risk.churn champion 3", "touchmark alias set risk.churn champion 4 --if-match 17")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=Number())
@click.option(
    "--if-match",
    type=click.IntRange(min=-1),
    metavar="N",
    help="Move it only if its last move is log index N (see alias ls); -1: only if there is no such alias.",
)
@click.pass_obj
def set_command(invocation: Invocation, name: str, alias: str, version: int, if_match: int | None) -> None:
    """Point ALIAS of a model at a version. Exits with 4 if --if-match does not hold."""
    from touchmark.cli.columns import ALIAS_RECORD

    with invocation.open_registry() as registry:
        moved = registry.set_alias(name, alias, version, expected=if_match)
        invocation.output.say(f"{moved.name}@{moved.alias} is now version {moved.version}.")
        if invocation.as_json:
            invocation.output.print_record(moved, ALIAS_RECORD)


@command("rm", "touchmark alias rm risk.churn champion")
@click.argument("name")
@click.argument("alias")
@click.option("--if-match", type=click.IntRange(min=0), metavar="N", help="Only if its last move is log index N.")
@click.pass_obj
def rm_command(invocation: Invocation, name: str, alias: str, if_match: int | None) -> None:
    """Take an alias away; its history stays."""
    with invocation.open_registry() as registry:
        registry.delete_alias(name, alias, expected=if_match)
        invocation.output.say(f"{name} has no alias {alias} any more.")


@command("ls", "touchmark alias ls risk.churn")
@click.argument("name")
@click.pass_obj
def ls_command(invocation: Invocation, name: str) -> None:
    """List the aliases of a model, with the log index of each one's last move."""
    from touchmark.cli.columns import ALIAS_TABLE

    with invocation.open_registry() as registry:
        invocation.output.print_table(registry.list_aliases(name), ALIAS_TABLE, empty=f"{name} has no aliases.")


for _verb in (set_command, rm_command, ls_command):
    alias_command.add_command(_verb)


@command("history", "touchmark history risk.churn@champion", "touchmark history risk.churn --json")
@click.argument("what", metavar="NAME[@ALIAS]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N moves; all if left out.")
@click.pass_obj
def history_command(invocation: Invocation, what: str, limit: int | None) -> None:
    """List the moves of one alias, or of all a model has had, newest first."""
    from touchmark.cli.columns import HISTORY_TABLE

    with invocation.open_registry() as registry:
        invocation.output.print_table(
            registry.history(what, limit=limit), HISTORY_TABLE, empty=f"No alias of {what} has moved."
        )
