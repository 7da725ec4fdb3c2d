"""Imports run one way. The contracts stand in pyproject.toml, each named by its reason; here they are run, and broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, ROOT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_import_contract_is_kept() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("domain/wrong", "import touchmark.storage.wrong", "Arrows never turn back"),
        ("storage/wrong", "import touchmark.artifacts.wrong", "Arrows never turn back"),
        ("services/wrong", "import touchmark.ops.wrong", "Arrows never turn back"),
        ("utils", "", "Arrows never turn back"),
        ("client/wrong", "import touchmark.storage.wrong", "The SDK stands on domain alone"),
        ("client/wrong", "import touchmark.embedded", "The SDK stands on domain alone"),
        ("server/wrong", "import touchmark.client.wrong", "The server never uses its own SDK"),
        ("protocols/native/wrong", "import touchmark.protocols.mlflow.wrong", "Protocols are translations"),
        ("services/wrong", "import sqlalchemy", "Only storage speaks SQL"),
        ("cli/wrong", "import psycopg", "Only storage speaks SQL"),
        ("client/wrong", "from obstore.store import LocalStore", "Only artifacts speaks to object stores"),
        ("services/wrong", "import litestar", "Only the HTTP edge knows the web framework"),
        ("domain/wrong", "import granian", "Only the HTTP edge knows the web framework"),
    ],
)
def test_a_wrong_import_breaks_the_contract_that_forbids_it(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "touchmark", ignore=shutil.ignore_patterns("__pycache__"))
    imported = line.removeprefix("import touchmark.").replace(".", "/") if "touchmark" in line else None
    for name in filter(None, (module, imported)):
        path = tmp_path / "touchmark" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
        path.touch()
    (tmp_path / "touchmark" / f"{module}.py").write_text(line + "\n")

    result = lint_imports(tmp_path)

    said = " ".join(result.stdout.split())
    assert result.returncode == 1, result.stdout + result.stderr
    assert any(contract in part.rpartition("KEPT")[2] for part in said.split("BROKEN")[:-1]), result.stdout
