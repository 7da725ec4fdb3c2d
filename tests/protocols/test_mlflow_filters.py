"""MLflow's filter and order texts against MLflow's own parsers: what they take and refuse, and what it means."""

from __future__ import annotations

import math
import random
import re
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    ExperimentTag,
    InputTag,
    LoggedModel,
    LoggedModelParameter,
    LoggedModelTag,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import (
    SearchExperimentsUtils,
    SearchLoggedModelsUtils,
    SearchModelUtils,
    SearchModelVersionUtils,
    SearchUtils,
)

from tests.conformance.mlflow_filter_cases import DATA, INVALID_CASES, KINDS, Case, InvalidCase, generate_cases
from touchmark.domain.errors import InvalidError, InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.search import (
    FIELDS,
    MAX_COMPARISONS,
    MAX_FILTER_CHARACTERS,
    MAX_LIST_VALUES,
    MAX_ORDER_TERMS,
    And,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Op,
    Or,
    OrderTerm,
    Searchable,
    describe,
    describe_order,
)
from touchmark.protocols.mlflow.filters import (
    LoggedModelOrder,
    parse_experiment_filter,
    parse_experiment_order,
    parse_logged_model_filter,
    parse_logged_model_order,
    parse_model_filter,
    parse_model_order,
    parse_run_filter,
    parse_run_order,
    parse_version_filter,
    parse_version_order,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports MLflow's tables
    from mlflow.utils.search_logged_model_utils import parse_filter_string

FILTERS: dict[str, Callable[[str], Condition | None]] = {
    "models": parse_model_filter,
    "versions": parse_version_filter,
    "experiments": parse_experiment_filter,
    "runs": parse_run_filter,
    "logged_models": parse_logged_model_filter,
}
ORDERS: dict[str, Callable[[Sequence[Any]], tuple[OrderTerm, ...]]] = {
    "models": parse_model_order,
    "versions": parse_version_order,
    "experiments": parse_experiment_order,
    "runs": parse_run_order,
    "logged_models": lambda items: parse_logged_model_order([LoggedModelOrder(**item) for item in items]),
}
UTILS: dict[str, Any] = {
    "models": SearchModelUtils,
    "versions": SearchModelVersionUtils,
    "experiments": SearchExperimentsUtils,
    "runs": SearchUtils,
}
NO_PROMPT = "NOT tags.mlflow.prompt.is_prompt = 'true'"
NO_PROMPT_VERSION = f"{NO_PROMPT} AND NOT model_tags.mlflow.prompt.is_prompt = 'true'"


# ── what MLflow takes ────────────────────────────────────────────────────────────────────────────────────────────


class Refused(Exception):  # noqa: N818 - an answer
    """MLflow's server refuses the filter, or fails on it. Its SQL stores have sentences of their own."""

    def __init__(self, sentence: str, *, says_as_on_the_wire: bool = False) -> None:
        super().__init__(sentence)
        self.says_as_on_the_wire = says_as_on_the_wire


def ask_mlflow(kind: str, text: str) -> list[tuple[str, str, str, Any]]:
    """Return MLflow's (type, key, operator, value) of each comparison, after the checks that its SQL stores add."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a list is evaluated as Python, which warns of unknown escapes
        try:
            found = parse_filter_string(text) if kind == "logged_models" else UTILS[kind].parse_search_filter(text)
        except MlflowException as error:
            raise Refused(str(error), says_as_on_the_wire=True) from error
        except (ValueError, SyntaxError) as error:
            raise Refused(str(error)) from error
    try:
        return _check_logged_models(found) if kind == "logged_models" else _check(kind, found)
    except (MlflowException, ValueError) as error:
        raise Refused(str(error)) from error


def _check(kind: str, comparisons: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, Any]]:
    utils, found = UTILS[kind], []
    for comparison in comparisons:
        what, key, value = comparison["type"], comparison["key"], comparison["value"]
        op = comparison["comparator"].upper()
        if isinstance(value, tuple) != (op in ("IN", "NOT IN")):
            raise Refused("a list without IN fails in the database")
        if kind == "experiments" and (what, key) == ("attribute", "experiment_id"):
            value = [int(item) for item in value] if isinstance(value, tuple) else int(value)
            if op not in ("=", "!=", "IN", "NOT IN"):
                raise Refused(op)
        elif kind == "versions" and (what, key) == ("attribute", "version_number") and not isinstance(value, float):
            value = int(value)
        checks = [
            utils.is_string_attribute(what, SearchUtils.translate_key_alias(key), op),
            utils.is_numeric_attribute(what, SearchUtils.translate_key_alias(key), op),
            utils.is_tag(what, op),
            *(
                (utils.is_metric(what, op), utils.is_param(what, op), utils.is_dataset(what, op))
                if kind == "runs"
                else ()
            ),
        ]
        if not any(checks) or (kind != "runs" and isinstance(value, float)) or not (-(2**63) <= _number(value) < 2**63):
            raise Refused(f"{what} {op} {value}")
        found.append((what, key, op, value))
    return found


def _number(value: Any) -> float:
    return value if isinstance(value, int) else 0


def _check_logged_models(comparisons: Sequence[Any]) -> list[tuple[str, str, str, Any]]:
    columns = {"name", "model_id", "model_type", "status", "source_run_id"}
    columns |= {"creation_timestamp_ms", "last_updated_timestamp_ms"}
    found = []
    for comparison in comparisons:
        entity, value = comparison.entity, comparison.value
        if isinstance(value, int) or isinstance(value, tuple) != (comparison.op in ("IN", "NOT IN")):
            raise Refused("fails in the database")
        if entity.type.value == "attributes" and entity.key not in columns:
            raise Refused("fails, there is no such column")
        found.append((entity.type.value, entity.key, comparison.op, value))
    return found


def takes(parse: Callable[[], object]) -> bool:
    """Return whether a parser, ours or MLflow's, takes what it is given."""
    try:
        parse()
    except (InvalidError, Refused):
        return False
    return True


KEYS = {
    "models": ["name", "tags.a", "tag.`a b`", 'tags."q r"', "tags.'s t'", "attribute.name", "tags.mlflow.user", "tags.order"],
    "versions": ["name", "run_id", "version_number", "source_path", "tags.a", "attribute.run_id", "tags.`x.y`", "version"],
    "experiments": ["name", "experiment_id", "creation_time", "`name`", "attribute.last_update_time", "tags.a", "tag.`a-b`"],
    "runs": [
        "run_id", "status", "start_time", "Created", "`run name`", "attr.run_name", "tags.a.b", "param.b", "parameters.`c d`",
        "metrics.m", 'metric."m n"', "datasets.name", "dataset.digest", "`tags`.a", "metrics.count", "tags.select",
    ],
    "logged_models": [
        "name", "model_id", "status", "creation_time", "params.a", "tags.`t-x`", "metrics.m", "attributes.name",
        "source_run_id", "metrics.`m n`",
    ],
}  # fmt: skip
OPERATORS = [
    "=",
    "!=",
    "<",
    ">=",
    "LIKE",
    "ilike",
    "Not Like",
    "IN",
    "NOT  IN",
    "in",
    "IS NULL",
    "is not null",
    "==",
    "<>",
]
VALUES = [
    "'a'",
    "'it''s'",
    "''",
    "'a\\'",
    "5",
    "-1.5",
    "1e3",
    ".5",
    "5.",
    "('a')",
    "('a','b')",
    "('a',)",
    "(1)",
    "x",
    "'1'",
]
JUNK = ["OR", "(", ")", ",", ";", "'", '"', "`", "*", "NOT", "IS", "x", "=", "'a'", "5", "#", "AND", "tags."]


@st.composite
def filters(draw: st.DrawFn) -> tuple[str, str]:
    """A kind, and a filter that looks much like one of its, right or wrong."""
    kind = draw(st.sampled_from(KINDS))
    words: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        operator = draw(st.sampled_from(OPERATORS))
        words += ["AND"] * draw(st.sampled_from([1, 1, 1, 1, 2])) if words else []
        words += [draw(st.sampled_from(KEYS[kind])), operator]
        if "null" not in operator.lower():
            values = [*VALUES, '"b"', "()"] if kind != "logged_models" else VALUES
            words.append(draw(st.sampled_from(values[9:13] if operator.lower().endswith("in") else values)))
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(JUNK)))
    return kind, draw(st.sampled_from([" ", " ", "  ", "\n", "\t"])).join(words)


