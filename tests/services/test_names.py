"""A name a model had with versions stays the model's: what was written down with it is never about another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.addresses import ImportRules, parse_import_prefix
from touchmark.domain.errors import NameTakenError
from touchmark.registry import Registry
from touchmark.services import models, versions
from touchmark.services.registration import register_version

RULES = ImportRules((parse_import_prefix("s3://models/a"),))

ATTEMPTS: dict[str, Callable[[Registry, Principal], object]] = {
    "create": lambda registry, who: models.create_model(registry, who, "old"),
    "register": lambda registry, who: register_version(registry, who, "old", "s3://models/a/2", imports=RULES),
    "rename": lambda registry, who: models.rename_model(
        registry, who, models.create_model(registry, who, "other").name, "old"
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_former_name_is_given_to_nothing_else(registry: Registry, who: Principal, attempt: str) -> None:
    register_version(registry, who, "old", "s3://models/a/1", imports=RULES)
    models.rename_model(registry, who, "old", "new")

    with pytest.raises(NameTakenError) as caught:
        ATTEMPTS[attempt](registry, who)

    assert caught.value.fields == {"name": "old", "moved_to": "new"}
    assert versions.get_version(registry, who, "old", 1).name == "new"
    assert models.get_model(registry, who, "new").version_count == 1
