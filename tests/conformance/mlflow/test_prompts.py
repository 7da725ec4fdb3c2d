"""Prompts through MLflow's client: they lie in the registry's tables, behind a tag, and stay out of the models' way."""

from __future__ import annotations

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import refused

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]

TEXT = "Summarise in {{ words }} words: {{ text }}"


@pytest.fixture
def prompt(client: MlflowClient, name: str) -> str:
    """Give the name of a prompt with two versions."""
    mlflow.genai.register_prompt(name, "Say it shorter: {{ text }}", commit_message="first", tags={"author": "ada"})
    mlflow.genai.register_prompt(name, TEXT, commit_message="second")
    return name


def test_a_prompt_is_registered_and_loaded(client: MlflowClient, prompt: str) -> None:
    first, second = (mlflow.genai.load_prompt(f"prompts:/{prompt}/{number}") for number in (1, 2))
    assert (first.name, int(first.version), first.template) == (prompt, 1, "Say it shorter: {{ text }}")
    assert (second.template, second.commit_message) == (TEXT, "second")
    assert first.tags["author"] == "ada"
    assert second.format(words=3, text="long") == "Summarise in 3 words: long"
    assert mlflow.genai.load_prompt(prompt).version == 2


def test_a_chat_prompt_is_registered_and_loaded(client: MlflowClient, name: str) -> None:
    chat = [{"role": "system", "content": "You are {{ who }}."}, {"role": "user", "content": "{{ question }}"}]
    mlflow.genai.register_prompt(name, chat)
    assert mlflow.genai.load_prompt(f"prompts:/{name}/1").template == chat


def test_a_prompt_has_aliases(client: MlflowClient, prompt: str) -> None:
    mlflow.genai.set_prompt_alias(prompt, "production", 1)
    assert int(mlflow.genai.load_prompt(f"prompts:/{prompt}@production").version) == 1
    mlflow.genai.set_prompt_alias(prompt, "production", 2)
    assert int(mlflow.genai.load_prompt(f"prompts:/{prompt}@production").version) == 2
    mlflow.genai.delete_prompt_alias(prompt, "production")
    assert mlflow.genai.load_prompt(f"prompts:/{prompt}@production", allow_missing=True) is None


def test_a_prompt_has_tags(client: MlflowClient, prompt: str) -> None:
    client.set_prompt_tag(prompt, "team", "risk")
    client.set_prompt_version_tag(prompt, "1", "checked", "yes")
    assert client.get_prompt(prompt).tags["team"] == "risk"
    assert client.get_prompt_version(prompt, "1").tags["checked"] == "yes"
    client.delete_prompt_tag(prompt, "team")
    client.delete_prompt_version_tag(prompt, "1", "checked")
    assert "team" not in client.get_prompt(prompt).tags
    assert "checked" not in client.get_prompt_version(prompt, "1").tags


def test_prompts_are_searched(client: MlflowClient, prompt: str) -> None:
    assert [found.name for found in mlflow.genai.search_prompts(f"name = '{prompt}'")] == [prompt]
    assert sorted(int(version.version) for version in client.search_prompt_versions(prompt)) == [1, 2]


def test_prompts_are_no_models(client: MlflowClient, prompt: str) -> None:
    assert client.search_registered_models(f"name = '{prompt}'") == []
    assert client.search_model_versions(f"name = '{prompt}'") == []
    assert prompt not in [model.name for model in client.search_registered_models()]
    hidden = "tags.`mlflow.prompt.is_prompt` = 'true'"
    assert [found.name for found in client.search_registered_models(f"name = '{prompt}' AND {hidden}")] == [prompt]
    versions = client.search_model_versions(f"name = '{prompt}' AND {hidden}")
    assert [str(found.version) for found in versions] == ["2", "1"]


@pytest.mark.parametrize("condition", ["!= 'true'", "= 'false'"])
def test_models_are_no_prompts_without_saying_so(client: MlflowClient, name: str, condition: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/x")
    text = f"name = '{name}' AND tags.`mlflow.prompt.is_prompt` {condition}"
    assert [found.name for found in client.search_registered_models(text)] == [name]
    assert [str(found.version) for found in client.search_model_versions(text)] == ["1"]


def test_a_model_and_a_prompt_share_no_name(client: MlflowClient, prompt: str, name: str) -> None:
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(prompt)
    client.create_registered_model(f"{name}.model")
    with pytest.raises(mlflow.MlflowException):
        mlflow.genai.register_prompt(f"{name}.model", "text")
    assert client.get_registered_model(f"{name}.model").tags == {}


def test_a_prompt_is_no_source_of_a_version(client: MlflowClient, prompt: str) -> None:
    client.create_registered_model(f"{prompt}.model")
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_model_version(f"{prompt}.model", f"models:/{prompt}/1")


def test_a_prompt_is_deleted(client: MlflowClient, prompt: str) -> None:
    client.delete_prompt_version(prompt, "1")
    assert mlflow.genai.load_prompt(f"prompts:/{prompt}/1", allow_missing=True) is None
    client.delete_prompt(prompt)
    assert client.get_prompt(prompt) is None


@pytest.mark.better
def test_one_prompt_tag_hides_nothing_else(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in (1, 2, 3):
        client.create_model_version(name, f"s3://bucket/{number}")
    client._get_registry_client().store.set_model_version_tag(
        name, "2", mlflow.entities.model_registry.ModelVersionTag("mlflow.prompt.is_prompt", "true")
    )
    assert [str(found.version) for found in client.search_model_versions(f"name = '{name}'")] == ["3", "1"]
    assert [found.name for found in client.search_registered_models(f"name = '{name}'")] == [name]