def runs_words_together(text: str) -> bool:
    """Whether MLflow's SQL parser may take words that stand side by side for one name: `tags.a x`, `('a') x`, `x 'a'`."""
    name = r"""(?:[\w./-]|`[^`]*`|"[^"]*")+"""
    bare = re.sub(r"'(?:''|\\'|[^'])*'", "''", text)
    words = "AND|OR|NOT|IN|IS|NULL|LIKE|ILIKE"
    return bool(
        re.search(rf"(?i)(?:{name}|''|\))\s+(?!(?:{words})\b){name}", re.sub(rf"(?i)\b(?:{words})\b", ";", bare))
        or re.search(r"\.\s|\s\.", text)
    )


@settings(max_examples=400, deadline=None)
@given(filters())
def test_a_filter_is_taken_exactly_if_mlflow_takes_it(example: tuple[str, str]) -> None:
    kind, text = example
    if runs_words_together(text):
        return
    assert takes(lambda: FILTERS[kind](text)) is takes(lambda: ask_mlflow(kind, text)), (kind, text)


@pytest.mark.parametrize(
    ("kind", "text", "tree"),
    [
        # a key is no word of SQL
        ("runs", "params.from = 'a'", "params.from = 'a'"),
        ("models", "tags.in = 'a'", f"tags.in = 'a' AND {NO_PROMPT}"),
        ("runs", "metrics.1 > 5", "metrics.1 > 5.0"),
        # any way to write a number
        ("runs", "metrics.a > +5", "metrics.a > 5.0"),
        ("runs", "metrics.a > 1e+20", "metrics.a > 1e+20"),
        ("runs", "metrics.a > .5e3", "metrics.a > 500.0"),
        # two words that the SQL parser makes one of
        ("runs", "status = 'a' tags.b IS NULL", "status = 'a' AND tags.b IS NULL"),
        ("runs", "run_id IN ('a') run_id IN ('b')", "run_id IN ('a') AND run_id IN ('b')"),
        # a key with - or / in logged models, before IN as before =
        ("logged_models", "tags.a-b IN ('c')", "tags.a-b IN ('c')"),
        # a column that MLflow promises and does not have
        ("logged_models", "last_updated_time >= 5", "updated_at >= 5000"),
        ("logged_models", "attributes.creation_time >= 5", "created_at >= 5000"),
    ],
)
def test_some_filters_that_mlflow_refuses_by_accident_are_taken(kind: str, text: str, tree: str) -> None:
    with pytest.raises(Refused):
        ask_mlflow(kind, text)
    assert describe(FILTERS[kind](text)) == tree


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("runs", "metrics.a < 1e999"),  # not finite
        ("logged_models", "metrics.a < nan"),
        ("runs", "tags.a b IS NULL"),  # the SQL parser makes one key of two
        ("runs", "tags. a = 'b'"),
        ("logged_models", "name IN ()"),  # finds nothing there, is refused everywhere else
        ("logged_models", "params.a IN (1, 2)"),
        ("logged_models", "name = null"),  # means the text there
        ("logged_models", "Tags.a = 'b'"),
        ("runs", "run_id IN ('a' 'b')"),  # Python's way to write one text
        ("runs", "run_id IN (('a'))"),
    ],
)
def test_some_filters_that_mlflow_takes_by_accident_are_refused(kind: str, text: str) -> None:
    try:
        ask_mlflow(kind, text)
    except Refused as refused:
        assert "column" in str(refused)  # noqa: PT017 - taken by the parser, fails in the database
    with pytest.raises(InvalidFilterError):
        FILTERS[kind](text)


