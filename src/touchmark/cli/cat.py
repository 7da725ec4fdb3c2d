"""`touchmark cat`: the bytes of one file of a version."""

from __future__ import annotations

import sys

import click

from touchmark.cli.invocation import ASKING, Invocation, command

__all__ = ["cat_command"]

CHUNK_BYTES = 1 << 20


@command("cat", "touchmark cat risk.churn@champion config.json", "touchmark cat risk.churn/3/MLmodel", shared=ASKING)
@click.argument("reference", metavar="REF")
@click.argument("path", required=False, metavar="[PATH]")
@click.pass_obj
def cat_command(invocation: Invocation, reference: str, path: str | None) -> None:
    """Write one file of a version to standard output, without fetching the others.

    REF may end in the file's path; then PATH is left out. The bytes are checked against the file's digest: exit code 7
    says that what was written is not what was registered.
    """
    with invocation.open_registry() as registry, registry.open_file(reference, path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
