"""`touchmark lineage`: where a version came from, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from touchmark.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from touchmark.cli.output import Json

__all__ = ["lineage_command"]


@command("lineage", "touchmark lineage risk.churn@champion", "touchmark lineage risk.churn/3 --depth 10 --json")
@click.argument("reference", metavar="REF")
@click.option("--depth", type=click.IntRange(1, 20), default=3, show_default=True, help="Steps to walk.")
@click.pass_obj
def lineage_command(invocation: Invocation, reference: str, depth: int) -> None:
    """Show the runs, data sets and versions a version was made from, and the versions made from it.

    Into a pipe: one edge a line, with from, relation, to and detail.
    """
    from touchmark.cli.output import Column

    output = invocation.output
    with invocation.open_registry() as registry:
        found = registry.lineage(reference, depth=depth)
    if invocation.as_json:
        output.print_record(found, ())
    elif output.is_terminal:
        for line in draw_tree(found):
            output.print_text(line)
    else:
        columns = tuple(Column(key, key.upper()) for key in ("from", "relation", "to", "detail"))
        output.print_table(found["edges"], columns, empty="Nothing is known of where it came from.")
    if found["truncated"]:
        output.say("There is more: raise --depth.")


def draw_tree(found: Json) -> Iterator[str]:
    """Yield the lines of a tree below the root. What was met before is named again, but not walked again."""
    nodes = {node["id"]: node for node in found["nodes"]}
    around: dict[str, list[tuple[str, str]]] = {}
    for edge in found["edges"]:
        detail = f" ({edge['detail']})" if edge["detail"] else ""
        around.setdefault(edge["from"], []).append((f"{edge['relation']} ->{detail}", edge["to"]))
        around.setdefault(edge["to"], []).append((f"{edge['relation']} <-{detail}", edge["from"]))

    def name(node_id: str) -> str:
        node = nodes.get(node_id, {"kind": "", "label": node_id})
        return node["label"] if node["kind"] == "version" else f"{node['kind']} {node['label']}"

    def walk(node_id: str, came_from: str | None, indent: str) -> Iterator[str]:
        for relation, other in around.get(node_id, ()):
            if other == came_from:
                continue
            yield f"{indent}{relation} {name(other)}"
            if other not in seen:
                seen.add(other)
                yield from walk(other, node_id, indent + "  ")

    seen = {found["root"]}
    yield name(found["root"])
    yield from walk(found["root"], None, "  ")
