"""Stories about the registry: models, versions, tags, aliases, stages, searches, prompts, and much that is refused.

Each is told to an empty corner of a server (names of its own) and reads back what it did. Deliberate differences are kept
to names that nothing else in the story needs, so that one does not bring another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.conformance.mlflow.played import Player, Story, dig

_HEX = "0123456789abcdef0123456789abcdef"
_RUN = {"experiment_id": "0", "user_id": "ada", "start_time": 1_700_000_000_000, "run_name": "a run"}


def make_model(call: Player, name: str, versions: int = 0) -> None:
    """Make a model with versions whose files lie elsewhere."""
    call("POST", "registered-models/create", name=name)
    for number in range(1, versions + 1):
        call("POST", "model-versions/create", name=name, source=f"s3://bucket/{name}/{number}")


def look_at(call: Player, name: str, *versions: int) -> None:
    """Read a model and versions of it."""
    call("GET", "registered-models/get", name=name)
    for number in versions:
        call("GET", "model-versions/get", name=name, version=str(number))


def pairs(**values: str) -> list[dict[str, str]]:
    """Return tags or params as MLflow sends them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def a_model_lives(call: Player) -> None:
    call("POST", "registered-models/create", name="life", tags=pairs(team="risk", empty=""), description="first words")
    look_at(call, "life")
    call("PATCH", "registered-models/update", name="life", description="other words")
    look_at(call, "life")
    call("PATCH", "registered-models/update", name="life")
    look_at(call, "life")
    call("PATCH", "registered-models/update", name="life", description="")
    call("POST", "registered-models/set-tag", name="life", key="team", value="fraud")
    call("POST", "registered-models/set-tag", name="life", key="new")
    call("POST", "registered-models/set-tag", name="life", key="a b/c.d-e:f_g", value="é\n☃")
    look_at(call, "life")
    call("DELETE", "registered-models/delete-tag", name="life", key="team")
    call("DELETE", "registered-models/delete-tag", name="life", key="team")
    look_at(call, "life")
    call("DELETE", "registered-models/delete", name="life")
    look_at(call, "life")
    call("DELETE", "registered-models/delete", name="life")
    call("PATCH", "registered-models/update", name="life", description="late")
    call("POST", "registered-models/set-tag", name="life", key="a", value="b")
    call("DELETE", "registered-models/delete-tag", name="life", key="a")
    call("POST", "registered-models/rename", name="life", new_name="afterlife")


def models_are_created_in_many_ways(call: Player) -> None:
    call("POST", "registered-models/create", name="made", description="")
    look_at(call, "made")
    call("POST", "registered-models/create", name="made")
    call("POST", "registered-models/create", name="made.twice", tags=[*pairs(a="1"), *pairs(a="2")])
    look_at(call, "made.twice")
    call("POST", "registered-models/create", name="made.extra", unknown="ignored", deployment_job_id="job")
    call("POST", "registered-models/create", name="MADE")
    look_at(call, "MADE")
    call("POST", "registered-models/create", name="with blank and é")
    look_at(call, "with blank and é")
    call("POST", "registered-models/create", name="made.null", description=None, tags=None)
    call("POST", "registered-models/create", name="made.camel", Description="no such field")
    call.send("POST", "registered-models/create", json='{"name": "made.in.text"}')
    look_at(call, "made.in.text")