def test_a_text_in_a_list_is_read_as_outside_of_one() -> None:
    # MLflow evaluates a list as Python, so that 'C:\temp' holds a tab and 'it''s' is its
    assert describe(parse_run_filter(r"run_id IN ('C:\temp', 'it''s')")) == r"run_id IN ('C:\temp', 'it''''s')"
    assert ask_mlflow("runs", r"run_id IN ('C:\temp', 'it''s')")[0][3] == ("C:\temp", "its")


def test_keys_with_a_hyphen_or_slash_and_bare_values_need_no_quotes_in_logged_models() -> None:
    text = "tags.val-part = a AND params.a/b != 0.5 AND metrics.top-k > 1"
    assert (
        describe(parse_logged_model_filter(text))
        == "tags.val-part = 'a' AND params.a/b != '0.5' AND metrics.top-k > 1.0"
    )
    found = [("tags", "val-part", "=", "a"), ("params", "a/b", "!=", "0.5"), ("metrics", "top-k", ">", 1.0)]
    assert ask_mlflow("logged_models", text) == found


def test_text_in_double_quotes_is_text_in_logged_models_too() -> None:
    assert describe(parse_logged_model_filter('name = "a" AND tags."b c" = "d"')) == "name = 'a' AND tags.`b c` = 'd'"
    assert ask_mlflow("logged_models", 'name = "a"') == [("attributes", "name", "=", '"a"')]


# ── what it means ────────────────────────────────────────────────────────────────────────────────────────────────

Row = dict[Field, Any]
"""The values of one thing, those of a field with many values as a list; what is absent is left out."""
MS = 1_700_000_000_000
IDS = {f"run_{n}": f"r{n}" for n in range(9)} | {f"experiment_{n}": str(n + 1) for n in range(9)}
IDS |= {f"logged_model_{n}": f"m-{n}" for n in range(9)}
IDS |= {f"experiment_{n}_created": str(MS + n) for n in range(9)} | {
    f"logged_model_{n}_created": str(MS + n) for n in range(9)
}


def make_row(values: dict[FieldKind, Any], tags: Sequence[dict[str, str]] = (), **more: Any) -> Row:
    row: Row = {Field(kind): value for kind, value in values.items() if value not in (None, "", [])}
    row |= {Field(FieldKind.TAG, tag["key"]): tag["value"] for tag in tags}
    row |= {Field(FieldKind.PARAM, param["key"]): param["value"] for param in more.get("params", ())}
    return row | {Field(FieldKind.METRIC, m["key"]): float(m["value"]) for m in more.get("metrics", ())}


def us(ms: int | None) -> int | None:
    """Return some microsecond of a millisecond."""
    return None if ms is None else ms * 1000 + 789


