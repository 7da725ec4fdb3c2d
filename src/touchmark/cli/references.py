"""`touchmark resolve` and `pull`: from a reference to a version, and to its files."""

from __future__ import annotations

from pathlib import Path

import click

from touchmark.cli.invocation import Invocation, command

__all__ = ["pull_command", "resolve_command"]


@command("resolve", "touchmark resolve risk.churn@champion", "touchmark resolve risk.churn@champion --pinned")
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
    if found.warning:
        output.warn(found.warning)
    if not pinned:
        output.print_record(found, RESOLVED_RECORD)
        return
    if not found.digest:
        reason = found.status_message or f"it points at {found.source}."
        raise VersionUnsealedError(name=found.name, version=found.version, reason=reason)
    output.print_text(f"models:/{found.moved_to or found.name}@{found.digest}")


@command("pull", "touchmark pull risk.churn@champion", "touchmark pull risk.churn/3 ./serving/model")
@click.argument("reference", metavar="REF")
@click.argument("destination", required=False, type=click.Path(path_type=Path), metavar="[DEST]")
@click.pass_obj
def pull_command(invocation: Invocation, reference: str, destination: Path | None) -> None:
    """Fetch the files of a version into a folder, each checked against its digest. Prints the folder.

    DEST must not exist or be empty; without it, NAME-N here.
    """
    with invocation.open_registry() as registry:
        with invocation.output.open_progress(f"Fetching {reference}") as progress:
            folder = registry.download(reference, destination, progress=progress)
    invocation.output.print_text(str(folder))