def models_are_refused(call: Player) -> None:
    make_model(call, "taken")
    for name in (None, "", " ", "a/b", "a:b", ".", "..", 5, True, ["a"], {"a": 1}):
        call("POST", "registered-models/create", name=name)
    call("POST", "registered-models/create")
    for tags in ("text", {"a": "b"}, [1], [{"value": "a"}]):
        call("POST", "registered-models/create", name="refused.tags", tags=tags)
    for key in ("k" * 251, ""):
        call("POST", "registered-models/create", name="refused.key", tags=[{"key": key, "value": "v"}])
        call("POST", "registered-models/set-tag", name="taken", key=key, value="v")
    call("POST", "registered-models/set-tag", name="taken", key="long", value="v" * 100_001)
    call("POST", "registered-models/set-tag", name="taken", key="long", value="v" * 5_000)
    call("POST", "registered-models/set-tag", name="taken", key=5, value="v")
    call("POST", "registered-models/set-tag", name="taken", key="a", value=5)
    call("POST", "registered-models/set-tag", name="taken", value="v")
    call("POST", "registered-models/set-tag", key="a", value="v")
    call("POST", "registered-models/set-tag", name="absent", key="a", value="v")
    call("POST", "registered-models/create", name="refused.words", description=5)
    call("PATCH", "registered-models/update", name="taken", description=5)
    call("PATCH", "registered-models/update", name="absent", description="words")
    call("PATCH", "registered-models/update", description="words")
    for method, path in (
        ("GET", "registered-models/get"),
        ("DELETE", "registered-models/delete"),
        ("POST", "registered-models/get-latest-versions"),
        ("POST", "registered-models/rename"),
    ):
        call(method, path)
        call(method, path, name="")
        call(method, path, name="absent", new_name="still absent")
        call(method, path, name="a/b", new_name="still absent")
    call("GET", "registered-models/get", name=["taken", "taken"])
    look_at(call, "taken")


def bodies_are_odd(call: Player) -> None:
    make_model(call, "odd")
    path = "registered-models/create"
    head = {"Content-Type": "application/json"}
    for body in ("", "[]", "5", '"text"', "[1]"):
        call.send("POST", path, content=body, headers=head)
    call.send("POST", path, content='{"name": "odd.plain"}', headers={"Content-Type": "text/plain"})
    call.send("POST", path, content='{"name": "odd.none"}')
    call.send(
        "POST", path, content='{"name": "odd.charset"}', headers={"Content-Type": "application/json; charset=utf-8"}
    )
    call.send("POST", "model-versions/create", json={"name": "odd", "source": "s3://b/c", "runLink": "spelled"})
    call.send(
        "POST", "model-versions/create", json={"name": "odd", "source": "s3://b", "runLink": "a", "run_link": "b"}
    )
    call.send("GET", "registered-models/get?name=odd&unknown=1")
    call.send("GET", "registered-models/get", params={"Name": "odd"})
    call.send("GET", "/ajax-api/2.0/mlflow/registered-models/get", params={"name": "odd"})
    call.send("GET", "registered-models/no-such-thing")
    call.send("GET", "/api/2.0/preview/mlflow/registered-models/get", params={"name": "odd"})
    call.send("PUT", "registered-models/create", json={"name": "odd"})
    call.send("GET", "registered-models/create")
    call.send("GET", "/health")


def json_is_strict(call: Player) -> None:
    path, head = "registered-models/create", {"Content-Type": "application/json"}
    for body in ("{", "null", '{"name": "a"', '{"name": "strict.nan", "x": NaN}', '{"name": "one", "name": "two"}'):
        call.send("POST", path, content=body, headers=head)
    call.send("POST", path, content=b'\xef\xbb\xbf{"name": "strict.bom"}', headers=head)
    call.send("POST", path, content=b'{"name": "\xff"}', headers=head)


def tags_are_typed(call: Player) -> None:
    for tags in ([{"key": 1, "value": "a"}], [{"key": "a", "value": 1}]):
        call("POST", "registered-models/create", name="typed.tags", tags=tags)


def keys_of_tags_are_free(call: Player) -> None:
    make_model(call, "free", 1)
    for number, key in enumerate(("a/../b", "a=b", "/a", "a//b", ".", "a;b")):
        call("POST", "registered-models/create", name=f"free.{number}", tags=[{"key": key, "value": "v"}])
        call("POST", "registered-models/set-tag", name="free", key=key, value="v")
        call("DELETE", "registered-models/delete-tag", name="free", key=key)
        call("POST", "model-versions/set-tag", name="free", version="1", key=key, value="v")
        source = {"name": "free", "source": "s3://bucket/free"}
        call("POST", "model-versions/create", **source, tags=[{"key": key, "value": "v"}])


def names_are_strict(call: Player) -> None:
    for name in (" lead", "trail ", "x\ny", "tab\tin", "n" * 300, "zero\u200bwidth", "nul\x00"):
        call("POST", "registered-models/create", name=name)


