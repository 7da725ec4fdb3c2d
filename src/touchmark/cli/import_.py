"""`touchmark import mlflow`: move in from an MLflow server. What comes, and how, is ops/import_mlflow.py's business."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from touchmark.cli.errors import EXIT_CODES
from touchmark.cli.homes import LOCAL, database_option, read_settings
from touchmark.cli.invocation import Group, Invocation, command
from touchmark.cli.output import Column, Kind, show_size
from touchmark.domain.errors import ConflictError

if TYPE_CHECKING:
    from touchmark.cli.output import Output
    from touchmark.ops.import_mlflow import ImportReport
    from touchmark.ops.mlflow_http import Credentials

__all__ = ["import_command", "print_problems", "read_credentials"]

COUNTS = (
    Column("what", "WHAT"),
    Column("came", "CAME", Kind.NUMBER),
    Column("added", "ADDED TO", Kind.NUMBER),
    Column("present", "WAS HERE", Kind.NUMBER),
    Column("failed", "DID NOT COME", Kind.NUMBER),
)
PROBLEMS = (Column("what", "WHAT"), Column("subject", "WHICH"), Column("reason", "WHY"))
SHOWN = 200
"""Problems shown on a terminal; --json has all of them."""


@click.group("import", cls=Group)
def import_command() -> None:
    """Bring in what another registry holds."""


@command(
    "mlflow",
    "touchmark import mlflow --from http://mlflow:5000 --dry-run",
    "touchmark import mlflow --from sqlite:///mlflow.db --artifacts ./mlartifacts --home /srv/touchmark",
    shared=LOCAL,
)
@click.option(
    "--from", "address", required=True, metavar="URL", help="http(s)://HOST, sqlite:///FILE or postgresql://HOST/NAME."
)
@click.option(
    "--artifacts",
    multiple=True,
    metavar="PLACE",
    help="A folder with its files, or the http(s):// address of an artifact proxy; may be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Bring nothing: say what would come and what could not, and why.")
@database_option
@click.pass_context
def mlflow_command(
    context: click.Context, address: str, artifacts: tuple[str, ...], *, dry_run: bool, database: str | None
) -> None:
    """Bring in experiments, runs, logged models, models, versions, aliases and files of an MLflow server.

    Versions keep their numbers and are sealed. What is here already is not changed: if the command is cut off, or something
    is new there, run it again. A server may use the home meanwhile; the home is made if need be. Credentials are read from
    MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Exits with 4 if something did not come,
    or not as it was (a version unsealed, a tag left out); the rest did.
    """
    invocation: Invocation = context.obj
    settings = read_settings(invocation, "touchmark import", database)
    from touchmark.cli.progress import open_counter
    from touchmark.ops.import_mlflow import import_mlflow, open_source
    from touchmark.ops.setup import open_registry

    with ExitStack() as opened:
        source, places = opened.enter_context(open_source(address, artifacts, read_credentials()))
        home = settings.home
        if dry_run and settings.database is None and not (home / "registry.db").exists():
            # A dry run makes no home.
            home = Path(opened.enter_context(TemporaryDirectory(prefix="touchmark-dry-run-")))
        registry = open_registry(home, settings.database, artifacts=settings.artifacts)
        try:
            with open_counter(invocation.output) as count:
                report = import_mlflow(registry, source, places, dry_run=dry_run, on_progress=count)
        finally:
            registry.close()
    _print(invocation.output, report)
    if not artifacts and any("out of reach" in each.reason for each in report.problems):
        invocation.output.say(
            "Name the folder those files lie in, as this machine has it, or the server that gives them out, with "
            "--artifacts, and run the command again."
        )
    if report.problems:
        context.exit(EXIT_CODES[ConflictError])


import_command.add_command(mlflow_command)


def read_credentials() -> Credentials:
    """Return the credentials that MLflow's own clients would use."""
    from touchmark.ops.mlflow_http import Credentials

    token, username, password = (
        os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("TOKEN", "USERNAME", "PASSWORD")
    )
    return Credentials(token or None, username or None, password or None)


def _print(output: Output, report: ImportReport) -> None:
    from touchmark.ops.import_mlflow import NOUNS

    rows = [
        {
            "what": what, "came": report.came[what], "added": report.added[what], "present": report.present[what],
            "failed": report.failed[what],
        }
        for what in NOUNS
    ]  # fmt: skip
    if output.as_json:
        found: dict[str, Any] = {
            "from": report.source, "dry_run": report.dry_run, "counts": rows, "unsealed": report.unsealed,
            "deleted": report.deleted, "fetched_bytes": report.fetched_bytes,
            "problems": [
                {"what": each.what, "subject": each.subject, "reason": each.reason} for each in report.problems
            ],
            "notes": report.notes,
        }  # fmt: skip
        output.print_record(found, ())
        return
    output.print_table(rows, COUNTS, empty="")
    print_problems(output, report.problems)
    for note in report.notes[:SHOWN]:
        output.say(note)
    verb = "would be fetched" if report.dry_run else "fetched"
    output.say(
        f"{show_size(report.fetched_bytes)} {verb}; versions unsealed: {report.unsealed}, deleted: {report.deleted}."
    )
    if report.dry_run:
        output.say("This was a dry run: nothing was brought.")


def print_problems(output: Output, problems: list[Any]) -> None:
    """Print what did not come or go, and why."""
    if not problems:
        return
    if output.is_terminal:
        output.print_text("")
    shown = problems[:SHOWN] if output.is_terminal else problems
    output.print_table(shown, PROBLEMS, empty="")
    if len(shown) < len(problems):
        output.warn(f"{len(problems) - len(shown)} more problems are not shown: see --json.")
