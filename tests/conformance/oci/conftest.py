"""One server a file and database; each test has two models of its own as repositories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from tests import postgres
from tests.conformance.oci.distribution import Place
from tests.served import Served, serve


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Start Touchmark on each database."""
    with ExitStack() as stack:
        flags = ["--no-log-requests"]
        if request.param == "postgres":
            server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
            flags += ["--database", stack.enter_context(server.open_database())]
        yield stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))


@pytest.fixture
def place(served: Served) -> Place:
    """Give an empty repository."""
    return Place(served, f"net-{uuid4().hex[:8]}")


@pytest.fixture
def other(served: Served) -> Place:
    """Give another one on the same server."""
    return Place(served, f"other-{uuid4().hex[:8]}")
