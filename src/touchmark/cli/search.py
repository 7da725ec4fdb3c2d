"""`touchmark search`: versions, or models, by a filter, plain words and an order."""

from __future__ import annotations

import click

from touchmark.cli.invocation import Invocation, command

__all__ = ["search_command"]


@command(
    "search",
    'touchmark search "metrics.auc >= 0.9 AND tags.team = \'risk\'" --order-by "metrics.auc DESC" --limit 5',
    'touchmark search --words "churn europe"',
    "touchmark search --models \"name LIKE 'risk.%'\"",
)
@click.argument("filter_text", required=False, metavar="[FILTER]")
@click.option("--words", help="Plain words, each in a name, an owner or a description; the last may be cut short.")
@click.option("--order-by", metavar="TERMS", help='Such as "metrics.auc DESC"; newest first if left out.')
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N; all if left out.")
@click.option("--models", "of_models", is_flag=True, help="Search models instead of versions.")
@click.option("--deleted", is_flag=True, help="Find deleted versions, too.")
@click.option("--prompts", is_flag=True, help="Find the prompts of MLflow's clients, too.")
@click.pass_obj
def search_command(
    invocation: Invocation,
    filter_text: str | None,
    *,
    words: str | None,
    order_by: str | None,
    limit: int | None,
    of_models: bool,
    deleted: bool,
    prompts: bool,
) -> None:
    """Find versions of all models.

    FILTER compares fields (name, version, state, alias, tags.KEY, params.KEY, metrics.KEY, created_at ...) with values,
    joined by AND, OR, NOT and parentheses; text stands in single quotes.
    """
    from touchmark.cli.columns import FOUND_TABLE, MODEL_TABLE, hide_prompts, show_rows

    if of_models and deleted:
        raise click.UsageError("--deleted is about versions, --models is not.")
    output = invocation.output
    asked = limit if prompts else None  # what is hidden does not count
    with invocation.open_registry() as registry:
        if of_models:
            models = registry.search_models(filter_text, words=words, order_by=order_by, limit=asked)
            models = models if prompts else hide_prompts(models, limit)
            output.print_table(show_rows(output, models), MODEL_TABLE, empty="No model fits.")
            return
        versions = registry.search_versions(
            filter_text, words=words, order_by=order_by, include_deleted=deleted, limit=asked
        )
        versions = versions if prompts else hide_prompts(versions, limit)
        output.print_table(show_rows(output, versions), FOUND_TABLE, empty="No version fits.")
