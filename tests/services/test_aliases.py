"""What any door may hand to the alias services without having read it."""

from __future__ import annotations

import pytest

from touchmark.domain import errors
from touchmark.domain.access import Principal
from touchmark.registry import Registry
from touchmark.services import aliases, models, versions


@pytest.mark.parametrize("alias", ["a\x00b", "latest", "", "x" * 10_000, "\ud800"])
def test_an_alias_nobody_could_have_set_is_refused_not_looked_up(
    registry: Registry, who: Principal, alias: str
) -> None:
    models.create_model(registry, who, "churn")
    for attempt in (
        lambda: aliases.get_alias(registry, who, "churn", alias),
        lambda: aliases.delete_alias(registry, who, "churn", alias),
        lambda: aliases.list_history(registry, who, "churn", alias),
        lambda: aliases.set_alias(registry, who, "churn", alias, 1),
    ):
        with pytest.raises(errors.InvalidAliasError):
            attempt()


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63, 10**30])
def test_a_number_no_version_can_have_is_simply_not_there(registry: Registry, who: Principal, number: int) -> None:
    models.create_model(registry, who, "churn")
    for attempt in (
        lambda: versions.get_version(registry, who, "churn", number),
        lambda: aliases.set_alias(registry, who, "churn", "champion", number),
        lambda: versions.delete_version(registry, who, "churn", number),
    ):
        with pytest.raises(errors.VersionNotFoundError):
            attempt()
