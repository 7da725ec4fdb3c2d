"""`touchmark ls`, `show`, `rename` and `rm`: registered models, and what is shown of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import click

from touchmark.cli.arguments import find_target, is_reference, parse_version
from touchmark.cli.invocation import Invocation, command

if TYPE_CHECKING:
    from touchmark.client._registry import Registry
    from touchmark.domain.models import RegisteredModel

__all__ = ["ls_command", "rename_command", "rm_command", "show_command"]


@command("ls", "touchmark ls", "touchmark ls risk.", "touchmark ls risk.churn --json")
@click.argument("name", required=False, metavar="[NAME|PREFIX]")
@click.option("--deleted", is_flag=True, help="List deleted versions, too.")
@click.option("--prompts", is_flag=True, help="List the prompts of MLflow's clients among the models, too.")
@click.pass_obj
def ls_command(invocation: Invocation, name: str | None, *, deleted: bool, prompts: bool) -> None:
    """List models, or the versions of one.

    With the exact name of a model its versions are listed, newest first. Anything else is the beginning of names; a `*`
    at the end says so even where a model is called just that.
    """
    from touchmark.cli.columns import MODEL_TABLE, VERSION_TABLE, show_rows
    from touchmark.domain.errors import ModelNotFoundError

    output = invocation.output
    with invocation.open_registry() as registry:
        if name and not name.endswith("*"):
            try:
                versions = registry.list_versions(name, include_deleted=deleted)
                output.print_table(
                    show_rows(output, versions), VERSION_TABLE, empty=_say_no_versions(name, deleted=deleted)
                )
            except ModelNotFoundError as error:
                models = _list_models(registry, name, prompts=prompts)
                first = next(models, None)
                if first is None:
                    raise error from None
                output.print_table(show_rows(output, chain([first], models)), MODEL_TABLE, empty="")
            return
        prefix = name.removesuffix("*") if name else None
        empty = (
            f"No model begins with {prefix}." if prefix else "There are no models yet: touchmark register SOURCE NAME"
        )
        models = _list_models(registry, prefix, prompts=prompts)
        output.print_table(show_rows(output, models), MODEL_TABLE, empty=empty)


def _say_no_versions(name: str, *, deleted: bool) -> str:
    return f"{name} has no versions." if deleted else f"{name} has no versions; --deleted lists deleted ones, too."


def _list_models(registry: Registry, prefix: str | None, *, prompts: bool) -> Iterator[RegisteredModel]:
    from touchmark.cli.columns import hide_prompts

    found = registry.list_models(prefix)
    return found if prompts else hide_prompts(found)


@command(
    "show", "touchmark show risk.churn", "touchmark show risk.churn@champion", "touchmark show risk.churn/3 --json"
)
@click.argument("what", metavar="REF|NAME")
@click.pass_obj
def show_command(invocation: Invocation, what: str) -> None:
    """Show all there is to know of a model or a version."""
    from touchmark.cli.columns import MODEL_RECORD, VERSION_RECORD, show_version

    with invocation.open_registry() as registry:
        if is_reference(what):
            name, number = find_target(registry, what)
            version = registry.get_version(name, number, include_deleted=True)
            shown: object = version
            if not invocation.as_json:
                evaluations = [] if version.deleted_at is not None else registry.list_evaluations(version.name, number)
                shown = show_version(version, evaluations)
            invocation.output.print_record(shown, VERSION_RECORD)
        else:
            invocation.output.print_record(registry.get_model(what), MODEL_RECORD)


@command("rename", "touchmark rename risk.churn risk.attrition")
@click.argument("name")
@click.argument("new_name")
@click.pass_obj
def rename_command(invocation: Invocation, name: str, new_name: str) -> None:
    """Give a model another name; the old one stays its own for ever."""
    from touchmark.cli.columns import MODEL_RECORD

    with invocation.open_registry() as registry:
        model = registry.rename_model(name, new_name)
        if name == new_name:
            invocation.output.say(f"{name} is called that already.")
        else:
            invocation.output.say(f"{name} is now called {new_name}; the old name still leads to it.")
        if invocation.as_json:
            invocation.output.print_record(model, MODEL_RECORD)


@command("rm", "touchmark rm risk.churn/3", "touchmark rm risk.churn --yes")
@click.argument("what", metavar="NAME/3|NAME")
@click.option("--yes", is_flag=True, help="Do not ask before a whole model is deleted.")
@click.pass_obj
def rm_command(invocation: Invocation, what: str, *, yes: bool) -> None:
    """Delete a version, or a model with all its versions.

    A deleted version keeps its number and its bytes and can be brought back (touchmark undelete). A deleted model is gone
    from lists; a model created later under its name goes on counting where it ended.
    """
    from touchmark.domain.errors import VersionNotFoundError

    with invocation.open_registry() as registry:
        if is_reference(what):
            name, number = parse_version(what)
            try:
                aliases = registry.get_version(name, number).aliases
                registry.delete_version(name, number)
            except VersionNotFoundError:
                if registry.get_version(name, number, include_deleted=True).deleted_at is None:
                    raise  # somebody brought it back between the two
                invocation.output.say(
                    f"{name}/{number} is deleted already. touchmark undelete {name}/{number} brings it back."
                )
                return
            invocation.output.say(f"Deleted {name}/{number}. touchmark undelete {name}/{number} brings it back.")
            if aliases:
                invocation.output.say(
                    f"No version has the alias {', '.join(aliases)} now: touchmark alias set {name} {aliases[0]} VERSION"
                )
            return
        model = registry.get_model(what)
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                raise click.UsageError(f"Deleting all of {what} needs --yes where nobody can be asked.")
            question = f"Delete {model.name} with all its versions ({model.version_count})?"
            if not click.confirm(question, err=True):
                invocation.output.say("Nothing was deleted.")
                raise click.Abort
        registry.delete_model(what)
        invocation.output.say(
            f"Deleted {what}. Once something is registered under that name again, touchmark undelete {what}/VERSION works."
        )