def a_model_is_renamed(call: Player) -> None:
    make_model(call, "old", 2)
    call("POST", "registered-models/alias", name="old", alias="champion", version="1")
    call("POST", "model-versions/set-tag", name="old", version="1", key="k", value="v")
    call("POST", "registered-models/rename", name="old", new_name="new")
    look_at(call, "new", 1, 2)
    call("GET", "registered-models/alias", name="new", alias="champion")
    call("POST", "model-versions/create", name="new", source="s3://bucket/third")
    make_model(call, "other")
    call("POST", "registered-models/rename", name="new", new_name="other")
    call("POST", "registered-models/rename", name="new", new_name="new")
    call("GET", "registered-models/get", name="new")
    for new_name in (None, "", "a/b", " ", 5):
        call("POST", "registered-models/rename", name="new", new_name=new_name)
    call("POST", "registered-models/rename", name="new")
    call("POST", "registered-models/rename", name="absent", new_name="other")


def an_old_name_is_read(call: Player) -> None:
    make_model(call, "before", 1)
    call("POST", "registered-models/rename", name="before", new_name="after")
    look_at(call, "before", 1)
    call("POST", "registered-models/create", name="before")


def a_name_is_used_again(call: Player) -> None:
    make_model(call, "again", 2)
    call("DELETE", "registered-models/delete", name="again")
    call("POST", "registered-models/create", name="again")
    call("POST", "model-versions/create", name="again", source="s3://bucket/again")


def a_version_lives(call: Player) -> None:
    make_model(call, "lived")
    call(
        "POST",
        "model-versions/create",
        name="lived",
        source="s3://bucket/lived",
        description="words",
        run_link="https://example.org/run",
        tags=pairs(a="1", b=""),
    )
    look_at(call, "lived", 1)
    call("POST", "model-versions/create", name="lived", source="s3://bucket/lived")
    look_at(call, "lived", 2)
    call("GET", "model-versions/get-download-uri", name="lived", version="1")
    call("PATCH", "model-versions/update", name="lived", version="1", description="other words")
    look_at(call, "lived", 1)
    call("PATCH", "model-versions/update", name="lived", version="1")
    look_at(call, "lived", 1)
    call("POST", "model-versions/set-tag", name="lived", version="1", key="a", value="2")
    call("POST", "model-versions/set-tag", name="lived", version="1", key="c")
    look_at(call, "lived", 1)
    call("DELETE", "model-versions/delete-tag", name="lived", version="1", key="a")
    call("DELETE", "model-versions/delete-tag", name="lived", version="1", key="a")
    look_at(call, "lived", 1)
    call("DELETE", "model-versions/delete", name="lived", version="2")
    look_at(call, "lived", 2)
    call("POST", "model-versions/create", name="lived", source="s3://bucket/third")
    look_at(call, "lived", 3)
    call("DELETE", "model-versions/delete", name="lived", version="2")
    call("PATCH", "model-versions/update", name="lived", version="2", description="late")
    call("POST", "model-versions/set-tag", name="lived", version="2", key="a", value="b")
    call("DELETE", "model-versions/delete-tag", name="lived", version="2", key="a")
    call("GET", "model-versions/get-download-uri", name="lived", version="2")
    call("POST", "model-versions/transition-stage", name="lived", version="2", stage="Staging")
    call("POST", "registered-models/alias", name="lived", alias="late", version="2")


