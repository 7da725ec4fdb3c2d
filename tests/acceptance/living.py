"""A registry's life in one process tree: what `test_power_cut.py` records. Says what it begins, and what it was promised.

    python -m tests.acceptance.living ROOT

A server on a home that is not there yet; versions, an alias, a deletion through the SDK; a version into the cache and into
a folder; two backups by the command line; a restore. Each line is told when the answer has come, by a call of its own, so
that it stands in the trace between the calls before and after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import touchmark
from tests.served import digest_of, launch

NAME = "net"
CONTENTS = {
    number: {
        "weights.bin": bytes((index * number * 7 + index // 251) % 256 for index in range(9_000 * number)),
        "config/shared.json": b'{"layers": 3}',
        "config/own.json": b'{"number": %d}' % number,
    }
    for number in (1, 2, 3)
}
"""The files of each version."""


def tell(kind: str, **facts: Any) -> None:
    """Say it in one call, past every buffer."""
    os.writev(1, [f"told {json.dumps({'kind': kind, **facts})}\n".encode()])


def register(registry: touchmark.Registry, number: int, folder: Path) -> None:
    """Register a version of some files."""
    for path, content in CONTENTS[number].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    tell("begin", what="register", version=number)
    version = registry.register_model(folder, NAME)
    assert version.version == number
    tell("registered", version=number)


def run(*words: str) -> None:
    """Run a command to its good end."""
    subprocess.run([sys.executable, "-B", "-m", "touchmark", *words], check=True, stdout=subprocess.DEVNULL)


def live(root: Path) -> None:
    """Live it."""
    home, scratch = root / "disk" / "home", root / "scratch"
    os.environ["TOUCHMARK_CACHE"] = str(root / "disk" / "cache")
    served = launch(home)
    served.wait_until_ready()
    tell("ready", url=f"http://127.0.0.1:{served.port}")
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        register(registry, 1, scratch / "1")
        registry.set_alias(NAME, "champion", 1)
        tell("moved", version=1)
        register(registry, 2, scratch / "2")
        tell("begin", what="move", version=2)
        registry.set_alias(NAME, "champion", 2)
        tell("moved", version=2)
        tell("begin", what="delete", version=1)
        registry.delete_version(NAME, 1)
        tell("deleted", version=1)
        registry.fetch(f"models:/{NAME}/2")
        tell("fetched", version=2)
        registry.pull(f"models:/{NAME}/2", root / "disk" / "pulled")
        tell("pulled", version=2)
        tell("begin", what="backup")
        run("backup", str(root / "disk" / "backup"), "--home", str(home))
        tell("saved", newest=2)
        register(registry, 3, scratch / "3")
        run("backup", str(root / "disk" / "backup"), "--home", str(home))
        tell("saved", newest=3)
    assert served.stop() == 0
    tell("begin", what="restore")
    run("restore", str(root / "disk" / "backup"), "--home", str(root / "disk" / "restored"))
    tell("restored", newest=3)


def expected_digests(number: int) -> dict[str, str]:
    """Return the digests of a version's files by path."""
    return {path: digest_of(content) for path, content in CONTENTS[number].items()}


if __name__ == "__main__":
    live(Path(sys.argv[1]))
