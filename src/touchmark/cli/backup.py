"""`touchmark backup` and `restore`: a whole registry, out of a home and into one. How is the business of ops."""

from __future__ import annotations

from pathlib import Path

import click

from touchmark.cli.errors import EXIT_CODES
from touchmark.cli.homes import LOCAL, database_option, open_home, read_settings, tell_person
from touchmark.cli.invocation import Invocation, command
from touchmark.cli.output import Column, Kind, to_json
from touchmark.domain.errors import CorruptError

__all__ = ["backup_command", "restore_command"]

ABOUT_RECORD = (
    Column("target", "Place"),
    Column("registry_id", "Registry"),
    Column("created_at", "Taken", Kind.TIME),
    Column("log_size", "Log entries", Kind.NUMBER),
    Column("log_root", "Log root"),
    Column("blob_count", "Blobs", Kind.NUMBER),
    Column("blob_bytes", "Bytes", Kind.SIZE),
)
WRITTEN_RECORD = (
    *ABOUT_RECORD,
    Column("copied_blobs", "Copied now", Kind.NUMBER),
    Column("copied_bytes", "Bytes copied", Kind.SIZE),
)


@command(
    "backup", "touchmark backup /mnt/backup/touchmark", "touchmark backup /mnt/backup/2026-10-31.tar", shared=LOCAL
)
@click.argument("destination", type=click.Path(path_type=Path), metavar="DEST")
@database_option
@click.pass_obj
def backup_command(invocation: Invocation, destination: Path, database: str | None) -> None:
    """Write a backup of the whole registry, while its server may go on running.

    DEST is a folder, or a file that ends in .tar. A folder may hold an earlier backup of the same registry: what is there
    already is not copied again.
    """
    output = invocation.output
    with open_home(invocation, "touchmark backup", database) as registry:
        from touchmark.ops.backup import write_backup

        summary = write_backup(registry, destination, on_progress=tell_person(output))
    found = {
        "target": str(summary.target),
        **to_json(summary.about),
        "copied_blobs": summary.copied_blobs,
        "copied_bytes": summary.copied_bytes,
    }
    output.print_record(found, WRITTEN_RECORD)


@command("restore", "touchmark restore /mnt/backup/touchmark --home /srv/touchmark", shared=LOCAL)
@click.argument("source", type=click.Path(path_type=Path), metavar="SOURCE")
@click.option("--force", is_flag=True, help="Replace the same registry; the home before is kept under another name.")
@database_option
@click.pass_context
def restore_command(context: click.Context, source: Path, *, force: bool, database: str | None) -> None:
    """Make a registry of a backup, in a home that is empty or not there, and check it.

    Stop the server first. Either all is restored or nothing is changed. Exits with 7 if it was restored and fsck finds
    damage in it, which then was there when the backup was taken.
    """
    invocation: Invocation = context.obj
    output = invocation.output
    settings = read_settings(invocation, "touchmark restore", database)
    from touchmark.ops.restore import restore_backup

    summary = restore_backup(source, settings.home, settings.database, force=force, on_progress=tell_person(output))
    moved_away = str(summary.moved_away) if summary.moved_away else None
    found = {"target": str(settings.home), "moved_away": moved_away, **to_json(summary.about)}
    output.print_record(found, (*ABOUT_RECORD, Column("moved_away", "Home before")))
    if summary.report.exit_code:
        output.warn(
            f"fsck finds {len(summary.report.findings)} things in what was restored: touchmark fsck lists them."
        )
    if summary.report.exit_code > 3:  # more than bytes nobody needs
        context.exit(EXIT_CODES[CorruptError])
