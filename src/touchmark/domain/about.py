"""What this software calls itself."""

from __future__ import annotations

VERSION = "0.1.0"
"""The version of Touchmark (pyproject.toml says the same; a test compares)."""
