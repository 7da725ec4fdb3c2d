"""Two servers on one database with HAProxy in front, set up as docs/howto/two-servers.md says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import touchmark
from tests.acceptance.racing import fill
from tests.parts import skip_without
from tests.served import Served, find_port, launch, wait_for
from touchmark import errors
from touchmark.client._transport import Attempts, Transport
from touchmark.ops.fsck import check_registry, open_for_check

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "two-servers.md"
DRAIN_SECONDS = 2


def find_haproxy() -> str:
    """Return HAProxy's program; skips the test where there is none."""
    found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    return found or skip_without("HAProxy: apt-get install haproxy")


@contextmanager
def open_haproxy(folder: Path, ports: tuple[int, int]) -> Iterator[int]:
    """Run HAProxy with the configuration of the page, on other ports; give the one it listens on."""
    program, port = find_haproxy(), find_port()
    blocks = re.findall(r"```haproxy\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    config = "".join(blocks)
    for stated, real in zip((5000, 5001, 5002), (port, *ports), strict=True):
        assert f"127.0.0.1:{stated}" in config
        config = config.replace(f"127.0.0.1:{stated}", f"127.0.0.1:{real}")
    file = folder / "haproxy.cfg"
    file.write_text(config)
    subprocess.run([program, "-c", "-f", file], check=True, capture_output=True)
    process = subprocess.Popen([program, "-db", "-f", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_open(port))
        yield port
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Pair:
    """Two servers on one registry; either can be restarted on its port."""

    def __init__(self, home: Path, database: str, *flags: str) -> None:
        self.home = home
        self._flags = ("--database", database, "--no-log-requests", *flags)
        self.servers: list[Served] = []
        self.logs: list[str] = []
        for _ in range(2):
            self.servers.append(launch(home, *self._flags))
            self.servers[-1].wait_until_ready()

    @property
    def ports(self) -> tuple[int, int]:
        return self.servers[0].port, self.servers[1].port

    def restart(self, which: int) -> float:
        """Stop one in order and start it again; return how long the stop took."""
        begun = time.monotonic()
        server = self.servers[which]
        assert server.stop() == 0
        stopped = time.monotonic() - begun
        self.logs += server.log
        self.servers[which] = launch(self.home, *self._flags, port=server.port)
        self.servers[which].wait_until_ready()
        return stopped

    def kill(self, which: int) -> None:
        """Kill one and start it again on its port."""
        server = self.servers[which]
        server.process.kill()
        server.wait()
        self.logs += server.log
        self.servers[which] = launch(self.home, *self._flags, port=server.port)
        self.servers[which].wait_until_ready()

    def close(self) -> None:
        for server in self.servers:
            server.process.kill()
            server.wait()
            self.logs += server.log


@contextmanager
def open_pair(home: Path, database: str, *flags: str) -> Iterator[Pair]:
    """Run two servers for as long as the block runs."""
    pair = Pair(home, database, *flags)
    try:
        yield pair
    finally:
        pair.close()


class Customer(threading.Thread):
    """Asks without a pause, each request once: whatever is not answered well is kept in `failures`."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.transport = Transport(url)
        self.number = number
        self.stopping = threading.Event()
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        name, value = f"alias{self.number}", 0
        requests = [
            ("read", "GET", "/api/v1/models/churn/aliases/champion", None),
            ("move", "PUT", f"/api/v1/models/churn/aliases/{name}", lambda n: {"version": n % 2 + 1}),
            ("tag", "POST", "/api/2.0/mlflow/model-versions/set-tag",
             lambda n: {"name": "churn", "version": "1", "key": name, "value": str(n)}),
            ("run", "POST", "/api/2.0/mlflow/runs/create", lambda n: {"experiment_id": "0", "run_name": f"{name}-{n}"}),
            ("page", "GET", "/api/2.0/mlflow/registered-models/get?name=churn", None),
        ]  # fmt: skip
        while not self.stopping.is_set():
            value += 1
            for kind, method, path, make in requests:
                body = None if make is None else make(value)
                try:
                    self.transport.request(method, path, body=body, again=False, attempts=Attempts(attempts=1))
                    self.done[kind] += 1
                except errors.TouchmarkError as error:
                    self.failures.append(f"{time.monotonic():.3f} {kind}: {type(error).__name__} {error}")
        self.transport.close()


def roll(home: Path, database: str, rounds: int, show: Callable[[str], None]) -> None:
    """Restart each of two servers behind HAProxy again and again, while customers ask without a pause."""
    find_haproxy()
    stops: list[float] = []
    with (
        open_pair(home, database, "--drain-seconds", str(DRAIN_SECONDS)) as pair,
        open_haproxy(home.parent, pair.ports) as port,
    ):
        url = f"http://127.0.0.1:{port}"
        fill(pair.servers[0], home.parent)
        customers = [Customer(url, number) for number in range(8)]
        for customer in customers:
            customer.start()
        for _ in range(rounds):
            for which in (0, 1):
                time.sleep(1.5)  # HAProxy looks every half second whether the other one is back
                stops.append(pair.restart(which))
        time.sleep(1)
        for customer in customers:
            customer.stopping.set()
        for customer in customers:
            customer.join(30)
            assert not customer.is_alive()
        done = sum((customer.done for customer in customers), Counter[str]())
        failures = [failure for customer in customers for failure in customer.failures]
        with touchmark.connect(url) as registry:
            moves = sum(len(registry.history(f"churn@alias{number}")) for number in range(8))
    show(
        f"{len(stops)} restarts of two servers behind HAProxy: {done.total()} requests ({dict(done)}), "
        f"{len(failures)} failed; a stop took {max(stops):.1f} s at most, {DRAIN_SECONDS} of them draining"
    )
    assert not failures, failures[:5]
    assert moves == done["move"]
    assert [line for line in pair.logs if '"failure"' in line] == []
    opened = open_for_check(home, database)
    try:
        report = check_registry(opened)
    finally:
        opened.close()
    assert report.exit_code in {0, 3}, report.findings