def make_models() -> list[tuple[Any, Row]]:
    found = []
    for number, item in enumerate(DATA.models):
        tags = [RegisteredModelTag(tag["key"], tag["value"]) for tag in item.get("tags", ())]
        peer = RegisteredModel(item["name"], MS, MS + number % 2, tags=tags)
        values = {FieldKind.NAME: item["name"], FieldKind.CREATED_AT: us(MS), FieldKind.UPDATED_AT: us(MS + number % 2)}
        found.append((peer, make_row(values, item.get("tags", ()))))
    return found


def make_versions() -> list[tuple[Any, Row]]:
    found, numbers = [], dict.fromkeys((item["name"] for item in DATA.versions), 0)
    for number, item in enumerate(DATA.versions):
        numbers[item["name"]] += 1
        tags = [ModelVersionTag(tag["key"], tag["value"]) for tag in item.get("tags", ())]
        run_id = f"r{item['run']}" if "run" in item else ""
        source = item.get("source", f"mlflow-artifacts:/1/{run_id}/artifacts/model")
        peer = ModelVersion(
            item["name"], numbers[item["name"]], MS + number, MS + number // 2, source=source, run_id=run_id, tags=tags
        )
        values = {
            FieldKind.NAME: item["name"],
            FieldKind.VERSION: numbers[item["name"]],
            FieldKind.RUN_ID: run_id,
            FieldKind.SOURCE: source,
            FieldKind.CREATED_AT: us(MS + number),
            FieldKind.UPDATED_AT: us(MS + number // 2),
        }
        found.append((peer, make_row(values, item.get("tags", ()))))
    return found


def make_experiments() -> list[tuple[Any, Row]]:
    found = []
    for number, item in enumerate(DATA.experiments):
        tags = [ExperimentTag(tag["key"], tag["value"]) for tag in item.get("tags", ())]
        peer = Experiment(str(number + 1), item["name"], "", "active", tags, MS + number, MS)
        values = {
            FieldKind.NAME: item["name"],
            FieldKind.EXPERIMENT_ID: number + 1,
            FieldKind.CREATED_AT: us(MS + number),
            FieldKind.UPDATED_AT: us(MS),
        }
        found.append((peer, make_row(values, item.get("tags", ()))))
    return found


def make_runs() -> list[tuple[Any, Row]]:
    found = []
    for number, item in enumerate(DATA.runs):
        end = item.get("end", {"status": "RUNNING"})
        info = RunInfo(
            f"r{number}", "1", item["user_id"], end["status"], item["start_time"], end.get("end_time"), "active",
            run_name=item["run_name"],
        )  # fmt: skip
        sets = [
            DatasetInput(Dataset(**given["dataset"]), [InputTag(tag["key"], tag["value"]) for tag in given["tags"]])
            for given in item.get("datasets", ())
        ]
        data = RunData(
            [Metric(m["key"], float(m["value"]), m["timestamp"], m["step"]) for m in item.get("metrics", ())],
            [Param(param["key"], param["value"]) for param in item.get("params", ())],
            [RunTag(tag["key"], tag["value"]) for tag in item.get("tags", ())],
        )
        values = {
            FieldKind.RUN_ID: f"r{number}",
            FieldKind.NAME: item["run_name"],
            FieldKind.USER: item["user_id"],
            FieldKind.STATUS: end["status"],
            FieldKind.STARTED_AT: us(item["start_time"]),
            FieldKind.ENDED_AT: us(end.get("end_time")),
            FieldKind.DATASET_NAME: [one.dataset.name for one in sets],
            FieldKind.DATASET_DIGEST: [one.dataset.digest for one in sets],
            FieldKind.DATASET_CONTEXT: [tag.value for one in sets for tag in one.tags],
        }
        row = make_row(values, item.get("tags", ()), params=item.get("params", ()), metrics=item.get("metrics", ()))
        found.append((Run(info, data, RunInputs(sets)), row))
    return found


def make_logged_models() -> list[tuple[Any, Row]]:
    found = []
    for number, item in enumerate(DATA.logged_models):
        run_id = f"r{item['run']}" if "run" in item else ""
        peer = LoggedModel(
            experiment_id="1",
            model_id=f"m-{number}",
            name=item["name"],
            artifact_location="",
            creation_timestamp=MS + number,
            last_updated_timestamp=MS,
            model_type=item.get("model_type", ""),
            source_run_id=run_id,
            tags=[LoggedModelTag(tag["key"], tag["value"]) for tag in item.get("tags", ())],
            params=[LoggedModelParameter(param["key"], param["value"]) for param in item.get("params", ())],
            metrics=[Metric(m["key"], m["value"], m["timestamp"], m["step"]) for m in item.get("metrics", ())],
        )
        values = {
            FieldKind.MODEL_ID: f"m-{number}",
            FieldKind.NAME: item["name"],
            FieldKind.MODEL_TYPE: item.get("model_type", ""),
            FieldKind.RUN_ID: run_id,
            FieldKind.CREATED_AT: us(MS + number),
            FieldKind.UPDATED_AT: us(MS),
        }
        row = make_row(values, item.get("tags", ()), params=item.get("params", ()), metrics=item.get("metrics", ()))
        found.append((peer, row))
    return found


THINGS = {
    "models": make_models(),
    "versions": make_versions(),
    "experiments": make_experiments(),
    "runs": make_runs(),
    "logged_models": make_logged_models(),
}


def holds(condition: Condition | None, row: Row) -> bool:
    """Whether a condition holds, after the rules of domain/search.py."""
    if condition is None:
        return True
    if isinstance(condition, And | Or):
        return (all if isinstance(condition, And) else any)(holds(item, row) for item in condition.items)
    if isinstance(condition, Not):
        return not holds(condition.item, row)
    value = row.get(condition.field)
    if condition.op in (Op.IS_NULL, Op.IS_NOT_NULL):
        return (value is None) is (condition.op is Op.IS_NULL)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return any(compare(one, condition.op, condition.value) for one in values)


def compare(one: Any, op: Op, value: Any) -> bool:
    if op in (Op.LIKE, Op.ILIKE):
        parts = re.findall(r"\\.|.", value, re.DOTALL)
        regex = "".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts)
        return re.fullmatch(regex, one, re.DOTALL | (re.IGNORECASE if op is Op.ILIKE else 0)) is not None
    answers: dict[Op, Callable[[], bool]] = {
        Op.EQ: lambda: one == value,
        Op.NE: lambda: one != value,
        Op.LT: lambda: one < value,
        Op.LE: lambda: one <= value,
        Op.GT: lambda: one > value,
        Op.GE: lambda: one >= value,
        Op.IN: lambda: one in value,
        Op.NOT_IN: lambda: one not in value,
    }
    return answers[op]()


