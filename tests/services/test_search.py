"""Search on both databases, compared with plain Python over the same versions and models."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from tests.services.plain_search import Thing, Vocabulary, conditions, holds, orders, sort_things, walk
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import (
    InvalidCursorError,
    InvalidFieldError,
    InvalidFilterError,
    LimitExceededError,
    ModelNotFoundError,
)
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.paging import Page
from touchmark.domain.search import (
    MAX_NESTING,
    Field,
    FieldKind,
    Searchable,
    describe,
    describe_order,
    words_of,
)
from touchmark.domain.versions import ModelVersion
from touchmark.registry import Registry
from touchmark.services.search import search_models, search_versions
from touchmark.storage import ledger, manifests, models, schema, versions
from touchmark.storage import search as storage_search
from touchmark.storage.engine import Database

ANNA = Principal(PrincipalKind.USER, "anna")
BORIS = Principal(PrincipalKind.USER, "boris_b")
START = 1_767_225_600_000_000  # 2026-01-01
LONG = "x" * 200


# ── a catalogue written through real events ──────────────────────────────────────────────────────────────────────


@dataclass
class Catalogue:
    """A registry, and what was put into it that a ModelVersion or RegisteredModel does not show."""

    registry: Registry
    model_ids: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    facts: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    digests: Iterator[int] = field(default_factory=count)

    def add_model(
        self, name: str, *, who: Principal = ANNA, tags: Mapping[str, str] | None = None, **texts: Any
    ) -> int:
        with self.registry.write() as tx:
            model_id = tx.index
            fields = {"name": name, "description": None, "owner": None, "contact": None, **texts}
            effects = [
                Effect(SubjectKind.MODEL, {"model_id": model_id}, None, fields),
                Effect(SubjectKind.NAME, {"name": name}, None, {"model_id": model_id}),
            ]
            for key, value in (tags or {}).items():
                effects.append(
                    Effect(SubjectKind.MODEL_TAG, {"model_id": model_id, "key": key}, None, {"value": value})
                )
            ledger.append(tx, who, EventKind.MODEL_CREATED, effects, model_id=model_id, name=name)
        self.model_ids[name] = model_id
        return model_id

    def add_version(
        self,
        name: str,
        *,
        who: Principal = ANNA,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, str] | None = None,
        contents: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (),
        **fields: Any,
    ) -> int:
        model_id, number = self.model_ids[name], self.numbers.get(name, 0) + 1
        self.numbers[name] = number
        digest = None
        if contents is not None:
            digest = f"sha256:{next(self.digests):064x}"
            with self.registry.track() as tx:
                manifests.record_manifest(
                    tx, digest=digest, content=b"{}", media_type="t", content_digest=digest, size_bytes=1, file_count=1,
                    contents=contents, blobs=[],
                )  # fmt: skip
            self.facts[digest] = manifests.list_facts(contents)
        origin = {"params": dict(params or {}), "metrics": {k: {"value": v} for k, v in (metrics or {}).items()}}
        with self.registry.write() as tx:
            version_id = tx.index
            after = {
                "model_id": model_id, "number": number, "state": "READY", "digest": digest, "content_digest": digest,
                "size_bytes": 1, "file_count": 1, "source": "", "run_id": None, "logged_model_id": None, "parent": None,
                "same_bytes_as": None, "description": None, "stage": "None", "status_message": None, "run_link": None,
                "origin": json.dumps(origin), **fields,
            }  # fmt: skip
            effects = [Effect(SubjectKind.VERSION, {"version_id": version_id}, None, after)]
            for key, value in (tags or {}).items():
                key_of = {"version_id": version_id, "key": key}
                effects.append(Effect(SubjectKind.VERSION_TAG, key_of, None, {"value": value}))
            effects += [
                Effect(SubjectKind.ALIAS, {"model_id": model_id, "alias": alias}, None, {"number": number})
                for alias in aliases
            ]
            ledger.append(tx, who, EventKind.VERSION_REGISTERED, effects, model_id=model_id, name=name, version=number)
        return version_id

    def change_version(self, version_id: int, **changes: Any) -> None:
        with self.registry.write() as tx:
            effect = Effect(SubjectKind.VERSION, {"version_id": version_id}, dict.fromkeys(changes), changes)
            ledger.append(tx, BORIS, EventKind.VERSION_UPDATED, [effect])

    def delete_model(self, name: str) -> None:
        with self.registry.write() as tx:
            key = {"model_id": self.model_ids[name]}
            effect = Effect(SubjectKind.MODEL, key, {"deleted": False}, {"deleted": True})
            ledger.append(tx, BORIS, EventKind.MODEL_DELETED, [effect])

    def read_versions(self) -> list[ModelVersion]:
        with self.registry.read() as tx:
            rows = tx.all(versions.by_model(select(*versions.version_columns)))
            return versions.to_versions(tx, rows)


ODD_TEXTS = [
    "risk", "Risk", "RISK", "a%b", "a_b", "aXb", "back\\slash", "it's", 'say "x"', "команда", "КОМАНДА", "é", "É", "😀", "",
    "a", "a\U0010ffff", "a\U0010ffffb", "b", "\ud7ff", "\ue000", "\U0010ffff", "line\nbreak", "İ", "ı", "\u212a",
    LONG, LONG + "1", LONG + "2", "10", "9",
]  # fmt: skip
MODEL_NAMES = [
    "risk.churn",
    "risk.fraud",
    "Risk.churn",
    "100%_real",
    "back\\slash",
    "o'brien",
    "модель",
    "emoji😀",
    "gone",
]
METRICS = ["0.5", "0.9", "NaN", "Infinity", "-Infinity", "0", "-0.0", "0.1", "1e300"]
KEYS = ["team", "a b`c", "ключ", "x.y"]


def seed(catalogue: Catalogue) -> None:
    """Put about sixty versions of nine models in; every field has values, odd ones, and gaps."""
    for n, name in enumerate(MODEL_NAMES):
        texts = {
            "owner": ["anna", "Команда риска", None, ""][n % 4],
            "description": [None, "Churn of café users", "o'k 😀"][n % 3],
        }
        tags = {KEYS[n % 4]: ODD_TEXTS[n], "team": ODD_TEXTS[(n * 7) % len(ODD_TEXTS)]} if n % 4 else {}
        catalogue.add_model(name, who=(ANNA, BORIS)[n % 2], tags=tags, **texts)
    catalogue.add_model("no versions")
    frameworks = ["sklearn", "SKLearn", "onnx", None]
    for n in range(62):
        tags = (
            {}
            if n % 5 == 0
            else {"team": ODD_TEXTS[n % len(ODD_TEXTS)], KEYS[n % 4]: ODD_TEXTS[(n * 3) % len(ODD_TEXTS)]}
        )
        contents = None
        if n % 4:
            contents = {
                "schema": {"inputs": [{"name": "age", "type": ["double", "long"][n % 2]}], "outputs": [{"name": "é", "type": "x%"}]},
                "flavors": {"python_function": {}, "sklearn": {}} if n % 3 else {"onnx": {}},
                "framework": frameworks[n % 4],
            }  # fmt: skip
        version_id = catalogue.add_version(
            MODEL_NAMES[n * 5 % 9] if n % 3 else "risk.churn",
            who=(ANNA, BORIS)[n % 2],
            tags=tags,
            params={} if n % 6 == 0 else {"depth": ODD_TEXTS[(n * 11) % len(ODD_TEXTS)]},
            metrics={} if n % 7 == 0 else {"auc": METRICS[n % len(METRICS)], "loss": str(n % 3)},
            contents=contents,
            aliases=[["champion"], ["champion", "Test-1"], [], []][n % 4],
            state=["READY", "READY", "FAILED_REGISTRATION"][n % 3],
            run_id=[None, "", "run-a", "run_b"][n % 4],
            source=["", "runs:/run-a/m", "s3://Bucket/%x"][n % 3],
            stage=["None", "Production"][n % 2],
            description=[None, "", "Trained on café data", "churn v2"][n % 4],
        )
        if n % 9 == 4:
            catalogue.change_version(version_id, deleted=True)
        if n % 8 == 3:
            catalogue.change_version(version_id, deprecated=True, deprecation_reason="old")
        if n % 10 == 1:
            catalogue.change_version(version_id, description="changed: churn")
    catalogue.delete_model("gone")


def open_catalogue(url: str, folder: Any) -> Registry:
    ticks = count()
    # Several events share a microsecond, so that ties are there to be broken.
    registry = Registry(Database(url), LocalBlobStore(folder), clock=lambda: START + next(ticks) // 5)
    schema.metadata.create_all(registry.database.engine)
    with registry.track() as tx:
        ledger.create_head(tx, "registry")
    return registry


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def catalogue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    """Give one seeded catalogue for tests that only read; the others make their own."""
    with make_catalogue(request, tmp_path_factory) as made:
        seed(made)
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    with make_catalogue(request, tmp_path_factory) as made:
        yield made


class make_catalogue(ExitStack):  # noqa: N801 - used as a function
    def __init__(self, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        folder = factory.mktemp("catalogue")
        url = f"sqlite:///{folder / 'rows.db'}"
        if request.param == "postgresql":
            url = self.enter_context(request.getfixturevalue("postgres_server").open_database())
        self.made = Catalogue(open_catalogue(url, folder / "blobs"))
        self.callback(self.made.registry.close)

    def __enter__(self) -> Catalogue:  # type: ignore[override]
        return self.made


# ── the same question answered in plain Python ───────────────────────────────────────────────────────────────────


LONG_KINDS = {
    FieldKind.TAG, FieldKind.MODEL_TAG, FieldKind.PARAM, FieldKind.FRAMEWORK, FieldKind.AUTHOR, FieldKind.SOURCE, FieldKind.OWNER,
}  # fmt: skip


def list_version_things(catalogue: Catalogue) -> list[Thing]:
    with catalogue.registry.read() as tx:
        rows = tx.all(select(schema.models))
        owners = {model.model_id: model for model in models.to_models(tx, tx.all(models._MODEL))}
        gone = {row.model_id for row in rows if row.deleted_at is not None}
    return [_version_thing(v, owners[v.model_id], v.model_id in gone, catalogue) for v in catalogue.read_versions()]


def _version_thing(v: ModelVersion, owner: Any, is_gone: bool, catalogue: Catalogue) -> Thing:
    facts = catalogue.facts.get(v.digest or "", {})
    is_deleted = v.deleted_at is not None or is_gone
    plain: dict[FieldKind, Any] = {
        FieldKind.NAME: v.name, FieldKind.VERSION: v.version, FieldKind.AUTHOR: v.created_by or None,
        FieldKind.CREATED_AT: v.created_at, FieldKind.UPDATED_AT: v.updated_at, FieldKind.DIGEST: v.digest,
        FieldKind.CONTENT_DIGEST: v.content_digest, FieldKind.RUN_ID: v.run_id or None, FieldKind.SOURCE: v.source or None,
        FieldKind.STATE: v.state.value, FieldKind.STAGE: v.stage.value, FieldKind.DESCRIPTION: v.description or None,
        FieldKind.SEALED: v.sealed, FieldKind.DEPRECATED: v.deprecation is not None, FieldKind.DELETED: is_deleted,
        FieldKind.FRAMEWORK: facts.get(("framework", "")),
    }  # fmt: skip
    keyed: dict[FieldKind, Mapping[str, Any]] = {
        FieldKind.TAG: v.tags, FieldKind.MODEL_TAG: owner.tags, FieldKind.METRIC: v.metrics,
        FieldKind.PARAM: v.origin["params"],
        FieldKind.INPUT: {key: value for (kind, key), value in facts.items() if kind == "input"},
        FieldKind.OUTPUT: {key: value for (kind, key), value in facts.items() if kind == "output"},
    }  # fmt: skip
    many = {FieldKind.ALIAS: list(v.aliases), FieldKind.FLAVOR: [key for kind, key in facts if kind == "flavor"]}
    terms = (
        set(words_of(v.description or "")) | _model_terms(owner) if not is_gone else set(words_of(v.description or ""))
    )
    return Thing(v.version_id, v.name, is_deleted, lambda field: _values(field, plain, keyed, many), terms)


def list_model_things(catalogue: Catalogue) -> list[Thing]:
    with catalogue.registry.read() as tx:
        rows = tx.all(models._MODEL)
        gone = {row.model_id for row in rows if row.deleted_at is not None}
        found = models.to_models(tx, rows)

    def make(m: Any) -> Thing:
        plain = {
            FieldKind.NAME: m.name, FieldKind.CREATED_AT: m.created_at, FieldKind.UPDATED_AT: m.updated_at,
            FieldKind.OWNER: m.owner or None, FieldKind.DESCRIPTION: m.description or None,
        }  # fmt: skip
        many = {FieldKind.ALIAS: list(m.aliases)}
        values = lambda field: _values(field, plain, {FieldKind.TAG: m.tags}, many)  # noqa: E731
        return Thing(m.model_id, m.name, m.model_id in gone, values, _model_terms(m))

    return [make(m) for m in found]


def _model_terms(model: Any) -> set[str]:
    return set(words_of(" ".join(text for text in (model.name, model.owner, model.description) if text)))


def _values(
    field: Field,
    plain: Mapping[FieldKind, Any],
    keyed: Mapping[FieldKind, Mapping[str, Any]],
    many: Mapping[FieldKind, list],
) -> list[Any]:
    if field.kind in many:
        return many[field.kind]
    value = keyed[field.kind].get(str(field.key)) if field.kind in keyed else plain[field.kind]
    return [] if value is None else [value]


# ── random questions ─────────────────────────────────────────────────────────────────────────────────────────────

TIMES = st.integers(START - 2, START + 60)
TEXTS: Mapping[FieldKind, Sequence[str]] = {
    FieldKind.NAME: [*MODEL_NAMES, "nothing"],
    FieldKind.ALIAS: ["champion", "Champion", "Test-1", "none"],
    FieldKind.AUTHOR: ["anna", "boris_b", "borisXb"],
    FieldKind.OWNER: ["anna", "Команда риска", ""],
    FieldKind.DIGEST: [f"sha256:{n:064x}" for n in (0, 3, 99)],
    FieldKind.CONTENT_DIGEST: [f"sha256:{n:064x}" for n in (1, 3)],
    FieldKind.RUN_ID: ["run-a", "run_b", "runXb", ""],
    FieldKind.SOURCE: ["runs:/run-a/m", "s3://Bucket/%x", ""],
    FieldKind.STATE: ["READY", "FAILED_REGISTRATION"],
    FieldKind.STAGE: ["None", "Production", "production"],
    FieldKind.DESCRIPTION: ["churn v2", "Trained on café data", ""],
    FieldKind.FRAMEWORK: ["sklearn", "SKLearn", "onnx"],
    FieldKind.FLAVOR: ["sklearn", "onnx", "python_function"],
    FieldKind.INPUT: ["double", "long"],
    FieldKind.OUTPUT: ["x%", "x"],
}
FIELD_KEYS: Mapping[FieldKind, Sequence[str]] = {
    FieldKind.PARAM: ["depth", "none"],
    FieldKind.METRIC: ["auc", "loss", "none"],
    FieldKind.INPUT: ["age", "none"],
    FieldKind.OUTPUT: ["é"],
}


VOCABULARY = Vocabulary(TEXTS, ODD_TEXTS, FIELD_KEYS, [*KEYS, "none"], TIMES)
WORDS = st.sampled_from(
    [None, None, None, "churn", "chu", "CAFÉ", "café churn", "o", "😀", "риска ан", "risk v", "v2 risk", "..."]
)
LIMITS = st.sampled_from([3, 8, 25, 100])
CANDIDATES = st.sampled_from([0, 6, 2_000])  # almost always a scan, either, almost always driven


def match_words(words: str | None, thing: Thing) -> bool:
    if words is None:
        return True
    wanted = words_of(words)
    if not wanted:
        return False
    return all(word in thing.terms for word in wanted[:-1]) and any(term.startswith(wanted[-1]) for term in thing.terms)


@settings(max_examples=80)
@given(data=st.data())
def test_versions_found_are_those_that_plain_python_finds_in_the_same_order(
    catalogue: Catalogue, data: st.DataObject
) -> None:
    condition = data.draw(conditions(Searchable.VERSIONS, VOCABULARY))
    order = data.draw(orders(Searchable.VERSIONS, VOCABULARY))
    words, limit, include_deleted = data.draw(WORDS), data.draw(LIMITS), data.draw(st.booleans())
    model = data.draw(st.sampled_from([None, None, "risk.churn", "emoji😀"]))
    filter_text, order_text = describe(condition), describe_order(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_search, "CANDIDATES", data.draw(CANDIDATES))
        found = walk(
            lambda cursor: search_versions(
                catalogue.registry, ANNA, filter=filter_text, order_by=order_text, words=words, model=model, limit=limit,
                cursor=cursor, include_deleted=include_deleted,
            ),
            limit,
        )  # fmt: skip
    wants_deleted = include_deleted or "deleted" in re.sub(r"'[^']*'", "", filter_text)
    expected = [
        thing
        for thing in list_version_things(catalogue)
        if holds(condition, thing)
        and match_words(words, thing)
        and (model is None or thing.name == model)
        and (wants_deleted or not thing.is_deleted)
    ]
    assert [one.version_id for one in found] == sort_things(
        expected, order, LONG_KINDS, is_tie_descending=order[-1].descending
    )


@settings(max_examples=50)
@given(data=st.data())
def test_models_found_are_those_that_plain_python_finds_in_the_same_order(
    catalogue: Catalogue, data: st.DataObject
) -> None:
    condition = data.draw(conditions(Searchable.MODELS, VOCABULARY))
    order = data.draw(orders(Searchable.MODELS, VOCABULARY))
    words, limit = data.draw(WORDS), data.draw(st.sampled_from([2, 4, 100]))
    prefix = data.draw(st.sampled_from([None, None, "", "risk.", "100%_", "back\\", "м"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_search, "CANDIDATES", data.draw(CANDIDATES))
        found = walk(
            lambda cursor: search_models(
                catalogue.registry, ANNA, filter=describe(condition), order_by=describe_order(order), words=words,
                prefix=prefix, limit=limit, cursor=cursor,
            ),
            limit,
        )  # fmt: skip
    expected = [
        thing
        for thing in list_model_things(catalogue)
        if not thing.is_deleted
        and holds(condition, thing)
        and match_words(words, thing)
        and thing.name.startswith(prefix or "")
    ]
    assert [one.model_id for one in found] == sort_things(
        expected, order, LONG_KINDS, is_tie_descending=order[-1].descending
    )


# ── single promises ──────────────────────────────────────────────────────────────────────────────────────────────


def numbers_of(page: Page[ModelVersion]) -> list[int]:
    return [version.version for version in page.items]


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("metrics.auc ASC", [5, 1, 3, 2, 4, 6]),
        ("metrics.auc DESC", [3, 1, 5, 4, 2, 6]),
    ],
)
def test_nan_comes_after_numbers_and_missing_last_in_both_directions(
    empty: Catalogue, order_by: str, expected: list[int]
) -> None:
    empty.add_model("m")
    for auc in ("0.5", "NaN", "Infinity", "NaN", "-1", None):
        empty.add_version("m", metrics={} if auc is None else {"auc": auc})
    whole = search_versions(empty.registry, ANNA, order_by=order_by)
    assert numbers_of(whole) == expected
    assert [math.isnan(v.metrics.get("auc", 0)) for v in whole.items] == [False, False, False, True, True, False]
    single = walk(lambda cursor: search_versions(empty.registry, ANNA, order_by=order_by, limit=1, cursor=cursor), 1)
    assert [version.version for version in single] == expected


@pytest.mark.parametrize(
    "order_by", ["created_at DESC", "created_at", "metrics.auc DESC", "name, version", "tags.t DESC"]
)
@pytest.mark.parametrize("candidates", [0, 2_000])
def test_what_is_registered_or_deleted_between_pages_shifts_nothing(
    empty: Catalogue, monkeypatch: pytest.MonkeyPatch, order_by: str, candidates: int
) -> None:
    monkeypatch.setattr(storage_search, "CANDIDATES", candidates)
    empty.add_model("m")
    ids = [empty.add_version("m", metrics={"auc": str(n % 4)}, tags={"t": str(n % 3)}) for n in range(12)]

    def search(cursor: str | None, limit: int) -> Page[ModelVersion]:
        return search_versions(
            empty.registry, ANNA, filter="tags.t != 'x'", order_by=order_by, limit=limit, cursor=cursor
        )

    expected = [version.version_id for version in search(None, 100).items]
    assert sorted(expected) == ids
    seen: list[int] = []
    cursor: str | None = None
    for round_number in count():
        page = search(cursor, 3)
        seen += [version.version_id for version in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        # What was read is deleted: an offset would now skip three rows. And as many come in, before and after.
        for version in page.items:
            empty.change_version(version.version_id, deleted=True)
        if round_number < 4:
            for auc, text in (("-9", "0"), ("9", "9"), ("1", "1")):
                empty.add_version("m", metrics={"auc": auc}, tags={"t": text})
    assert [one for one in seen if one in set(ids)] == expected
    assert len(seen) == len(set(seen))


def test_a_page_costs_the_same_few_statements_however_many_rows_it_holds(catalogue: Catalogue) -> None:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    def count_statements(**question: Any) -> int:
        sent.clear()
        search_versions(catalogue.registry, ANNA, **question)
        return len(sent)

    engine = catalogue.registry.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert count_statements(limit=1) == count_statements(limit=30) == 2
        tags = {"filter": "tags.team LIKE '%' AND NOT metrics.loss = 7"}
        assert count_statements(**tags, limit=1) == count_statements(**tags, limit=30) == 3
        metric = {"order_by": "metrics.loss DESC"}
        assert count_statements(**metric, limit=1) == count_statements(**metric, limit=30) == 2
        everything = {**metric, "filter": "version > 0", "include_deleted": True}
        assert count_statements(**everything, limit=1000) == 4
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_ignoring_case_is_about_a_to_z_only(empty: Catalogue) -> None:
    empty.add_model("m", description="КОМАНДА É ABC")
    for text in ("Команда", "команда", "É", "é", "ABC", "abc", "\u212a"):
        empty.add_version("m", tags={"t": text}, description=text)

    def find(text: str) -> list[str]:
        found = search_versions(empty.registry, ANNA, filter=text, order_by="version")
        return [version.tags["t"] for version in found.items]

    assert find("tags.t ILIKE 'аБВ%' OR tags.t ILIKE 'aBc'") == ["ABC", "abc"]
    assert find("tags.t ILIKE 'команда'") == find("description ILIKE 'команда'") == ["команда"]
    assert find("tags.t ILIKE 'É'") == find("description ILIKE 'É'") == ["É"]
    assert find("tags.t ILIKE 'k'") == find("description ILIKE 'k'") == []
    assert find("tags.t LIKE 'ABC'") == ["ABC"]
    assert not search_models(empty.registry, ANNA, filter="description ILIKE 'команда%'").items
    assert search_models(empty.registry, ANNA, filter="description ILIKE '%abc'").items


def test_texts_that_differ_only_after_the_indexed_part_are_told_apart(empty: Catalogue) -> None:
    empty.add_model("m")
    for end in ("", "1", "2"):
        empty.add_version("m", tags={"t": LONG + end}, params={"p": LONG + end})
    for name in ("tags.t", "params.p"):
        assert numbers_of(search_versions(empty.registry, ANNA, filter=f"{name} = '{LONG}2'")) == [3]
        assert numbers_of(search_versions(empty.registry, ANNA, filter=f"{name} IN ('{LONG}', '{LONG}1', 'x')")) == [
            2,
            1,
        ]
        assert numbers_of(search_versions(empty.registry, ANNA, filter=f"{name} LIKE '{LONG}1%'")) == [2]


def test_a_version_of_a_deleted_model_is_deleted_and_a_filter_about_deletion_shows_it(empty: Catalogue) -> None:
    for name in ("kept", "gone"):
        empty.add_model(name)
        empty.add_version(name)
    empty.change_version(empty.add_version("kept"), deleted=True)
    empty.delete_model("gone")

    def find(**question: Any) -> list[tuple[str, int]]:
        return sorted((v.name, v.version) for v in search_versions(empty.registry, ANNA, **question).items)

    assert find() == [("kept", 1)]
    assert find(include_deleted=True) == [("gone", 1), ("kept", 1), ("kept", 2)]
    assert find(filter="deleted = true") == [("gone", 1), ("kept", 2)]
    assert find(filter="NOT deleted = true") == [("kept", 1)]
    assert [m.name for m in search_models(empty.registry, ANNA).items] == ["kept"]


def test_versions_of_one_model_are_found_by_its_former_name_and_no_model_is_an_error(empty: Catalogue) -> None:
    model_id = empty.add_model("old")
    empty.add_version("old")
    empty.add_version("old")
    empty.add_model("other")
    empty.add_version("other")
    with empty.registry.write() as tx:
        renamed = [
            Effect(SubjectKind.MODEL, {"model_id": model_id}, {"name": "old"}, {"name": "new"}),
            Effect(SubjectKind.NAME, {"name": "new"}, None, {"model_id": model_id}),
        ]
        ledger.append(tx, ANNA, EventKind.MODEL_RENAMED, renamed)
    for name in ("old", "new"):
        found = search_versions(empty.registry, ANNA, model=name)
        assert [(v.name, v.version) for v in found.items] == [("new", 2), ("new", 1)]
    with pytest.raises(ModelNotFoundError):
        search_versions(empty.registry, ANNA, model="nobody")


def test_words_must_all_be_there_and_only_the_last_may_be_cut_short(empty: Catalogue) -> None:
    empty.add_model("risk.churn", description="Wer geht, wird gehalten")
    empty.add_model("risk.fraud", owner="Команда риска")
    empty.add_version("risk.churn", description="Trained on café data")
    empty.add_version("risk.fraud")

    def find(words: str) -> list[str]:
        return [model.name for model in search_models(empty.registry, ANNA, words=words).items]

    def find_versions(words: str) -> list[str]:
        return [version.name for version in search_versions(empty.registry, ANNA, words=words).items]

    assert find("RISK, CHU!") == ["risk.churn"]
    assert find("chu risk") == []
    assert find("риска КОМ") == ["risk.fraud"]
    assert find("🤷 ...") == []
    assert find("  ") == find("") == find("risk") == ["risk.churn", "risk.fraud"]
    assert find_versions("CAFÉ gehalten risk dat") == ["risk.churn"]
    assert find_versions("caf́e fraud") == find_versions("caf data") == []
    assert sorted(find_versions("ris")) == ["risk.churn", "risk.fraud"]


def test_bad_questions_say_what_is_wrong(catalogue: Catalogue) -> None:
    registry = catalogue.registry
    with pytest.raises(InvalidFilterError):
        search_versions(registry, ANNA, filter="tags.a =")
    with pytest.raises(InvalidFilterError):
        search_models(registry, ANNA, order_by="version")
    with pytest.raises(InvalidFieldError):
        search_versions(registry, ANNA, limit=0)
    with pytest.raises(LimitExceededError):
        search_versions(registry, ANNA, limit=1001)
    with pytest.raises(LimitExceededError):
        search_models(registry, ANNA, words=" ".join(f"w{n}" for n in range(21)))
    with pytest.raises(InvalidFieldError):
        search_models(registry, ANNA, prefix="a\0")


def test_a_cursor_belongs_to_its_question(catalogue: Catalogue) -> None:
    registry = catalogue.registry
    cursor = search_versions(registry, ANNA, limit=2).next_cursor
    assert cursor is not None
    assert search_versions(registry, ANNA, limit=5, cursor=cursor).items
    others: list[dict[str, Any]] = [
        {"filter": "version > 1"}, {"order_by": "created_at ASC"}, {"order_by": "updated_at"}, {"words": "churn"},
        {"model": "risk.churn"}, {"include_deleted": True},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InvalidCursorError):
            search_versions(registry, ANNA, cursor=cursor, **other)
    with pytest.raises(InvalidCursorError):
        search_models(registry, ANNA, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        search_versions(registry, ANNA, cursor=cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB"))


def test_the_largest_filters_are_answered(catalogue: Catalogue) -> None:
    registry = catalogue.registry
    deep = "version > 0"
    for level in range(MAX_NESTING):
        deep = f"({deep} {('OR', 'AND')[level % 2]} tags.team = '{level}')"
    assert search_versions(registry, ANNA, filter=deep).items is not None
    denied = "NOT " * (MAX_NESTING - 1) + "(tags.team = 'a' OR alias = 'champion')"
    assert search_versions(registry, ANNA, filter=denied).items
    wide = " OR ".join(f"tags.k{n} = 'v'" for n in range(99)) + " OR version = 1"
    assert {v.version for v in search_versions(registry, ANNA, filter=wide).items} == {1}
    listed = ",".join(f"'{n}'" for n in range(500))
    assert search_versions(registry, ANNA, filter=f"tags.team IN ({listed}) OR params.depth IN ({listed})").items


def test_ten_fields_may_order_a_page(catalogue: Catalogue) -> None:
    order = "tags.team, params.depth DESC, metrics.auc, model_tags.team, framework DESC, author, source, stage, name, version"
    found = walk(lambda cursor: search_versions(catalogue.registry, ANNA, order_by=order, limit=9, cursor=cursor), 9)
    assert len({version.version_id for version in found}) == len(found) == len(
        [thing for thing in list_version_things(catalogue) if not thing.is_deleted]
    )  # fmt: skip