def versions_are_refused(call: Player) -> None:
    make_model(call, "strict", 1)
    for version in ("abc", "", None, "0", "-1", "1.0", "2", "99999999999999999999", 1, True, ["1"]):
        call("PATCH", "model-versions/update", name="strict", version=version, description="words")
        call("POST", "registered-models/alias", name="strict", alias="any", version=version)
        call("POST", "model-versions/set-tag", name="strict", version=version, key="k", value="v")
        call("DELETE", "model-versions/delete", name="absent", version=version)
    for version in ("abc", "", "0", "-1", "2", "1.0"):
        call("GET", "model-versions/get", name="strict", version=version)
        call("GET", "model-versions/get-download-uri", name="strict", version=version)
    for path in ("model-versions/get", "model-versions/get-download-uri"):
        call("GET", path)
        call("GET", path, name="strict")
        call("GET", path, version="1")
        call("GET", path, name="absent", version="1")
        call("GET", path, name="a/b", version="1")
    for path in ("model-versions/delete", "model-versions/delete-tag"):
        call("DELETE", path)
        call("DELETE", path, name="strict")
        call("DELETE", path, name="strict", version="2", key="k")
    for key in ("k" * 251, "", None, 5):
        call("POST", "model-versions/set-tag", name="strict", version="1", key=key, value="v")
    call("POST", "model-versions/set-tag", name="strict", version="1", key="long", value="v" * 100_001)
    call("POST", "model-versions/set-tag", name="strict", version="1", key="a", value=5)
    call("POST", "model-versions/create")
    call("POST", "model-versions/create", name="strict")
    call("POST", "model-versions/create", name="strict", source="")
    call("POST", "model-versions/create", name="strict", source=5)
    call("POST", "model-versions/create", source="s3://bucket/a")
    call("POST", "model-versions/create", name="absent", source="s3://bucket/a")
    call("POST", "model-versions/create", name="a/b", source="s3://bucket/a")
    for field in ("run_id", "run_link", "description", "model_id"):
        call("POST", "model-versions/create", name="strict", source="s3://bucket/a", **{field: 5})
    call("POST", "model-versions/create", name="strict", source="s3://bucket/a", tags="text")
    look_at(call, "strict", 1)


def sources_are_refused(call: Player) -> None:
    make_model(call, "sources")
    run = dig(call("POST", "runs/create", **_RUN), "run", "info", "run_id")
    for source in (
        "mlflow-artifacts://host:9000/models/../../../",
        "http://host:9000/models/../../../",
        "https://host/api/2.0/mlflow-artifacts/artifacts/../../../",
        "s3a://my_bucket/models/../../../",
        "s3://b/../c",
        "ftp://host:8888/path/../../../",
        "mlflow-artifacts:/0/models/..%2f..%2fartifacts",
        "mlflow-artifacts:/0/models/%252e%252e/a",
        "mlflow-artifacts:/0/artifact%00",
        "dbfs:/run/artifacts/a%3f/../../..",
        "file:///tmp",
        "/tmp",
        "tmp",
        "./tmp",
        "file:tmp",
        "file://123.456.789.123/path/to/source",
        "http://169.254.169.254/latest/meta-data",
        "ftp://host/path",
        "hdfs://host/path",
        "mlflow-artifacts:/models",
        "mlflow-artifacts:/0/0123456789abcdef0123456789abcdef/artifacts/model",
        "runs://host/path",
        f"models:/m-{_HEX}",
        "models:/no-such-model/1",
        "models:/sources/1",
        "models:/sources@champion",
        "models:/sources/latest",
        "models:/sources/Production",
        "models:/sources",
        "models:/sources/1/more",
    ):
        call("POST", "model-versions/create", name="sources", source=source)
        call("POST", "model-versions/create", name="sources", source=source, run_id=run)
    call("POST", "model-versions/create", name="sources", source="file:///path/to/model", model_id=f"m-{_HEX}")
    look_at(call, "sources")


def sources_that_cannot_be_read(call: Player) -> None:
    make_model(call, "unread")
    run = dig(call("POST", "runs/create", **_RUN), "run", "info", "run_id")
    for source in ("s3://bucket/a", "gs://bucket/a", "wasbs://a@b/c", "dbfs:/a/b", "s3://bucket/a%20b", "unknown:/a"):
        call("POST", "model-versions/create", name="unread", source=source)
    call("POST", "model-versions/create", name="unread", source="s3://bucket/a", run_id=run)
    call("POST", "model-versions/create", name="unread", source="s3://bucket/a", run_id="not-a-run")
    call("GET", "model-versions/search", filter="name = 'unread'")


def versions_whose_run_is_unknown(call: Player) -> None:
    make_model(call, "unknown.run")
    run = dig(call("POST", "runs/create", **_RUN), "run", "info", "run_id")
    call("POST", "model-versions/create", name="unknown.run", source=f"runs:/{_HEX}/model", run_id=_HEX)
    call("POST", "model-versions/create", name="unknown.run", source=f"runs:/{run}/model")
    call("POST", "model-versions/create", name="unknown.run", source=f"runs:/{run}/model", run_id=_HEX)
    call("POST", "model-versions/create", name="unknown.run", source=f"models:/m-{_HEX}", model_id=f"m-{_HEX}")


