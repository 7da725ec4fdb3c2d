"""One process that changes a registry step by step and says so: what `sweeping.py` interrupts.

    python -m tests.acceptance.acting HOME ACTION

`prepare` makes a home; `register`, `move` and `delete` change it. Each step is told on standard output only when the
registry has acknowledged it; a refusal is told with its error's code. Whatever else ends the process is a fault.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import TouchmarkError
from touchmark.domain.tracking import ArtifactOwner, LoggedModelStatus
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, artifacts, logged_models, models, registration, versions

WHO = Principal(PrincipalKind.ANONYMOUS, "anonymous")
NAME = "net"
CONTENT = b"the weights of version "


def say(line: str) -> None:
    """Say it at once, past every buffer, since this process may not live to flush one; by a call that no sweep counts."""
    os.writev(1, [f"{line}\n".encode()])


def register(registry: Registry, number: int, tell: Callable[[str], None]) -> None:
    """Log a model of one file and register it, telling each step."""
    model = logged_models.create_logged_model(registry, WHO, "logged", experiment="Default")
    owner = ArtifactOwner("logged_model", model.model_id)
    stored = artifacts.put_artifact(registry, WHO, owner, "model.bin", CONTENT + b"%d" % number)
    tell(f"stored {stored.digest}")
    logged_models.finish_logged_model(registry, WHO, model.model_id, LoggedModelStatus.READY)
    version = registration.register_version(registry, WHO, NAME, f"models:/{model.model_id}")
    tell(f"registered {version.version}")


def act(home: Path, action: str, tell: Callable[[str], None] = say) -> None:
    """Open the registry in a home and carry out one action."""
    registry = open_registry(home)
    tell("opened")
    if action == "prepare":
        models.create_model(registry, WHO, NAME)
        register(registry, 1, tell)
        register(registry, 2, tell)
        aliases.set_alias(registry, WHO, NAME, "champion", 1)
    elif action == "register":
        register(registry, 3, tell)
    elif action == "move":
        aliases.set_alias(registry, WHO, NAME, "champion", 2)
        tell("moved 2")
    elif action == "delete":
        versions.delete_version(registry, WHO, NAME, 2)
        tell("deleted 2")
    registry.close()
    tell("closed")


if __name__ == "__main__":
    try:
        act(Path(sys.argv[1]), sys.argv[2])
    except TouchmarkError as error:
        say(f"refused {error.code}: {error.message}")
