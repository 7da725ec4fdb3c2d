"""`touchmark tag`: tags of a model or of a version."""

from __future__ import annotations

import click

from touchmark.cli.arguments import find_target, is_reference, parse_pairs
from touchmark.cli.invocation import Invocation, command

__all__ = ["tag_command"]


@command(
    "tag",
    "touchmark tag risk.churn team=risk",
    "touchmark tag risk.churn/3 approved=yes data=2026-10",
    "touchmark tag risk.churn@champion --delete approved",
)
@click.argument("what", metavar="REF|NAME")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--delete", "deleted", multiple=True, metavar="KEY", help="Take a tag away; may be repeated.")
@click.pass_obj
def tag_command(invocation: Invocation, what: str, tags: tuple[str, ...], deleted: tuple[str, ...]) -> None:
    """Set or take away tags of a model or a version; the others stay.

    A tag that is not there cannot be taken away; those before it on the command line are.
    """
    pairs = parse_pairs(tags, "tag")
    if not pairs and not deleted:
        raise click.UsageError("Name a tag: KEY=VALUE sets it, --delete KEY takes it away.")
    if both := pairs.keys() & set(deleted):
        raise click.UsageError(f"The tag {min(both)!r} cannot be set and taken away at once.")
    with invocation.open_registry() as registry:
        version: int | None = None
        name = what
        if is_reference(what):
            name, version = find_target(registry, what)
        if pairs:
            registry.set_tags(name, pairs, version=version)
        for key in deleted:
            registry.delete_tag(name, key, version=version)
    changes = len(pairs) + len(deleted)
    invocation.output.say(f"{changes} tag{'s' * (changes != 1)} of {name}{f'/{version}' if version else ''} changed.")