def aliases_move(call: Player) -> None:
    make_model(call, "aliased", 3)
    call("POST", "registered-models/alias", name="aliased", alias="champion", version="1")
    look_at(call, "aliased", 1)
    call("GET", "registered-models/alias", name="aliased", alias="champion")
    call("POST", "registered-models/alias", name="aliased", alias="champion", version="2")
    call("POST", "registered-models/alias", name="aliased", alias="champion", version="2")
    look_at(call, "aliased", 1, 2)
    call("POST", "registered-models/alias", name="aliased", alias="Champion", version="3")
    call("POST", "registered-models/alias", name="aliased", alias="second", version="2")
    look_at(call, "aliased", 2, 3)
    call("POST", "registered-models/get-latest-versions", name="aliased")
    call("GET", "registered-models/alias", name="aliased", alias="CHAMPION")
    call("GET", "registered-models/alias", name="aliased", alias="latest")
    call("GET", "registered-models/alias", name="aliased", alias="LATEST")
    call("DELETE", "registered-models/alias", name="aliased", alias="champion")
    call("DELETE", "registered-models/alias", name="aliased", alias="champion")
    call("GET", "registered-models/alias", name="aliased", alias="champion")
    call("DELETE", "model-versions/delete", name="aliased", version="2")
    call("GET", "registered-models/alias", name="aliased", alias="second")
    look_at(call, "aliased", 3)
    call("GET", "registered-models/alias", name="aliased", alias="latest")


def aliases_are_refused(call: Player) -> None:
    make_model(call, "misaliased", 1)
    make_model(call, "bare")
    for alias in ("latest", "Latest", "v1", "V22", "a b", "a.b", "a/b", "a:b", "a@b", "", None, "a" * 256, 5):
        call("POST", "registered-models/alias", name="misaliased", alias=alias, version="1")
    for alias in ("v1x", "v", "_", "a-b_C9"):
        call("POST", "registered-models/alias", name="misaliased", alias=alias, version="1")
        call("DELETE", "registered-models/alias", name="misaliased", alias=alias)
    for alias in ("absent", "latest", "", "a b"):
        call("GET", "registered-models/alias", name="bare", alias=alias)
        call("GET", "registered-models/alias", name="absent", alias=alias)
    call("POST", "registered-models/alias", name="misaliased", alias="any", version="2")
    call("POST", "registered-models/alias", name="absent", alias="any", version="1")
    call("POST", "registered-models/alias", name="misaliased", version="1")
    call("POST", "registered-models/alias", alias="any", version="1")
    call("GET", "registered-models/alias", name="misaliased")
    call("GET", "registered-models/alias", alias="any")
    look_at(call, "misaliased", 1)


def aliases_are_strict(call: Player) -> None:
    make_model(call, "plain", 1)
    for alias in ("é", "line\n", "-", "a" * 255):
        call("POST", "registered-models/alias", name="plain", alias=alias, version="1")
    call("DELETE", "registered-models/alias", name="absent", alias="any")
    call("DELETE", "registered-models/alias", name="plain", alias="absent")


