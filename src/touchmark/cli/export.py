"""`touchmark export mlflow`: move out to an MLflow server. What goes, and how, is ops/export_mlflow.py's business."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from touchmark.cli.errors import EXIT_CODES
from touchmark.cli.homes import LOCAL, database_option, open_home
from touchmark.cli.import_ import print_problems, read_credentials
from touchmark.cli.invocation import Group, Invocation, command
from touchmark.cli.output import Column, Kind, show_size
from touchmark.domain.errors import ConflictError

if TYPE_CHECKING:
    from touchmark.cli.output import Output
    from touchmark.ops.export_mlflow import ExportReport

__all__ = ["export_command"]

COUNTS = (
    Column("what", "WHAT"),
    Column("went", "WENT", Kind.NUMBER),
    Column("present", "WAS THERE", Kind.NUMBER),
    Column("failed", "DID NOT GO", Kind.NUMBER),
)


@click.group("export", cls=Group)
def export_command() -> None:
    """Write models to another registry."""


@command(
    "mlflow",
    "touchmark export mlflow --to http://mlflow:5000",
    "touchmark export mlflow risk.churn --to http://mlflow:5000 --dry-run",
    shared=LOCAL,
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--to", "address", required=True, metavar="URL", help="http(s)://HOST of the MLflow server.")
@click.option("--dry-run", is_flag=True, help="Write nothing: say what would go.")
@database_option
@click.pass_context
def mlflow_command(
    context: click.Context, names: tuple[str, ...], address: str, *, dry_run: bool, database: str | None
) -> None:
    """Write models, their versions under the same numbers, aliases, stages, tags and files to an MLflow server.

    All models, or those named. The files go into runs of the experiment touchmark-export. A model that is there with other
    versions is not touched; if the command is cut off, run it again. Credentials are read from the environment as by
    touchmark import mlflow. Exits with 4 if something did not go, or not as it is here; the rest did.
    """
    invocation: Invocation = context.obj
    with open_home(invocation, "touchmark export", database) as registry:
        from touchmark.cli.progress import open_counter
        from touchmark.ops.export_mlflow import export_mlflow
        from touchmark.ops.mlflow_http import MlflowHttp

        with MlflowHttp(address, read_credentials(), field="to") as http, open_counter(invocation.output) as count:
            report = export_mlflow(registry, http, names, dry_run=dry_run, on_progress=count)
    _print(invocation.output, report)
    if report.problems:
        context.exit(EXIT_CODES[ConflictError])


export_command.add_command(mlflow_command)


def _print(output: Output, report: ExportReport) -> None:
    from touchmark.ops.export_mlflow import NOUNS

    rows = [
        {"what": what, "went": report.went[what], "present": report.present[what], "failed": report.failed[what]}
        for what in NOUNS
    ]
    if output.as_json:
        problems = [{"what": each.what, "subject": each.subject, "reason": each.reason} for each in report.problems]
        found = {
            "to": report.target, "dry_run": report.dry_run, "counts": rows, "sent_bytes": report.sent_bytes,
            "problems": problems,
        }  # fmt: skip
        output.print_record(found, ())
        return
    output.print_table(rows, COUNTS, empty="")
    print_problems(output, report.problems)
    output.say(f"{show_size(report.sent_bytes)} {'would be sent' if report.dry_run else 'sent'}.")
