"""Where a registry may be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from touchmark.domain.errors import UnsupportedHomeError
from touchmark.ops import setup


def test_no_database_is_made_where_its_locks_would_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may mount a network's file system, so the kind that lies below this folder counts as one."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        pytest.skip("the kind of a file system is read from /proc")
    kinds = {line.split(" ")[2] for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()}
    monkeypatch.setattr(setup, "_NETWORK", frozenset(kinds))

    for url in (None, f"sqlite:///{tmp_path}/elsewhere.db"):
        with pytest.raises(UnsupportedHomeError, match="network file system"):
            setup.open_registry(tmp_path / "home", url)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
