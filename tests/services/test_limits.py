"""Every limit at its edge, on both databases: the longest that is allowed is kept whole, one more is refused."""

from __future__ import annotations

import pytest

from touchmark.artifacts.manifests import CONFIG_BYTES
from touchmark.domain import errors
from touchmark.domain.access import Principal
from touchmark.domain.aliases import ALIAS_LIMIT
from touchmark.domain.digest import digest_of
from touchmark.domain.names import NAME_LIMIT
from touchmark.domain.paths import MAX_PATHS
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tags import TAG_KEY_LIMIT, TAG_VALUE_LIMIT, TAGS_LIMIT
from touchmark.domain.text import DESCRIPTION_LIMIT, SHORT_TEXT_LIMIT
from touchmark.domain.tracking import BATCH_LIMIT, KEY_LIMIT, PARAM_VALUE_LIMIT, ArtifactOwner, LoggedModelStatus
from touchmark.registry import Registry
from touchmark.services import aliases, artifacts, blobs, logged_models, models, registration, runs, search, versions

# Four bytes each in UTF-8, and nothing a database could compress away: the worst case for an index row.
WIDE = [chr(0x20000 + (index * 7919) % 40000) for index in range(1_000)]


def wide(count: int) -> str:
    return "".join(WIDE[index % 1_000] for index in range(count))


