"""`touchmark register`, `diff`, `evaluate`, `deprecate` and `undelete`: what is done with one version."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from touchmark.cli.arguments import find_target, parse_metrics, parse_pairs, parse_version
from touchmark.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from touchmark.cli.output import Json

__all__ = ["deprecate_command", "diff_command", "evaluate_command", "register_command", "undelete_command"]


@command(
    "register",
    "touchmark register ./model risk.churn",
    "touchmark register runs:/8f3e21/model risk.churn --tag data=2026-10 --alias challenger",
    "touchmark register models:/risk.churn@champion serving.churn",
    "touchmark register hf://acme/net@main risk.churn --wait",
)
@click.argument("source")
@click.argument("name")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag of the version; may be repeated.")
@click.option("--description", help="What is to be known of this version.")
@click.option(
    "--parent", "parents", multiple=True, metavar="REF", help="A version this one was made from; may be repeated."
)
@click.option("--alias", help="Point this alias at the new version.")
@click.option("--wait", is_flag=True, help="Wait until the server has imported an address; --alias waits too.")
@click.pass_obj
def register_command(
    invocation: Invocation,
    source: str,
    name: str,
    *,
    tags: tuple[str, ...],
    description: str | None,
    parents: tuple[str, ...],
    alias: str | None,
    wait: bool,
) -> None:
    """Register a model: seal its bytes under the next number of NAME.

    SOURCE is a file or a folder here, runs:/RUN/PATH, models:/m-ID, another version (models:/NAME/3, models:/NAME@alias), or
    an address that the server is allowed to import from (s3://, gs://, az://, https://, hf://ORG/REPO).
    A model that does not exist is created. Prints the new version as NAME/N.
    """
    from touchmark.cli.progress import open_transfer
    from touchmark.domain.aliases import parse_alias
    from touchmark.domain.names import parse_model_name

    pairs = parse_pairs(tags, "tag")
    # Before anything is registered, and a home is begun for it.
    if alias is not None:
        parse_alias(alias)
    parse_model_name(name)
    output = invocation.output
    with invocation.open_registry(makes_home=_can_be_first(source)) as registry:
        with open_transfer(output, f"Registering {name}") as progress:
            version = registry.register_model(
                source,
                name,
                tags=pairs,
                description=description,
                parents=parents,
                progress=progress,
                wait=wait or bool(alias),
            )
        if version.state.value == "PENDING_REGISTRATION":
            output.say(f"The server imports it: touchmark show {version.name}/{version.version} says how far that is.")
        elif not version.sealed:
            output.warn(f"{version.name}/{version.version} is unsealed: {version.status_message}")
        if alias:
            registry.set_alias(version.name, alias, version.version)
            output.say(f"{version.name}@{alias} is now version {version.version}.")
        if invocation.as_json:
            output.print_record(registry.get_version(version.name, version.version) if alias else version, ())
        else:
            output.print_text(f"{version.name}/{version.version}")


def _can_be_first(source: str) -> bool:
    """Answer whether a source may be the first of a registry: what names something of a registry cannot be found in a new one.

    Raises ArtifactNotFoundError for a path where nothing is, InvalidSourceError.
    """
    from touchmark.client._registry import find_reference

    reference = find_reference(source)
    if reference is not None:
        return not reference.startswith(("models:", "runs:"))
    if not os.path.lexists(source):
        from touchmark.domain.errors import ArtifactNotFoundError

        raise ArtifactNotFoundError(path=source)
    return True


@command("diff", "touchmark diff risk.churn@champion risk.churn/4")
@click.argument("left", metavar="REF")
@click.argument("right", metavar="REF")
@click.pass_obj
def diff_command(invocation: Invocation, left: str, right: str) -> None:
    """Show what differs between two versions: files, tags, params, metrics, what the files hold.

    A line begins with + where only the second has it, - where only the first has it, ~ where both have it and it differs.
    """
    from touchmark.cli.output import Column

    output = invocation.output
    with invocation.open_registry() as registry:
        found = registry.diff(left, right)
    if invocation.as_json:
        output.print_record(found, ())
        return
    rows = list_differences(found)
    columns = tuple(Column(key, key.upper()) for key in ("sign", "part", "key", "left", "right"))
    output.print_table(rows, columns, empty=f"{found['left']} and {found['right']} do not differ.")
    if found["same_bytes"]:
        output.say("The bytes are the same.")


def list_differences(found: Json) -> list[Json]:
    """Return the lines of a diff: sign, part, key, left and right as text, in the order a reader looks for them."""
    rows: list[Json] = []

    def add(sign: str, part: str, key: str, left: object = None, right: object = None) -> None:
        rows.append({"sign": sign, "part": part, "key": key, "left": left, "right": right})

    for part in ("metrics", "params", "tags"):
        changes = found[part]
        for key, value in changes["removed"].items():
            add("-", part, key, value, None)
        for key, value in changes["added"].items():
            add("+", part, key, None, value)
        for key, pair in changes["changed"].items():
            add("~", part, key, pair["left"], pair["right"])
    for file in found["files"]["removed"]:
        add("-", "files", file["path"], file["size_bytes"], None)
    for file in found["files"]["added"]:
        add("+", "files", file["path"], None, file["size_bytes"])
    for file in found["files"]["changed"]:
        add("~", "files", file["path"], file["left"]["size_bytes"], file["right"]["size_bytes"])
    return rows


@command("evaluate", "touchmark evaluate risk.churn/3 auc=0.93 logloss=0.31 --dataset 2026-10")
@click.argument("reference", metavar="REF")
@click.argument("metrics", nargs=-1, required=True, metavar="KEY=NUMBER...")
@click.option("--dataset", help="What it was measured on.")
@click.pass_obj
def evaluate_command(invocation: Invocation, reference: str, metrics: tuple[str, ...], dataset: str | None) -> None:
    """Record results found after registration, beside the metrics of the run that made the version."""
    numbers = parse_metrics(metrics)
    with invocation.open_registry() as registry:
        name, number = find_target(registry, reference)
        before = registry.get_version(name, number).metrics
        registry.record_evaluation(name, number, numbers, dataset=dataset)
        for key in sorted(numbers.keys() & before.keys()):
            old, new = repr(before[key]), repr(numbers[key])  # as text: nan is as it was where it was nan
            if old != new:
                invocation.output.say(f"{key} was {old}: searches and lists now go by {new}; both stay on record.")
        invocation.output.say(f"Recorded {len(numbers)} result{'s' * (len(numbers) != 1)} of {name}/{number}.")
        if invocation.as_json:
            invocation.output.print_record(registry.list_evaluations(name, number)[-1], ())


@command("deprecate", 'touchmark deprecate risk.churn/3 --reason "trained on leaked labels" --replaced-by risk.churn/4')
@click.argument("reference", metavar="NAME/3")
@click.option("--reason", required=True, help="Why it should not be used any more.")
@click.option("--replaced-by", metavar="REF", help="What to use instead.")
@click.pass_obj
def deprecate_command(invocation: Invocation, reference: str, reason: str, replaced_by: str | None) -> None:
    """Say that a version should not be used any more. It still loads, with a warning, and is never `latest`."""
    name, number = parse_version(reference)
    with invocation.open_registry() as registry:
        version = registry.deprecate(name, number, reason, replaced_by=replaced_by)
        invocation.output.say(f"{name}/{number} is deprecated.")
        if invocation.as_json:
            invocation.output.print_record(version, ())


@command("undelete", "touchmark undelete risk.churn/3")
@click.argument("reference", metavar="NAME/3")
@click.pass_obj
def undelete_command(invocation: Invocation, reference: str) -> None:
    """Bring a deleted version back.

    touchmark restore is another thing: it brings back a whole registry from a backup.
    """
    name, number = parse_version(reference)
    with invocation.open_registry() as registry:
        version = registry.restore_version(name, number)
        invocation.output.say(f"{name}/{number} is back.")
        if invocation.as_json:
            invocation.output.print_record(version, ())
