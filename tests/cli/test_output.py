"""What is printed is safe on a terminal and exact in a pipe, whatever a registry holds."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.cli.output import Column, Kind, Output, clean, show_ago, show_size, show_time, to_json
from touchmark.domain.versions import Deprecation

texts = st.text(st.characters() | st.sampled_from("\x1b\x07\x9b\x7f\u202e\u2066\u200b\u2028\n\t\r\U000e0001[]\\"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def is_dangerous(char: str) -> bool:
    """Answer whether a terminal or a reader would take this character for something else than a letter."""
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in "\u200c\u200d"


def print_with(do: str, *given: Any, as_json: bool = False, **more: Any) -> str:
    out = io.StringIO()
    getattr(Output(as_json=as_json, out=out, err=io.StringIO()), do)(*given, **more)
    return out.getvalue()


@given(texts)
def test_cleaned_text_holds_nothing_a_terminal_obeys(text: str) -> None:
    assert not any(map(is_dangerous, clean(text)))


@given(texts)
def test_of_text_in_lines_only_line_ends_stay(text: str) -> None:
    assert not any(is_dangerous(char) for char in clean(text, lines=True) if char != "\n")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M", "Zs"])))
def test_ordinary_text_of_any_language_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@given(st.dictionaries(texts, values, max_size=5))
def test_printed_json_means_the_same_and_holds_no_dangerous_character(value: dict[str, Any]) -> None:
    written = print_with("print_record", value, (), as_json=True)

    assert json.loads(written) == value
    assert not any(is_dangerous(char) for char in written if char != "\n")


@given(st.lists(st.dictionaries(texts, values, max_size=3), max_size=4))
def test_a_printed_array_is_the_list(items: list[dict[str, Any]]) -> None:
    assert json.loads(print_with("print_table", items, (), as_json=True, empty="nothing")) == items


@given(st.lists(st.fixed_dictionaries({"a": texts, "b": st.dictionaries(texts, texts, max_size=2)}), max_size=5))
def test_in_a_pipe_a_row_is_a_line_and_a_cell_holds_no_tab(items: list[dict[str, Any]]) -> None:
    columns = (Column("a", "A"), Column("b", "B", Kind.MAP))

    written = print_with("print_table", items, columns, empty="nothing")

    assert [line.count("\t") for line in written.split("\n")[:-1]] == [1] * len(items)


def test_numbers_json_lacks_are_the_strings_of_the_http_api() -> None:
    found = to_json({"metrics": {"a": float("nan"), "b": float("-inf"), "c": 1.5}, "list": [float("inf")]})

    assert found == {"metrics": {"a": "nan", "b": "-inf", "c": 1.5}, "list": ["inf"]}


def test_a_value_of_the_domain_becomes_json_at_any_depth() -> None:
    assert to_json([Deprecation("old", None, 7)]) == [{"reason": "old", "replaced_by": None, "at": 7}]


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3 + 1, "5.0 GiB"),
        (2000 * 1024**5, "2000.0 PiB"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(size_bytes: int, shown: str) -> None:
    assert show_size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1, "now"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7_199, "1 hour ago"),
        (3 * 86_400, "3 days ago"),
        (40 * 86_400, "1 month ago"),
        (800 * 86_400, "2 years ago"),
        (-600, "in 10 minutes"),
    ],
)
def test_a_time_past_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    assert show_ago(10**15, 10**15 + seconds * 1_000_000) == shown


def test_a_time_beyond_the_calendar_is_shown_as_a_number() -> None:
    assert show_time(2**63 - 1) == str(2**63 - 1)


def test_quiet_silences_talk_and_keeps_warnings() -> None:
    err = io.StringIO()
    output = Output(quiet=True, out=io.StringIO(), err=err)

    output.say("chatter")
    output.warn("beware")

    assert err.getvalue() == "Warning: beware\n"


def test_what_an_old_encoding_cannot_write_is_escaped() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    output = Output(out=out, err=io.StringIO())

    output.print_text("naïve 模型")

    out.seek(0)
    assert out.read() == "na\\xefve \\u6a21\\u578b\n"
