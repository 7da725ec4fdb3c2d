"""`touchmark fsck`: check that all a registry holds agrees. What is checked is ops/fsck.py's business."""

from __future__ import annotations

import click

from touchmark.cli.homes import LOCAL, database_option, open_home, tell_person
from touchmark.cli.invocation import Invocation, command
from touchmark.cli.output import Column

__all__ = ["fsck_command"]


@command("fsck", "touchmark fsck", "touchmark fsck --deep --home /srv/touchmark", shared=LOCAL)
@click.option("--deep", is_flag=True, help="Hash every byte of every blob, too.")
@database_option
@click.pass_context
def fsck_command(context: click.Context, *, deep: bool, database: str | None) -> None:
    """Check a registry against its log, its manifests and its bytes; changes nothing, and a server may run meanwhile.

    Exits with 0 if all is well, 3 if there are only bytes nobody needs, 4 if bytes are missing or damaged, 5 if rows are,
    6 if the log is: the highest that was found.
    """
    invocation: Invocation = context.obj
    output = invocation.output
    with open_home(invocation, "touchmark fsck", database) as registry:
        from touchmark.ops.fsck import check_registry

        report = check_registry(registry, deep=deep, on_progress=tell_person(output))
    found = {
        "deep": report.deep,
        "exit_code": report.exit_code,
        "findings": [
            {
                "kind": str(each.kind),
                "subject": each.subject,
                "sentence": each.sentence,
                "versions": list(each.versions),
            }
            for each in report.findings
        ],
        "unlisted": {str(kind): count for kind, count in report.unlisted.items()},
        "checked": dict(report.checked),
    }
    if invocation.as_json:
        output.print_record(found, ())
    else:
        columns = (Column("kind", "KIND"), Column("subject", "WHERE"), Column("sentence", "WHAT"))
        output.print_table(report.findings, columns, empty="All is well.")
        for kind, count in report.unlisted.items():
            output.warn(f"{count} more findings of the kind {kind} are not listed.")
        output.say("Checked " + ", ".join(f"{count} {what}" for what, count in report.checked.items()) + ".")
    context.exit(report.exit_code)
