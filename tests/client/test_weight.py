"""What the SDK costs a process that loads models by name: few modules, and none of the heavy ones.

`import touchmark; touchmark.connect(url).resolve(reference)` is measured against MLflow by bench/; here modules are counted,
which is the same on every machine.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import touchmark
from tests.client.peer import Peer, serve_version
from touchmark import errors

RESOLVE = "import touchmark; touchmark.connect({url!r}).resolve('models:/churn/1')"
BUDGET = 130
"""Modules of a `resolve` above a bare interpreter; of some 110, all but 13 are of the standard library: http.client
(with ssl and email), dataclasses and what these import."""
NOT_NEEDED = {
    "asyncio", "concurrent.futures", "importlib.metadata", "pathlib", "shutil", "sqlite3", "tempfile", "unittest", "uuid",
    "msgspec", "click", "rich", "touchmark.client._cache", "touchmark.client._runs", "touchmark.client._transfer",
    "touchmark.client.loaders", "touchmark.domain.search", "touchmark.domain.tracking", "touchmark.embedded",
}  # fmt: skip


def list_loaded(program: str) -> set[str]:
    """Return the modules a program loads beyond those of a bare interpreter without site-packages' own hooks."""
    program = (
        "import sys, json\n"
        "before = set(sys.modules)\n"
        f"{program}\n"
        "loaded = sorted(set(sys.modules) - before)\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_resolving_loads_only_what_it_needs(peer: Peer) -> None:
    peer.answer = serve_version({"w": b"1"})

    loaded = list_loaded(RESOLVE.format(url=peer.url))

    assert peer.requests, "nothing was resolved"
    assert NOT_NEEDED & loaded == set()
    assert len(loaded) <= BUDGET, sorted(loaded)


def test_each_public_name_is_there_and_loaded_only_when_it_is_used() -> None:
    assert list_loaded("import touchmark") & {"touchmark.client", "touchmark.domain.errors"} == set()
    for name in touchmark.__all__:
        assert getattr(touchmark, name) is not None
    assert set(touchmark.__all__) <= set(dir(touchmark))


@pytest.mark.parametrize("cls", errors.list_error_classes())
def test_each_error_can_be_caught_by_its_name(cls: type[errors.TouchmarkError]) -> None:
    assert getattr(touchmark, cls.__name__) is cls
    assert getattr(touchmark.errors, cls.__name__) is cls


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"touchmark.*'nothing'"):
        _ = touchmark.nothing
