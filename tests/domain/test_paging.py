"""Cursors go round, and edited ones are refused or stay harmless."""

from __future__ import annotations

import base64
import math
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.domain.errors import InvalidCursorError, InvalidFieldError, LimitExceededError
from touchmark.domain.paging import (
    MAX_CURSOR_CHARACTERS,
    KeyValue,
    Page,
    check_limit,
    make_cursor,
    parse_cursor,
    query_text,
    rank_of,
)

QUERY = "name LIKE 'risk.%' / created_at DESC"
ANY = str | int | float | None
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
values = st.none() | texts | st.integers(-(2**63), 2**63 - 1) | st.floats()
keys = st.lists(values, max_size=6)


def same(left: KeyValue, right: KeyValue) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


@given(keys)
def test_a_cursor_gives_back_its_key(key: list[KeyValue]) -> None:
    found = parse_cursor(make_cursor(QUERY, key), QUERY, [ANY] * len(key))
    assert found is not None
    assert len(found) == len(key)
    assert all(same(left, right) for left, right in zip(found, key, strict=True))


def test_the_form_of_a_cursor_does_not_change() -> None:
    # A cursor outlives the process that made it: a new form needs a new version byte.
    cursor = make_cursor("q", ["risk.churn", 7, 0.25, math.nan, None])
    assert cursor == "AY41ws079mQbWyJzcmlzay5jaHVybiIsNywiZjAuMjUiLCJmbmFuIixudWxsXQ"


def test_a_cursor_is_plain_in_an_address() -> None:
    assert set(make_cursor(QUERY, ["ÿ?&=+/ %", -1.5e300])) <= set(ALPHABET)


@pytest.mark.parametrize("text", [None, ""])
def test_no_cursor_is_the_first_page(text: str | None) -> None:
    assert parse_cursor(text, QUERY, [str]) is None


def test_a_cursor_of_another_query_is_refused() -> None:
    with pytest.raises(InvalidCursorError):
        parse_cursor(make_cursor("another", ["a"]), QUERY, [str])


@pytest.mark.parametrize(
    ("key", "types"),
    [
        (["a"], [int]),
        ([1], [str]),
        ([1], [float]),
        ([1.0], [int]),
        ([None], [str]),
        ([None], [int]),
        (["a"], [int | None]),
        (["a", 1], [str]),
        (["a"], [str, int]),
        ([], [str]),
    ],
)  # fmt: skip
def test_a_key_of_other_types_is_refused(key: list[KeyValue], types: list[type]) -> None:
    with pytest.raises(InvalidCursorError):
        parse_cursor(make_cursor(QUERY, key), QUERY, types)


def test_null_is_let_through_where_the_column_may_be_null() -> None:
    assert parse_cursor(make_cursor(QUERY, [None, "a"]), QUERY, [float | None, str]) == (None, "a")


def forge(payload: bytes) -> str:
    """Return a cursor of the right version and query with any payload."""
    honest = base64.urlsafe_b64decode(make_cursor(QUERY, [1]) + "==")
    return base64.urlsafe_b64encode(honest[:9] + payload).decode().rstrip("=")


def test_forge_makes_what_the_parser_takes() -> None:
    assert parse_cursor(forge(b"[5]"), QUERY, [int]) == (5,)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[",
        b"5",
        b"null",
        b'"s"',
        b"{}",
        b"[true]",
        b"[0.5]",
        b"[NaN]",
        b"[Infinity]",
        b"[1e5]",
        b"[[1]]",
        b"[{}]",
        b'[""]',
        b'["x1"]',
        b'["f"]',
        b'["fabc"]',
        b'["f1"]',
        b'["f1e999"]',
        b'["fNaN"]',
        b'["f1_0.0"]',
        '["f\u0661.0"]'.encode(),
        b"[ 5]",
        b"[5]\n",
        b"[-0]",
        b"[9223372036854775808]",
        b"[-9223372036854775809]",
        b"[" + b"9" * 1400 + b"]",
        b"[" * 1400,
        b"[" * 700 + b"]" * 700,
        b'["s\\ud800"]',
        b'["s\\u0041"]',
        b'["s\\u0000"]',
        b'["s\xed\xa0\x80"]',
        b'["s\xff"]',
        b"\xef\xbb\xbf[5]",
    ],
)
def test_a_forged_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidCursorError):
        parse_cursor(forge(payload), QUERY, [ANY])


