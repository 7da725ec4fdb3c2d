"""The native filter language: what it means, what it refuses, and that no text can hurt it."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from touchmark.domain.errors import InvalidError, InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.search import (
    DEFAULT_ORDER,
    FIELDS,
    KEYED,
    MAX_COMPARISONS,
    MAX_FILTER_CHARACTERS,
    MAX_LIST_VALUES,
    MAX_NESTING,
    MAX_ORDER_TERMS,
    MAX_WORD_CHARACTERS,
    And,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Op,
    Or,
    OrderTerm,
    Scalar,
    Searchable,
    ValueType,
    describe,
    describe_order,
    parse_filter,
    parse_order,
    words_of,
)

VERSIONS, MODELS = Searchable.VERSIONS, Searchable.MODELS
JANUARY = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


def compare(kind: FieldKind, op: Op, value: Scalar | tuple[Scalar, ...] | None, key: str | None = None) -> Comparison:
    return Comparison(Field(kind, key), op, value)


A = compare(FieldKind.NAME, Op.EQ, "a")
B = compare(FieldKind.NAME, Op.EQ, "b")
C = compare(FieldKind.NAME, Op.EQ, "c")


# ── what is meant ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'x'", compare(FieldKind.NAME, Op.EQ, "x")),
        ("name!='x'", compare(FieldKind.NAME, Op.NE, "x")),
        ("name like 'risk.%'", compare(FieldKind.NAME, Op.LIKE, "risk.%")),
        ("name NoT ILike 'x'", compare(FieldKind.NAME, Op.NOT_ILIKE, "x")),
        ("name IN ('a','b', 'a')", compare(FieldKind.NAME, Op.IN, ("a", "b"))),
        ("name not in ('it''s')", compare(FieldKind.NAME, Op.NOT_IN, ("it's",))),
        ("name = ''", compare(FieldKind.NAME, Op.EQ, "")),
        ("name = 'AND \"x\" -- ; ` \\ \n'", compare(FieldKind.NAME, Op.EQ, 'AND "x" -- ; ` \\ \n')),
        ("version >= 3", compare(FieldKind.VERSION, Op.GE, 3)),
        ("version IN (1,-2)", compare(FieldKind.VERSION, Op.IN, (1, -2))),
        ("deprecated = TRUE", compare(FieldKind.DEPRECATED, Op.EQ, True)),
        ("sealed != false", compare(FieldKind.SEALED, Op.NE, False)),
        ("alias IS NULL", compare(FieldKind.ALIAS, Op.IS_NULL, None)),
        ("run_id is not null", compare(FieldKind.RUN_ID, Op.IS_NOT_NULL, None)),
        ("tags.team = 'risk'", compare(FieldKind.TAG, Op.EQ, "risk", "team")),
        ("tags.mlflow.source-type/x = 'y'", compare(FieldKind.TAG, Op.EQ, "y", "mlflow.source-type/x")),
        ("tags.Größe = 'y'", compare(FieldKind.TAG, Op.EQ, "y", "Größe")),
        ("tags.and = 'y'", compare(FieldKind.TAG, Op.EQ, "y", "and")),
        ("tags.`my key` = 'y'", compare(FieldKind.TAG, Op.EQ, "y", "my key")),
        ("tags.\"my key\"='y'", compare(FieldKind.TAG, Op.EQ, "y", "my key")),
        ("tags.`a``b'\"` = 'y'", compare(FieldKind.TAG, Op.EQ, "y", "a`b'\"")),
        ('model_tags."a""b" IS NULL', compare(FieldKind.MODEL_TAG, Op.IS_NULL, None, 'a"b')),
        ("params.depth = '10'", compare(FieldKind.PARAM, Op.EQ, "10", "depth")),
        ("metrics.auc >= 0.9", compare(FieldKind.METRIC, Op.GE, 0.9, "auc")),
        ("metrics.auc<-1.5E-3", compare(FieldKind.METRIC, Op.LT, -0.0015, "auc")),
        ("metrics.n = 7", compare(FieldKind.METRIC, Op.EQ, 7.0, "n")),
        ("metrics.n > .5", compare(FieldKind.METRIC, Op.GT, 0.5, "n")),
        ("inputs.age = 'double'", compare(FieldKind.INPUT, Op.EQ, "double", "age")),
        ("outputs.p IS NOT NULL", compare(FieldKind.OUTPUT, Op.IS_NOT_NULL, None, "p")),
        ("created_at >= '2026-01-01'", compare(FieldKind.CREATED_AT, Op.GE, JANUARY)),
        ("created_at >= '2026-01-01T00:00:00Z'", compare(FieldKind.CREATED_AT, Op.GE, JANUARY)),
        ("created_at < '2026-01-01 01:30:00.000001+01:30'", compare(FieldKind.CREATED_AT, Op.LT, JANUARY + 1)),
        ("updated_at <= '2025-12-31T19:00-05:00'", compare(FieldKind.UPDATED_AT, Op.LE, JANUARY)),
        (f"created_at = {JANUARY}", compare(FieldKind.CREATED_AT, Op.EQ, JANUARY)),
        ("created_at > '0001-01-01T00:00+23:59'", compare(FieldKind.CREATED_AT, Op.GT, -62_135_683_140_000_000)),
        ("name='a' AND name='b' AND name='c'", And((A, B, C))),
        ("name='a' OR name='b' AND name='c'", Or((A, And((B, C))))),
        ("(name='a' OR name='b') AND name='c'", And((Or((A, B)), C))),
        ("NOT name='a' AND name='b'", And((Not(A), B))),
        ("NOT (name='a' AND name='b')", Not(And((A, B)))),
        ("not not name='a'", Not(Not(A))),
        ("((name='a'))", A),
        ("name='a' AND (name='b' AND name='c')", And((A, And((B, C))))),
        (
            "name LIKE 'risk.%' AND (alias = 'champion' OR NOT deprecated = true)",
            And(
                (
                    compare(FieldKind.NAME, Op.LIKE, "risk.%"),
                    Or(
                        (
                            compare(FieldKind.ALIAS, Op.EQ, "champion"),
                            Not(compare(FieldKind.DEPRECATED, Op.EQ, True)),
                        )
                    ),
                )
            ),
        ),
    ],
)
def test_a_filter_means(text: str, expected: Condition) -> None:
    found = parse_filter(text, VERSIONS)
    assert found == expected
    assert repr(found) == repr(expected)  # True == 1 == 1.0, but they are not the same value


@pytest.mark.parametrize("text", [None, "", "   ", "\n\t\r "])
def test_no_filter_is_no_condition(text: str | None) -> None:
    assert parse_filter(text, VERSIONS) is None
    assert describe(None) == ""


def test_a_pattern_keeps_its_backslashes() -> None:
    assert parse_filter(r"name LIKE '50\%\_\\'", VERSIONS) == compare(FieldKind.NAME, Op.LIKE, r"50\%\_\\")


def test_the_canonical_text_is_short_and_does_not_change() -> None:
    # It is hashed into cursors and may be shown to people.
    text = """( (tags."team" = 'ri''sk' and not (metrics.`a b` >= 1 or alias is null)) OR version IN (1 , 2))"""
    canonical = "tags.team = 'ri''sk' AND NOT (metrics.`a b` >= 1.0 OR alias IS NULL) OR version IN (1, 2)"
    assert describe(parse_filter(text, VERSIONS)) == canonical


# ── what is refused, and how it is said ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("evil = 'x'", 1, "versions have no field evil; they have name, version, .*, tags.KEY"),
        ("name = 'a' AND owner = 'x'", 16, "no field owner"),
        ("Name = 'x'", 1, "no field Name"),
        ("name.x = 'y'", 1, "name takes no key"),
        ("tags = 'y'", 1, "tags needs a key: tags.KEY"),
        ("tags. = 'y'", 5, "expected a key after the point"),
        ("tags.`` = 'y'", 6, "the key is empty"),
        ("tags.`open = 'y'", 5, "closed backticks"),
        ("tags .x = 'y'", 6, "unexpected character '.'"),
        ("name", 5, "expected an operator; name takes =, !=, LIKE, .*, found the end"),
        ("name 'x'", 6, "expected an operator"),
        ("name NOT = 'x'", 10, "expected an operator"),
        ("name =", 7, "name takes text in single quotes, found the end"),
        ("name = x", 8, "name takes text in single quotes, found x"),
        ('name = "x"', 8, "write text in single quotes"),
        ("name = 5", 8, "text in single quotes"),
        ("name = 'x", 8, "no closing quote"),
        ("name = 'x''", 8, "no closing quote"),
        ("name == 'x'", 6, "expected an operator"),
        ("name <> 'x'", 6, "expected an operator"),
        ("name < 'x'", 6, "name does not take <, it takes =, !=, LIKE"),
        ("name IS NULL", 6, "name does not take IS NULL"),
        ("name IS 'x'", 9, "expected NULL or NOT NULL"),
        ("run_id IS NOT 'x'", 15, "expected NULL"),
        ("alias != 'champion'", 7, "alias does not take !=, .*put NOT before the whole comparison"),
        ("flavor NOT IN ('x')", 8, "put NOT before"),
        ("version >= 3.0", 12, "a whole number"),
        ("version >= '3'", 12, "a whole number"),
        ("version = 9223372036854775808", 11, "at most 64 bits"),
        ("version = " + "9" * 5_000, 11, "at most 64 bits"),
        ("version = 3abc", 12, "unexpected character 'a' after a number"),
        ("version = 3-1", 12, "unexpected character '-' after a number"),
        ("version LIKE '3'", 9, "version does not take LIKE"),
        ("metrics.auc > nan", 15, "a finite number"),
        ("metrics.auc > inf", 15, "a finite number"),
        ("metrics.auc > -inf", 15, "unexpected character '-'"),
        ("metrics.auc > 1e999", 15, "a finite number"),
        ("metrics.auc > '0.9'", 15, "a finite number without quotes"),
        ("metrics.auc IN (1)", 13, "metrics does not take IN"),
        ("deprecated", 11, "expected an operator; deprecated takes =, !="),
        ("deprecated = 'true'", 14, "true or false, without quotes"),
        ("deprecated = 1", 14, "true or false"),
        ("created_at > '2026-01-01T00:00:00'", 14, "an instant with a zone"),
        ("created_at > '2026-02-30'", 14, "a date"),
        ("created_at > '2026-01-01T25:00Z'", 14, "a date"),
        ("created_at > '2026-01-01T00:00:60Z'", 14, "a date"),
        ("created_at > '2026-W01-1'", 14, "a date"),
        ("created_at > '20260101'", 14, "a date"),
        ("created_at > '٢٠٢٦-01-01'", 14, "a date"),
        ("created_at > 1e15", 14, "whole microseconds"),
        ("created_at > true", 14, "whole microseconds"),
        ("name IN 'x'", 9, "expected a list in brackets"),
        ("name IN ()", 10, "text in single quotes"),
        ("name IN ('x',)", 14, "text in single quotes"),
        ("name IN ('x'", 13, "expected a comma or a closing bracket, found the end"),
        ("name IN (1)", 10, "text in single quotes"),
        ("(name = 'x'", 12, "expected AND, OR or a closing bracket"),
        ("name = 'x')", 11, "expected AND, OR or the end"),
        ("name = 'x' name = 'y'", 12, "expected AND, OR or the end, found name"),
        ("name = 'x' AND", 15, "expected a field, found the end"),
        ("AND name = 'x'", 1, "expected a field, found AND"),
        ("name = 'x' OR OR name = 'y'", 15, "expected a field"),
        ("()", 2, "expected a field"),
        ("NOT", 4, "expected a field"),
        ("'x' = name", 1, "expected a field"),
        ("name = 'x'; DROP TABLE models", 11, "unexpected character ';'"),
        ("name = 'x' -- comment", 12, "unexpected character '-'"),
        ("name\u00a0= 'x'", 5, "unexpected character"),
        ("name = ‘x’", 8, "unexpected character"),
        ("name = 'a\0b'", 10, "NUL"),
        ("name = '\ud800'", 9, "surrogate"),
        (r"name LIKE 'a\'", 11, "lone backslash"),
        (r"name ILIKE 'a\\\'", 12, "lone backslash"),
    ],
)
def test_a_wrong_filter_is_refused_at_its_place(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        parse_filter(text, VERSIONS)
    assert caught.value.fields["position"] == position
    assert re.search(reason, str(caught.value.fields["reason"]))
    str(caught.value.fields["text"]).encode()
    str(caught.value).encode()


def test_models_have_fields_of_their_own() -> None:
    assert parse_filter("owner = 'x'", MODELS) == compare(FieldKind.OWNER, Op.EQ, "x")
    with pytest.raises(InvalidFilterError, match=r"models have no field metrics; they have name, alias, owner"):
        parse_filter("metrics.auc > 1", MODELS)


@pytest.mark.parametrize("searchable", list(Searchable))
def test_each_field_takes_its_operators_and_refuses_the_others(searchable: Searchable) -> None:
    samples: dict[ValueType, Scalar] = {
        ValueType.TEXT: "x",
        ValueType.INTEGER: 1,
        ValueType.TIME: JANUARY,
        ValueType.NUMBER: 0.5,
        ValueType.BOOLEAN: True,
    }
    refused = 0
    for kind, rule in FIELDS[searchable].items():
        for op in Op:
            value: Scalar | tuple[Scalar, ...] | None = samples[rule.type]
            if op in (Op.IS_NULL, Op.IS_NOT_NULL):
                value = None
            elif op in (Op.IN, Op.NOT_IN):
                value = (samples[rule.type],)
            condition = compare(kind, op, value, "k" if kind in KEYED else None)
            if op in rule.operators:
                assert parse_filter(describe(condition), searchable) == condition
            else:
                refused += 1
                with pytest.raises(InvalidFilterError, match=f"does not take {op}, it takes"):
                    parse_filter(describe(condition), searchable)
    assert refused > 0


def test_every_keyed_field_can_be_asked_whether_it_is_there() -> None:
    for fields in FIELDS.values():
        for kind, rule in fields.items():
            if kind in KEYED:
                assert {Op.IS_NULL, Op.IS_NOT_NULL} <= rule.operators


@pytest.mark.parametrize("value", [5, b"name", ["name = 'x'"]])
def test_a_filter_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(InvalidFieldError):
        parse_filter(value, VERSIONS)


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def joined(count: int) -> str:
    return " AND ".join(["version=1"] * count)


@pytest.mark.parametrize(
    ("most", "above", "unit"),
    [
        (joined(MAX_COMPARISONS), joined(MAX_COMPARISONS + 1), "comparisons"),
        (
            "(" * MAX_NESTING + "version=1" + ")" * MAX_NESTING,
            "(" * (MAX_NESTING + 1) + "version=1" + ")" * (MAX_NESTING + 1),
            "levels",
        ),
        ("NOT " * MAX_NESTING + "version=1", "NOT " * (MAX_NESTING + 1) + "version=1", "levels"),
        (
            "NOT (" * (MAX_NESTING // 2) + "version=1" + ")" * (MAX_NESTING // 2),
            "NOT (" * (MAX_NESTING // 2) + "NOT version=1" + ")" * (MAX_NESTING // 2),
            "levels",
        ),
        (
            f"version IN ({','.join(map(str, range(MAX_LIST_VALUES)))})",
            f"version IN ({','.join(map(str, range(MAX_LIST_VALUES + 1)))})",
            "values",
        ),
        (
            f"name = '{'x' * (MAX_FILTER_CHARACTERS - 9)}'",
            f"name = '{'x' * (MAX_FILTER_CHARACTERS - 8)}'",
            "characters",
        ),
    ],
)
def test_a_filter_at_a_limit_passes_and_one_above_is_refused(most: str, above: str, unit: str) -> None:
    condition = parse_filter(most, VERSIONS)
    assert parse_filter(describe(condition), VERSIONS) == condition
    with pytest.raises(LimitExceededError, match=unit):
        parse_filter(above, VERSIONS)


@pytest.mark.parametrize("unit", ["(", "NOT ", ")", "'", "''", "`", '"', "tags.`", "tags.``", "a", "a.", "1", "-", " ",
                                  "name IN (", "version=1 AND ", "version=1 OR NOT (", ",", "name LIKE '%", "\\", "é", "1e",
                                  "(((version=1)))"])  # fmt: skip
@pytest.mark.parametrize("start", ["", "name IN (", "name = '", "tags.`", "metrics.x > 1"])
def test_a_hostile_text_of_full_length_is_answered(start: str, unit: str) -> None:
    text = (start + unit * MAX_FILTER_CHARACTERS)[:MAX_FILTER_CHARACTERS]
    with suppress(InvalidError):
        parse_filter(text, VERSIONS)
    with suppress(InvalidError):
        parse_order(text, VERSIONS)


def test_a_million_characters_are_refused_unread() -> None:
    for text in ("(" * 1_000_000, "name = '" + "x" * 1_000_000):
        with pytest.raises(LimitExceededError):
            parse_filter(text, VERSIONS)


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
PIECES = (
    'name version alias tags.x tags.`a``b` tags."q" metrics.auc created_at deprecated inputs.c run_id evil '
    "= != < <= > >= <> LIKE ILIKE IN NOT AND OR IS NULL TRUE FALSE ASC DESC ( ) , . ' '' 'x' '%_\\' "
    "'2026-01-01' '2026-13-01' 1 -2 3.5 1e9 1e999 nan ` \" \\ ; -- \0 \ud800 é ٣"
)
fragments = st.sampled_from(PIECES.split(" "))


def scalars(value_type: ValueType, op: Op) -> st.SearchStrategy[Scalar]:
    if value_type is ValueType.BOOLEAN:
        return st.booleans()
    if value_type is ValueType.NUMBER:
        return st.floats(allow_nan=False, allow_infinity=False)
    if value_type in (ValueType.INTEGER, ValueType.TIME):
        return st.integers(-(2**63), 2**63 - 1)
    if "LIKE" in op:
        return storable.map(lambda text: text.replace("\\", "\\\\"))
    return storable


@st.composite
def comparisons(draw: st.DrawFn, searchable: Searchable) -> Comparison:
    kind, rule = draw(st.sampled_from(list(FIELDS[searchable].items())))
    op = draw(st.sampled_from(sorted(rule.operators)))
    key = draw(storable.filter(bool)) if kind in KEYED else None
    value: Scalar | tuple[Scalar, ...] | None = None
    if op in (Op.IN, Op.NOT_IN):
        value = tuple(draw(st.lists(scalars(rule.type, op), min_size=1, max_size=4, unique=True)))
    elif op not in (Op.IS_NULL, Op.IS_NOT_NULL):
        value = draw(scalars(rule.type, op))
    return compare(kind, op, value, key)


def conditions(searchable: Searchable) -> st.SearchStrategy[Condition]:
    def grow(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        several = st.lists(inner, min_size=2, max_size=4).map(tuple)
        return st.one_of(inner.map(Not), several.map(And), several.map(Or))

    return st.recursive(comparisons(searchable), grow, max_leaves=12)


@given(st.sampled_from(list(Searchable)).flatmap(lambda about: st.tuples(st.just(about), conditions(about))))
def test_the_canonical_text_of_a_condition_parses_to_it(case: tuple[Searchable, Condition]) -> None:
    searchable, condition = case
    text = describe(condition)
    assume(len(text) <= MAX_FILTER_CHARACTERS)
    found = parse_filter(text, searchable)
    assert found == condition
    assert describe(found) == text


@given(conditions(VERSIONS), conditions(VERSIONS))
def test_different_conditions_have_different_canonical_texts(left: Condition, right: Condition) -> None:
    assert (describe(left) == describe(right)) == (repr(left) == repr(right))


@given(
    st.lists(fragments, max_size=30).map(" ".join)
    | st.lists(fragments, max_size=12).map("".join)
    | st.text(max_size=80)
)
@example("name = '\ud800")
def test_any_text_is_a_filter_or_is_refused_politely(text: str) -> None:
    for searchable in Searchable:
        refusal: InvalidError | None = None
        try:
            condition = parse_filter(text, searchable)
        except InvalidError as error:
            refusal = error
        if refusal is None:
            assert parse_filter(describe(condition), searchable) == condition
            continue
        refusal.message.encode()
        if isinstance(refusal, InvalidFilterError):
            assert 1 <= int(str(refusal.fields["position"])) <= len(text) + 1
            str(refusal.fields["text"]).encode()


@given(st.lists(fragments, max_size=12).map(" ".join) | st.text(max_size=60))
def test_any_text_is_an_order_or_is_refused_politely(text: str) -> None:
    for searchable in Searchable:
        try:
            order = parse_order(text, searchable)
        except InvalidError as error:
            error.message.encode()
        else:
            assert parse_order(describe_order(order), searchable) == order


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────


def term(kind: FieldKind, key: str | None = None, *, descending: bool = False) -> OrderTerm:
    return OrderTerm(Field(kind, key), descending)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("created_at DESC, name", (term(FieldKind.CREATED_AT, descending=True), term(FieldKind.NAME))),
        (["created_at\tdesc", "name asc"], (term(FieldKind.CREATED_AT, descending=True), term(FieldKind.NAME))),
        (["name, version", " "], (term(FieldKind.NAME), term(FieldKind.VERSION))),
        ("metrics.auc DESC", (term(FieldKind.METRIC, "auc", descending=True),)),
        ("tags.`a,b`, tags.a", (term(FieldKind.TAG, "a,b"), term(FieldKind.TAG, "a"))),
        (None, DEFAULT_ORDER[VERSIONS]),
        ("", DEFAULT_ORDER[VERSIONS]),
        ([], DEFAULT_ORDER[VERSIONS]),
    ],
)
def test_an_order_means(text: str | list[str] | None, expected: tuple[OrderTerm, ...]) -> None:
    assert parse_order(text, VERSIONS) == expected


def test_without_an_order_the_newest_versions_and_the_first_names_come_first() -> None:
    assert describe_order(parse_order(None, VERSIONS)) == "created_at DESC"
    assert describe_order(parse_order(None, MODELS)) == "name ASC"


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("name, name DESC", 7, "name stands twice"),
        (["name", "name"], 1, "name stands twice"),
        ("tags.x, tags.`x`", 9, "stands twice"),
        ("evil", 1, "no field evil"),
        ("alias", 1, "alias cannot be sorted by"),
        ("inputs.age", 1, "inputs cannot be sorted by"),
        ("name,", 6, "expected a field"),
        (",name", 1, "expected a field"),
        ("name DESC ASC", 11, "expected ASC, DESC, a comma or the end"),
        ("name version", 6, "expected ASC"),
        ("name; DROP", 5, "unexpected character"),
    ],
)
def test_a_wrong_order_is_refused_at_its_place(text: str | list[str], position: int, reason: str) -> None:
    with pytest.raises(InvalidFilterError, match=reason) as caught:
        parse_order(text, VERSIONS)
    assert caught.value.fields["position"] == position


def test_an_order_has_a_bounded_number_of_terms() -> None:
    terms = [f"tags.k{number}" for number in range(MAX_ORDER_TERMS + 1)]
    assert len(parse_order(terms[:-1], VERSIONS)) == MAX_ORDER_TERMS
    for above in (terms, ", ".join(terms), [""] * 1_000_000, [", ".join(terms[:6]), ", ".join(terms[6:])]):
        with pytest.raises(LimitExceededError):
            parse_order(above, VERSIONS)


@pytest.mark.parametrize("value", [5, [5], ["name", None]])
def test_an_order_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(InvalidFieldError):
        parse_order(value, VERSIONS)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  -- _ !", []),
        ("Churn model, v2 (churn)", ["churn", "model", "v2"]),
        ("risk.churn_eu/2026-01", ["risk", "churn", "eu", "2026", "01"]),
        ("STRASSE Straße straße", ["strasse"]),
        ("ﬁt Ｆｉｔ", ["fit"]),
        ("cafe\u0301 café", ["café"]),
        ("模型 модель", ["模型", "модель"]),
        ("a\0b \ud800c", ["a", "b", "c"]),
        ("x" * 100, ["x" * MAX_WORD_CHARACTERS]),
    ],
)
def test_words_come_out_folded_and_distinct(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


def test_the_number_of_words_is_bounded() -> None:
    assert words_of("c a b a d", limit=3) == ["c", "a", "b"]
    assert words_of("a", limit=0) == []
    assert len(words_of(" ".join(map(str, range(1_000))))) == 200


@given(st.text(max_size=200))
def test_words_are_words_of_themselves(text: str) -> None:
    found = words_of(text)
    assert len(set(found)) == len(found)
    for word in found:
        assert 1 <= len(word) <= MAX_WORD_CHARACTERS
        assert word.isalnum()
    assert words_of(" ".join(found)) == found


def test_a_long_run_of_combining_marks_does_not_take_quadratic_time() -> None:
    # A million marks take minutes when normalized in one piece, and a moment in slices.
    assert words_of("a" + "\u0316\u0301" * 500_000)
