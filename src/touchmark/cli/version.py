"""`touchmark version`: what is installed."""

from __future__ import annotations

import click

from touchmark.cli.invocation import Invocation, command
from touchmark.cli.output import Column

__all__ = ["version_command"]


@command("version", "touchmark version", "touchmark version --json")
@click.pass_obj
def version_command(invocation: Invocation) -> None:
    """Print the versions of Touchmark and Python. Asks no registry."""
    import platform

    from touchmark.domain.about import VERSION

    found = {"touchmark": VERSION, "python": platform.python_version()}
    invocation.output.print_record(found, (Column("touchmark", "Touchmark"), Column("python", "Python")))
