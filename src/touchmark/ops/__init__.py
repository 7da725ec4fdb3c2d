"""Running a registry: setting up, checking, backing up, restoring, moving in and out.

Calls services and storage, knows no protocol.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""What is told how far something has got: what is being gone through, how many so far, how many in all or None."""
