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
        named = name_nodes(found)
        rows = [{**edge, "from": named[edge["from"]], "to": named[edge["to"]]} for edge in found["edges"]]
        output.print_table(rows, columns, empty="Nothing is known of where it came from.")
    if found["truncated"]:
        output.say("There is more: raise --depth.")


def name_nodes(found: Json) -> dict[str, str]:
    """Return what to call each node by its id: `risk.churn/3`, `run weekly`."""
    nodes = found["nodes"]
    return {
        each["id"]: each["label"] if each["kind"] == "version" else f"{each['kind']} {each['label']}" for each in nodes
    }


def draw_tree(found: Json) -> Iterator[str]:
    """Yield the lines of a tree below the root. What was met before is named again, but not walked again."""
    named = name_nodes(found)
    around: dict[str, list[tuple[str, str]]] = {}
    for edge in found["edges"]:
        detail = f" ({edge['detail']})" if edge["detail"] else ""
        around.setdefault(edge["from"], []).append((f"{edge['relation']} ->{detail}", edge["to"]))
        around.setdefault(edge["to"], []).append((f"{edge['relation']} <-{detail}", edge["from"]))

    def walk(node_id: str, came_from: str | None, indent: str) -> Iterator[str]:
        for relation, other in around.get(node_id, ()):
            if other == came_from:
                continue
            yield f"{indent}{relation} {named[other]}"
            if other not in seen:
                seen.add(other)
                yield from walk(other, node_id, indent + "  ")

    seen = {found["root"]}
    yield named[found["root"]]
    yield from walk(found["root"], None, "  ")