def filter_as_mlflow(kind: str, text: str) -> list[Row]:
    things = THINGS[kind]
    if kind == "logged_models":
        return [row for peer, row in things if all(_holds_in_mlflow(peer, *one) for one in ask_mlflow(kind, text))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = UTILS[kind].filter([peer for peer, _ in things], text)
    return [row for peer, row in things if any(peer is one for one in found)]


def _holds_in_mlflow(peer: Any, what: str, key: str, op: str, value: Any) -> bool:
    if what == "attributes":
        found = getattr(peer, key.removesuffix("_ms"))
    elif what == "metrics":
        found = next((metric.value for metric in peer.metrics if metric.key == key), None)
    else:
        found = getattr(peer, what).get(key)
    return found is not None and bool(SearchUtils.get_comparison_func(op)(found, value))


def sort(rows: Sequence[Row], order: Sequence[OrderTerm]) -> list[Row]:
    """Sort after the rules of domain/search.py: values, then NaN, then the absent, whatever the direction."""
    found = list(rows)
    for term in reversed(order):
        ranks: list[list[Row]] = [[], [], []]
        for row in found:
            value = row.get(term.field)
            ranks[2 if value is None else 1 if isinstance(value, float) and math.isnan(value) else 0].append(row)
        ranks[0].sort(key=lambda row: row[term.field], reverse=term.descending)
        found = [row for rank in ranks for row in rank]
    return found


CASES = generate_cases(20260131, 4000)


@pytest.mark.parametrize("kind", KINDS)
def test_generated_filters_find_what_mlflow_finds(kind: str) -> None:
    found, asked = 0, 0
    for case in (case.fill(IDS) for case in CASES if case.kind == kind and "is_prompt" not in case.filter):
        condition = FILTERS[kind](case.filter)
        rows = [row for _, row in THINGS[kind] if holds(_without_prompts(condition), row)]
        assert rows == filter_as_mlflow(kind, case.filter), case.filter
        found, asked = found + bool(rows), asked + 1
    assert asked > 400
    assert asked > found > asked / 3  # the cases are worth something


def _without_prompts(condition: Condition | None) -> Condition | None:
    """Return the condition without the rule that hides prompts, which MLflow's stores add and its parsers do not."""
    if isinstance(condition, Not):
        return None
    if isinstance(condition, And):
        return And(tuple(item for item in condition.items if not isinstance(item, Not)))
    return condition


@pytest.mark.parametrize("kind", ["versions", "experiments", "runs", "logged_models"])
def test_generated_orders_sort_as_mlflow_sorts(kind: str) -> None:
    defaults = {"versions": ["last_updated_timestamp DESC"], "experiments": ["creation_time DESC", "experiment_id ASC"]}
    utils = UTILS.get(kind, SearchLoggedModelsUtils)
    rows = {id(peer): row for peer, row in THINGS[kind]}
    shuffled = random.Random(0).sample(list(rows.values()), len(rows))
    for case in (case for case in CASES if case.kind == kind):
        theirs = utils.sort([peer for peer, _ in THINGS[kind]], list(case.order_by) or defaults.get(kind, []))
        assert sort(shuffled, ORDERS[kind](case.order_by)) == [rows[id(peer)] for peer in theirs], case.order_by


def test_the_same_seed_makes_the_same_cases() -> None:
    assert generate_cases(7, 50) == generate_cases(7, 50) != generate_cases(8, 50)
    assert all(isinstance(case, Case) and "{" not in case.fill(IDS).filter for case in CASES)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", INVALID_CASES, ids=lambda case: f"{case.kind}:{case.filter}{list(case.order_by)}")
def test_invalid_searches_are_refused_with_mlflows_sentence(case: InvalidCase) -> None:
    with pytest.raises(InvalidFilterError) as refused:
        search(case)
    assert case.says in refused.value.message
    assert isinstance(refused.value.fields["position"], int)
    if case.filter:
        with pytest.raises(Refused) as theirs:
            ask_mlflow(case.kind, case.filter)
        assert case.says in str(theirs.value) or not theirs.value.says_as_on_the_wire


def search(case: InvalidCase) -> None:
    FILTERS[case.kind](case.filter)
    ORDERS[case.kind](case.order_by)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tags.a = '" + "x" * MAX_FILTER_CHARACTERS + "'", LimitExceededError),
        (" AND ".join(["tags.a = 'b'"] * (MAX_COMPARISONS + 1)), LimitExceededError),
        ("tags.a = '\0'", InvalidFieldError),
        ("tags.a = '\ud800'", InvalidFieldError),
        (5, InvalidFieldError),
    ],
    ids=["long", "many", "NUL", "surrogate", "number"],
)
def test_filters_have_limits_and_hold_only_text_that_can_be_stored(
    kind: str, text: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        FILTERS[kind](text)


def test_orders_and_lists_have_limits() -> None:
    with pytest.raises(LimitExceededError):
        parse_run_filter(f"run_id IN ({','.join(['0'.join(chr(39) * 2)] * (MAX_LIST_VALUES + 1))})")
    metrics = [f"metrics.m{number}" for number in range(MAX_ORDER_TERMS + 1)]
    with pytest.raises(LimitExceededError):
        parse_run_order(metrics)
    with pytest.raises(LimitExceededError):
        parse_logged_model_order([LoggedModelOrder(field_name=metric) for metric in metrics])
    with pytest.raises(LimitExceededError):
        parse_experiment_order(["name"] * (MAX_ORDER_TERMS + 1))
    with pytest.raises(InvalidFieldError):
        parse_run_order(["metrics.\0"])
    with pytest.raises(InvalidFieldError):
        parse_logged_model_order([LoggedModelOrder(field_name="metrics.\ud800")])


PARTS = [
    "'",
    '"',
    "`",
    "''",
    "\\'",
    "'\\",
    "a.",
    "a.`",
    "a IN (",
    "a IN ('x', ",
    "(",
    "-",
    "a-",
    "1",
    "1.",
    "1e",
    " ",
    "=",
    ";",
]


@pytest.mark.parametrize("part", PARTS)
def test_hostile_filters_take_linear_time(part: str) -> None:
    for start in ("", "tags.a = ", "name IN (", "'", "tags.`"):
        text = (start + part * MAX_FILTER_CHARACTERS)[:MAX_FILTER_CHARACTERS]
        began = time.perf_counter()
        for kind in KINDS:
            takes(partial(FILTERS[kind], text))
        assert time.perf_counter() - began < 1, start


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("parse", [parse_experiment_filter, parse_run_filter, parse_logged_model_filter])
@pytest.mark.parametrize("text", [None, "", "AND", " and AND "])
def test_no_comparison_means_everything(parse: Callable[[str | None], Condition | None], text: str | None) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("run_name = 'a'", "name = 'a'"),
        ('attr.`Run Name` != "a\'b"', "name != 'a''b'"),
        ("user_id = 'ada'", "user = 'ada'"),
        ("user_id != 'ada'", "user != 'ada' OR user IS NULL"),
        ("status LIKE 'F%'", "status LIKE 'F%'"),
        ("metrics.auc>=.5 and params.a != 'b'", "metrics.auc >= 0.5 AND params.a != 'b'"),
        ("tags.`a.b` IS NULL", "tags.a.b IS NULL"),
        ("param.a is not null", "params.a IS NOT NULL"),
        ("datasets.name IN ('a', \"b\", 'a')", "dataset_name IN ('a', 'b')"),
        ("dataset.digest = 'a' AND datasets.context ilike 'T%'", "dataset_digest = 'a' AND dataset_context ILIKE 'T%'"),
        ("status = 'a' status = 'b'", "status = 'a' AND status = 'b'"),
        ("AND status = 'a' AND", "status = 'a'"),
        # LIKE has no escape in MLflow's language, so a backslash stands for itself
        (r"tags.a LIKE 'C:\_%'", r"tags.a LIKE 'C:\\_%'"),
        (r"tags.a = 'C:\_%'", r"tags.a = 'C:\_%'"),
        (r"tags.a = 'C:\models\'", "tags.a = 'C:\\models\\'"),
        ("tags.a = 'it''s'", "tags.a = 'it''''s'"),
    ],
)
def test_a_run_filter_becomes_this_tree(text: str, tree: str) -> None:
    assert describe(parse_run_filter(text)) == tree


