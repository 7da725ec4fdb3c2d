"""Names, aliases, tags and references: what is allowed, what is refused and with which sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.domain import errors
from touchmark.domain.aliases import check_expected_move, parse_alias
from touchmark.domain.names import NAME_LIMIT, look_alike_key, parse_model_name
from touchmark.domain.references import (
    AliasReference,
    DigestReference,
    LatestReference,
    LoggedModelReference,
    RunReference,
    StageReference,
    VersionReference,
    parse_model_reference,
    parse_reference,
    parse_version_number,
)
from touchmark.domain.tags import TAG_KEY_LIMIT, TAG_VALUE_LIMIT, check_tags
from touchmark.domain.versions import Stage

HEX = "0123456789abcdef" * 4
RUN = "a" * 32


@pytest.mark.parametrize(
    "name", ["churn", "risk.churn", "Größe", "モデル", "a b", "100%", "a+b?c=d&e", "m-1", "x" * NAME_LIMIT]
)
def test_a_name_may_be(name: str) -> None:
    assert parse_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", " ", " lead", "trail ", "a/b", "a:b", "a@b", "a\nb", "a\x00b", "a\u200bb", "a\u202eb", "\ufeffa", ".", "..",
        "m-" + "0" * 32, "x" * (NAME_LIMIT + 1), "e\u0301", "\ud800", "\ue000", "a\u2028b", 5, None, True,
        "churn\ufe0f", "\u3164", "ch\u034furn", "churn\u115f", "churn\u2800", "churn\u180b", "churn\U000e0100", "\uffa0",
    ],
)  # fmt: skip
def test_a_name_may_not_be(name: object) -> None:
    with pytest.raises(errors.InvalidNameError) as caught:
        parse_model_name(name)

    assert caught.value.fields["reason"]
    caught.value.message.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("one", "other"), [("churn", "Churn"), ("churn", "сhurn"), ("ﬁt", "fit"), ("STRASSE", "straße")]
)
def test_names_that_look_alike_share_a_key(one: str, other: str) -> None:
    assert look_alike_key(one) == look_alike_key(other)


def test_names_that_differ_do_not_share_a_key() -> None:
    assert look_alike_key("churn") != look_alike_key("churn2")


@pytest.mark.parametrize("alias", ["champion", "_x", "A-b_9", "v1x", "1a", "x" * 128])
def test_an_alias_may_be(alias: str) -> None:
    assert parse_alias(alias) == alias


@pytest.mark.parametrize(
    "alias",
    ["", "latest", "LATEST", "v1", "V23", "123", "-a", "é", "a b", "a\n", "a/b", "a.b", "x" * 129, "１", 5, None],
)
def test_an_alias_may_not_be(alias: object) -> None:
    with pytest.raises(errors.InvalidAliasError):
        parse_alias(alias)


@pytest.mark.parametrize(
    ("expected", "found", "holds"),
    [
        (None, None, True),
        (None, 5, True),
        (5, 5, True),
        (-1, None, True),
        (4, 5, False),
        (5, None, False),
        (-1, 5, False),
    ],
)
def test_an_alias_moves_only_from_where_it_was_seen(expected: int | None, found: int | None, holds: bool) -> None:
    if holds:
        check_expected_move("churn", "champion", expected=expected, found=found)
    else:
        with pytest.raises(errors.AliasMovedError):
            check_expected_move("churn", "champion", expected=expected, found=found)


def test_tags_are_sorted_and_kept_as_they_are() -> None:
    assert list(check_tags({"b": "", "a b": "ключ\n"}).items()) == [("a b", "ключ\n"), ("b", "")]


@pytest.mark.parametrize(
    "tags",
    [
        {"": "x"},
        {" ": "x"},
        {"k\n": "x"},
        {"k" * (TAG_KEY_LIMIT + 1): "x"},
        {"k": "x" * (TAG_VALUE_LIMIT + 1)},
        {"k": "\x00"},
        {"k": "\ud800"},
        {"k": 5},
    ],
)
def test_a_tag_may_not_be(tags: dict) -> None:
    with pytest.raises(errors.InvalidTagError):
        check_tags(tags)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("models:/churn/3", VersionReference("churn", 3)),
        ("churn/3", VersionReference("churn", 3)),
        ("models:/churn/3/a/b.txt", VersionReference("churn", 3, "a/b.txt")),
        ("churn@champion", AliasReference("churn", "champion")),
        ("models:/churn@champion/config.json", AliasReference("churn", "champion", "config.json")),
        (f"churn@sha256:{HEX}", DigestReference("churn", f"sha256:{HEX}")),
        ("churn/latest", LatestReference("churn")),
        ("churn/LATEST", LatestReference("churn")),
        ("churn/production", StageReference("churn", Stage.PRODUCTION)),
        (f"models:/m-{HEX[:32]}", LoggedModelReference(f"m-{HEX[:32]}")),
        (f"runs:/{RUN}/classifier", RunReference(RUN, "classifier")),
        (f"runs:/{RUN}/a/b", RunReference(RUN, "a/b")),
    ],
)
def test_a_reference_means(text: str, meant: object) -> None:
    assert parse_reference(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "churn", "models:/churn", "models:/churn/", "churn/0", "churn/01", "churn/-1", "churn/3.0", "churn/２",
        "churn/99999999999", "churn/unknown", "churn@", "churn@latest", "churn@v1", "churn@sha256:abc", "churn@sha512:" + HEX,
        "./folder", "/etc/passwd", "../x", "file:///etc/passwd", "s3://bucket/x", "http://169.254.169.254/", "\\\\host\\x",
        "runs:/", "runs:/../x", f"runs:/{RUN}/../x", f"runs:/{RUN}/a//b", "models:/churn/3/../4", "models:/churn/3/a\x00b",
        "models:/a b /3", "models:/m-xyz@", "x" * 4001, None, 5,
    ],
)  # fmt: skip
def test_a_reference_may_not_be(text: object) -> None:
    with pytest.raises(errors.InvalidReferenceError):
        parse_reference(text)


@pytest.mark.parametrize("text", [f"runs:/{RUN}/x", f"models:/m-{HEX[:32]}"])
def test_only_registered_models_have_versions(text: str) -> None:
    with pytest.raises(errors.InvalidReferenceError):
        parse_model_reference(text)


@given(st.text(max_size=60))
def test_no_text_makes_the_parsers_stumble(text: str) -> None:
    for parse in (parse_reference, parse_model_name, parse_alias, parse_version_number):
        try:
            parse(text)
        except errors.InvalidError as error:
            assert error.code.startswith("invalid_")  # noqa: PT017


@given(st.text(min_size=1, max_size=40), st.integers(1, 2**31 - 1))
def test_every_allowed_name_can_be_referred_to(name: str, number: int) -> None:
    try:
        parse_model_name(name)
    except errors.InvalidNameError:
        return
    assert parse_reference(f"models:/{name}/{number}") == VersionReference(name, number)
