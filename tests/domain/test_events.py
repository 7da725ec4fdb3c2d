"""The leaf: its exact bytes, what is hidden in it, and that nothing beside it can be changed unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import CatalogueDamagedError
from touchmark.domain.events import (
    ERASED,
    SUBJECTS,
    Effect,
    Event,
    EventKind,
    SaltedText,
    SubjectKind,
    decode_leaf,
    encode_leaf,
)

WHO = Principal(PrincipalKind.ANONYMOUS, "anonymous", None, False, "req-1")
EVENT = Event(
    7,
    1_700_000_000_000_000,
    EventKind.MODEL_UPDATED,
    WHO,
    1,
    "größe",
    None,
    (
        Effect(SubjectKind.MODEL, {"model_id": 1}, {"description": None}, {"description": "private words"}),
        Effect(SubjectKind.ALIAS, {"model_id": 1, "alias": "champion"}, {"number": 1}, {"number": 2}),
    ),
)
GOLDEN_SHA256 = "19d1aae29efad368017fc8cbe38aa45452473f68df0c1dcbfb4db681f7d1283a"
"""SHA-256 of the leaf's bytes: the format is a promise, and old leaves are never written anew."""


def salts() -> Iterator[bytes]:
    while True:
        yield b"0123456789abcdef"


def test_a_leaf_is_these_very_bytes() -> None:
    leaf, texts = encode_leaf(EVENT, salts())
    document = json.loads(leaf)

    assert leaf == json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(leaf).hexdigest() == GOLDEN_SHA256
    assert list(document) == ["about", "actor", "at", "effects", "index", "kind", "request", "v"]
    assert document["effects"][1] == {
        "subject": {"kind": "alias", "model_id": 1, "alias": "champion"},
        "before": {"number": 1},
        "after": {"number": 2},
    }
    assert texts == [SaltedText(b"0123456789abcdef", "private words")]


def test_what_people_type_is_not_in_the_leaf() -> None:
    leaf, _texts = encode_leaf(EVENT, salts())

    assert b"private" not in leaf


def test_a_leaf_reads_back_as_the_event() -> None:
    leaf, texts = encode_leaf(EVENT, salts())

    assert decode_leaf(leaf, texts) == EVENT


def test_an_erased_text_leaves_the_leaf_whole() -> None:
    leaf, texts = encode_leaf(EVENT, salts())
    event = decode_leaf(leaf, [SaltedText(texts[0].salt, None)])

    assert event.effects[0].after == {"description": ERASED}


@pytest.mark.parametrize(
    "change", [SaltedText(b"0123456789abcdef", "other words"), SaltedText(b"another salt here", "private words")]
)
def test_a_changed_text_is_noticed(change: SaltedText) -> None:
    leaf, _texts = encode_leaf(EVENT, salts())
    with pytest.raises(CatalogueDamagedError):
        decode_leaf(leaf, [change])


def test_a_missing_text_is_noticed() -> None:
    leaf, _texts = encode_leaf(EVENT, salts())
    with pytest.raises(CatalogueDamagedError):
        decode_leaf(leaf, [])


@pytest.mark.parametrize("leaf", [b"", b"[]", b"null", b"{}", b'{"v":2}', b"\xff", b'{"v":1,"effects":5}'])
def test_damaged_bytes_are_damage_not_a_stumble(leaf: bytes) -> None:
    with pytest.raises(CatalogueDamagedError):
        decode_leaf(leaf, [])


def test_every_subject_names_its_texts_among_its_fields() -> None:
    assert set(SUBJECTS) == set(SubjectKind)
    for shape in SUBJECTS.values():
        assert shape.texts <= set(shape.fields)
