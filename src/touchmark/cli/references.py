"""`touchmark resolve` and `pull`: from a reference to a version, and to its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from touchmark.cli.invocation import ASKING, Invocation, command

if TYPE_CHECKING:
    from touchmark.client._registry import Registry

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
@click.option("--force", is_flag=True, help="Write into a folder that holds something, over files of the same name.")
@click.pass_obj
def pull_command(invocation: Invocation, reference: str, destination: Path | None, *, force: bool) -> None:
    """Fetch the files of a version, each checked against its digest. Prints the folder they are in.

    REF may end in the path of one file or folder of the version. DEST must not exist, or be empty; without it, it is
    NAME-N here. With --force, what is there already and right is not fetched again. The same command goes on with a pull
    that was cut. What is in the cache is taken from there; nothing is put into it (touchmark cache add does).
    """
    from touchmark.cli.progress import open_transfer
    from touchmark.domain.references import parse_model_reference

    inner = parse_model_reference(reference).path
    with invocation.open_registry() as registry:
        if destination is None:
            # The number is taken down, so that the folder is named after what is in it even if an alias moves meanwhile.
            found = registry.resolve(reference)
            destination = Path(f"{found.name}-{found.version}")
            reference = f"models:/{found.name}/{found.version}" + (f"/{inner}" if inner else "")
        if not force:
            check_destination(registry, reference, destination)
        with open_transfer(invocation.output, f"Fetching {reference}") as progress:
            folder = registry.pull(reference, destination, progress=progress)
    if invocation.as_json:
        invocation.output.print_record({"folder": str(folder)}, ())
    else:
        invocation.output.print_text(str(folder))


def check_destination(registry: Registry, reference: str, destination: Path) -> None:
    """Raise InvalidFieldError for a folder that holds something, unless that is the beginning of this very pull."""
    from touchmark.client._downloads import find_unfinished
    from touchmark.domain.errors import InvalidFieldError

    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    begun = find_unfinished(destination)
    if begun is not None and begun == registry.resolve(reference).digest:
        return
    raise InvalidFieldError(field=str(destination), reason="it exists and is no empty folder; --force writes into it")