@pytest.mark.parametrize(
    ("comparison", "tree"),
    [
        ("= 5", "started_at >= 5000 AND started_at < 6000"),
        ("!= 5", "started_at < 5000 OR started_at >= 6000"),
        ("< 5", "started_at < 5000"),
        ("<= 5", "started_at < 6000"),
        ("> 5", "started_at >= 6000"),
        (">= 5", "started_at >= 5000"),
        ("> -1", "started_at >= 0"),
        ("= 5.5", "started_at >= 6000 AND started_at < 6000"),
        ("!= 5.5", "started_at < 6000 OR started_at >= 6000"),
        ("< 9e300", f"started_at < {2**63 - 1}"),
        ("> -" + "9" * 200, f"started_at >= {-(2**63)}"),
    ],
)
def test_times_are_compared_in_whole_milliseconds(comparison: str, tree: str) -> None:
    assert describe(parse_run_filter(f"start_time {comparison}")) == tree


@pytest.mark.parametrize("op", ["=", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("value", ["4", "5", "5.0", "5.5", "6", "-1", "-0.5"])
def test_every_microsecond_compares_as_its_millisecond(op: str, value: str) -> None:
    condition = parse_run_filter(f"start_time {op} {value}")
    for at in (*range(-2001, -990), *range(-3, 3), *range(3999, 7002, 7), 4999, 5000, 5999, 6000):
        row: Row = {Field(FieldKind.STARTED_AT): at}
        assert holds(condition, row) is bool(SearchUtils.get_comparison_func(op)(at // 1000, float(value))), at


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("run_id = ''", "run_id = '' OR run_id IS NULL"),
        ("run_id != ''", "run_id != ''"),
        ("run_id != 'a'", "run_id != 'a' OR run_id IS NULL"),
        ("run_id LIKE '%%'", "run_id LIKE '%%' OR run_id IS NULL"),
        ("run_id ILIKE 'a%'", "run_id ILIKE 'a%'"),
        ("run_id IN ('a', '')", "run_id IN ('a', '') OR run_id IS NULL"),
        ("run_id IN ('a')", "run_id IN ('a')"),
        ("run_id NOT IN ('a')", "run_id NOT IN ('a') OR run_id IS NULL"),
        ("run_id NOT IN ('a', '')", "run_id NOT IN ('a', '')"),
    ],
)
def test_no_run_is_an_empty_run_id(text: str, tree: str) -> None:
    assert describe(parse_logged_model_filter("source_" + text)) == tree
    bracketed = f"({tree})" if " OR " in tree else tree
    assert describe(parse_version_filter(text)) == f"{bracketed} AND {NO_PROMPT_VERSION}"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        (None, NO_PROMPT),
        ("", NO_PROMPT),
        ("name = 'a'", f"name = 'a' AND {NO_PROMPT}"),
        ("tags.`mlflow.prompt.is_prompt` = 'false'", NO_PROMPT),
        ("name = 'a' AND tag.`mlflow.prompt.is_prompt` != 'true'", f"name = 'a' AND {NO_PROMPT}"),
        ("tags.`mlflow.prompt.is_prompt` LIKE 't%'", NO_PROMPT),
        ("tags.`mlflow.prompt.is_prompt` = 'false' AND tags.`mlflow.prompt.is_prompt` = 'true'", NO_PROMPT),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", "tags.mlflow.prompt.is_prompt = 'true'"),
        ("tags.mlflow.prompt.is_prompt = 'True'", "tags.mlflow.prompt.is_prompt = 'True'"),
        ("tag.`mlflow.prompt.is_prompt` != 'false'", "tags.mlflow.prompt.is_prompt != 'false'"),
    ],
)
def test_prompts_are_left_out_of_models_unless_asked_for(text: str | None, tree: str) -> None:
    assert describe(parse_model_filter(text)) == tree


