"""Every catalogue action, by two writers in any order, against a small model of dictionaries.

The model says what a user must see; after each step both writers are asked for everything. At the end the catalogue is
rebuilt from its events and compared. The second half seeds one bug behind each rule and demands that the machine sees it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.postgres import PostgresServer
from touchmark.domain import errors as e
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.digest import digest_of
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, LoggedModelStatus
from touchmark.domain.versions import Stage
from touchmark.ops.fsck import check_registry
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, artifacts, blobs, logged_models, models, registration, stages, versions

WHO = Principal(PrincipalKind.ANONYMOUS, "anonymous")
NAMES = ["churn", "Churn", "größe"]
ALIASES = ["champion", "challenger"]
KEYS = ["team", "stage of review"]
TEXTS = st.sampled_from(["", "short", "two words", "ключ", "100 % _ \\ '"])
PICKS = st.integers(0, 30)


@dataclass
class ExpectedVersion:
    bytes: str
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    stage: str = "None"
    deleted: bool = False
    deprecated: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class ExpectedModel:
    names: set[str]
    name: str
    description: str | None = None
    deleted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    moves: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    versions: list[ExpectedVersion] = field(default_factory=list)


def prepare_sources(registry: Registry) -> dict[str, str]:
    """Store three logged models, two of them with equal bytes; return their references and what their bytes are."""
    sources = {}
    for label, content in (("a", b"one"), ("b", b"two"), ("a again", b"one")):
        model = logged_models.create_logged_model(registry, WHO, label)
        owner = ArtifactOwner("logged_model", model.model_id)
        with blobs.open_upload(registry, WHO, parse_repository(owner.repository)) as upload:
            upload.write(content)
            upload.commit(digest_of(content))
        artifacts.set_artifacts(registry, WHO, owner, {"weights/model.bin": digest_of(content)})
        logged_models.finish_logged_model(registry, WHO, model.model_id, status=LoggedModelStatus.READY)
        sources[f"models:/{model.model_id}"] = content.decode()
    return sources


class Catalogue(RuleBasedStateMachine):
    """The machine; `open_writers` is set by each test."""

    open_writers: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.context = type(self).open_writers()
        self.writers: list[Registry] = self.context.__enter__()
        self.sources = prepare_sources(self.writers[0])
        self.expected: list[ExpectedModel] = []
        self.writer = self.writers[0]

    def teardown(self) -> None:
        try:
            report = check_registry(self.writers[0])
            assert [finding for finding in report.findings if finding.kind != "orphan"] == []
        finally:
            self.context.__exit__(None, None, None)

    # ── helpers ──

    def holder(self, name: str) -> ExpectedModel | None:
        return next((model for model in self.expected if name in model.names), None)

    def model(self, name: str) -> ExpectedModel | None:
        found = self.holder(name)
        return found if found is not None and found.name == name and not found.deleted else None

    def followed(self, name: str) -> ExpectedModel | None:
        found = self.holder(name)
        return found if found is not None and not found.deleted else None

    def version(self, name: str, number: int, *, follow: bool = False) -> ExpectedVersion | None:
        """Return an undeleted version: readers may say a former name, writers the present one only."""
        found = self.followed(name) if follow else self.model(name)
        if found is None or number > len(found.versions) or found.versions[number - 1].deleted:
            return None
        return found.versions[number - 1]

    def pick(self, pick: int) -> tuple[str, int]:
        """Choose a version by any name its model has held, deleted ones among them, or now and then one that never was."""
        every = [
            (name, number)
            for model in self.expected
            for name in sorted(model.names)
            for number in range(1, len(model.versions) + 1)
        ]
        every += [("churn", 99), ("nobody", 1)]
        return every[pick % len(every)]

    @contextmanager
    def expecting(self, *kinds: type[Exception] | None) -> Iterator[None]:
        wanted = tuple(kind for kind in kinds if kind is not None)
        with pytest.raises(wanted) if wanted else nullcontext():
            yield

    def missing(self, name: str, number: int) -> type[Exception] | None:
        if self.model(name) is None:
            return e.ModelNotFoundError
        return e.VersionNotFoundError if self.version(name, number) is None else None

    def bring_to_life(self, name: str) -> tuple[ExpectedModel, type[Exception] | None]:
        found = self.holder(name)
        if found is None:
            return ExpectedModel({name}, name), None
        if not found.deleted and found.name != name:
            return found, e.NameTakenError
        return found, None

    # ── rules ──

    @initialize()
    def begin_with_some_versions(self) -> None:
        """Most rules need a version to do anything: an empty registry is left by chance only slowly."""
        for name, source in (("churn", 0), ("churn", 1), ("größe", 2)):
            self.register_version(name, source, "", "risk")

    @rule(which=st.integers(0, 1))
    def take_the_other_chair(self, which: int) -> None:
        self.writer = self.writers[which]

    @rule(name=st.sampled_from(NAMES), description=TEXTS, tag=TEXTS)
    def create_model(self, name: str, description: str, tag: str) -> None:
        found, taken = self.bring_to_life(name)
        exists = e.ModelExistsError if self.model(name) is not None else None
        with self.expecting(taken or exists):
            models.create_model(self.writer, WHO, name, description=description, tags={"team": tag})
        if taken is None and exists is None:
            self.revive(found, name, description)
            found.tags = {"team": tag}

    def revive(self, found: ExpectedModel, name: str, description: str | None) -> None:
        if found not in self.expected:
            self.expected.append(found)
        found.name, found.deleted, found.description, found.tags = name, False, description, {}

    @rule(name=st.sampled_from(NAMES), description=st.none() | TEXTS)
    def update_model(self, name: str, description: str | None) -> None:
        found = self.model(name)
        with self.expecting(None if found else e.ModelNotFoundError):
            models.update_model(self.writer, WHO, name, description=description)
        if found:
            found.description = description

    @rule(name=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def rename_model(self, name: str, new: str) -> None:
        found, holder = self.model(name), self.holder(new)
        error: type[Exception] | None = None if found else e.ModelNotFoundError
        if found and holder is not None and holder is not found:
            error = e.ModelExistsError if self.model(new) else e.NameTakenError
        with self.expecting(error):
            models.rename_model(self.writer, WHO, name, new)
        if found and error is None and new != name:
            found.name = new
            found.names.add(new)
            if not found.versions:
                found.names.discard(name)

    @rule(name=st.sampled_from(NAMES))
    def delete_model(self, name: str) -> None:
        found = self.model(name)
        with self.expecting(None if found else e.ModelNotFoundError):
            models.delete_model(self.writer, WHO, name)
        if found:
            found.deleted = True
            found.moves += [(alias, number, None) for alias, number in sorted(found.aliases.items())]
            found.aliases, found.tags = {}, {}
            for version in found.versions:
                version.deleted = True

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), value=TEXTS)
    def set_model_tags(self, name: str, key: str, value: str) -> None:
        found = self.model(name)
        with self.expecting(None if found else e.ModelNotFoundError):
            models.set_model_tags(self.writer, WHO, name, {key: value})
        if found:
            found.tags[key] = value

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS))
    def delete_model_tag(self, name: str, key: str) -> None:
        found = self.model(name)
        error = e.ModelNotFoundError if found is None else None if key in found.tags else e.TagNotFoundError
        with self.expecting(error):
            models.delete_model_tag(self.writer, WHO, name, key)
        if found and error is None:
            del found.tags[key]

    @rule(name=st.sampled_from(NAMES), source=st.integers(0, 2), description=TEXTS, tag=TEXTS)
    def register_version(self, name: str, source: int, description: str, tag: str) -> None:
        found, taken = self.bring_to_life(name)
        uri = list(self.sources)[source]
        with self.expecting(taken):
            made = registration.register_version(
                self.writer, WHO, name, uri, description=description, tags={"team": tag}
            )
        if taken is None:
            if self.model(name) is None:
                self.revive(found, name, None)
            first = next((n for n, v in enumerate(found.versions, 1) if v.bytes == self.sources[uri]), None)
            found.versions.append(ExpectedVersion(self.sources[uri], description, {"team": tag}))
            assert (made.version, made.same_bytes_as) == (len(found.versions), first)

    @rule(name=st.sampled_from(NAMES), pick=PICKS)
    def copy_version(self, name: str, pick: int) -> None:
        source, number = self.pick(pick)
        origin = self.version(source, number, follow=True)
        found, taken = self.bring_to_life(name)
        missing: type[Exception] | None = None
        holder = self.followed(source)
        if holder is None:
            missing = e.ModelNotFoundError
        elif number > len(holder.versions):
            missing = e.VersionNotFoundError
        elif origin is None:
            missing = e.VersionDeletedError
        with self.expecting(missing or taken):
            registration.register_version(self.writer, WHO, name, f"models:/{source}/{number}")
        if origin is not None and taken is None:
            if self.model(name) is None:
                self.revive(found, name, None)
            found.versions.append(ExpectedVersion(origin.bytes, origin.description, dict(origin.tags)))

    @rule(pick=PICKS, description=st.none() | TEXTS)
    def update_version(self, pick: int, description: str | None) -> None:
        name, number = self.pick(pick)
        with self.expecting(self.missing(name, number)):
            versions.update_version(self.writer, WHO, name, number, description=description)
        if found := self.version(name, number):
            found.description = description

    @rule(pick=PICKS)
    def delete_version(self, pick: int) -> None:
        name, number = self.pick(pick)
        found, owner = self.version(name, number), self.model(name)
        with self.expecting(self.missing(name, number)):
            versions.delete_version(self.writer, WHO, name, number)
        if found and owner:
            found.deleted = True
            gone = sorted(alias for alias, target in owner.aliases.items() if target == number)
            owner.moves += [(alias, number, None) for alias in gone]
            owner.aliases = {alias: target for alias, target in owner.aliases.items() if target != number}

    @rule(pick=PICKS)
    def restore_version(self, pick: int) -> None:
        name, number = self.pick(pick)
        owner = self.model(name)
        error: type[Exception] | None = None
        if owner is None:
            error = e.ModelNotFoundError
        elif number > len(owner.versions):
            error = e.VersionNotFoundError
        elif not owner.versions[number - 1].deleted:
            error = e.VersionNotDeletedError
        with self.expecting(error):
            versions.restore_version(self.writer, WHO, name, number)
        if owner and error is None:
            owner.versions[number - 1].deleted = False

    @rule(pick=PICKS, reason=st.sampled_from(["old", "wrong data"]))
    def deprecate_version(self, pick: int, reason: str) -> None:
        name, number = self.pick(pick)
        with self.expecting(self.missing(name, number)):
            versions.deprecate_version(self.writer, WHO, name, number, reason=reason)
        if found := self.version(name, number):
            found.deprecated = reason

    @rule(pick=PICKS, stage=st.sampled_from(list(Stage)), archive=st.booleans())
    def set_stage(self, pick: int, stage: Stage, archive: bool) -> None:
        name, number = self.pick(pick)
        archive = archive and stage in {Stage.STAGING, Stage.PRODUCTION}
        with self.expecting(self.missing(name, number)):
            stages.set_stage(self.writer, WHO, name, number, stage, archive_others=archive)
        found, owner = self.version(name, number), self.model(name)
        if found and owner:
            if archive:
                for other in owner.versions:
                    if other.stage == stage and not other.deleted:
                        other.stage = "Archived"
            found.stage = stage.value

    @rule(pick=PICKS, key=st.sampled_from(KEYS), value=TEXTS)
    def set_version_tags(self, pick: int, key: str, value: str) -> None:
        name, number = self.pick(pick)
        with self.expecting(self.missing(name, number)):
            versions.set_version_tags(self.writer, WHO, name, number, {key: value})
        if found := self.version(name, number):
            found.tags[key] = value

    @rule(pick=PICKS, key=st.sampled_from(KEYS))
    def delete_version_tag(self, pick: int, key: str) -> None:
        name, number = self.pick(pick)
        found = self.version(name, number)
        error = self.missing(name, number)
        if found is not None and key not in found.tags:
            error = e.TagNotFoundError
        with self.expecting(error):
            versions.delete_version_tag(self.writer, WHO, name, number, key)
        if found and error is None:
            del found.tags[key]

    @rule(pick=PICKS, value=st.floats(allow_nan=False))
    def record_evaluation(self, pick: int, value: float) -> None:
        name, number = self.pick(pick)
        with self.expecting(self.missing(name, number)):
            versions.record_evaluation(self.writer, WHO, name, number, {"auc": value})
        if found := self.version(name, number):
            found.metrics["auc"] = value

    @rule(pick=PICKS, alias=st.sampled_from(ALIASES))
    def set_alias(self, pick: int, alias: str) -> None:
        name, number = self.pick(pick)
        with self.expecting(self.missing(name, number)):
            aliases.set_alias(self.writer, WHO, name, alias, number)
        owner = self.model(name)
        if owner and self.version(name, number) and owner.aliases.get(alias) != number:
            owner.moves.append((alias, owner.aliases.get(alias), number))
            owner.aliases[alias] = number

    @rule(pick=PICKS, alias=st.sampled_from(ALIASES))
    def set_alias_with_an_old_view(self, pick: int, alias: str) -> None:
        """A writer who looked before somebody else moved the alias moves nothing."""
        name, number = self.pick(pick)
        if self.version(name, number):
            self.set_alias(pick, alias)
            seen = aliases.get_alias(self.writer, WHO, name, alias).log_index
            for stale in (seen - 1, -1):
                with pytest.raises(e.AliasMovedError):
                    aliases.set_alias(self.writer, WHO, name, alias, number, expected=stale)

    @rule(name=st.sampled_from(NAMES), alias=st.sampled_from(ALIASES))
    def delete_alias(self, name: str, alias: str) -> None:
        found = self.model(name)
        error = e.ModelNotFoundError if found is None else None if alias in found.aliases else e.AliasNotFoundError
        with self.expecting(error):
            aliases.delete_alias(self.writer, WHO, name, alias)
        if found and error is None:
            found.moves.append((alias, found.aliases.pop(alias), None))

    # ── what must hold ──

    @precondition(lambda self: self.expected)
    @invariant()
    def both_writers_see_what_was_done(self) -> None:
        for registry in self.writers:
            for expected in self.expected:
                if expected.deleted:
                    for name in expected.names:
                        with pytest.raises(e.ModelNotFoundError):
                            models.get_model(registry, WHO, name)
                    continue
                self.compare(registry, expected)

    def compare(self, registry: Registry, expected: ExpectedModel) -> None:
        for name in expected.names:
            assert models.get_model(registry, WHO, name).name == expected.name
        model = models.get_model(registry, WHO, expected.name)
        usable = [n for n, v in enumerate(expected.versions, 1) if not v.deleted and v.deprecated is None]
        assert (model.description, model.tags, model.aliases) == (expected.description, expected.tags, expected.aliases)
        assert (model.version_count, model.latest_version) == (len(expected.versions), max(usable, default=None))
        moves = aliases.list_history(registry, WHO, expected.name)
        assert sorted(((move.alias, move.before, move.after) for move in moves), key=str) == sorted(
            expected.moves, key=str
        )
        for number, version in enumerate(expected.versions, 1):
            if version.deleted:
                with pytest.raises(e.VersionNotFoundError):
                    versions.get_version(registry, WHO, expected.name, number)
                continue
            found = versions.get_version(registry, WHO, expected.name, number)
            assert (found.description, found.tags, found.stage) == (version.description, version.tags, version.stage)
            assert (found.deprecation.reason if found.deprecation else None) == version.deprecated
            assert found.metrics == version.metrics
            assert found.aliases == sorted(a for a, n in expected.aliases.items() if n == number)
            files = versions.list_files(registry, WHO, expected.name, number).files
            assert [(file.path, file.digest) for file in files] == [
                ("weights/model.bin", digest_of(version.bytes.encode()))
            ]


def run(open_writers: Callable[[], Any], *, examples: int, steps: int) -> None:
    machine = type("Catalogue", (Catalogue,), {"open_writers": staticmethod(open_writers)})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate,),  # shrinking replays for minutes; the steps printed are enough to follow
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def sqlite_writers(tmp_path: Path) -> Callable[[], Any]:
    """Give a function that opens two registries on one fresh home (a copy of a prepared one: migrating takes 0.3 s)."""
    template = tmp_path / "template"
    open_registry(template).close()
    count = iter(range(1_000_000))

    @contextmanager
    def open_writers() -> Iterator[list[Registry]]:
        home = tmp_path / f"home-{next(count)}"
        shutil.copytree(template, home)
        writers = [open_registry(home), open_registry(home)]
        try:
            yield writers
        finally:
            for writer in writers:
                writer.close()
            shutil.rmtree(home)

    return open_writers


def test_the_catalogue_does_what_the_model_says_on_sqlite(sqlite_writers: Callable[[], Any]) -> None:
    run(sqlite_writers, examples=25, steps=40)


@pytest.mark.postgres
def test_the_catalogue_does_what_the_model_says_on_postgresql(postgres_server: PostgresServer, tmp_path: Path) -> None:
    count = iter(range(1_000_000))

    @contextmanager
    def open_writers() -> Iterator[list[Registry]]:
        home = tmp_path / f"home-{next(count)}"
        with postgres_server.open_database() as url:
            writers = [open_registry(home, url), open_registry(home, url)]
            try:
                yield writers
            finally:
                for writer in writers:
                    writer.close()

    run(open_writers, examples=8, steps=30)


def without(function: Callable[..., Any], answer: object = None) -> Callable[..., Any]:
    """Make a service that does nothing."""
    _ = function
    return lambda *_args, **_kwargs: answer


def changed(position: int, change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a service that changes one of its arguments."""

    def bug(function: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*args: Any, **kwargs: Any) -> Any:
            given = list(args)
            given[position] = change(given[position])
            return function(*given, **kwargs)

        return broken

    return bug


