"""What MLflow's clients write as a version's source: ours, somebody else's, or refused."""

from __future__ import annotations

import pytest

from touchmark.domain.errors import InvalidSourceError
from touchmark.protocols.mlflow.sources import parse_source

RUN = "a" * 32
MODEL = "m-" + "b" * 32
REFUSED = [
    "/tmp",
    "tmp/model",
    "./model",
    "../model",
    "file:///path/to/model",
    "file://123.456.789.123/path/to/model",
    "file:/etc/passwd",
    "FILE:///etc/passwd",
    "C:\\models",
    "C:/models",
    "mlflow-artifacts://host:9000/models/../../../",
    "http://host:9000/models/../../../",
    "https://host/api/2.0/mlflow-artifacts/artifacts/../../../",
    "s3a://my_bucket/models/../../../",
    "ftp://host:8888/path/../../../",
    "mlflow-artifacts://host:9000/models/..%2f..%2fartifacts",
    "mlflow-artifacts://host:9000/models/artifact%00",
    "s3://bucket/%2e%2e/other",
    "s3://bucket/%252e%252e/other",
    "s3://bucket/a/./b",
    "s3://bucket/a\\..\\b",
    "s3://bucket/%" + "25" * 20 + "2e",
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/model",
    "hdfs://namenode/model",
    "sftp://host/model",
    f"dbfs:/{RUN}/artifacts/a%3f/../../..",
    f"runs://host/{RUN}/model",
    "runs:/",
    "models:/",
    f"models:/{MODEL}",  # the request does not say that it is this one
    "models://host/name/1",
    "models:/name/1/inner/path",
    "models:/name/no-stage",
    f"mlflow-artifacts:/0/{RUN}/artifacts/model",  # of no run the request names
    f"mlflow-artifacts://host/0/{RUN}/artifacts/model",
    f"mlflow-artifacts:/0/models/{MODEL}/artifacts",
    "mlflow-artifacts:/models",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_source_that_reaches_where_it_should_not_is_refused(text: str) -> None:
    with pytest.raises(InvalidSourceError, match=r"Invalid model version source|must"):
        parse_source(text, run_id=None, model_id=None)


def test_a_source_of_another_run_or_model_than_the_request_names_is_refused() -> None:
    for text, run_id, model_id in (
        (f"mlflow-artifacts:/0/{RUN}/artifacts/model", "c" * 32, None),
        (f"mlflow-artifacts:/0/models/{MODEL}/artifacts", None, "m-" + "c" * 32),
        (f"mlflow-artifacts:/0/{RUN}/artifacts/model", RUN, MODEL),
        (f"models:/{MODEL}", None, "m-" + "c" * 32),
        (f"runs:/{RUN}/model", None, MODEL),
    ):
        with pytest.raises(InvalidSourceError, match="must identify the resource that contains the source"):
            parse_source(text, run_id=run_id, model_id=model_id)


def test_our_own_references_are_handed_on() -> None:
    assert parse_source(f"runs:/{RUN}/model", run_id=RUN, model_id=None).reference == f"runs:/{RUN}/model"
    assert parse_source(f"runs:/{RUN}/model", run_id=None, model_id=None).reference == f"runs:/{RUN}/model"
    assert parse_source(f"models:/{MODEL}", run_id=None, model_id=MODEL).reference == f"models:/{MODEL}"
    copied = parse_source("models:/churn@champion", run_id=None, model_id=None)
    assert (copied.reference, copied.copies) == ("models:/churn@champion", "churn")


def test_proxied_addresses_become_our_references() -> None:
    found = parse_source(f"mlflow-artifacts:/0/{RUN}/artifacts/a/b", run_id=RUN, model_id=None)
    assert found.reference == f"runs:/{RUN}/a/b"
    assert parse_source(f"mlflow-artifacts:/0/{RUN}/artifacts", run_id=RUN, model_id=None).reference == f"runs:/{RUN}/"
    found = parse_source(f"mlflow-artifacts:/7/models/{MODEL}/artifacts", run_id=None, model_id=MODEL)
    assert found.reference == f"models:/{MODEL}"


def test_what_lies_in_an_object_store_is_no_reference_and_says_why() -> None:
    found = parse_source("s3://bucket/model", run_id=None, model_id=None)
    assert found.reference is None
    assert "s3" in (found.reason or "")
    assert not found.can_be_imported
    assert parse_source("s3://bucket/model", run_id=RUN, model_id=None).can_be_imported


def test_a_run_other_than_the_one_named_leaves_the_version_without_files() -> None:
    found = parse_source(f"runs:/{RUN}/model", run_id="other", model_id=None)
    assert found.reference is None
    assert "other" in (found.reason or "")


def test_a_prompt_has_no_files_and_no_other_source() -> None:
    assert parse_source("prompt-template", run_id=None, model_id=None, is_prompt=True).reference is None
    with pytest.raises(InvalidSourceError, match="Invalid prompt source"):
        parse_source("s3://bucket/x", run_id=None, model_id=None, is_prompt=True)
