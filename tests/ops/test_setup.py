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


@pytest.mark.parametrize("prefix", ["staging", "team/staging", "staging/team", "models/blobs"])
def test_no_registry_is_begun_among_the_objects_of_another(prefix: str, tmp_path: Path) -> None:
    """A registry at `models` sweeps what is old below `models/staging`, whoever put it there."""
    with pytest.raises(UnsupportedHomeError, match="name it otherwise"):
        setup.open_blobs(tmp_path, f"s3://bucket/{prefix}")

    assert list(tmp_path.iterdir()) == []
    setup.open_blobs(tmp_path, "s3://staging/models")  # a bucket may be called so
