"""The command starts quickly: it imports what it uses, when it uses it. Modules are counted, not milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.running import Server, environment

# Above a bare interpreter that has imported json, for the list. Of `--help`, click alone is 60.
BUDGET = {"--help": 100, "ls --help": 90, "version": 95, "resolve": 160}
HEAVY = {
    "alembic", "granian", "litestar", "mlflow", "msgspec", "numpy", "obstore", "pandas", "psycopg", "pydantic", "rich",
    "sqlalchemy", "yaml",
}  # fmt: skip


def list_loaded(*words: str, url: str = "http://127.0.0.1:9") -> set[str]:
    """Return the modules that a run of the command adds to a bare interpreter."""
    program = (
        "import sys, json\n"
        "before = set(sys.modules)\n"
        "from touchmark.cli import main\n"
        "try:\n"
        f"    main({list(words)!r})\n"
        "finally:\n"
        "    print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60,
        env=environment(TOUCHMARK_URL=url),
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", ["--help", "ls --help", "version"])
def test_help_and_version_import_no_server_no_framework_and_no_table(words: str) -> None:
    loaded = list_loaded(*words.split())

    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert not any(name.startswith(("touchmark.client", "touchmark.server", "touchmark.ops")) for name in loaded)
    assert len(loaded) <= BUDGET[words], sorted(loaded)


def test_resolve_imports_the_sdk_and_nothing_heavy(server: Server) -> None:
    loaded = list_loaded("resolve", "nothing/1", url=server.url)

    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert "touchmark.client._registry" in loaded
    assert len(loaded) <= BUDGET["resolve"], sorted(loaded)


def test_a_command_imports_no_other_command() -> None:
    loaded = list_loaded("rename", "--help")

    assert "touchmark.cli.models" in loaded
    assert not {"touchmark.cli.backup", "touchmark.cli.serve", "touchmark.cli.search"} & loaded


def test_the_server_would_be_seen() -> None:
    assert "litestar" in list_loaded("serve", "--port", "0")
