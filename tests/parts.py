"""What a test does when the machine lacks a part it needs.

A developer's laptop may skip; `.ci/run` sets TOUCHMARK_REQUIRE_ALL=1 and then a missing part is a failure, so that
a test cannot be switched off unnoticed by a package that is no longer installed.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(part: str) -> NoReturn:
    """Skip this test because `part` (what is missing and how to get it) is not here; fail it where all is required."""
    if os.environ.get("TOUCHMARK_REQUIRE_ALL") == "1":
        pytest.fail(f"missing, and TOUCHMARK_REQUIRE_ALL=1: {part}", pytrace=False)
    pytest.skip(part)
