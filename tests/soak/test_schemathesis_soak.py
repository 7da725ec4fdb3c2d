"""The OpenAPI document against a real server with 300 random examples an operation, others each day."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.processes
def test_no_request_of_thousands_is_answered_with_what_the_document_does_not_say() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0"]
    words.append("tests/conformance/test_native_schemathesis.py")
    more = {
        "TOUCHMARK_SCHEMA_EXAMPLES": os.environ.get("TOUCHMARK_SCHEMA_EXAMPLES") or "300",
        "TOUCHMARK_SCHEMA_SEED": str(int(time.time()) // 86_400),
    }
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-8000:]