def stages_are_passed(call: Player) -> None:
    make_model(call, "staged", 4)
    change = "model-versions/transition-stage"
    call("POST", change, name="staged", version="1", stage="Production")
    look_at(call, "staged", 1)
    call("POST", change, name="staged", version="2", stage="production", archive_existing_versions=False)
    call("POST", "registered-models/get-latest-versions", name="staged")
    call("POST", change, name="staged", version="3", stage="PRODUCTION", archive_existing_versions=True)
    look_at(call, "staged", 1, 2, 3)
    call("POST", change, name="staged", version="1", stage="Staging", archive_existing_versions=True)
    for stages in ([], ["Production"], ["production", "NONE"], ["Archived"], ["Staging", "Staging"], None):
        call("POST", "registered-models/get-latest-versions", name="staged", stages=stages)
        call("GET", "registered-models/get-latest-versions", name="staged", stages=stages or [])
    call("POST", "registered-models/get-latest-versions", name="staged", stages=["nowhere"])
    call("POST", "registered-models/get-latest-versions", name="staged", stages="Production")
    call("POST", change, name="staged", version="1", stage="None")
    call("POST", change, name="staged", version="1", stage="None")
    call("POST", change, name="staged", version="1", stage="Archived")
    call("POST", change, name="staged", version="1", stage="Archived", archive_existing_versions=True)
    for stage in ("nowhere", "", None, 5, "Deleted_Internal"):
        call("POST", change, name="staged", version="1", stage=stage)
    call("POST", change, name="staged", version="1", stage="Staging", archive_existing_versions="yes")
    call("POST", change, name="staged", version="9", stage="Staging")
    call("POST", change, name="absent", version="1", stage="Staging")
    call("POST", change, name="staged", version="x", stage="Staging")
    call("POST", change, name="staged", stage="Staging")
    call("POST", change, version="1", stage="Staging")
    call("DELETE", "model-versions/delete", name="staged", version="3")
    look_at(call, "staged", 1, 2, 4)


def versions_are_copied(call: Player) -> None:
    make_model(call, "origin", 2)
    make_model(call, "copies")
    call("POST", "registered-models/alias", name="origin", alias="champion", version="1")
    for source in ("models:/origin/1", "models:/origin@champion", "models:/origin/latest", "models:/origin/2"):
        call("POST", "model-versions/create", name="copies", source=source)
    call("POST", "model-versions/create", name="copies", source="models:/copies/1", tags=pairs(a="b"), description="c")
    look_at(call, "copies", 1, 2, 3, 4, 5)
    for version in range(1, 6):
        call("GET", "model-versions/get-download-uri", name="copies", version=str(version))
    call("DELETE", "registered-models/delete", name="origin")
    call("GET", "model-versions/get-download-uri", name="copies", version="5")
    call("POST", "model-versions/create", name="copies", source="models:/origin/1")
    call("POST", "model-versions/create", name="copies", source="models:/copies/9")
    call("POST", "model-versions/create", name="copies", source="models:/copies@nobody")


def a_run_is_registered(call: Player) -> None:
    run = _logged_run(call)
    make_model(call, "registered")
    root = dig(run, "info", "artifact_uri")
    run_id = dig(run, "info", "run_id")
    for source in (f"runs:/{run_id}/model", f"{root}/model", root):
        call("POST", "model-versions/create", name="registered", source=source, run_id=run_id)
    look_at(call, "registered", 1, 2, 3)
    call("GET", "model-versions/get-download-uri", name="registered", version="1")
    call("GET", "model-versions/search", filter=f"run_id = '{run_id}'")
    call("POST", "model-versions/create", name="registered", source=f"runs:/{run_id}/model")
    call("POST", "model-versions/create", name="registered", source=f"{root}/model")
    call("POST", "model-versions/create", name="registered", source=f"{root}/model", run_id="other")


def _logged_run(call: Player) -> Any:
    run = dig(call("POST", "runs/create", **_RUN), "run")
    place = f"/api/2.0/mlflow-artifacts/artifacts/0/{dig(run, 'info', 'run_id')}/artifacts/model"
    call.send("PUT", f"{place}/MLmodel", content=b"artifact_path: model\nflavors: {}\n")
    call.send("PUT", f"{place}/weights.bin", content=b"weights")
    return run


def a_logged_model_is_registered(call: Player) -> None:
    run = dig(call("POST", "runs/create", **_RUN), "run", "info", "run_id")
    made = call("POST", "logged-models", experiment_id="0", name="net", source_run_id=run)
    model_id = dig(made, "model", "info", "model_id")
    place = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{model_id}/artifacts"
    call.send("PUT", f"{place}/MLmodel", content=b"artifact_path: net\nflavors: {}\n")
    call("PATCH", f"logged-models/{model_id}", model_id=model_id, status="LOGGED_MODEL_READY")
    make_model(call, "nets")
    source = f"models:/{model_id}"
    call("POST", "model-versions/create", name="nets", source=source, model_id=model_id)
    call("POST", "model-versions/create", name="nets", source=source, model_id=model_id, run_id=run)
    look_at(call, "nets", 1, 2)
    call("GET", "model-versions/get-download-uri", name="nets", version="1")
    call("GET", f"logged-models/{model_id}")
    call("POST", "model-versions/create", name="nets", source=source)
    call("POST", "model-versions/create", name="nets", source=source, model_id=f"m-{_HEX}")
    call("POST", "model-versions/create", name="nets", source="models:/nets/1")
    look_at(call, "nets", 3)