def test_a_prompt_tag_hides_its_own_version_and_a_models_tag_all_versions_of_the_model() -> None:
    tag, model_tag = (
        Field(FieldKind.TAG, "mlflow.prompt.is_prompt"),
        Field(FieldKind.MODEL_TAG, "mlflow.prompt.is_prompt"),
    )
    plain: Row = {Field(FieldKind.NAME): "a"}
    prompts: list[Row] = [plain | {tag: "true"}, plain | {model_tag: "true"}]
    no_prompts: list[Row] = [plain, plain | {tag: "false"}, plain | {model_tag: "no"}]
    for text in ("", "name = 'a'", "name = 'a' AND tags.`mlflow.prompt.is_prompt` = 'false'"):
        assert [row for row in prompts + no_prompts if holds(parse_version_filter(text), row)] == no_prompts
    asked = parse_version_filter("name = 'a' AND tags.`mlflow.prompt.is_prompt` = 'true'")
    assert [row for row in prompts + no_prompts if holds(asked, row)] == prompts


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("creation_time < 5 AND last_update_time >= 7", "created_at < 5000 AND updated_at >= 7000"),
        ("experiment_id = ' 7 '", "experiment_id = 7"),
        ("experiment_id not in ('1', '2')", "experiment_id NOT IN (1, 2)"),
        ("tags.a IS NULL AND name like 'a%'", "tags.a IS NULL AND name LIKE 'a%'"),
    ],
)
def test_an_experiment_filter_becomes_this_tree(text: str, tree: str) -> None:
    assert describe(parse_experiment_filter(text)) == tree


