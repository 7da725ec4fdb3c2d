"""What every door shares: JSON bodies, conditions, ranges."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.domain.errors import InvalidFieldError
from touchmark.wire import (
    JSON_DEPTH,
    JSON_NODES,
    AnyRequest,
    RangeNotSatisfiableError,
    alias_condition,
    is_held,
    parse_json,
    parse_range,
)


class Asked:
    """A request of which only the headers are looked at."""

    def __init__(self, **headers: str) -> None:
        self.headers = {key.replace("_", "-"): value for key, value in headers.items()}


def condition_of(**headers: str) -> int | None:
    return alias_condition(cast("AnyRequest", Asked(**headers)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=3), st.booleans())
def test_whatever_is_plain_json_is_read_as_it_was_written(value: dict[str, Any], ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_no_body_is_an_empty_object(body: bytes) -> None:
    assert parse_json(body) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"1", b'"text"', b"null", b"{", b"{'a': 1}", b'{"a": 1,}', b'{"a": 1} {}',
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": -1e400}',
        b'{"a": 1, "a": 2}', b'{"b": {"a": 1, "\\u0061": 2}}',
        b'{"a": "\\ud800"}', b'{"\\udc00": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-32"), b"\xef\xbb\xbf{}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' * 100_000,
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_readers_of_json_disagree_about_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidFieldError):
        parse_json(body)


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_json_is_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    parse_json(nested(JSON_DEPTH))
    with pytest.raises(InvalidFieldError, match="nested deeper"):
        parse_json(nested(JSON_DEPTH + 1))


def test_brackets_beside_each_other_or_in_text_are_not_depth() -> None:
    value = {"a": [{} for _ in range(1000)], "b": "[" * 1000 + '"' + "{" * 1000, "[" * 500: "\\"}

    assert parse_json(json.dumps(value).encode()) == value


def test_lists_and_objects_are_counted_where_they_are_and_not_in_text() -> None:
    parse_json(json.dumps({"a": [{}] * (JSON_NODES - 2), "b": "[" * 3 * JSON_NODES}).encode())
    for inner in (b"[],", b"{},"):
        with pytest.raises(InvalidFieldError, match="more than 50000 lists and objects"):
            parse_json(b'{"a":[' + inner * (JSON_NODES + 1) + b"0]}")


def test_a_body_of_quotes_and_backslashes_takes_no_quadratic_time() -> None:
    began = time.perf_counter()
    for body in (
        b'"' * 1_000_001 + b"[" * 100,
        b'{"a": "' + b"\\" * 2_000_000 + b"[" * 100,
        b'{"' + b'\\"' * 1_000_000,
        b"[" * 70 + b'"\\' * 1_000_000,
        b"[" * 70 + b'"\\\n' * 1_000_000,
    ):
        with pytest.raises(InvalidFieldError):
            parse_json(body)

    assert time.perf_counter() - began < 15


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_conditions_say_where_an_alias_must_be() -> None:
    assert condition_of() is None
    assert condition_of(if_match='"17"') == 17
    assert condition_of(if_match=' "0" ') == 0
    assert condition_of(if_none_match="*") == -1


@pytest.mark.parametrize(
    "headers",
    [
        {"if_match": "17"}, {"if_match": 'W/"17"'}, {"if_match": '"17", "18"'}, {"if_match": "*"}, {"if_match": '"x"'},
        {"if_match": ""}, {"if_match": '"-1"'}, {"if_match": '"9999999999999999999"'},
        {"if_none_match": '"17"'}, {"if_none_match": ""}, {"if_match": '"1"', "if_none_match": "*"},
    ],
)  # fmt: skip
def test_a_condition_that_is_not_understood_is_never_taken_for_none(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidFieldError):
        condition_of(**headers)


def test_an_entity_tag_is_found_in_a_list() -> None:
    assert is_held('"a", W/"b"', '"b"')
    assert is_held("*", '"b"')
    assert not is_held(None, '"b"')
    assert not is_held("b", '"b"')


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 50), st.integers(0, 60) | st.none(), st.integers(0, 60) | st.none())
def test_a_range_is_always_inside_the_blob(size: int, first: int | None, last: int | None) -> None:
    data = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"

    try:
        found = parse_range(header, size)
    except RangeNotSatisfiableError:
        assert (first is None and (last == 0 or size == 0)) or (first is not None and first >= size)
        return

    if found is None:
        assert (first is None and last is None) or (first is not None and last is not None and last < first)
        return
    offset, length = found
    wanted = data[-(last or 0) :] if first is None else data[first : None if last is None else last + 1]
    assert length > 0
    assert data[offset : offset + length] == wanted
    assert offset + length <= size


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=", "bytes=-", "bytes=0-1,2-3", "items=0-1", "bytes=1-x", "bytes=٣-٤"]
)
def test_what_is_no_single_range_means_everything(header: str | None) -> None:
    assert parse_range(header, 10) is None