def keyed(name: str, value: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a service that is always given `name=value`."""

    def bug(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: function(*args, **{**kwargs, name: value})

    return bug


BUGS: dict[str, tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "create_model": (models, "create_model", keyed("tags", {})),
    "update_model": (models, "update_model", without),
    "rename_model": (models, "rename_model", without),
    "delete_model": (models, "delete_model", without),
    "set_model_tags": (models, "set_model_tags", changed(3, lambda tags: dict.fromkeys(tags, "x"))),
    "delete_model_tag": (models, "delete_model_tag", keyed("missing_ok", True)),
    "register_version": (registration, "register_version", keyed("description", None)),
    "copy_version": (registration, "register_version", keyed("tags", {"team": "seeded"})),
    "update_version": (versions, "update_version", keyed("description", "seeded")),
    "delete_version": (versions, "delete_version", without),
    "restore_version": (versions, "restore_version", without),
    "deprecate_version": (versions, "deprecate_version", keyed("reason", "seeded")),
    "set_stage": (stages, "set_stage", changed(4, lambda _stage: Stage.ARCHIVED)),
    "set_version_tags": (versions, "set_version_tags", without),
    "delete_version_tag": (versions, "delete_version_tag", without),
    "record_evaluation": (versions, "record_evaluation", changed(4, lambda metrics: {"auc": 0.123})),
    "set_alias": (aliases, "set_alias", without),
    "set_alias_with_an_old_view": (aliases, "check_expected_move", without),
    "delete_alias": (aliases, "delete_alias", keyed("missing_ok", True)),
}
"""One bug behind each rule of the machine."""


def test_every_rule_has_a_bug_to_find() -> None:
    rules = {name for name, member in vars(Catalogue).items() if hasattr(member, "hypothesis_stateful_rule")} - {
        "take_the_other_chair"
    }

    assert rules == set(BUGS)


@pytest.mark.parametrize("name", BUGS)
def test_the_machine_sees_a_bug_seeded_behind(name: str, sqlite_writers: Callable[[], Any]) -> None:
    module, function, bug = BUGS[name]
    seeded = mock.patch.object(module, function, bug(getattr(module, function)))
    with seeded, pytest.raises((AssertionError, pytest.fail.Exception, e.TouchmarkError)):
        run(sqlite_writers, examples=40, steps=40)