def log_files(registry: Registry, who: Principal, count: int = 1, *, params: dict[str, str] | None = None) -> str:
    """Log a model of so many files that share their bytes, and return its reference."""
    model = logged_models.create_logged_model(registry, who, "limits", params=params)
    owner = ArtifactOwner("logged_model", model.model_id)
    with blobs.open_upload(registry, who, parse_repository(owner.repository)) as upload:
        upload.write(CONFIG_BYTES)
        upload.commit(digest_of(CONFIG_BYTES))
    artifacts.set_artifacts(registry, who, owner, {f"f{n}.txt": digest_of(CONFIG_BYTES) for n in range(count)})
    logged_models.finish_logged_model(registry, who, model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def test_the_longest_name_is_kept_and_found(registry: Registry, who: Principal) -> None:
    name = wide(NAME_LIMIT)
    models.create_model(registry, who, name)

    assert models.get_model(registry, who, name).name == name
    with pytest.raises(errors.InvalidNameError):
        models.create_model(registry, who, name + "x")


@pytest.mark.parametrize(
    ("field", "limit"), [("description", DESCRIPTION_LIMIT), ("owner", SHORT_TEXT_LIMIT), ("contact", SHORT_TEXT_LIMIT)]
)
def test_the_longest_text_of_a_model_is_kept(registry: Registry, who: Principal, field: str, limit: int) -> None:
    text = wide(limit)
    models.create_model(registry, who, "churn", **{field: text})

    assert getattr(models.get_model(registry, who, "churn"), field) == text
    with pytest.raises(errors.LimitExceededError):
        models.update_model(registry, who, "churn", **{field: text + "x"})


def test_the_largest_tags_are_kept_and_found(registry: Registry, who: Principal) -> None:
    key, value = wide(TAG_KEY_LIMIT), wide(TAG_VALUE_LIMIT)
    registration.register_version(registry, who, "churn", log_files(registry, who), tags={key: value})
    models.set_model_tags(registry, who, "churn", {key: value})

    assert versions.get_version(registry, who, "churn", 1).tags == {key: value}
    assert models.get_model(registry, who, "churn").tags == {key: value}
    assert len(search.search_versions(registry, who, filter=f"tags.`{key}` IS NOT NULL").items) == 1
    for tags in ({key + "x": "x"}, {"k": value + "x"}):
        with pytest.raises(errors.InvalidTagError):
            versions.set_version_tags(registry, who, "churn", 1, tags)


def test_a_thousand_tags_fit_in_one_request(registry: Registry, who: Principal) -> None:
    tags = {f"k{n:04}": "v" for n in range(TAGS_LIMIT)}
    registration.register_version(registry, who, "churn", log_files(registry, who), tags=tags)

    assert versions.get_version(registry, who, "churn", 1).tags == tags
    with pytest.raises(errors.LimitExceededError):
        versions.set_version_tags(registry, who, "churn", 1, {**tags, "more": "v"})


def test_the_longest_alias_is_kept(registry: Registry, who: Principal) -> None:
    registration.register_version(registry, who, "churn", log_files(registry, who))
    alias = "a" * ALIAS_LIMIT
    aliases.set_alias(registry, who, "churn", alias, 1)

    assert versions.resolve(registry, who, f"churn@{alias}").version == 1
    with pytest.raises(errors.InvalidAliasError):
        aliases.set_alias(registry, who, "churn", alias + "a", 1)


def test_the_longest_params_are_frozen_and_found(registry: Registry, who: Principal) -> None:
    key, value = wide(KEY_LIMIT), wide(PARAM_VALUE_LIMIT)
    registration.register_version(registry, who, "churn", log_files(registry, who, params={key: value}))

    assert versions.get_version(registry, who, "churn", 1).origin["params"] == {key: value}
    assert len(search.search_versions(registry, who, filter=f"params.`{key}` = '{value}'").items) == 1
    run = runs.create_run(registry, who, "limits")
    with pytest.raises(errors.LimitExceededError):
        runs.log_params(registry, who, run.run_id, {"k": value + "x"})


def test_the_largest_batch_is_kept_and_one_more_is_refused_whole(registry: Registry, who: Principal) -> None:
    run = runs.create_run(registry, who, "limits")
    params = {f"p{n}": "v" for n in range(BATCH_LIMIT)}
    with pytest.raises(errors.LimitExceededError):
        runs.log_params(registry, who, run.run_id, {**params, "more": "v"})
    assert runs.get_run(registry, who, run.run_id).params == {}
    runs.log_params(registry, who, run.run_id, params)
    assert runs.get_run(registry, who, run.run_id).params == params


def test_ten_thousand_files_are_sealed_and_one_more_is_refused(registry: Registry, who: Principal) -> None:
    version = registration.register_version(registry, who, "churn", log_files(registry, who, MAX_PATHS))

    assert version.file_count == MAX_PATHS
    assert len(versions.list_files(registry, who, "churn", 1).files) == MAX_PATHS
    with pytest.raises(errors.LimitExceededError):
        registration.register_version(registry, who, "churn", log_files(registry, who, MAX_PATHS + 1))
    assert models.get_model(registry, who, "churn").version_count == 1


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800"])
def test_text_no_database_can_hold_is_refused_the_same_everywhere(
    registry: Registry, who: Principal, text: str
) -> None:
    models.create_model(registry, who, "churn")
    with pytest.raises(errors.InvalidError):
        models.update_model(registry, who, "churn", description=text)
    with pytest.raises(errors.InvalidError):
        models.set_model_tags(registry, who, "churn", {"k": text})
    with pytest.raises(errors.InvalidError):
        search.search_models(registry, who, words=text, filter=f"description = '{text}'")


def test_a_refused_request_leaves_no_entry_in_the_log(registry: Registry, who: Principal) -> None:
    from touchmark.services.log import get_head

    models.create_model(registry, who, "churn")
    before = get_head(registry, who).size
    for attempt in (
        lambda: models.create_model(registry, who, "churn"),
        lambda: models.rename_model(registry, who, "nobody", "x"),
        lambda: registration.register_version(registry, who, "churn", "runs:/none/x"),
        lambda: aliases.set_alias(registry, who, "churn", "champion", 7),
        lambda: models.set_model_tags(registry, who, "churn", {"": "x"}),
    ):
        with pytest.raises(errors.TouchmarkError):
            attempt()
    models.set_model_tags(registry, who, "churn", {})
    models.rename_model(registry, who, "churn", "churn")

    assert get_head(registry, who).size == before
