"""Searches for models and versions through MLflow's client: filters, orders, pages, and what is refused.

Every combination of them is the sweep's business (test_filter_sweep.py); here stand the ways scripts use them.
"""

from __future__ import annotations

from uuid import uuid4

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from tests.conformance.mlflow.doors import Door, as_dict, refused

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def stock(door: Door) -> str:
    """Make seven models with versions, and return what their names begin with."""
    prefix, client = f"s{uuid4().hex[:8]}", door.client
    for number, kind in enumerate(("a", "B", "c", "d_e", "dxe", "é", "Z")):
        client.create_registered_model(
            f"{prefix}.{kind}", {"team": "risk" if number % 2 else "Fraud", "place": "EU", f"only {kind}": "yes"}
        )
        for version in range(number % 3 + 1):
            client.create_model_version(
                f"{prefix}.{kind}",
                f"s3://{prefix}/{kind}/{version}",
                uuid4().hex if version else None,
                {"stage": "dev" if version else "Prod", "a b": str(version)},
            )
    return prefix


def models(client: MlflowClient, stock: str, condition: str = "", **more: object) -> list[str]:
    """Return the names found, without what they all begin with."""
    text = f"name LIKE '{stock}.%'" + (f" AND {condition}" if condition else "")
    return [model.name.removeprefix(f"{stock}.") for model in client.search_registered_models(text, **more)]


def versions(client: MlflowClient, stock: str, condition: str = "", **more: object) -> list[str]:
    """Return the versions found as NAME/NUMBER."""
    text = f"name LIKE '{stock}.%'" + (f" AND {condition}" if condition else "")
    found = client.search_model_versions(text, **more)
    return [f"{version.name.removeprefix(f'{stock}.')}/{version.version}" for version in found]


ALL = ["B", "Z", "a", "c", "d_e", "dxe", "é"]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("", ALL),
        ("name = '{}.a'", ["a"]),
        ('name = "{}.a"', ["a"]),
        ("name = '{}.A'", []),
        ("name != '{}.a'", ["B", "Z", "c", "d_e", "dxe", "é"]),
        ("name LIKE '{}.d_e'", ["d_e", "dxe"]),
        ("name LIKE '{}.D%'", []),
        ("name ILIKE '{}.D%'", ["d_e", "dxe"]),
        ("name ILIKE '{}.Z'", ["Z"]),
        ("name IN ('{}.a', '{}.Z', 'none')", ["Z", "a"]),
        ("name NOT IN ('{}.a', '{}.Z')", ["B", "c", "d_e", "dxe", "é"]),
        ("tags.team = 'risk'", ["B", "d_e", "é"]),
        ("tag.team != 'risk'", ["Z", "a", "c", "dxe"]),
        ("tags.team LIKE 'r%'", ["B", "d_e", "é"]),
        ("tags.team ILIKE 'FRAUD'", ["Z", "a", "c", "dxe"]),
        ("tags.`only a` = 'yes'", ["a"]),
        ('tags."only é" = "yes"', ["é"]),
        ("tags.none = 'x'", []),
        ("tags.none != 'x'", []),
        ("tags.team = 'risk' and tags.place = 'EU' AND name ILIKE '%D_E'", ["d_e"]),
        ("tags.team = 'risk' AND tags.team = 'Fraud'", []),
    ],
)
def test_models_are_found(client: MlflowClient, stock: str, condition: str, wanted: list[str]) -> None:
    assert models(client, stock, condition.replace("{}", stock)) == wanted


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (["name"], ALL),
        (["name ASC"], ALL),
        (["name DESC"], ALL[::-1]),
        (["name\tdesc"], ALL[::-1]),
        (["last_updated_timestamp"], ["a", "B", "c", "d_e", "dxe", "é", "Z"]),
        (["timestamp DESC", "name"], ["Z", "é", "dxe", "d_e", "c", "B", "a"]),
    ],
)
def test_models_come_in_order(client: MlflowClient, stock: str, order: list[str], wanted: list[str]) -> None:
    assert models(client, stock, order_by=order) == wanted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_models_come_in_pages(client: MlflowClient, stock: str, size: int) -> None:
    found: list[RegisteredModel] = []
    token, pages = None, 0
    while True:
        page = client.search_registered_models(f"name LIKE '{stock}.%'", size, ["name DESC"], token)
        found += page
        pages += 1
        token = page.token
        if not token:
            break
    assert [model.name.removeprefix(f"{stock}.") for model in found] == ALL[::-1]
    assert pages == -(-7 // size)


def test_a_model_is_found_whole(client: MlflowClient, stock: str) -> None:
    (found,) = client.search_registered_models(f"name = '{stock}.c'")
    assert as_dict(found) == as_dict(client.get_registered_model(f"{stock}.c"))


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("name = '{}.c'", ["c/3", "c/2", "c/1"]),
        ("name = '{}.c' AND version_number > 1", ["c/3", "c/2"]),
        ("name = '{}.c' AND version_number <= 2 AND version_number != 1", ["c/2"]),
        ("version_number = 3", ["é/3", "c/3"]),
        ("source_path = 's3://{}/é/1'", ["é/2"]),
        ("source_path ILIKE 'S3://{}/D%'", ["dxe/2", "dxe/1", "d_e/1"]),
        ("name IN ('{}.a', '{}.Z')", ["Z/1", "a/1"]),
        ("name NOT IN ('{}.c', '{}.é')", ["Z/1", "dxe/2", "dxe/1", "d_e/1", "B/2", "B/1", "a/1"]),
        ("tags.stage = 'Prod'", ["Z/1", "é/1", "dxe/1", "d_e/1", "c/1", "B/1", "a/1"]),
        ("tags.stage ILIKE 'p%' AND tags.`a b` = '0' AND name LIKE '%.d_e'", ["dxe/1", "d_e/1"]),
        ("tags.stage != 'Prod'", ["é/3", "é/2", "dxe/2", "c/3", "c/2", "B/2"]),
        ("run_id = 'none'", []),
        ("run_id IN ('none', 'neither')", []),
    ],
)
def test_versions_are_found(client: MlflowClient, stock: str, condition: str, wanted: list[str]) -> None:
    assert versions(client, stock, condition.replace("{}", stock)) == wanted


