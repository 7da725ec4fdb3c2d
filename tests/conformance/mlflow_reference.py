"""MLflow's own server, from the package the tests have anyway, to play the same calls to it and to Touchmark.

The peer's answers are the measure; nothing here knows what they should be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.parts import skip_without
from tests.served import find_port

START_SECONDS = 90


def plain_environment() -> dict[str, str]:
    """Return this process's environment without what would lead MLflow elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}


@contextmanager
def run_reference(folder: Path) -> Iterator[str]:
    """Run a MLflow server with one worker, its database and files below `folder`, and give its address.

    Skips, visibly, where the package lacks what its server needs.
    """
    command = Path(sys.executable).parent / "mlflow"
    if not command.exists():
        skip_without("MLflow's server: install mlflow-skinny and flask beside this Python")
    folder.mkdir(parents=True, exist_ok=True)
    port = find_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    # Runners of jobs take as long to start as the server, and nothing here asks for one.
    environment = plain_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        # A group of its own: the server starts workers, and they must end with it.
        server = subprocess.Popen(
            [command, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(server, f"http://127.0.0.1:{port}", folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
