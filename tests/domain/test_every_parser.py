"""Every parser of the domain, and any value at all: it answers or it refuses with an error of ours, soon, always the same.

A parser is a function of `touchmark.domain` named `parse_…`, or a `check_…` or `find_…` of what came from outside. One that
is not in PARSERS below fails a test here, so none is forgotten. Round trips stand with the parsers' own tests, which
ROUND_TRIPS names.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import touchmark.domain
from touchmark.domain import (
    addresses,
    aliases,
    digest,
    idempotency,
    imports,
    ledger,
    names,
    paging,
    paths,
    references,
    repositories,
    search,
    tags,
    text,
    tracking,
    versions,
    webhooks,
)
from touchmark.domain.errors import TouchmarkError
from touchmark.domain.search import Searchable

HEX = "0123456789abcdef" * 4
TESTS = Path(__file__).parent.parent

PARSERS: dict[str, Callable[[str], object]] = {
    "addresses.find_address": addresses.find_address,
    "addresses.parse_import_prefix": addresses.parse_import_prefix,
    "addresses.parse_prefix": addresses.parse_prefix,
    "addresses.parse_url": addresses.parse_url,
    "aliases.parse_alias": aliases.parse_alias,
    "digest.parse_digest": digest.parse_digest,
    "idempotency.parse_idempotency_key": lambda key: idempotency.parse_idempotency_key(key, b"request"),
    "imports.find_copied": imports.find_copied,
    "ledger.parse_frontier": lambda stored: ledger.parse_frontier(len(stored), stored.encode("utf-8", "surrogatepass")),
    "names.parse_model_name": names.parse_model_name,
    "paging.parse_cursor": lambda cursor: paging.parse_cursor(cursor, "query", [int, str]),
    "paths.check_path": paths.check_path,
    "paths.check_paths": lambda listed: paths.check_paths(listed.split("\n")),
    "references.parse_model_reference": references.parse_model_reference,
    "references.parse_reference": references.parse_reference,
    "references.parse_version_number": references.parse_version_number,
    "repositories.parse_repository": repositories.parse_repository,
    "search.parse_filter": lambda words: [search.parse_filter(words, each) for each in Searchable],
    "search.parse_order": lambda words: [search.parse_order(words, each) for each in Searchable],
    "tags.check_tag_key": tags.check_tag_key,
    "tags.check_tag_value": lambda value: tags.check_tag_value("key", value),
    "tags.check_tags": lambda words: tags.check_tags({words: words}),
    "text.check_optional_text": lambda words: text.check_optional_text("field", words),
    "text.check_text": lambda words: text.check_text("field", words),
    "text.find_invisible": text.find_invisible,
    "text.find_unstorable": text.find_unstorable,
    "tracking.check_experiment_name": tracking.check_experiment_name,
    "tracking.check_key": lambda key: tracking.check_key("param", key),
    "tracking.check_logged_model_id": tracking.check_logged_model_id,
    "tracking.check_logged_model_name": tracking.check_logged_model_name,
    "tracking.check_params": lambda words: tracking.check_params({words: words}),
    "tracking.check_run_id": tracking.check_run_id,
    "tracking.check_run_name": tracking.check_run_name,
    "tracking.parse_end_status": tracking.parse_end_status,
    "tracking.parse_run_status": tracking.parse_run_status,
    "versions.find_stage": versions.find_stage,
    "webhooks.check_webhook_name": webhooks.check_webhook_name,
    "webhooks.parse_webhook_event": lambda words: webhooks.parse_webhook_event(words, words),
    "webhooks.parse_webhook_id": webhooks.parse_webhook_id,
    "webhooks.parse_webhook_url": lambda url: webhooks.parse_webhook_url(url, webhooks.WebhookRules()),
}
NO_TEXT = {
    "aliases.check_expected_move", "paging.check_limit",     "tracking.check_batch", "tracking.check_dataset", "tracking.check_experiment_id", "tracking.check_int64",
    "tracking.check_measurement", "tracking.check_metric", "tracking.check_owner", "webhooks.check_webhook_events",
}  # fmt: skip
"""Functions of such a name that take numbers, or what was parsed already."""
ROUND_TRIPS = {
    "references": ("domain/test_names_and_references.py", "test_every_allowed_name_can_be_referred_to"),
    "cursors": ("domain/test_paging.py", "test_a_cursor_gives_back_its_key"),
    "filters": ("domain/test_search.py", "test_the_canonical_text_of_a_condition_parses_to_it"),
    "manifests": ("artifacts/test_manifests.py", "test_a_built_manifest_is_read_back_as_itself"),
    "events": ("domain/test_events.py", "test_a_leaf_reads_back_as_the_event"),
}
"""What is written by us and read back: the test that what comes back is what was written."""

_PIECES = [
    "models:/", "runs:/", "m-" + HEX[:32], "sha256:" + HEX, "@", "/", "..", ".", "latest", "v1", "1", "-1", "é", "e\u0301",
    "\u202e", "\ud800", "\0", "\n", " ", "http://", "https://", "s3://", "hf://", "file:///", "[::1]", "127.0.0.1", "%2e%2e/",
    "%", "?", "#", ":", ":99999", "user:pass@", "xn--", "name", "=", "'", "`", "AND", "NOT", "(", ")", "LIKE '%", "IN (",
    "tags.", "created_at", "1e999", "9" * 5000, "\ufeff", "\U000e0100", "１", "RUNNING", "READY", "champion", ",", "DESC",
    "//", "\\", "*", "{", "[", '"', "m", "l", "e", "runs", "registered_model", "created",
]  # fmt: skip
anything = st.text(max_size=80) | st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


def outcome(parse: Callable[[str], object], words: str) -> str:
    """Return what a parser says, as text; a refusal must be of ours, short, and a sentence that any encoder can write."""
    try:
        return repr(parse(words))
    except TouchmarkError as error:
        refusal = error
    assert len(refusal.message.encode("utf-8", "strict")) < 10_000
    assert len(json.dumps(refusal.fields, default=repr)) < 40_000
    return f"{refusal.code} {refusal.message}"


@pytest.mark.parametrize("name", PARSERS)
def test_any_text_is_taken_or_refused_and_always_the_same(name: str) -> None:
    @given(anything)
    @example("")
    @example("\ud800")
    @example("[")
    @example("https://[")
    def check(words: str) -> None:
        assert outcome(PARSERS[name], words) == outcome(PARSERS[name], words)

    check()


@pytest.mark.parametrize("name", PARSERS)
def test_a_long_text_is_refused_or_taken_in_time(name: str) -> None:
    for piece in _PIECES:
        words = piece * (200_000 // len(piece))
        begun = time.perf_counter()
        outcome(PARSERS[name], words)
        assert time.perf_counter() - begun < 2, f"{piece[:20]!r}, {len(words)} characters"


@pytest.mark.parametrize(
    "name",
    ["aliases.parse_alias", "names.parse_model_name", "paths.check_path", "tags.check_tag_key", "digest.parse_digest"],
)
def test_what_is_taken_is_taken_again_as_it_is(name: str) -> None:
    @given(anything)
    def check(words: str) -> None:
        try:
            taken = PARSERS[name](words)
        except TouchmarkError:
            return
        assert isinstance(taken, str)
        assert PARSERS[name](taken) == taken

    check()


def test_every_parser_of_the_domain_is_tried_here() -> None:
    found = set()
    for module in pkgutil.iter_modules(touchmark.domain.__path__):
        loaded = importlib.import_module(f"touchmark.domain.{module.name}")
        for name, value in vars(loaded).items():
            is_own = inspect.isfunction(value) and value.__module__ == loaded.__name__
            if is_own and name.startswith(("parse_", "check_", "find_")):
                found.add(f"{module.name}.{name}")

    assert found == PARSERS.keys() | NO_TEXT & found
    assert found >= NO_TEXT, NO_TEXT - found


@pytest.mark.parametrize("what", ROUND_TRIPS)
def test_what_we_write_is_read_back_in_a_test_that_is_there(what: str) -> None:
    file, name = ROUND_TRIPS[what]
    assert f"def {name}" in (TESTS / file).read_text(encoding="utf-8")