def test_versions_are_found_by_their_run(client: MlflowClient, stock: str) -> None:
    run_id = client.get_model_version(f"{stock}.c", "2").run_id
    assert versions(client, stock, f"run_id = '{run_id}'") == ["c/2"]
    assert versions(client, stock, f"run_id IN ('{run_id}', 'other')") == ["c/2"]
    assert [found.run_id for found in client.search_model_versions(f"run_id='{run_id}'")] == [run_id]


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (["version_number DESC", "name"], ["c/3", "é/3", "c/2", "é/2", "c/1", "é/1"]),
        (["name DESC", "version_number"], ["é/1", "é/2", "é/3", "c/1", "c/2", "c/3"]),
        (["creation_timestamp"], ["c/1", "c/2", "c/3", "é/1", "é/2", "é/3"]),
        (["last_updated_timestamp DESC"], ["é/3", "é/2", "é/1", "c/3", "c/2", "c/1"]),
        (None, ["é/3", "é/2", "é/1", "c/3", "c/2", "c/1"]),
    ],
)
def test_versions_come_in_order(client: MlflowClient, stock: str, order: list[str] | None, wanted: list[str]) -> None:
    assert versions(client, stock, f"name IN ('{stock}.c', '{stock}.é')", order_by=order) == wanted


@pytest.mark.parametrize("size", [1, 5, 13, 14])
def test_versions_come_in_pages(client: MlflowClient, stock: str, size: int) -> None:
    found: list[ModelVersion] = []
    token, pages = None, 0
    while True:
        page = client.search_model_versions(f"name LIKE '{stock}.%'", size, page_token=token)
        found += page
        pages += 1
        token = page.token
        if not token:
            break
    assert len({(version.name, version.version) for version in found}) == len(found) == 13
    assert pages == -(-13 // size)


def test_a_version_is_found_whole(client: MlflowClient, stock: str) -> None:
    found = client.search_model_versions(f"name = '{stock}.B'")
    assert [as_dict(version) for version in found] == [
        as_dict(client.get_model_version(f"{stock}.B", number)) for number in ("2", "1")
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = a", "Parameter value is either not quoted or unidentified quote types"),
        ("evilhax = 'true'", "Invalid attribute key"),
        ("name > 'a'", "Invalid comparator"),
        ("name = 'a' OR name = 'b'", "Invalid clause(s) in filter string"),
        ("name IN (", "Invalid clause(s) in filter string"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(client: MlflowClient, text: str, words: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", words):
        client.search_model_versions(text)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_registered_models(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run_id IN ()", "expected a non-empty list of string values"),
        ("run_id IN ('a', 5)", ""),
        ("run_id IN (", "Invalid clause(s) in filter string"),
        ("run_id IN 'a'", ""),
        ("version_number = 'a'", ""),
        ("creation_timestamp > 1", "Invalid attribute key"),
        ("current_stage = 'Production'", "Invalid attribute key"),
    ],
)
def test_a_filter_of_versions_that_means_nothing_is_refused(client: MlflowClient, text: str, words: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", words):
        client.search_model_versions(text)


def test_an_order_that_means_nothing_is_refused(client: MlflowClient) -> None:
    for order in (["creation_timestamp"], ["run_id"], ["name SIDEWAYS"], ["name; DROP TABLE models"], [""]):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_registered_models(order_by=order)
    for order in (["current_stage"], ["run_id"], ["name ASC DESC"]):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_model_versions(order_by=order)


@pytest.mark.better
def test_the_same_order_twice_is_refused_at_once(client: MlflowClient) -> None:
    with refused("INVALID_PARAMETER_VALUE", "duplicate"):
        client.search_registered_models(order_by=["name", "name DESC"])
    with refused("INVALID_PARAMETER_VALUE", "duplicate"):
        client.search_model_versions(order_by=["name", "name DESC"])


def test_a_page_is_not_endless(client: MlflowClient) -> None:
    with refused("INVALID_PARAMETER_VALUE", "max_results"):
        client.search_registered_models(max_results=1001)
    with refused("INVALID_PARAMETER_VALUE", "max_results"):
        client.search_model_versions(max_results=200_001)


@pytest.mark.better
@pytest.mark.parametrize("size", [0, -1])
def test_a_page_has_a_row(client: MlflowClient, size: int) -> None:
    with refused("INVALID_PARAMETER_VALUE", "max_results"):
        client.search_registered_models(max_results=size)
    with refused("INVALID_PARAMETER_VALUE", "max_results"):
        client.search_model_versions(max_results=size)


def test_a_token_nobody_gave_is_refused(client: MlflowClient) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_registered_models(page_token="garbage")
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_model_versions(page_token="garbage")


@pytest.mark.better
@pytest.mark.parametrize("token", ["é", "bm90IGpzb24=", "eyJvZmZzZXQiOiAxfQ==", "x" * 5000])
def test_a_token_of_any_form_is_refused_at_once(client: MlflowClient, token: str) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_registered_models(page_token=token)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_model_versions(page_token=token)


@pytest.mark.better
def test_a_token_of_another_search_is_refused(client: MlflowClient, stock: str) -> None:
    token = client.search_registered_models(f"name LIKE '{stock}.%'", 1).token
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_registered_models(f"name LIKE '{stock}.d%'", 1, page_token=token)


@pytest.mark.better
def test_a_row_that_comes_between_pages_shifts_nothing(client: MlflowClient, name: str) -> None:
    for number in (2, 3, 4):
        client.create_registered_model(f"{name}.{number}")
    page = client.search_registered_models(f"name LIKE '{name}%'", 2, ["name"])
    client.create_registered_model(f"{name}.1")
    rest = client.search_registered_models(f"name LIKE '{name}%'", 2, ["name"], page.token)
    assert [model.name for model in [*page, *rest]] == [f"{name}.{number}" for number in (2, 3, 4)]


def test_deleted_versions_are_not_found(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in (1, 2, 3):
        client.create_model_version(name, f"s3://bucket/{name}/{number}")
    client.delete_model_version(name, "2")
    assert [str(found.version) for found in client.search_model_versions(f"name='{name}'")] == ["3", "1"]
    assert client.search_model_versions(f"source_path = 's3://bucket/{name}/2'") == []
    assert client.search_model_versions("source_path = 'REDACTED-SOURCE-PATH'") == []
