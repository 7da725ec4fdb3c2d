"""Stories about tracking: experiments, runs, what is logged to them, logged models, artifacts, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.conformance.mlflow.played import Player, Story, dig
from tests.conformance.mlflow.registry_stories import pairs

_HEX = "0123456789abcdef0123456789abcdef"
_AT = 1_700_000_000_000
_PROXY = "/api/2.0/mlflow-artifacts"


def make_experiment(call: Player, name: str, **more: Any) -> str:
    """Make an experiment and return its id."""
    return str(dig(call("POST", "experiments/create", name=name, **more), "experiment_id"))


def make_run(call: Player, experiment: str = "0", **more: Any) -> str:
    """Make a run that says all of itself, and return its id."""
    given = {"user_id": "ada", "start_time": _AT, "run_name": "a run", **more}
    return str(dig(call("POST", "runs/create", experiment_id=experiment, **given), "run", "info", "run_id"))


def make_logged_model(call: Player, experiment: str = "0", **more: Any) -> str:
    """Make a logged model and return its id."""
    given = {"name": "net", **more}
    made = call("POST", "logged-models", experiment_id=experiment, **given)
    return str(dig(made, "model", "info", "model_id"))


def look_at(call: Player, run: str) -> None:
    """Read a run."""
    call("GET", "runs/get", run_id=run)


def an_experiment_lives(call: Player) -> None:
    one = make_experiment(call, "exp life", tags=pairs(team="risk", empty=""))
    call("GET", "experiments/get", experiment_id=one)
    call("GET", "experiments/get-by-name", experiment_name="exp life")
    call("POST", "experiments/set-experiment-tag", experiment_id=one, key="team", value="fraud")
    call("POST", "experiments/set-experiment-tag", experiment_id=one, key="new", value="")
    call("GET", "experiments/get", experiment_id=one)
    call("POST", "experiments/delete-experiment-tag", experiment_id=one, key="team")
    call("POST", "experiments/delete-experiment-tag", experiment_id=one, key="team")
    call("POST", "experiments/update", experiment_id=one, new_name="exp other life")
    call("GET", "experiments/get", experiment_id=one)
    call("GET", "experiments/get-by-name", experiment_name="exp life")
    run = make_run(call, one)
    call("POST", "experiments/delete", experiment_id=one)
    call("GET", "experiments/get", experiment_id=one)
    call("GET", "experiments/get-by-name", experiment_name="exp other life")
    look_at(call, run)
    call("POST", "experiments/create", name="exp other life")
    call("POST", "experiments/restore", experiment_id=one)
    call("GET", "experiments/get", experiment_id=one)
    look_at(call, run)


def deleted_things_are_written_to(call: Player) -> None:
    one = make_experiment(call, "exp gone")
    model = make_logged_model(call)
    call("POST", "experiments/delete", experiment_id=one)
    call("POST", "runs/create", experiment_id=one, user_id="ada", start_time=_AT, run_name="late")
    call("POST", "experiments/update", experiment_id=one, new_name="exp late")
    call("POST", "experiments/set-experiment-tag", experiment_id=one, key="late", value="tag")
    call("DELETE", f"logged-models/{model}")
    call("DELETE", f"logged-models/{model}")
    call("PATCH", f"logged-models/{model}", model_id=model, status="LOGGED_MODEL_READY")
    call("PATCH", f"logged-models/{model}/tags", tags=pairs(a="b"))


def done_things_are_done_again(call: Player) -> None:
    one = make_experiment(call, "exp twice")
    call("POST", "experiments/restore", experiment_id=one)
    call("POST", "experiments/delete", experiment_id=one)
    call("POST", "experiments/delete", experiment_id=one)


def artifacts_stay_here(call: Player) -> None:
    one = make_experiment(call, "exp elsewhere", artifact_location="s3://bucket/folder")
    call("GET", "experiments/get", experiment_id=one)
    make_experiment(call, "exp climbs", artifact_location="s3://bucket/../a")


def names_are_strict_in_tracking(call: Player) -> None:
    make_experiment(call, " ")
    call("POST", "logged-models", experiment_id="0", name="n" * 501)


def words_mean_something(call: Player) -> None:
    experiment = make_experiment(call, "exp words")
    run, model = make_run(call, experiment), make_logged_model(call, experiment)
    for status in ("3", "nowhere"):
        call("POST", "runs/update", run_id=run, status=status, end_time=_AT)
    for status in ("nowhere", "LOGGED_MODEL_PENDING", "READY"):
        call("PATCH", f"logged-models/{model}", model_id=model, status=status)
    call("POST", "runs/search", experiment_ids=[experiment], run_view_type="nowhere")
    call("POST", "experiments/search", max_results=10, filter="name = 'nothing'", view_type="nowhere")


def values_are_typed(call: Player) -> None:
    run = make_run(call)
    good = {"user_id": "ada", "start_time": _AT, "run_name": "r"}
    for wrong in ({"start_time": 1.5}, {"user_id": 5}, {"tags": "text"}):
        call("POST", "runs/create", experiment_id="0", **{**good, **wrong})
    for key in (None, "", 5, "k" * 251):
        call("POST", "runs/create", experiment_id="0", **good, tags=[{"key": key, "value": "v"}])
    metric = {"run_id": run, "value": 1.0, "timestamp": _AT, "step": 0}
    for number, wrong in enumerate(
        ({"value": True}, {"value": "1e400"}, {"timestamp": 1.5}, {"step": 1.5}, {"step": 10**19})
    ):
        call("POST", "runs/log-metric", key=f"typed {number}", **{**metric, **wrong})
    call("POST", "runs/log-batch", run_id=run, metrics=[{"key": "a", "value": "text", "timestamp": _AT, "step": 1}])
    dataset = {"name": "train", "digest": "abc1", "source_type": "local", "source": "{}"}
    for wrong in ({"name": "a"}, {**dataset, "name": ""}, {**dataset, "name": 5}):
        call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": wrong}])
    call("POST", "runs/log-inputs", run_id=run, datasets=[{}])
    call("POST", "runs/outputs", run_id=run, models=[{"step": 0}])
    call("POST", "logged-models/search", experiment_ids=[], filter="name = 'nothing'")


def limits_are_wider(call: Player) -> None:
    experiment = make_experiment(call, "exp wider")
    run = make_run(call, experiment)
    call("POST", "experiments/set-experiment-tag", experiment_id=experiment, key="long", value="v" * 20_001)
    for key in ("a=b", "a/../b", "/a"):
        call("POST", "experiments/set-experiment-tag", experiment_id=experiment, key=key, value="v")
        call("POST", "runs/set-tag", run_id=run, key=key, value="v")
        call("POST", "runs/log-parameter", run_id=run, key=key, value="v")
        call("POST", "runs/log-metric", run_id=run, key=key, value=1.0, timestamp=_AT, step=0)
        call("POST", "runs/log-batch", run_id=run, tags=pairs(**{key: "c"}))
    call("POST", "runs/log-metric", run_id=run, key="before 1970", value=1.0, timestamp=-1, step=0)
    call("POST", "runs/log-batch", run_id=run, params=[*pairs(same="1"), *pairs(same="1")])
    dataset = {"name": "train", "digest": "d" * 37, "source_type": "local", "source": "{}"}
    call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])
    call("POST", "experiments/search", filter="name = 'nothing'")
    call("POST", "runs/search", experiment_ids=["abc"])


def long_values_are_cut_or_kept(call: Player) -> None:
    run = make_run(call)
    call("POST", "runs/set-tag", run_id=run, key="too long", value="v" * 8_001)
    look_at(call, run)
    call("POST", "logged-models", experiment_id="0", name="net", params=[{"key": "a", "value": "v" * 6_001}])


def pages_have_rows_in_tracking(call: Player) -> None:
    for number in (-1, 1_001):
        call("POST", "logged-models/search", experiment_ids=["0"], max_results=number, filter="name = 'nothing'")


def runs_that_do_not_exist(call: Player) -> None:
    call("GET", "metrics/get-history", run_id=_HEX, metric_key="auc")
    call("POST", "logged-models", experiment_id="0", name="net", source_run_id=_HEX)


def runs_without_experiment(call: Player) -> None:
    for more in ({}, {"experiment_id": ""}, {"experiment_id": None}):
        call("POST", "runs/create", user_id="ada", start_time=_AT, run_name="r", **more)


def tags_count_as_updates(call: Player) -> None:
    experiment = make_experiment(call, "exp tagged")
    call("POST", "experiments/set-experiment-tag", experiment_id=experiment, key="a", value="b")
    call("GET", "experiments/get", experiment_id=experiment)
    model = make_logged_model(call, experiment)
    call("PATCH", f"logged-models/{model}/tags", tags=pairs(a="b"))
    call("GET", f"logged-models/{model}")


def experiments_are_refused(call: Player) -> None:
    make_experiment(call, "exp taken")
    two = make_experiment(call, "exp two")
    for name in (None, "", 5, "e" * 501):
        call("POST", "experiments/create", name=name)
        call("POST", "experiments/update", experiment_id=two, new_name=name)
    call("POST", "experiments/create", name="exp taken")
    call("POST", "experiments/update", experiment_id=two, new_name="exp taken")
    call("POST", "experiments/create")
    for place in ("runs:/a", "s3://bucket/a#b", "http://host/a;b", 5):
        call("POST", "experiments/create", name="exp place", artifact_location=place)
    for key in ("", None, "k" * 251, 5):
        call("POST", "experiments/set-experiment-tag", experiment_id=two, key=key, value="v")
    for key in ("", None, 5):
        call("POST", "experiments/delete-experiment-tag", experiment_id=two, key=key)
    call("POST", "experiments/set-experiment-tag", experiment_id=two, key="none")
    for unknown in ("", None):
        call("POST", "experiments/delete", experiment_id=unknown)
        call("POST", "logged-models", experiment_id=unknown, name="net")
    for unknown in ("987654", "abc", "-1", 5):
        for path in ("delete", "restore"):
            call("POST", f"experiments/{path}", experiment_id=unknown)
        call("POST", "experiments/update", experiment_id=unknown, new_name="exp new")
        call("POST", "experiments/set-experiment-tag", experiment_id=unknown, key="a", value="b")
        call("POST", "runs/create", experiment_id=unknown, user_id="ada", start_time=_AT, run_name="r")
        call("POST", "logged-models", experiment_id=unknown, name="net")
    for unknown in ("987654", "", "abc", "-1"):
        call("GET", "experiments/get", experiment_id=unknown)
    call("GET", "experiments/get")
    call("GET", "experiments/get-by-name")
    call("GET", "experiments/get-by-name", experiment_name="exp nowhere")
    call("GET", "experiments/get", experiment_id=two)


def a_run_lives(call: Player) -> None:
    run = make_run(call, tags=pairs(team="risk"), run_name="first words")
    look_at(call, run)
    call("GET", "runs/get", run_id=run, run_uuid=run)
    call("GET", "runs/get", run_uuid=run)
    call("POST", "runs/log-parameter", run_id=run, key="depth", value="3")
    call("POST", "runs/log-parameter", run_id=run, key="depth", value="3")
    call("POST", "runs/log-parameter", run_id=run, key="depth", value="4")
    call("POST", "runs/log-parameter", run_id=run, key="none")
    call("POST", "runs/log-metric", run_id=run, key="auc", value=0.5, timestamp=_AT, step=1)
    call("POST", "runs/log-metric", run_id=run, key="auc", value=0.75, timestamp=_AT, step=2)
    call("POST", "runs/log-metric", run_id=run, key="auc", value=0.25, timestamp=_AT + 1, step=0)
    call("POST", "runs/log-metric", run_id=run, key="auc", value=0.25, timestamp=_AT + 1, step=0)
    for number, value in enumerate(("NaN", "Infinity", "-Infinity", "0.5", 1, 1e-7, 1e300, -0.0)):
        call("POST", "runs/log-metric", run_id=run, key=f"odd {number}", value=value, timestamp=_AT, step=-1)
    call("POST", "runs/log-metric", run_id=run, key="late", value=1.0, timestamp=str(_AT), step="7")
    call("POST", "runs/set-tag", run_id=run, key="team", value="fraud")
    call("POST", "runs/set-tag", run_id=run, key="mlflow.runName", value="named by tag")
    call("POST", "runs/set-tag", run_id=run, key="mlflow.note.content", value="é ☃\n")
    look_at(call, run)
    call("POST", "runs/update", run_id=run, run_name="named by update")
    look_at(call, run)
    call("POST", "runs/delete-tag", run_id=run, key="team")
    call("POST", "runs/delete-tag", run_id=run, key="team")
    call("POST", "runs/update", run_id=run, status="FINISHED", end_time=_AT + 1000)
    look_at(call, run)
    call("POST", "runs/update", run_id=run, status="RUNNING")
    look_at(call, run)
    for status in ("SCHEDULED", "FAILED", "KILLED", 3):
        call("POST", "runs/update", run_id=run, status=status, end_time=_AT + 2000)
    look_at(call, run)
    call("GET", "metrics/get-history", run_id=run, metric_key="auc")
    call("GET", "metrics/get-history", run_uuid=run, metric_key="auc")
    call("GET", "metrics/get-history", run_id=run, metric_key="auc", max_results=2)
    call("GET", "metrics/get-history", run_id=run, metric_key="odd 0")
    call("GET", "metrics/get-history", run_id=run, metric_key="nothing")
    call("GET", "metrics/get-history", run_id=run)
    call("GET", "metrics/get-history", metric_key="auc")


def a_run_is_deleted(call: Player) -> None:
    run = make_run(call)
    call("POST", "runs/delete", run_id=run)
    look_at(call, run)
    call("POST", "runs/delete", run_id=run)
    call("POST", "runs/log-parameter", run_id=run, key="a", value="b")
    call("POST", "runs/log-metric", run_id=run, key="a", value=1.0, timestamp=_AT, step=0)
    call("POST", "runs/set-tag", run_id=run, key="a", value="b")
    call("POST", "runs/delete-tag", run_id=run, key="a")
    call("POST", "runs/log-batch", run_id=run, tags=pairs(a="b"))
    call("POST", "runs/update", run_id=run, status="FINISHED")
    call("POST", "runs/restore", run_id=run)
    call("POST", "runs/restore", run_id=run)
    look_at(call, run)


def runs_are_created_in_many_ways(call: Player) -> None:
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT)
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT, run_name="")
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT, tags=pairs(**{"mlflow.runName": "t"}))
    tags = pairs(**{"mlflow.runName": "tag"})
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT, run_name="tag", tags=tags)
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT, run_name="name", tags=tags)
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=str(_AT), run_name="text time")
    tags = pairs(**{"mlflow.user": "eve"})
    call("POST", "runs/create", experiment_id="0", user_id="ada", start_time=_AT, run_name="user tag", tags=tags)


def a_run_without_user_or_start(call: Player) -> None:
    call("POST", "runs/create", experiment_id="0", run_name="bare")


def runs_are_refused(call: Player) -> None:
    run = make_run(call)
    good = {"user_id": "ada", "start_time": _AT, "run_name": "r"}
    for wrong in ({"start_time": "soon"}, {"run_name": 5}):
        call("POST", "runs/create", experiment_id="0", **{**good, **wrong})
    for key in (None, "", "k" * 251, 5):
        call("POST", "runs/set-tag", run_id=run, key=key, value="v")
        call("POST", "runs/log-parameter", run_id=run, key=key, value="v")
        call("POST", "runs/log-metric", run_id=run, key=key, value=1.0, timestamp=_AT, step=0)
    for number, value in enumerate((None, "text", [1])):
        call("POST", "runs/log-metric", run_id=run, key=f"v {number}", value=value, timestamp=_AT, step=0)
    for stamp in (None, "soon"):
        call("POST", "runs/log-metric", run_id=run, key=f"t {stamp}", value=1.0, timestamp=stamp, step=0)
        call("POST", "runs/log-metric", run_id=run, key=f"s {stamp}", value=1.0, timestamp=_AT, step=stamp)
    call("POST", "runs/log-metric", run_id=run, key="no step", value=1.0, timestamp=_AT)
    call("POST", "runs/log-metric", run_id=run, key="no time", value=1.0)
    call("POST", "runs/log-metric", run_id=run, key="no value", timestamp=_AT)
    call("POST", "runs/log-parameter", run_id=run, key="number", value=5)
    call("POST", "runs/log-parameter", run_id=run, key="long", value="v" * 6_000)
    call("POST", "runs/log-parameter", run_id=run, key="too long", value="v" * 6_001)
    call("POST", "runs/set-tag", run_id=run, key="long", value="v" * 8_000)
    call("POST", "runs/set-tag", run_id=run, key="number", value=5)
    for unknown in (_HEX, "short", "", None, 5):
        call("POST", "runs/log-parameter", run_id=unknown, key="a", value="b")
        call("POST", "runs/log-metric", run_id=unknown, key="a", value=1.0, timestamp=_AT, step=0)
        call("POST", "runs/set-tag", run_id=unknown, key="a", value="b")
        call("POST", "runs/delete-tag", run_id=unknown, key="a")
        call("POST", "runs/log-batch", run_id=unknown, tags=pairs(a="b"))
        call("POST", "runs/log-inputs", run_id=unknown, datasets=[])
        call("POST", "runs/outputs", run_id=unknown, models=[{"model_id": f"m-{_HEX}", "step": 0}])
        call("POST", "runs/update", run_id=unknown, status="FINISHED")
        call("POST", "runs/delete", run_id=unknown)
        call("POST", "runs/restore", run_id=unknown)
    for unknown in (_HEX, "short", ""):
        call("GET", "runs/get", run_id=unknown)
    call("GET", "runs/get")
    look_at(call, run)


def batches_are_logged(call: Player) -> None:
    run = make_run(call)
    metric = {"key": "loss", "value": 0.5, "timestamp": _AT, "step": 1}
    call(
        "POST",
        "runs/log-batch",
        run_id=run,
        metrics=[metric, {**metric, "step": 2, "value": "NaN"}, {**metric, "key": "auc"}],
        params=pairs(depth="3", lr="0.1"),
        tags=pairs(team="risk"),
    )
    look_at(call, run)
    call("POST", "runs/log-batch", run_id=run)
    call("POST", "runs/log-batch", run_id=run, metrics=[], params=[], tags=[])
    call("POST", "runs/log-batch", run_id=run, params=pairs(depth="3"))
    call("POST", "runs/log-batch", run_id=run, params=pairs(depth="4", new="1"), tags=pairs(not_kept="x"))
    call("POST", "runs/log-batch", run_id=run, params=[*pairs(twice="1"), *pairs(twice="2")])
    call("POST", "runs/log-batch", run_id=run, tags=[*pairs(tag="1"), *pairs(tag="2")])
    call("POST", "runs/log-batch", run_id=run, metrics=[{"key": "x", "value": 1.0, "timestamp": _AT}])
    call("POST", "runs/log-batch", run_id=run, metrics=[{"key": "x", "timestamp": _AT, "step": 0}])
    call("POST", "runs/log-batch", run_id=run, metrics=[{"value": 1.0, "timestamp": _AT, "step": 0}])
    call("POST", "runs/log-batch", run_id=run, metrics="text")
    call("POST", "runs/log-batch", run_id=run, params=[{"key": "a"}])
    call("POST", "runs/log-batch", run_id=run, params=[{"value": "a"}])
    call("POST", "runs/log-batch", run_id=run, params=[{"key": f"p{number}", "value": "v"} for number in range(101)])
    call("POST", "runs/log-batch", run_id=run, tags=[{"key": f"t{number}", "value": "v"} for number in range(101)])
    call("POST", "runs/log-batch", run_id=run, metrics=[{**metric, "key": f"m{number}"} for number in range(1_001)])
    call("POST", "runs/log-batch", run_id=run, params=[{"key": "big", "value": "v" * 6_001}])
    call("POST", "runs/log-batch")
    look_at(call, run)


def inputs_are_logged(call: Player) -> None:
    run = make_run(call)
    model = make_logged_model(call)
    dataset = {"name": "train", "digest": "abc1", "source_type": "local", "source": "{}"}
    context = pairs(**{"mlflow.data.context": "train"})
    call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, "tags": context}])
    call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, "tags": context}])
    more = {**dataset, "name": "test", "schema": '{"a": 1}', "profile": '{"rows": 2}'}
    call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": more}])
    call("POST", "runs/log-inputs", run_id=run, models=[{"model_id": model}])
    call("POST", "runs/outputs", run_id=run, models=[{"model_id": model, "step": 3}])
    look_at(call, run)
    for wrong in (
        {**dataset, "name": "n" * 501}, {**dataset, "source": "s" * 65_536}, {**dataset, "name": "b", "source_type": ""},
    ):  # fmt: skip
        call("POST", "runs/log-inputs", run_id=run, datasets=[{"dataset": wrong}])
    call("POST", "runs/log-inputs", run_id=run, datasets="text")
    call("POST", "runs/log-inputs", run_id=run)
    call("POST", "runs/outputs", run_id=run, models=[{"model_id": f"m-{_HEX}", "step": 0}])
    call("POST", "runs/outputs", run_id=run)
    call("POST", "runs/log-model", run_id=run, model_json='{"artifact_path": "model", "flavors": {}, "run_id": "r"}')
    call("POST", "runs/log-model", run_id=run, model_json="no json")
    call("POST", "runs/log-model", run_id=run)
    look_at(call, run)


def runs_are_searched(call: Player) -> None:
    one, two = make_experiment(call, "exp search one"), make_experiment(call, "exp search two")
    runs = [
        make_run(
            call, experiment, run_name=f"run {number}", start_time=_AT + number, tags=pairs(parity=str(number % 2))
        )
        for number, experiment in enumerate((one, one, two, one))
    ]
    for number, run in enumerate(runs):
        call("POST", "runs/log-metric", run_id=run, key="auc", value=number / 4, timestamp=_AT, step=0)
    call("POST", "runs/delete", run_id=runs[1])
    call("POST", "runs/search", experiment_ids=[one, two])
    call("POST", "runs/search", experiment_ids=[one], order_by=["metrics.auc DESC"])
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", 1, None):
        call("POST", "runs/search", experiment_ids=[one], run_view_type=view)
    call("POST", "runs/search", experiment_ids=[one], filter="metrics.auc > 0.1")
    call("POST", "runs/search", experiment_ids=[one], filter="tags.parity = '1' AND attributes.run_name LIKE 'run%'")
    page: Any = {}
    for _ in range(3):
        more = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}
        page = call("POST", "runs/search", experiment_ids=[one, two], max_results=2, **more)
    call("POST", "runs/search", experiment_ids=[])
    call("POST", "runs/search")
    call("POST", "runs/search", experiment_ids=["987654"])
    call("POST", "runs/search", experiment_ids=one)
    for number in (0, -1, 50_000, 50_001, "2", "x"):
        call("POST", "runs/search", experiment_ids=[one], max_results=number, filter="run_name = 'none'")
    for text in ("metrics.auc", "auc > 1", "foo.bar = 'a'", "run_name = a", "name = 'a' OR name = 'b'", 5):
        call("POST", "runs/search", experiment_ids=[one], filter=text)
    call("POST", "runs/search", experiment_ids=[one], order_by=["nothing"])
    call("POST", "runs/search", experiment_ids=[one], page_token="garbage")


def experiments_are_searched(call: Player) -> None:
    ids = [make_experiment(call, f"exp find {number}", tags=pairs(parity=str(number % 2))) for number in range(4)]
    call("POST", "experiments/delete", experiment_id=ids[2])
    mine = "name LIKE 'exp find%'"
    call("POST", "experiments/search", max_results=10, filter=mine)
    call("GET", "experiments/search", max_results=10, filter=mine)
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL"):
        call("POST", "experiments/search", max_results=10, filter=mine, view_type=view)
    call("POST", "experiments/search", max_results=10, filter=f"{mine} AND tags.parity = '1'", order_by=["name DESC"])
    page: Any = {}
    for _ in range(3):
        more = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}
        page = call("POST", "experiments/search", max_results=2, filter=mine, order_by=["name"], **more)
    call("POST", "experiments/search", max_results=10, filter="name = 'nothing'")
    for number in (0, -1, 50_000, 50_001, "2", "x"):
        call("POST", "experiments/search", max_results=number, filter="name = 'nothing'")
    for text in ("name", "evilhax = 'a'", "name = a"):
        call("POST", "experiments/search", max_results=10, filter=text)
    call("POST", "experiments/search", max_results=10, page_token="garbage")


def a_logged_model_lives(call: Player) -> None:
    run = make_run(call)
    model = make_logged_model(
        call,
        name="forest",
        model_type="sklearn",
        source_run_id=run,
        params=pairs(depth="3"),
        tags=pairs(team="risk"),
    )
    where = f"logged-models/{model}"
    call("GET", where)
    call("POST", f"{where}/params", model_id=model, params=pairs(lr="0.1"))
    call("POST", f"{where}/params", model_id=model, params=pairs(lr="0.2"))
    call("PATCH", f"{where}/tags", tags=pairs(team="fraud", new=""))
    call("DELETE", f"{where}/tags/new")
    call("DELETE", f"{where}/tags/new")
    call("POST", "runs/log-metric", run_id=run, key="auc", value=0.5, timestamp=_AT, step=1, model_id=model)
    data = {"dataset_name": "train", "dataset_digest": "abc"}
    call("POST", "runs/log-metric", run_id=run, key="loss", value=2.5, timestamp=_AT, step=1, model_id=model, **data)
    call("GET", where)
    look_at(call, run)
    call("PATCH", where, model_id=model, status="LOGGED_MODEL_UPLOAD_FAILED")
    call("PATCH", where, model_id=model, status="LOGGED_MODEL_READY")
    call("GET", where)
    for text in ("name = 'forest'", "params.depth = '3' AND metrics.auc > 0.1", "tags.team = 'fraud'"):
        call("POST", "logged-models/search", experiment_ids=["0"], filter=f"{text} AND source_run_id = '{run}'")
    call("DELETE", where)
    call("GET", where)
    call("GET", where, allow_deleted="true")
    call("POST", "logged-models/search", experiment_ids=["0"], filter=f"source_run_id = '{run}'")


def logged_models_are_refused(call: Player) -> None:
    run = make_run(call)
    for name in ("", None, "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", 5):
        call("POST", "logged-models", experiment_id="0", name=name)
    call("POST", "logged-models", experiment_id="0", name="net", params="text")
    call("POST", "logged-models", name="net")
    model = make_logged_model(call, source_run_id=run)
    for status in (None, 2):
        call("PATCH", f"logged-models/{model}", model_id=model, status=status)
    for unknown in (f"m-{_HEX}", "short", "m-"):
        call("GET", f"logged-models/{unknown}")
        call("DELETE", f"logged-models/{unknown}")
        call("PATCH", f"logged-models/{unknown}", model_id=unknown, status="LOGGED_MODEL_READY")
        call("PATCH", f"logged-models/{unknown}/tags", tags=pairs(a="b"))
        call("DELETE", f"logged-models/{unknown}/tags/a")
        call("POST", f"logged-models/{unknown}/params", model_id=unknown, params=pairs(a="b"))
    for number in (0, 100, "x"):
        call("POST", "logged-models/search", experiment_ids=["0"], max_results=number, filter="name = 'nothing'")
    call("POST", "logged-models/search", filter="name = 'nothing'")
    call("POST", "logged-models/search", experiment_ids=["987654"])
    call("POST", "logged-models/search", experiment_ids=["0"], filter="nothing = 'a'")
    call("POST", "logged-models/search", experiment_ids=["0"], order_by=[{"field_name": "nothing"}])
    call("POST", "logged-models/search", experiment_ids=["0"], page_token="garbage")
    call("POST", "logged-models/search", experiment_ids=["0"], datasets=[{"dataset_digest": "abc"}])


def logged_models_are_paged(call: Player) -> None:
    experiment = make_experiment(call, "exp logged")
    for number in range(4):
        make_logged_model(call, experiment, name=f"net{number}")
    page: Any = {}
    for _ in range(3):
        more = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}
        page = call("POST", "logged-models/search", experiment_ids=[experiment], max_results=2, **more)
    order = [{"field_name": "name", "ascending": True}]
    call("POST", "logged-models/search", experiment_ids=[experiment], order_by=order)


def artifacts_come_and_go(call: Player) -> None:
    run = make_run(call)
    root = f"{_PROXY}/artifacts/0/{run}/artifacts"
    listing = {"path": f"0/{run}/artifacts"}
    call.send("GET", f"{_PROXY}/artifacts", params=listing)
    call.send("PUT", f"{root}/a.txt", content=b"one")
    call.send("PUT", f"{root}/folder/b.bin", content=b"two" * 100)
    call.send("PUT", f"{root}/folder/deep/c%20d.txt", content=b"")
    call.send("GET", f"{_PROXY}/artifacts", params=listing)
    call.send("GET", f"{_PROXY}/artifacts", params={"path": f"0/{run}/artifacts/folder"})
    call.send("GET", f"{_PROXY}/artifacts", params={"path": f"0/{run}/artifacts/a.txt"})
    call.send("GET", f"{_PROXY}/artifacts", params={"path": f"0/{run}/artifacts/nothing"})
    call.send("GET", f"{root}/a.txt")
    call.send("GET", f"{root}/folder/deep/c%20d.txt")
    call.send("GET", f"{root}/a.txt", headers={"Range": "bytes=1-1"})
    call.send("GET", f"{root}/nothing")
    call.send("GET", f"{root}/folder")
    call.send("PUT", f"{root}/a.txt", content=b"one again")
    call.send("GET", f"{root}/a.txt")
    call("GET", "artifacts/list", run_id=run)
    call("GET", "artifacts/list", run_id=run, path="folder")
    call("GET", "artifacts/list", run_id=run, path="../..")
    call("GET", "artifacts/list", run_id=_HEX)
    call("GET", "artifacts/list")
    call.send("GET", "/get-artifact", params={"run_id": run, "path": "a.txt"})
    call.send("GET", "/get-artifact", params={"run_id": run, "path": "nothing"})
    call.send("DELETE", f"{root}/a.txt")
    call.send("DELETE", f"{root}/a.txt")
    call.send("GET", f"{root}/a.txt")
    call.send("DELETE", f"{root}/folder")
    call.send("GET", f"{_PROXY}/artifacts", params=listing)


def artifact_paths_are_refused(call: Player) -> None:
    run = make_run(call)
    root = f"{_PROXY}/artifacts/0/{run}/artifacts"
    for path in ("%2e%2e/x", "..%2fx", "%252e%252e%252fx", "a%23b"):
        call.send("PUT", f"{root}/{path}", content=b"x")
        call.send("GET", f"{root}/{path}")
        call.send("DELETE", f"{root}/{path}")
    for path in ("..", "../..", "/etc", "%2e%2e", "a/../../b", "c:/x", "a#b"):
        call.send("GET", f"{_PROXY}/artifacts", params={"path": path})
    call.send("PUT", f"{_PROXY}/artifacts/", content=b"x")


def artifact_paths_are_strict(call: Player) -> None:
    root = f"{_PROXY}/artifacts/0/{make_run(call)}/artifacts"
    for path in ("a%5cb", "%2fetc%2fpasswd", "c%3a/x", "a%00b"):
        call.send("PUT", f"{root}/{path}", content=b"x")
        call.send("GET", f"{root}/{path}")
    call.send("GET", f"{_PROXY}/artifacts", params={"path": "a\\b"})


def large_files_are_asked_about(call: Player) -> None:
    run = make_run(call)
    place = f"0/{run}/artifacts"
    call.send("GET", f"{_PROXY}/presigned/{place}/a.bin")
    call("POST", "artifacts/presigned-upload-url", run_id=run, path="a.bin")
    call("POST", "artifacts/presigned-download-url", run_id=run, path="a.bin")
    call("POST", "artifacts/presigned-upload-url", run_id=_HEX, path="a.bin")
    call("POST", "artifacts/presigned-upload-url", path="a.bin")


def handshakes(call: Player) -> None:
    call.send("GET", "/api/3.0/mlflow/server-info")
    call.send("GET", "/version")


TRACKING_STORIES: Sequence[Story] = (
    an_experiment_lives,
    deleted_things_are_written_to,
    done_things_are_done_again,
    artifacts_stay_here,
    names_are_strict_in_tracking,
    words_mean_something,
    values_are_typed,
    limits_are_wider,
    long_values_are_cut_or_kept,
    pages_have_rows_in_tracking,
    runs_that_do_not_exist,
    runs_without_experiment,
    tags_count_as_updates,
    experiments_are_refused,
    a_run_lives,
    a_run_is_deleted,
    runs_are_created_in_many_ways,
    a_run_without_user_or_start,
    runs_are_refused,
    batches_are_logged,
    inputs_are_logged,
    runs_are_searched,
    experiments_are_searched,
    a_logged_model_lives,
    logged_models_are_refused,
    logged_models_are_paged,
    artifacts_come_and_go,
    artifact_paths_are_refused,
    artifact_paths_are_strict,
    large_files_are_asked_about,
    handshakes,
)
