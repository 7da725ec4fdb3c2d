"""MLflow itself, as the tests of moving in and out need it: a filled database, and a real server where one is installed.

Both come from `mlflow-skinny`, which the tests have anyway; the server is that of tests/conformance/mlflow_reference.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILL = Path(__file__).with_name("mlflow_fill.py")


@dataclass(frozen=True)
class Peer:
    """What an MLflow holds: where it is, where its files are, and the ids of what was made."""

    uri: str
    artifacts: Path
    made: dict[str, Any]


def fill(python: str, uri: str, *more: str) -> dict[str, Any]:
    """Fill an MLflow through its own client and return the ids of what was made."""
    done = subprocess.run(
        [python, str(FILL), uri, *more], capture_output=True, text=True, check=False, timeout=110, env=environment()
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def environment() -> dict[str, str]:
    """Return the environment without what would lead MLflow elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true"}


def fill_database(folder: Path) -> Peer:
    """Make an MLflow database in a folder, with files beside it."""
    artifacts = folder / "art"
    artifacts.mkdir()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return Peer(uri, artifacts, fill(sys.executable, uri, artifacts.as_uri()))


def copy_database(peer: Peer, folder: Path) -> Peer:
    """Return the same with a database of its own, to be changed; the files stay where they are."""
    shutil.copy(peer.uri.removeprefix("sqlite:///"), folder / "copy.db")
    return Peer(f"sqlite:///{folder / 'copy.db'}", peer.artifacts, peer.made)