def rows_are_searched(call: Player) -> None:
    for name, team in (("find.one", "risk"), ("find.two", "fraud"), ("find.three", "risk")):
        call("POST", "registered-models/create", name=name, tags=pairs(team=team))
        for number in (1, 2):
            call("POST", "model-versions/create", name=name, source=f"s3://find/{name}/{number}", tags=pairs(team=team))
    call("POST", "registered-models/alias", name="find.one", alias="champion", version="2")
    call("POST", "model-versions/transition-stage", name="find.one", version="1", stage="Staging")
    mine = "name LIKE 'find.%'"
    call("GET", "registered-models/search", filter=mine)
    call("GET", "registered-models/search", filter=f"{mine} AND tags.team = 'risk'", order_by=["name DESC"])
    call("GET", "registered-models/search", filter="name = 'nothing'")
    call("GET", "model-versions/search", filter=mine)
    call("GET", "model-versions/search", filter=mine, order_by=["version_number DESC", "name"])
    call("GET", "model-versions/search", filter="name = 'nothing'")
    for kind in ("registered-models", "model-versions"):
        page: Any = {}
        for _ in range(4):
            token = page.get("next_page_token")
            more = {"page_token": token} if token else {}
            page = call("GET", f"{kind}/search", filter=mine, max_results=2, order_by=["name"], **more)
        call("GET", f"{kind}/search", filter=mine, max_results=3, order_by=["name"])
        call("GET", f"{kind}/search", filter=mine, max_results=6)
        for number in (200_001, "x", "", "1.5", 10**20):
            call("GET", f"{kind}/search", filter="name = 'nothing'", max_results=number)
        for token in ("garbage", "%%%", ""):
            call("GET", f"{kind}/search", filter="name = 'nothing'", page_token=token)
        for text in ("name", "evilhax = true", "name = find", "name IN ()", "name = 'a' OR name = 'b'"):
            call("GET", f"{kind}/search", filter=text, max_results=1, order_by=["name"])
        call("GET", f"{kind}/search", filter="name = 'nothing'", order_by=["nothing"])
        call("GET", f"{kind}/search", filter="name = 'nothing'", order_by=["name", "name"])
        call("POST", f"{kind}/search", filter="name = 'nothing'")


def pages_have_rows(call: Player) -> None:
    for kind in ("registered-models", "model-versions"):
        for number in (0, -1):
            call("GET", f"{kind}/search", filter="name = 'nothing'", max_results=number)
        call("GET", f"{kind}/search", filter="name = 'nothing'", page_token="eyJvZmZzZXQiOiAtMX0=")


