"""`import touchmark` stays cheap, and the SDK never drags the server's parts into a user's process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "alembic",
    "click",
    "granian",
    "litestar",
    "mlflow",
    "numpy",
    "obstore",
    "pandas",
    "psycopg",
    "rich",
    "sklearn",
}
HEAVY |= {"sqlalchemy", "yaml"}

# Counted above a bare interpreter. `import touchmark` only sets up names that are loaded on first use.
MODULE_BUDGET = {"touchmark": 12, "touchmark.domain": 12}


def list_loaded(module: str) -> set[str]:
    """Return the modules that `import module` adds to a bare interpreter."""
    program = (
        "import sys, json, importlib\n"
        "before = set(sys.modules)\n"
        f"importlib.import_module({module!r})\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["touchmark", "touchmark.domain", "touchmark.client"])
def test_importing_the_sdk_loads_nothing_heavy(module: str) -> None:
    loaded = list_loaded(module)

    assert module in loaded
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


@pytest.mark.parametrize("module", MODULE_BUDGET)
def test_an_import_keeps_its_budget_of_modules(module: str) -> None:
    loaded = list_loaded(module)

    assert len(loaded) <= MODULE_BUDGET[module], sorted(loaded)


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in {name.partition(".")[0] for name in list_loaded("numpy")} & HEAVY
