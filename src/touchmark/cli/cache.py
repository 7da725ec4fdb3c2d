"""`touchmark cache add|ls|prune|verify`: the versions that are kept on this machine."""

from __future__ import annotations

import click

from touchmark.cli.errors import EXIT_CODES
from touchmark.cli.invocation import ASKING, Group, Invocation, command
from touchmark.cli.output import Column, Kind, show_size

__all__ = ["cache_command"]

_HERE = ("json", "quiet")
"""The shared options of commands that ask no registry."""


@click.group("cache", cls=Group)
def cache_command() -> None:
    """Keep versions on this machine, for use without a server."""


@command("add", "touchmark cache add risk.churn@champion", shared=ASKING)
@click.argument("reference", metavar="REF")
@click.pass_obj
def add_command(invocation: Invocation, reference: str) -> None:
    """Bring a version into the cache, each file checked. Prints the folder it is in, which is not to be written to."""
    from touchmark.cli.progress import open_transfer

    with (
        invocation.open_registry() as registry,
        open_transfer(invocation.output, f"Fetching {reference}") as progress,
    ):
        folder = registry.fetch(reference, progress=progress)
    if invocation.as_json:
        invocation.output.print_record({"folder": str(folder)}, ())
    else:
        invocation.output.print_text(str(folder))


@command("ls", "touchmark cache ls", shared=_HERE)
@click.pass_obj
def ls_command(invocation: Invocation) -> None:
    """List the versions in the cache, the one used last first."""
    from touchmark.client._cache import open_cache

    cache = open_cache()
    columns = (
        Column("references", "VERSION", Kind.LIST),
        Column("digest", "DIGEST", Kind.DIGEST, 1),
        Column("size_bytes", "SIZE", Kind.SIZE),
        Column("file_count", "FILES", Kind.NUMBER, 3),
        Column("used_at", "USED", Kind.TIME, 2),
        Column("complete", "COMPLETE", Kind.TEXT, 4),
        Column("in_use", "IN USE", Kind.TEXT, 5),
    )
    invocation.output.print_table(cache.list_versions(), columns, empty=f"There is nothing in {cache.folder}.")
    invocation.output.say(f"{show_size(cache.count_bytes())} in {cache.folder}.")


@command("prune", "touchmark cache prune --keep 20GiB", "touchmark cache prune --keep 0", shared=_HERE)
@click.option(
    "--keep",
    metavar="SIZE",
    help="How much may stay, such as 20GiB; TOUCHMARK_CACHE_MAX_BYTES if left out; 0: nothing.",
)
@click.pass_obj
def prune_command(invocation: Invocation, keep: str | None) -> None:
    """Remove the versions that were not used for longest, until the cache is small enough. What is in use stays."""
    from touchmark.client._cache import open_cache, parse_size, read_limit

    limit = parse_size(keep, "--keep") if keep is not None else read_limit()
    if limit is None:
        raise click.UsageError("Say how much may stay: --keep 20GiB, or TOUCHMARK_CACHE_MAX_BYTES.")
    pruned = open_cache().prune(limit)
    if invocation.as_json:
        invocation.output.print_record(pruned, ())
        return
    for digest in pruned.versions:
        invocation.output.print_text(digest)
    invocation.output.say(f"Freed {show_size(pruned.freed_bytes)}; {show_size(pruned.left_bytes)} are left.")
    if pruned.left_bytes > limit:
        invocation.output.warn("What is left is in use by running processes, or on its way.")


@command("verify", "touchmark cache verify", shared=_HERE)
@click.pass_context
def verify_command(context: click.Context) -> None:
    """Read every byte in the cache again, and remove what is not what it was; it is fetched when it is next needed.

    Prints what was damaged, and exits with 7 if anything was.
    """
    from touchmark.client._cache import open_cache
    from touchmark.domain.errors import CorruptError

    output = context.obj.output
    damaged = list(open_cache().verify())
    columns = (
        Column("path", "WHERE"),
        Column("expected", "SHOULD BE", Kind.DIGEST),
        Column("found", "IS", Kind.DIGEST),
        Column("removed", "REMOVED", Kind.TEXT),
    )
    output.print_table(damaged, columns, empty="All is well.")
    if not all(each.removed for each in damaged):
        output.warn("What was not removed is in use: end the processes that use it, and verify again.")
    if damaged:
        context.exit(EXIT_CODES[CorruptError])


for _verb in (add_command, ls_command, prune_command, verify_command):
    cache_command.add_command(_verb)