def prompts_hide(call: Player) -> None:
    prompt = pairs(**{"mlflow.prompt.is_prompt": "true"})
    text = pairs(**{"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "Say {{thing}}"})
    call("POST", "registered-models/create", name="prompt.hello", tags=prompt)
    call("POST", "model-versions/create", name="prompt.hello", source="dummy-source", tags=text)
    call("POST", "model-versions/create", name="prompt.hello", source="prompt-template", tags=text, description="more")
    call("POST", "model-versions/create", name="prompt.hello", source="s3://bucket/a", tags=text)
    look_at(call, "prompt.hello", 1, 2)
    call("POST", "registered-models/alias", name="prompt.hello", alias="prod", version="1")
    call("GET", "registered-models/alias", name="prompt.hello", alias="prod")
    for text_filter in (
        "name = 'prompt.hello'",
        "name = 'prompt.hello' AND tags.`mlflow.prompt.is_prompt` = 'true'",
        "name = 'prompt.hello' AND tags.`mlflow.prompt.is_prompt` != 'true'",
        "name = 'prompt.hello' AND tags.`mlflow.prompt.is_prompt` = 'false'",
    ):
        call("GET", "registered-models/search", filter=text_filter)
        call("GET", "model-versions/search", filter=text_filter)
    call("POST", "registered-models/create", name="prompt.hello")
    call("POST", "registered-models/create", name="prompt.hello", tags=prompt)
    make_model(call, "prompt.none", 1)
    call("POST", "registered-models/create", name="prompt.none", tags=prompt)
    call("POST", "model-versions/create", name="prompt.none", source="models:/prompt.hello/1")
    call("GET", "model-versions/get-download-uri", name="prompt.hello", version="1")
    call("DELETE", "model-versions/delete", name="prompt.hello", version="1")
    look_at(call, "prompt.hello", 2)
    call("DELETE", "registered-models/delete", name="prompt.hello")


def one_prompt_tag_among_versions(call: Player) -> None:
    make_model(call, "mixed", 2)
    call(
        "POST",
        "model-versions/create",
        name="mixed",
        source="dummy-source",
        tags=pairs(**{"mlflow.prompt.is_prompt": "true"}),
    )
    call("GET", "model-versions/search", filter="name = 'mixed'")


def webhooks_are_kept(call: Player) -> None:
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    made = call("POST", "webhooks", name="hook", url="https://93.184.216.34/hook", events=events, secret="s" * 20)
    webhook_id = dig(made, "webhook", "webhook_id")
    call("GET", f"webhooks/{webhook_id}")
    call("GET", "webhooks")
    call("PATCH", f"webhooks/{webhook_id}", description="words", status="DISABLED")
    call("PATCH", f"webhooks/{webhook_id}", events=[{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}])
    call("GET", f"webhooks/{webhook_id}")
    call("GET", "webhooks", max_results=1)
    for number in (0, 1_001, -1):
        call("GET", "webhooks", max_results=number)
    for name in (None, "", " ", "<bad>", "-lead", "trail.", "w" * 64, "a b"):
        call("POST", "webhooks", name=name, url="https://93.184.216.34/hook", events=events)
        call("PATCH", f"webhooks/{webhook_id}", name=name)
    for url in (None, "", " ", "no address", "ftp://93.184.216.34/", "http://93.184.216.34/", "https://127.0.0.1/"):
        call("POST", "webhooks", name="hook2", url=url, events=events)
    for wrong in (
        None, [], "text", [{}], [{"entity": "MODEL_VERSION"}], [{"entity": "MODEL_VERSION", "action": "DELETED"}],
        [{"entity": "NOTHING", "action": "CREATED"}],
    ):  # fmt: skip
        call("POST", "webhooks", name="hook3", url="https://93.184.216.34/hook", events=wrong)
    call("DELETE", f"webhooks/{webhook_id}")
    call("GET", f"webhooks/{webhook_id}")
    call("DELETE", f"webhooks/{webhook_id}")
    call("PATCH", f"webhooks/{webhook_id}", name="late")
    call("POST", f"webhooks/{webhook_id}/test")
    call("GET", "webhooks/no-such-id")


def webhooks_in_odd_ways(call: Player) -> None:
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    call("POST", "webhooks", name="hook4", url="https://93.184.216.34/hook", events=events, status="NOWHERE")
    call("POST", "webhooks", name="hook5", url="https://93.184.216.34/hook", events=[*events, *events])


REGISTRY_STORIES: Sequence[Story] = (
    a_model_lives,
    models_are_created_in_many_ways,
    models_are_refused,
    bodies_are_odd,
    json_is_strict,
    tags_are_typed,
    keys_of_tags_are_free,
    names_are_strict,
    a_model_is_renamed,
    an_old_name_is_read,
    a_name_is_used_again,
    a_version_lives,
    versions_are_refused,
    sources_are_refused,
    sources_that_cannot_be_read,
    versions_whose_run_is_unknown,
    aliases_move,
    aliases_are_refused,
    aliases_are_strict,
    stages_are_passed,
    versions_are_copied,
    a_run_is_registered,
    a_logged_model_is_registered,
    rows_are_searched,
    pages_have_rows,
    prompts_hide,
    one_prompt_tag_among_versions,
    webhooks_are_kept,
    webhooks_in_odd_ways,
)
