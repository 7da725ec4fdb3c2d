"""Two servers on one registry: what one has acknowledged the other knows, and races of both have one order."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import touchmark
from tests.linearizability import NOWHERE, Called, Lost, Move, Read, Stand, is_linearizable, step_alias
from tests.served import Served

Operation = Read | Move | Lost
VERSIONS = 4


class Line:
    """One connection to a server, kept."""

    def __init__(self, server: Served) -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        self._link.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = self._link.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")

    def close(self) -> None:
        self._link.close()


def fill(server: Served, folder: Path) -> None:
    """Register VERSIONS versions of one model, with an alias."""
    file = folder / "weights.bin"
    file.write_bytes(b"weights")
    with touchmark.connect(f"http://127.0.0.1:{server.port}") as registry:
        source = registry.log_model(file, "weights").uri
        for _ in range(VERSIONS):
            registry.register_model(source, "churn")
        registry.set_alias("churn", "champion", 1)


# ── what one has acknowledged the other knows ────────────────────────────────────────────────────────────────────


def read_own_writes(servers: Sequence[Served], rounds: int, folder: Path, show: Callable[[str], None]) -> None:
    """Write through one and read through the other at once, in every way in which answers are kept, and in turns."""
    fill(servers[0], folder)
    lines = [Line(server) for server in servers]
    stale: list[str] = []
    compared = 0
    begun = time.monotonic()
    for number in range(1, rounds + 1):
        writer, reader = lines[number % 2], lines[1 - number % 2]
        version, tag = number % VERSIONS + 1, str(number)
        if number % 3 == 0:
            status, _ = writer.ask("PUT", "/api/v1/models/churn/aliases/champion", {"version": version})
            assert status == 200
            looks: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
                ("/api/v1/models/churn/aliases/champion", lambda found: found["version"] == version),  # noqa: B023
                ("/api/2.0/mlflow/registered-models/alias?name=churn&alias=champion",
                 lambda found: found["model_version"]["version"] == str(version)),  # noqa: B023
            ]  # fmt: skip
        elif number % 3 == 1:
            body = {"name": "churn", "version": "1", "key": "n", "value": tag}
            status, _ = writer.ask("POST", "/api/2.0/mlflow/model-versions/set-tag", body)
            assert status == 200
            looks = [
                ("/api/2.0/mlflow/model-versions/get?name=churn&version=1",
                 lambda found: found["model_version"]["tags"] == [{"key": "n", "value": tag}]),  # noqa: B023
                ("/api/v1/models/churn/versions/1", lambda found: found["tags"] == {"n": tag}),  # noqa: B023
                (f"/api/2.0/mlflow/model-versions/search?filter=tags.n%3D%27{tag}%27",
                 lambda found: [one["version"] for one in found.get("model_versions", ())] == ["1"]),
            ]  # fmt: skip
        else:
            body = {"name": "churn", "description": tag}
            status, _ = writer.ask("PATCH", "/api/2.0/mlflow/registered-models/update", body)
            assert status == 200
            looks = [
                ("/api/2.0/mlflow/registered-models/get?name=churn",
                 lambda found: found["registered_model"]["description"] == tag),  # noqa: B023
                ("/api/v1/models/churn", lambda found: found["description"] == tag),  # noqa: B023
            ]  # fmt: skip
        for path, is_new in looks:
            status, found = reader.ask("GET", path)
            assert status == 200, (path, status, found)
            compared += 1
            if not is_new(found):
                stale.append(f"{number}: {path}: {found}")
            again, same = writer.ask("GET", path)  # kept there from now on, until the other server writes
            assert (again, is_new(same)) == (200, True)
    seconds = time.monotonic() - begun
    for line in lines:
        line.close()
    show(
        f"{rounds} writes through one server, {compared} reads through the other at once: {len(stale)} stale "
        f"({rounds / seconds:.0f} rounds a second)"
    )
    assert not stale, stale[:3]


def share_bytes(servers: Sequence[Served], rounds: int, folder: Path) -> None:
    """Upload and register through one, pull through the other."""
    for number in range(rounds):
        ends = [f"http://127.0.0.1:{servers[(number + turn) % 2].port}" for turn in (0, 1)]
        content = random.Random(number).randbytes(200_000)
        file, target = folder / f"{number}.bin", folder / f"pulled-{number}"
        file.write_bytes(content)
        with touchmark.connect(ends[0]) as writer, touchmark.connect(ends[1]) as reader:
            version = writer.register_model(writer.log_model(file, "weights").uri, "bytes").version
            (pulled,) = reader.pull(f"models:/bytes/{version}", target).iterdir()
            assert hashlib.sha256(pulled.read_bytes()).digest() == hashlib.sha256(content).digest()


# ── races have one order ─────────────────────────────────────────────────────────────────────────────────────────


class Racer(threading.Thread):
    """Reads and moves one alias through one server, and writes down what was answered when."""

    def __init__(self, server: Served, alias: str, operations: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.line, self.operations, self.luck = Line(server), operations, random.Random(seed)
        self.path = f"/api/v1/models/churn/aliases/{alias}"
        self.history: list[Called[Operation]] = []
        self.under_way: tuple[int, int | None] | None = None
        self.after: dict[int, Stand] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            seen = NOWHERE[0]
            while len(self.history) < self.operations:
                called_at = time.monotonic_ns()
                try:
                    operation = self.act(seen)
                except ConnectionRefusedError:  # nothing was sent
                    self.line.close()
                    time.sleep(0.05)
                    continue
                except (OSError, http.client.HTTPException):
                    self.note_loss(called_at)
                    continue
                self.history.append(Called(called_at, time.monotonic_ns(), operation))
                seen = seen if operation.found is None else operation.found[0]
        except BaseException as failure:  # noqa: BLE001 - handed to the test
            self.failure = failure
        finally:
            self.line.close()

    def note_loss(self, called_at: int) -> None:
        """The server died: whether a move that was under way was made, the kept history will tell."""
        if self.under_way is not None:
            self.history.append(Called(called_at, None, Lost(*self.under_way, self.after)))
        self.line.close()  # http.client connects again by itself

    def act(self, seen: int) -> Read | Move:
        kind = self.luck.random()
        self.under_way = None
        if kind < 0.4:
            return Read(self.stand(*self.line.ask("GET", self.path)))
        version = self.luck.randrange(1, VERSIONS + 1)
        expected = None if kind < 0.6 else seen
        self.under_way = version, expected
        condition = {"If-None-Match": "*"} if expected == NOWHERE[0] else {"If-Match": f'"{expected}"'}
        headers = {} if expected is None else condition
        status, found = self.line.ask("PUT", self.path, {"version": version}, headers)
        if status == 412:
            assert found["code"] == "alias_moved"
            return Move(version, expected, None)
        return Move(version, expected, self.stand(status, found))

    def stand(self, status: int, found: dict[str, Any]) -> Stand:
        if status == 404 and found["code"] == "alias_not_found":
            return NOWHERE
        assert status == 200, (status, found)
        return found["log_index"], found["version"]


def race(
    servers: Sequence[Served],
    races: int,
    clients: int,
    each: int,
    folder: Path,
    show: Callable[[str], None],
    kill: Callable[[int], object] | None = None,
) -> None:
    """Let clients of both servers race for an alias, several times, and check every history and its spoilt copies.

    `kill` kills the server of a number and starts it again; it is called for each in turn while they race.
    """
    fill(servers[0], folder)
    checked = spoilt = 0
    kinds: Counter[str] = Counter()
    for number in range(races):
        racers = [
            Racer(servers[client % 2], f"race{number}", each, number * 1000 + client) for client in range(clients)
        ]
        for racer in racers:
            racer.start()
        if kill is not None:
            time.sleep(0.3)
            kill(number % 2)
        for racer in racers:
            racer.join(120)
            assert not racer.is_alive()
            assert racer.failure is None, racer.failure
        with touchmark.connect(f"http://127.0.0.1:{servers[0].port}") as registry:
            moves = registry.history(f"churn@race{number}")[::-1]
        indexes = [NOWHERE[0], *(move.log_index for move in moves)]
        after = dict(zip(indexes, ((move.log_index, move.after or 0) for move in moves), strict=False))
        for racer in racers:
            racer.after.update(after)
        follow = partial(step_along, after)
        history = [called for racer in racers for called in racer.history]
        assert is_linearizable(history, NOWHERE, follow), f"race {number} has no order"
        for called in history:
            refused = isinstance(called.operation, Move) and called.operation.found is None
            kinds["refused" if refused else type(called.operation).__name__.lower()] += 1
        checked += len(history)
        for other in spoil(history):
            assert not is_linearizable(other, NOWHERE, follow), "the checker would not have seen a stale answer"
            spoilt += 1
    show(
        f"{races} races of {clients} clients over two servers{'' if kill is None else ', one killed in each'}: {checked} operations ({dict(kinds)}), each race has an "
        f"order that explains it; {spoilt} spoilt copies were all told"
    )
    assert spoilt >= races
    assert min(kinds["read"], kinds["move"], kinds["refused"]) > 0
    assert (kill is None) == (kinds["lost"] == 0)


def step_along(after: Mapping[int, Stand], state: Stand, operation: Operation) -> Stand | None:
    """Return where an alias stands after an operation; every move must be the one that the kept history has next."""
    found = step_alias(state, operation)
    return found if found in {state, after.get(state[0])} else None


def spoil(history: list[Called[Operation]]) -> list[list[Called[Operation]]]:
    """Return copies of a history in which one read is older than it may be: what two moves before it had replaced."""
    moves = sorted(
        (called for called in history if isinstance(called.operation, Move) and called.operation.found is not None),
        key=lambda called: called.called_at,
    )
    copies = []
    for place, read in enumerate(history):
        over = [move for move in moves if move.answered_at is not None and move.answered_at < read.called_at]
        old = sorted(
            {move.operation.found for move in over if isinstance(move.operation, Move) and move.operation.found}
        )
        if isinstance(read.operation, Read) and len(old) > 2:
            copy = history[:]
            copy[place] = Called(read.called_at, read.answered_at, Read(old[-3]))
            copies.append(copy)
        if len(copies) == 2:
            break
    return copies
