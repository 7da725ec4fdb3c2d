"""Filters and orders of MLflow's five searches over a small known data set, to be played to two servers and compared.

`DATA` says what to create on each; `generate_cases` makes searches that both must answer with the same rows in the same
order, `INVALID_CASES` are searches that both must refuse. What a server chooses by itself (ids, times of creation) stands
in a filter as `{name}`: see `Case.fill`. Nothing here speaks to a server.

Create in the order of `DATA`, at least two milliseconds apart, so that no order ends in a tie of times, which is broken
by random ids. Left out, because the two servers differ on purpose: NaN as a metric of a logged model (MLflow stores 0),
its status (MLflow stores a number), orders by what may be absent and is empty text in MLflow (model_type), and a prompt
tag on one version among others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

KINDS = ("models", "versions", "experiments", "runs", "logged_models")


@dataclass(frozen=True)
class Data:
    """What to create. Each item is the body of MLflow's create request, apart from what is named below.

    experiments: `experiments/create`. runs: `runs/create` and `metrics`, `params` as lists of bodies of `runs/log-metric`
    and `runs/log-parameter`, `datasets` of `runs/log-inputs`, `end` of `runs/update`, and `experiment`, the number of
    theirs. logged_models: `logged-models` and `metrics` (each with `run`, the number of one) and `experiment`.
    models: `registered-models/create`. versions: `model-versions/create`, where `run` is the number of one and no `run`
    means a version without one.
    """

    experiments: Sequence[Mapping[str, Any]] = ()
    runs: Sequence[Mapping[str, Any]] = ()
    logged_models: Sequence[Mapping[str, Any]] = ()
    models: Sequence[Mapping[str, Any]] = ()
    versions: Sequence[Mapping[str, Any]] = ()


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _metric(key: str, value: float | str, **others: Any) -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": 1_700_000_000_000, "step": 0, **others}


def _dataset(name: str, digest: str, context: str | None) -> dict[str, Any]:
    tags = _pairs({"mlflow.data.context": context}) if context else []
    return {"tags": tags, "dataset": {"name": name, "digest": digest, "source_type": "local", "source": "{}"}}


DATA = Data(
    experiments=(
        {"name": "sweep risk", "tags": _pairs({"team": "risk", "cost centre": "4711"})},
        {"name": "sweep_fraud", "tags": _pairs({"team": "Fraud", "empty": ""})},
        {"name": "Sweep 100%", "tags": _pairs({"note": 'say "hi"'})},
        {"name": "sweep bare"},
    ),
    runs=(
        {
            "experiment": 0,
            "run_name": "first_run",
            "user_id": "ada",
            "start_time": 1_700_000_000_000,
            "tags": _pairs({"team": "risk", "cost centre": "4711", "quote": "it's"}),
            "params": _pairs({"depth": "3", "lr": "0.1"}),
            "metrics": (_metric("auc", 0.9), _metric("f1 score", 0.5), _metric("loss", "NaN")),
            "datasets": (_dataset("train set", "abc1", "train"), _dataset("test_set", "abc2", "Test")),
            "end": {"status": "FINISHED", "end_time": 1_700_000_060_000},
        },
        {
            "experiment": 0,
            "run_name": "second%run",
            "user_id": "Ada",
            "start_time": 1_700_000_001_000,
            "tags": _pairs({"team": "RISK"}),
            "params": _pairs({"depth": "10", "lr": "0.10", "Op.t": "adam"}),
            "metrics": (_metric("auc", 0.75), _metric("loss", 0.25), _metric("count", 1e-05)),
            "datasets": (_dataset("train set", "abc3", None),),
            "end": {"status": "FAILED", "end_time": 1_700_000_061_001},
        },
        {
            "experiment": 0,
            "run_name": "Third run",
            "user_id": "bob",
            "start_time": 1_700_000_001_001,
            "tags": _pairs({"team": "fraud_a", "path": "C:\\models"}),
            "params": _pairs({"depth": "", "lr": "1e-3"}),
            "metrics": (_metric("auc", -0.5), _metric("loss", 3.0), _metric("count", 12)),
        },
        {
            "experiment": 1,
            "run_name": "first_run",
            "user_id": "eve",
            "start_time": 1_700_000_002_000,
            "tags": _pairs({"team": "fraudxa", "quote": 'a "b" c'}),
            "metrics": (_metric("auc", 0.75), _metric("f1 score", "NaN")),
            "datasets": (_dataset("TEST_SET", "abc2", "test"),),
            "end": {"status": "KILLED", "end_time": 1_700_000_062_000},
        },
        {"experiment": 1, "run_name": "bare", "user_id": "bob", "start_time": 1_700_000_003_000},
    ),
    logged_models=(
        {
            "experiment": 0,
            "name": "forest",
            "model_type": "sklearn",
            "run": 0,
            "params": _pairs({"depth": "3", "lr": "0.1"}),
            "tags": _pairs({"team": "risk", "cost centre": "4711"}),
            "metrics": (_metric("auc", 0.9, run=0), _metric("f1 score", 0.5, run=0)),
        },
        {
            "experiment": 0,
            "name": "For_est",
            "model_type": "SKLearn",
            "run": 1,
            "params": _pairs({"depth": "10"}),
            "tags": _pairs({"team": "RISK", "val-set": "x"}),
            "metrics": (_metric("auc", 0.75, run=1), _metric("loss", 0.25, run=1)),
        },
        {
            "experiment": 0,
            "name": "FORxEST two",
            "tags": _pairs({"team": "fraud_a", "note": 'say "hi"'}),
            "metrics": (_metric("auc", -0.5, run=2),),
        },
        {"experiment": 0, "name": "bare"},
    ),
    models=(
        {"name": "sweep.risk", "tags": _pairs({"team": "risk", "cost centre": "4711"})},
        {"name": "sweep_Risk", "tags": _pairs({"team": "RISK", "quote": "it's"})},
        {"name": "sweep 100%", "tags": _pairs({"team": "fraud_a", "note": 'say "hi"'})},
        {"name": "sweep bare"},
        {"name": "sweep-prompt", "tags": _pairs({"mlflow.prompt.is_prompt": "true", "team": "risk"})},
    ),
    versions=(
        {"name": "sweep.risk", "run": 0, "tags": _pairs({"stage": "dev", "cost centre": "4711"})},
        {"name": "sweep.risk", "run": 1, "tags": _pairs({"stage": "Prod", "quote": "it's"})},
        {"name": "sweep_Risk", "run": 0, "tags": _pairs({"stage": "prod_a"})},
        {"name": "sweep_Risk", "source": "s3://bucket/sweep/a%b", "tags": _pairs({"stage": "prodxa"})},
        {"name": "sweep 100%", "source": "s3://bucket/Sweep/a_b"},
        {"name": "sweep.risk", "run": 2, "tags": _pairs({"note": 'say "hi"'})},
        {
            "name": "sweep-prompt",
            "source": "dummy-source",
            "tags": _pairs({"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "hi", "stage": "dev"}),
        },
    ),
)
"""The data set: texts that differ in case, hold wildcards, quotes, blanks and backslashes, or are empty."""


@dataclass(frozen=True)
class Case:
    """One search. `order_by` holds texts, for logged models objects as on the wire."""

    kind: str
    filter: str
    order_by: tuple[Any, ...] = ()
    max_results: int = 100

    def fill(self, found: Mapping[str, str]) -> Case:
        """Return the case with every `{name}` replaced.

        `found` has, for each number from 0, `run_N`, `experiment_N` and `logged_model_N` (ids), and
        `experiment_N_created`, `logged_model_N_created` (milliseconds), as the server at hand chose them.
        """
        return replace(self, filter=re.sub(r"\{(\w+)\}", lambda match: found[match[1]], self.filter))


@dataclass(frozen=True)
class InvalidCase:
    """A search that is refused. `says` is part of the message on both servers; `peer` the status of MLflow 3.17."""

    kind: str
    filter: str = ""
    order_by: tuple[Any, ...] = ()
    says: str = ""
    peer: int = 400
    status: int = 400
    error_code: str = "INVALID_PARAMETER_VALUE"


def generate_cases(seed: int, count: int) -> list[Case]:
    """Return `count` valid searches, the kinds in turn; the same for the same seed."""
    rng = random.Random(seed)
    return [_make_case(rng, KINDS[number % len(KINDS)]) for number in range(count)]


_STRAY = "Invalid clause(s) in filter string"
_UNQUOTED = "Parameter value is either not quoted or unidentified quote types used for string value"
_LIST = "While parsing a list in the query, expected"
_LIST_KEYS = "attributes support comparison with a list of quoted string values."
_LOGGED_STRAY = "Expected a list of comparisons separated by 'AND'"

INVALID_CASES: tuple[InvalidCase, ...] = (
    # what stands between comparisons, and what is none
    *(
        InvalidCase(kind, text, says=_STRAY)
        for kind, key in (("models", "name"), ("versions", "name"), ("experiments", "name"), ("runs", "run_name"))
        for text in (
            f"{key} = 'a' OR {key} = 'b'",
            f"NOT {key} = 'a'",
            f"({key} = 'a')",
            f"{key} =",
            f"= '{key}'",
            key,
            f"{key} 'a'",
            f"{key} = 'a",
            f'{key} = "a',
            f"{key} = 'a'b'",
            f"{key} = 'a';",
            f"{key} IN 'a'",
            f"{key} IN ('a'",
            f"{key} = 'a' -- b",
            f"tags.`a = {key}",
            "evilhax = true",
        )
    ),
    *(
        InvalidCase("logged_models", text, says=_LOGGED_STRAY)
        for text in ("name = 'a' OR name = 'b'", "(name = 'a')", "name = 'a", "name IN ('a'", "name", "name = 'a';")
    ),
    *(InvalidCase(kind, "1 = 1", says="Expected 'Identifier' found '1'") for kind in KINDS[:-1]),
    *(InvalidCase(kind, "'a' = name", says="Expected 'Identifier' found ''a''") for kind in KINDS[:-1]),
    *(InvalidCase(kind, "tags.a-b = 'c'", says="Expected 'Identifier' found 'tags.a-b'") for kind in KINDS[:-1]),
    *(InvalidCase(kind, "  ", says="Invalid filter '  '. Could not be parsed.") for kind in KINDS[:-1]),
    # what has no such name
    InvalidCase("models", "run_id = 'a'", says="Invalid attribute key 'run_id' specified. Valid keys are '{'name'}'"),
    InvalidCase("models", "NAME = 'a'", says="Invalid attribute key 'NAME'"),
    InvalidCase("models", "attr.name = 'a'", says="Invalid entity type 'attr'"),
    InvalidCase("models", "params.a = 'a'", says="Invalid entity type 'params'"),
    InvalidCase("versions", "alias = 'a'"),
    InvalidCase("versions", "creation_timestamp > 1", says="Invalid attribute key 'creation_timestamp'"),
    InvalidCase("versions", "version = 1"),
    InvalidCase("versions", "metrics.a > 1", says="Invalid entity type 'metrics'"),
    InvalidCase("experiments", "lifecycle_stage = 'active'", says="Invalid attribute key 'lifecycle_stage'"),
    InvalidCase("experiments", "params.a = 'b'", says="Invalid entity type 'params'"),
    InvalidCase("runs", "experiment_id = '1'", says="Invalid attribute key 'experiment_id'"),
    InvalidCase("runs", "datasets.source = 'a'", says="Invalid dataset key 'source'"),
    InvalidCase("runs", "foo.a = 'b'", says="Invalid entity type 'foo'"),
    InvalidCase("logged_models", "metric.a > 1", says="Invalid entity type: 'metric'"),
    InvalidCase("logged_models", "foo = 'a'", peer=500),
    # what cannot be compared so
    InvalidCase("models", "name > 'a'", says="Invalid comparator"),
    InvalidCase("models", "name == 'a'", says="Invalid comparator"),
    InvalidCase("models", "name NOT LIKE 'a'", says="Invalid comparator for attribute: NOT LIKE"),
    InvalidCase("models", "tags.a >= 'a'", says="Invalid comparator for tag: >="),
    InvalidCase("models", "tags.a IS NULL", peer=500),
    InvalidCase("versions", "version_number LIKE '1'", says="Invalid comparator for attribute"),
    InvalidCase("versions", "run_id <> 'a'", says="Invalid comparator for attribute: <>"),
    InvalidCase("versions", "tags.a IS NOT NULL", peer=500),
    InvalidCase("experiments", "name < 'a'", says="Invalid comparator '<' not one of"),
    InvalidCase("experiments", "experiment_id LIKE '1'", says="Invalid comparator"),
    InvalidCase("experiments", "creation_time LIKE 1", says="Invalid comparator 'LIKE' not one of"),
    InvalidCase(
        "experiments", "name IS NULL", says="IS NULL / IS NOT NULL is only supported for tags, not for attribute"
    ),
    InvalidCase("runs", "metrics.a LIKE 1", says="Invalid comparator 'LIKE' not one of"),
    InvalidCase("runs", "metrics.a ~ 1", says="Invalid comparator '~' not one of"),
    InvalidCase("runs", "params.a < '1'", says="Invalid comparator '<' not one of"),
    InvalidCase("runs", "tags.a RLIKE 'a'", says="Invalid comparator 'RLIKE' not one of"),
    InvalidCase("runs", "status <= 'a'", says="Invalid comparator '<=' not one of"),
    InvalidCase("runs", "datasets.name > 'a'", says="Invalid comparator '>'"),
    InvalidCase("runs", "metrics.a IS NULL", says="only supported for tags and params, not for 'metric' 'a'"),
    InvalidCase("runs", "run_id IS NULL", says="only supported for tags and params, not for 'attribute' 'run_id'"),
    InvalidCase("logged_models", "name > 'a'", says="Invalid comparison operator for"),
    InvalidCase("logged_models", "metrics.a <> 1", says="Invalid comparison operator for"),
    InvalidCase("logged_models", "tags.a IS NULL"),
    # what is no value for it
    InvalidCase("models", "name = risk", says=f"{_UNQUOTED} risk. Use either single or double quotes."),
    InvalidCase("models", "name = 5", says="Expected a quoted string value"),
    InvalidCase("models", "tags.a = 5", says="Expected a quoted string value for tag (e.g. 'my-value'). Got value 5"),
    InvalidCase(
        "models", "tags.a IN ('b')", says="Expected a quoted string value for tag (e.g. 'my-value'). Got value"
    ),
    InvalidCase("models", "name IN ()", says=f"{_LIST} a non-empty list of string values, but got empty list"),
    InvalidCase("models", "name IN ('a' || 'b')", says="a non-empty list of string values, but got ill-formed list"),
    InvalidCase("models", "name IN (1, 'a')", says="but got different type in list"),
    InvalidCase(
        "versions", "version_number = 'one'", says="Invalid value for numeric attribute 'version_number': 'one'"
    ),
    InvalidCase("versions", "version_number = 1.0", says="Invalid value for numeric attribute 'version_number': 1.0"),
    InvalidCase("versions", "version_number IN (1, 2)", says=f"Only ['name', 'run_id'] {_LIST_KEYS}"),
    InvalidCase("versions", "source_path IN ('a')", says=f"Only ['name', 'run_id'] {_LIST_KEYS}"),
    InvalidCase("versions", "version_number = 99999999999999999999", peer=500),
    InvalidCase(
        "experiments", "experiment_id = 'one'", says="Invalid experiment ID 'one'. Experiment ID must be a valid"
    ),
    InvalidCase("experiments", "experiment_id = 1", says="Expected a quoted string value for attributes. Got value 1"),
    InvalidCase("experiments", "name IN ('a')", says=f"Only ['experiment_id'] {_LIST_KEYS}"),
    InvalidCase("experiments", "creation_time > '5'", says="Expected numeric value type for numeric attribute"),
    InvalidCase(
        "experiments", "creation_time > 5.5", says="Invalid value for numeric attribute 'creation_time': '5.5'"
    ),
    InvalidCase("runs", "metrics.a > '5'", says="Expected numeric value type for metric. Found '5'"),
    InvalidCase("runs", "metrics.a > nan", says="Expected numeric value type for metric. Found nan"),
    InvalidCase(
        "runs", "start_time > '5'", says="Expected numeric value type for numeric attribute: start_time. Found '5'"
    ),
    InvalidCase(
        "runs", "params.a = 5", says="Expected a quoted string value for parameter (e.g. 'my-value'). Got value 5"
    ),
    InvalidCase("runs", "params.a = b", says=f"{_UNQUOTED} b."),
    InvalidCase("runs", "status = 5", says="Expected a quoted string value for attributes. Got value 5"),
    InvalidCase("runs", "status IN ('a')", says=f"Only ['run_id'] {_LIST_KEYS}"),
    InvalidCase("runs", "run_id IN (['a'])"),
    InvalidCase("logged_models", "metrics.a > 'b'", peer=500),
    InvalidCase("logged_models", "creation_timestamp > 'b'", peer=500),
    # orders
    *(
        InvalidCase(kind, order_by=(order,), says=f"Invalid order_by clause '{order}'. Could not be parsed.")
        for kind in KINDS[:-1]
        for order in ("", "name, name", "name DESC, name", "name DESC down", "name = 'a'", "'name'", "5", "DESC name x")
    ),
    *(
        InvalidCase(kind, order_by=("name down",), says="Invalid ordering key in order_by clause 'name down'.")
        for kind in KINDS[:-1]
    ),
    InvalidCase(
        "models", order_by=("creation_timestamp",), says="Invalid order by key 'creation_timestamp' specified."
    ),
    InvalidCase("models", order_by=("tags.a",), says="Invalid order by key 'tags.a' specified."),
    InvalidCase("models", order_by=("timestamp", "last_updated_timestamp DESC"), says="duplicate fields", peer=500),
    InvalidCase("versions", order_by=("run_id",), says="Invalid attribute key 'run_id' specified."),
    InvalidCase("versions", order_by=("tags.a",)),
    InvalidCase("versions", order_by=("name", "attribute.name DESC"), says="duplicate fields", peer=500),
    InvalidCase("experiments", order_by=("tags.a",), says="Invalid order_by entity: tag"),
    InvalidCase(
        "experiments", order_by=("artifact_location",), says="Invalid attribute key 'artifact_location' specified."
    ),
    InvalidCase("runs", order_by=("foo",), says="Invalid attribute key 'foo' specified."),
    InvalidCase("runs", order_by=("datasets.name",), says="dataset"),
    InvalidCase("runs", order_by=("start_time", "created DESC"), says="duplicate fields", peer=500),
    InvalidCase("runs", order_by=("metrics.a", "metric.a DESC"), says="duplicate fields", peer=500),
    InvalidCase(
        "logged_models",
        order_by=({"field_name": "params.a"},),
        says="Invalid order by field name: params.a. Only metrics are supported.",
    ),
    InvalidCase("logged_models", order_by=({"field_name": "foo"},), says="Invalid order by field name: foo"),
    InvalidCase("logged_models", order_by=({},), says="Invalid order by field name: "),
)
"""Searches that both servers refuse."""

# ── making one ───────────────────────────────────────────────────────────────────────────────────────────────────

Make = Callable[[random.Random], str]

_LIKES = ("=", "!=", "LIKE", "ILIKE")
_NUMBERS = ("=", "!=", "<", "<=", ">", ">=")
_LISTS = ("IN", "NOT IN")
_NULLS = ("IS NULL", "IS NOT NULL")

_TEXTS = (
    "risk", "RISK", "Fraud", "fraud_a", "fraudxa", "4711", "", "it's", 'say "hi"', 'a "b" c', "C:\\models", "dev", "Prod",
    "prod_a", "x", "3", "10", "0.1", "adam", "nothing",
)  # fmt: skip
_PATTERNS = ("%", "", "r%", "R%", "%isk", "fraud_a", "%\\%", "%'%", '%"%', "_", "___", "%4_11", "prod%", "1_", "%a")
_NAMES = {
    "models": tuple(item["name"] for item in DATA.models),
    "versions": tuple(item["name"] for item in DATA.models),
    "experiments": tuple(item["name"] for item in DATA.experiments),
    "runs": tuple(item["run_name"] for item in DATA.runs),
    "logged_models": tuple(item["name"] for item in DATA.logged_models),
}
_NAME_PATTERNS = (
    "%",
    "sweep%",
    "Sweep%",
    "%risk",
    "%_R%",
    "%100\\%",
    "%100%%",
    "f%",
    "F%",
    "%_run",
    "%%run",
    "bare",
    "for_est%",
    "%t_o",
)


@dataclass(frozen=True)
class _Key:
    """A thing to compare: its spellings, what it may be compared with, and values for it."""

    spellings: tuple[str, ...]
    operators: tuple[str, ...]
    values: Sequence[str]
    patterns: Sequence[str] = _PATTERNS
    is_number: bool = False


def _keyed(entities: Sequence[str], keys: Sequence[str], *, quotes: str = '`"') -> tuple[str, ...]:
    spellings = []
    for key in keys:
        ways = [f"`{key}`"] + ([f'"{key}"'] if '"' in quotes else [])
        if re.fullmatch(r"[A-Za-z_][\w.]*", key):
            ways += [key, key]
        spellings += [f"{entity}.{way}" for entity in entities for way in ways]
    return tuple(spellings)


_TAG_KEYS = ("team", "cost centre", "quote", "note", "path", "empty", "none")
_PARAM_KEYS = ("depth", "lr", "Op.t", "none")
_METRIC_KEYS = ("auc", "f1 score", "loss", "count", "none")
_NUMBER_VALUES = ("0.9", ".75", "0.75", "-0.5", "0", "3", "3.", "12", "1e-05", "1e-5", "0.25", "-1e3", "0.899999")
_TIMES = tuple(
    str(base + shift)
    for base in (1_700_000_000_000, 1_700_000_001_000, 1_700_000_001_001, 1_700_000_002_000, 1_700_000_061_001)
    for shift in (-1, 0, 1)
)
_SECONDS_HALVED = ("1700000001000.5", "1700000001000.0", "0", "-1", "1e12", "2e12")
_TAGS = _Key(_keyed(("tag", "tags"), _TAG_KEYS), _LIKES, _TEXTS)
_VERSION_TAGS = _Key(_keyed(("tag", "tags"), ("stage", "cost centre", "quote", "note", "none")), _LIKES, _TEXTS)
_RUN_IDS = tuple(f"{{run_{number}}}" for number in range(len(DATA.runs)))
_EXPERIMENT_IDS = tuple(f"{{experiment_{number}}}" for number in range(len(DATA.experiments)))
_LOGGED_IDS = tuple(f"{{logged_model_{number}}}" for number in range(len(DATA.logged_models)))


def _created(noun: str, count: int) -> tuple[str, ...]:
    return (*(f"{{{noun}_{number}_created}}" for number in range(count)), "0", "4102444800000")


def _name(spellings: Sequence[str], kind: str, *more: str) -> _Key:
    return _Key(tuple(spellings), (*_LIKES, *more), (*_NAMES[kind], "nothing"), _NAME_PATTERNS)


_KEYS: Mapping[str, Sequence[_Key]] = {
    "models": (
        _name(("name", "attribute.name"), "models", *_LISTS),
        _TAGS,
        _Key(("tags.`mlflow.prompt.is_prompt`", 'tag."mlflow.prompt.is_prompt"'), ("=", "!="), ("true", "false")),
    ),
    "versions": (
        _name(("name", "attribute.name"), "versions", *_LISTS),
        _Key(("run_id", "attribute.run_id"), (*_LIKES, *_LISTS), (*_RUN_IDS, "", "nothing"), ("%", "", "_%")),
        _Key(("source_path",), ("=", "!=", "LIKE", "ILIKE"), ("s3://bucket/sweep/a%b",), ("s3://%", "S3://%", "%a_b")),
        _Key(("version_number",), _NUMBERS, ("0", "1", "2", "3", "99", "-1", "'2'", '"1"'), is_number=True),
        _VERSION_TAGS,
        _Key(("tags.`mlflow.prompt.is_prompt`",), ("=", "!="), ("true", "false")),
    ),
    "experiments": (
        _name(("name", "attribute.name", "`name`"), "experiments"),
        _Key(("experiment_id", "attribute.experiment_id"), ("=", "!=", *_LISTS), _EXPERIMENT_IDS),
        _Key(("creation_time",), _NUMBERS, _created("experiment", len(DATA.experiments)), is_number=True),
        _Key(_TAGS.spellings, (*_LIKES, *_NULLS), _TEXTS),
    ),
    "runs": (
        _name(("run_name", "attributes.run_name", "`run name`", "attr.`Run Name`", "run.run_name"), "runs"),
        _Key(("run_id", "attr.run_id"), ("=", "!=", "LIKE", *_LISTS), (*_RUN_IDS, "nothing"), ("%", "_%")),
        _Key(("status", "attributes.status"), _LIKES, ("FINISHED", "RUNNING", "failed"), ("F%", "f%", "%ED")),
        _Key(("user_id",), _LIKES, ("ada", "Ada", "bob"), ("%a", "A%", "___")),
        _Key(("start_time", "created", "Created"), _NUMBERS, (*_TIMES, *_SECONDS_HALVED), is_number=True),
        _Key(("end_time", "attribute.end_time"), _NUMBERS, (*_TIMES, *_SECONDS_HALVED), is_number=True),
        _Key(_TAGS.spellings, (*_LIKES, *_NULLS), _TEXTS),
        _Key(_keyed(("param", "params", "parameter", "parameters"), _PARAM_KEYS), (*_LIKES, *_NULLS), _TEXTS),
        _Key(_keyed(("metric", "metrics"), _METRIC_KEYS), _NUMBERS, _NUMBER_VALUES, is_number=True),
        _Key(("datasets.name", "dataset.name"), (*_LIKES, *_LISTS), ("train set", "TEST_SET"), ("%_set", "t%", "T%")),
        _Key(("datasets.digest",), (*_LIKES, *_LISTS), ("abc1", "abc2", "abc9"), ("abc_", "ABC%")),
        _Key(("datasets.context", "dataset.context"), (*_LIKES, *_LISTS), ("train", "test"), ("t%", "T___")),
    ),
    "logged_models": (
        _name(("name", "attributes.name"), "logged_models", *_LISTS),
        _Key(("model_id",), ("=", "!=", *_LISTS), (*_LOGGED_IDS, "nothing")),
        _Key(("model_type",), (*_LIKES, *_LISTS), ("sklearn", "SKLearn", ""), ("%", "s%", "S%")),
        _Key(("source_run_id",), (*_LIKES, *_LISTS), (*_RUN_IDS, ""), ("%", "", "_%")),
        _Key(
            ("creation_timestamp", "creation_time"),
            _NUMBERS,
            _created("logged_model", len(DATA.logged_models)),
            is_number=True,
        ),
        _Key(_keyed(("tags",), _TAG_KEYS, quotes="`"), (*_LIKES, *_LISTS), _TEXTS),
        _Key(_keyed(("params",), ("depth", "lr", "none"), quotes="`"), (*_LIKES, *_LISTS), _TEXTS),
        _Key(
            _keyed(("metrics",), ("auc", "f1 score", "loss", "none"), quotes="`"),
            _NUMBERS,
            _NUMBER_VALUES,
            is_number=True,
        ),
    ),
}
_ORDERS: Mapping[str, Sequence[Sequence[str]]] = {
    "models": (("name",), ("timestamp", "last_updated_timestamp")),
    "versions": (
        ("name", "attribute.name"),
        ("version_number",),
        ("creation_timestamp", "`creation_timestamp`"),
        ("last_updated_timestamp",),
    ),
    "experiments": (("name", "attribute.name"), ("experiment_id",), ("creation_time",)),
    "runs": (
        ("run_name", "attributes.run_name"),
        ("status",),
        ("user_id", "attr.user_id"),
        ("start_time", "Created", "attribute.start_time"),
        ("end_time",),
        ("metrics.auc", "metric.`auc`"),
        ("metrics.`f1 score`", 'metric."f1 score"'),
        ("metrics.loss",),
        ("params.depth", "parameter.depth"),
        ("params.lr",),
        ("tags.team", "tag.`team`"),
        ("tags.`cost centre`",),
    ),
    "logged_models": (
        ("name",),
        ("creation_timestamp", "creation_time"),
        ("metrics.auc",),
        ("metrics.f1 score",),
        ("metrics.loss",),
    ),
}
_BLANKS = (" ",) * 12 + ("  ", "\t", "\n")


def _make_case(rng: random.Random, kind: str) -> Case:
    comparisons = [_make_comparison(rng, kind) for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3)))]
    text = ""
    for number, comparison in enumerate(comparisons):
        text += (
            comparison
            if number == 0
            else _blank(rng) + rng.choice(("AND", "AND", "and", "And")) + _blank(rng) + comparison
        )
    chosen = rng.sample(_ORDERS[kind], rng.choice((0, 0, 1, 1, 2)))
    order = tuple(_make_order(rng, kind, rng.choice(spellings)) for spellings in chosen)
    return Case(kind, text, order, rng.choice((1, 2, 3, 5, 100)))


def _make_order(rng: random.Random, kind: str, key: str) -> Any:
    if kind == "logged_models":
        return {"field_name": key, "ascending": rng.random() < 0.5}
    direction = rng.choice(("", "ASC", "DESC", "desc", "Asc"))
    return key + (_blank(rng) + direction if direction else "")


def _make_comparison(rng: random.Random, kind: str) -> str:
    key = rng.choice(_KEYS[kind])
    left, operator = rng.choice(key.spellings), rng.choice(key.operators)
    # MLflow knows these operators of experiments in capitals only
    written = operator if kind == "experiments" or rng.random() < 0.8 else operator.lower()
    if operator in _NULLS:
        return f"{left}{_blank(rng)}{written}"
    if key.is_number:
        gap = rng.choice(("", " "))
        return f"{left}{gap}{written}{gap}{rng.choice(key.values)}"
    if operator in _LISTS:
        values = [value for value in rng.choices(key.values, k=rng.randint(1, 3)) if "\\" not in value] or ["x"]
        listed = rng.choice((", ", ",", " , ")).join(_quote(rng, value, kind) for value in values)
        return f"{left}{_blank(rng)}{written}{_blank(rng)}({listed}{rng.choice(('', '', ','))})"
    value = rng.choice(key.patterns if operator in ("LIKE", "ILIKE") else key.values)
    gap = _blank(rng) if operator.isalpha() else rng.choice(("", " ", " ", "\t"))
    return f"{left}{gap}{written}{gap}{_quote(rng, value, kind)}"


def _quote(rng: random.Random, value: str, kind: str) -> str:
    # A text cannot hold the quote it stands in. MLflow takes double quotes for part of the text in logged models.
    if kind == "logged_models":
        return f"'{value}'" if "'" not in value else "'x'"
    allowed = [quote for quote in ("'", '"') if quote not in value]
    quote = rng.choice(allowed)
    return f"{quote}{value}{quote}"


def _blank(rng: random.Random) -> str:
    return rng.choice(_BLANKS)