def test_spare_bits_padding_and_strange_characters_are_refused() -> None:
    cursor = make_cursor(QUERY, [12])
    twin = cursor[:-1] + ALPHABET[ALPHABET.index(cursor[-1]) ^ 1]
    assert base64.urlsafe_b64decode(twin + "==") == base64.urlsafe_b64decode(cursor + "==")  # the bits are spare
    strange = [cursor + "=", cursor + "==", cursor + "\n", " " + cursor, cursor[:5] + "!" + cursor[5:], "é" + cursor]
    for text in [twin, *strange]:
        with pytest.raises(InvalidCursorError):
            parse_cursor(text, QUERY, [int])


def test_another_version_byte_is_refused() -> None:
    raw = base64.urlsafe_b64decode(make_cursor(QUERY, [1]) + "==")
    with pytest.raises(InvalidCursorError):
        parse_cursor(base64.urlsafe_b64encode(b"\x02" + raw[1:]).decode().rstrip("="), QUERY, [int])


@given(st.lists(texts | st.integers(-9, 9) | st.floats(), min_size=1, max_size=3), st.data())
def test_an_edited_cursor_is_refused_or_is_another_position_of_the_same_types(
    key: list[KeyValue], data: st.DataObject
) -> None:
    cursor = make_cursor(QUERY, key)
    at = data.draw(st.integers(0, len(cursor) - 1))
    edited = cursor[:at] + data.draw(st.sampled_from(ALPHABET)) + cursor[at + data.draw(st.integers(0, 2)) :]
    try:
        found = parse_cursor(edited, QUERY, [type(value) for value in key])
    except InvalidCursorError:
        return
    assert found is not None
    assert [type(value) for value in found] == [type(value) for value in key]
    assert make_cursor(QUERY, found) == edited


@given(st.text(max_size=60) | st.text(ALPHABET, max_size=80) | st.binary(max_size=60).map(forge))
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    with suppress(InvalidCursorError):
        parse_cursor(text, QUERY, [ANY])


def test_a_long_cursor_is_refused_unread() -> None:
    with pytest.raises(InvalidCursorError):
        parse_cursor("A" * (MAX_CURSOR_CHARACTERS + 1), QUERY, [str])


def test_a_key_too_long_for_a_cursor_says_so() -> None:
    assert len(make_cursor(QUERY, ["a" * 1_400])) <= MAX_CURSOR_CHARACTERS
    with pytest.raises(LimitExceededError):
        make_cursor(QUERY, ["a" * 1_500])


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, "\ud800", "a\0b"])
def test_a_key_no_row_can_hold_is_refused(value: KeyValue) -> None:
    with pytest.raises(InvalidCursorError):
        make_cursor(QUERY, [value])


def test_a_query_with_a_lone_surrogate_still_has_a_hash() -> None:
    assert parse_cursor(make_cursor("\ud800", [1]), "\ud800", [int]) == (1,)


def test_the_parts_of_a_query_do_not_run_together() -> None:
    queries = [query_text("a", "b"), query_text("ab"), query_text("a,b"), query_text("a", None, "b"), query_text("1"),
               query_text(1), query_text(None), query_text("null"), query_text('a", "b')]  # fmt: skip
    assert len(set(queries)) == len(queries)


def test_numbers_come_before_nan_and_nan_before_nothing() -> None:
    found = sorted([None, math.nan, math.inf, "a", 0, -math.inf], key=rank_of)
    assert [rank_of(value) for value in found] == [0, 0, 0, 0, 1, 2]


def test_a_page_holds_its_rows_and_the_next_cursor() -> None:
    page: Page[int] = Page((1, 2), None)
    assert page == Page((1, 2), next_cursor=None)


@pytest.mark.parametrize(("limit", "expected"), [(None, 100), (1, 1), (1000, 1000)])
def test_a_limit_within_bounds_is_kept(limit: int | None, expected: int) -> None:
    assert check_limit(limit) == expected


@pytest.mark.parametrize("limit", [0, -1, -(10**30), True, "5", 2.0])
def test_a_limit_that_is_no_count_is_refused(limit: int) -> None:
    with pytest.raises(InvalidFieldError):
        check_limit(limit)


@pytest.mark.parametrize(("limit", "maximum"), [(1001, 1000), (sys.maxsize, 200_000)])
def test_a_limit_above_the_maximum_is_refused(limit: int, maximum: int) -> None:
    with pytest.raises(LimitExceededError, match=str(maximum)):
        check_limit(limit, default=10, maximum=maximum)