@pytest.mark.parametrize(
    ("kind", "texts", "order"),
    [
        ("models", (), "name ASC"),
        ("models", ("timestamp\tDESC",), "updated_at DESC, name ASC"),
        ("models", ("name desc", "last_updated_timestamp"), "name DESC, updated_at ASC"),
        ("models", ("`name` DESC",), "name DESC"),
        ("versions", (), "updated_at DESC, name ASC, version DESC"),
        ("versions", ("creation_timestamp",), "created_at ASC, name ASC, version DESC"),
        ("versions", ("version_number ASC", "attribute.name DESC"), "version ASC, name DESC"),
        ("experiments", (), "created_at DESC, experiment_id ASC"),
        ("experiments", ("name", "name DESC"), "name ASC, experiment_id DESC"),
        ("experiments", ("last_update_time DESC", "experiment_id"), "updated_at DESC, experiment_id ASC"),
        ("runs", (), "started_at DESC, run_id ASC"),
        ("runs", ("metrics.`a b` DESC",), "metrics.`a b` DESC, started_at DESC, run_id ASC"),
        ("runs", ("params.a", 'tags."b" desc', "Created"), "params.a ASC, tags.b DESC, started_at ASC, run_id ASC"),
        ("runs", ("run_id DESC",), "run_id DESC, started_at DESC"),
        ("logged_models", (), "created_at DESC, model_id ASC"),
        (
            "logged_models",
            ({"field_name": "metrics.a b", "ascending": False}, {"field_name": "name", "ascending": None}),
            "metrics.`a b` DESC, name ASC, created_at DESC, model_id ASC",
        ),
    ],
)
def test_an_order_ends_in_mlflows_tie_breakers(kind: str, texts: Sequence[Any], order: str) -> None:
    assert describe_order(ORDERS[kind](texts)) == order


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"field_name": "metrics.a", "dataset_digest": "b"}, "`dataset_digest` can only be specified if"),
        ({"field_name": None}, "Invalid order by field name: "),
    ],
)
def test_some_orders_of_logged_models_are_refused(item: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidFilterError, match=sentence):
        parse_logged_model_order([LoggedModelOrder(**item)])


def test_logged_models_are_ordered_by_a_metric_on_one_data_set() -> None:
    on = [{"dataset_name": "b", "dataset_digest": "c"}, {"dataset_name": "b"}, {}, {"dataset_name": "b"}]
    terms = parse_logged_model_order([LoggedModelOrder(field_name="metrics.a", **item) for item in on])
    assert [term.dataset for term in terms[:3]] == [("b", "c"), ("b", None), None]
    assert [str(term.field) for term in terms] == ["metrics.a"] * 3 + ["created_at", "model_id"]


@pytest.mark.parametrize("kind", [searchable.value for searchable in FIELDS])
def test_every_tree_asks_only_what_the_domain_answers(kind: str) -> None:
    rules, seen = FIELDS[Searchable(kind)], set()
    for case in (case.fill(IDS) for case in CASES if case.kind == kind):
        for comparison in list_comparisons(FILTERS[kind](case.filter)):
            assert comparison.op in rules[comparison.field.kind].operators, case.filter
            seen.add(comparison.field.kind)
        for term in ORDERS[kind](case.order_by):
            assert rules[term.field.kind].sortable, case.order_by
    assert len(seen) > 1


def list_comparisons(condition: Condition | None) -> list[Comparison]:
    """Return the leaves of a tree."""
    if condition is None or isinstance(condition, Comparison):
        return [] if condition is None else [condition]
    items = [condition.item] if isinstance(condition, Not) else condition.items
    return [comparison for item in items for comparison in list_comparisons(item)]


def test_a_metric_is_compared_with_a_float() -> None:
    found = parse_run_filter("metrics.a = 1")
    assert found == Comparison(Field(FieldKind.METRIC, "a"), Op.EQ, 1.0)
    assert isinstance(found, Comparison)
    assert isinstance(found.value, float)
