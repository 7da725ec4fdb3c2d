"""What the tests of the SDK share: a foreign peer, a cache of their own, and no waiting between attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.peer import Peer, open_peer
from touchmark.client import _transport


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Give a server whose answers the test chooses."""
    with open_peer() as running:
        yield running


@pytest.fixture(autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this machine's registries and cache out of the tests, and make pauses short; return the cache's folder."""
    for name in ("TOUCHMARK_URL", "TOUCHMARK_HOME", "TOUCHMARK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TOUCHMARK_CACHE", str(cache))
    monkeypatch.setattr(_transport, "PAUSE_SECONDS", 0.002)
    return cache
