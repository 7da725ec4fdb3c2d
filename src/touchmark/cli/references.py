"""`touchmark resolve` and `pull`: from a reference to a version, and to its files."""

from __future__ import annotations

from pathlib import Path

import click

from touchmark.cli.invocation import ASKING, Invocation, command

__all__ = ["pull_command", "resolve_command"]


@command(
    "resolve",
    "touchmark resolve risk.churn@champion",
    "touchmark resolve risk.churn@champion --pinned",
    shared=ASKING,
)
@click.argument("reference", metavar="REF")
@click.option("--pinned", is_flag=True, help="Print only models:/NAME@sha256:..., which can never mean anything else.")
@click.pass_obj
def resolve_command(invocation: Invocation, reference: str, *, pinned: bool) -> None:
    """Say which version a reference means now."""
    from touchmark.cli.columns import RESOLVED_RECORD
    from touchmark.domain.errors import VersionUnsealedError

    output = invocation.output
    with invocation.open_registry() as registry:
        found = registry.resolve(reference)
    if not pinned:
        output.print_record(found, RESOLVED_RECORD)
        return
    if not found.digest:
        reason = found.status_message or f"it points at {found.source}."
        raise VersionUnsealedError(name=found.name, version=found.version, reason=reason)
    output.print_text(found.pinned)


@command("pull", "touchmark pull risk.churn@champion", "touchmark pull risk.churn/3 ./serving/model", shared=ASKING)
@click.argument("reference", metavar="REF")
@click.argument("destination", required=False, type=click.Path(path_type=Path), metavar="[DEST]")
@click.option(
    "--force", is_flag=True, help="Write into a folder that holds something else, over files of the same name."
)
@click.pass_obj
def pull_command(invocation: Invocation, reference: str, destination: Path | None, *, force: bool) -> None:
    """Fetch the files of a version, each checked against its digest. Prints the folder they are in.

    REF may end in the path of one file or folder of the version. DEST may hold right files of this version, which are not
    fetched again, and nothing else unless --force is given; without it, it is NAME-N here. The same command goes on with a
    pull that was cut. What is in the cache is taken from there; nothing is put into it (touchmark cache add does).
    """
    from touchmark.cli.progress import open_transfer

    with (
        invocation.open_registry() as registry,
        open_transfer(invocation.output, f"Fetching {reference}") as progress,
    ):
        folder = registry.pull(reference, destination, force=force, progress=progress)
    if invocation.as_json:
        invocation.output.print_record({"folder": str(folder)}, ())
    else:
        invocation.output.print_text(str(folder))
