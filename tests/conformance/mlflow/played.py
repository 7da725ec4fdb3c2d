"""Stories of raw HTTP calls, played to a server, and what differs between two servers that were told the same.

What a server chooses by itself is replaced by what it stands for: ids by the order in which they were first seen, times by
the call during which they were taken, the server's own address by a word. Everything else is compared as it is, messages
where clients read them. No story stands here, and no judgement of a difference.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import httpx

READ_MESSAGES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"Registered Model with name=.* not found",
        r"Model Version \(name=.*, version=-?\d+\) not found",
        r"Registered model alias .* not found",
        r"Registered Model \(name=.*?\) already exists",
        r"Missing value for required parameter '\w+'\. See the API docs",
        r"Parameter 'version' must be an integer, got '.*?'",
        r"Invalid Model Version stage",
        r"'latest' alias name \(case insensitive\) is reserved",
        r"Version alias name '.*' is reserved",
        r"Invalid model version source",
        r"No Experiment with id=\w+ exists",
        r"Could not find experiment with name '.*'",
        r"Experiment\(name=.*\) already exists",
        r"Run with id=\w+ not found",
        r"The run \w+ must be in the 'active' state",
        r"Changing param values is not allowed",
        r"No tag with name: .*? in run with id",
        r"Logged model with ID '.*?' not found",
        r"Webhook with ID .*? not found",
        r"Invalid (?:attribute|order by) key '.*?'",
        r"Invalid clause\(s\) in filter string",
        r"Parameter value is either not quoted or unidentified quote types",
    )
)
"""What clients, or scripts written against them, look for: where the peer says it, the same must be said."""

_ID = re.compile(r"\bm-[0-9a-f]{32}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_PLACE = re.compile(r"(mlflow-artifacts:/)(\d+)(?=/|$)")
_MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
_PAUSE_SECONDS = 0.002
_ORDERED_BY = {
    "tags": ("key",),
    "aliases": ("alias",),
    "params": ("key",),
    "metrics": ("key",),
    "latest_versions": ("version",),
    "dataset_inputs": ("dataset", "name"),
    "model_inputs": ("model_id",),
    "model_outputs": ("step",),
}
"""Lists whose order neither server promises, and by what they are told."""
_TIMES = re.compile(r"time|timestamp", re.IGNORECASE)
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Heard:
    """A call and its answer, in words that do not depend on who answered."""

    call: str
    status: int
    kind: str
    """The answer's media type."""
    body: Any

    @property
    def error_code(self) -> str | None:
        """MLflow's error code, if the answer is an error."""
        return str(self.body.get("error_code")) if self.status >= 400 and isinstance(self.body, dict) else None


@dataclass
class Player:
    """One server to which a story is told."""

    client: httpx.Client
    heard: list[Heard] = field(default_factory=list)
    _began: list[int] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)
    _experiments: dict[str, str] = field(default_factory=lambda: {"0": "0"})

    def __call__(self, method: str, path: str, /, **fields: Any) -> Any:
        """Send MLflow's fields as it wants them for this method, and return the answer's JSON as it came."""
        if method == "GET":
            return self.send(method, path, params=list(_as_query(fields)))
        return self.send(method, path, json=fields)

    def send(self, method: str, path: str, **request: Any) -> Any:
        """Send any request; `path` without a slash lies below MLflow's prefix."""
        address = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
        # Times are in milliseconds: so no two calls share one.
        time.sleep(_PAUSE_SECONDS)
        self._began.append(time.time_ns() // 1_000_000)
        answer = self.client.request(method, address, **request)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        found: Any = answer.json() if kind == "application/json" else answer.text
        told = self._tell(f"{method} {path}"), self._tell(_shown(request))
        if path == "experiments/create" and isinstance(found, dict) and "experiment_id" in found:
            self._experiments.setdefault(str(found["experiment_id"]), f"<experiment of call {len(self.heard)}>")
        self.heard.append(Heard(" ".join(told).strip()[:400], answer.status_code, kind, self._plain(found)))
        return found if isinstance(found, dict) else {}

    def _tell(self, text: str) -> str:
        text = text.replace(str(self.client.base_url).rstrip("/"), "<server>")
        text = _ID.sub(lambda match: self._ids.setdefault(match[0], f"<id of call {len(self.heard)}>"), text)
        return _PLACE.sub(lambda match: match[1] + self._experiments.get(match[2], match[2]), text)

    def _plain(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._plain(item, name) for name, item in value.items()}
        if isinstance(value, list):
            items = [self._plain(item, key) for item in value]
            return sorted(items, key=partial(_place, _ORDERED_BY[key])) if key in _ORDERED_BY else items
        if isinstance(value, str):
            if key == "experiment_id":
                return self._experiments.get(value, value)
            if key == "next_page_token":
                return "<token>"
            if key in {"run_name", "name", "value"} and _MADE_UP_NAME.fullmatch(value):
                return "<made up>"
            return self._tell(value)
        if isinstance(value, int) and _TIMES.search(key):
            return self._when(value)
        return value

    def _when(self, at_ms: int) -> int | str:
        """Return the number of the call during which a time was taken, or the time if it is none of this story's."""
        if not self._began or abs(at_ms - self._began[0]) > _DAY_MS:
            return at_ms
        before = [number for number, began in enumerate(self._began) if began <= at_ms]
        return f"<at call {before[-1]}>" if before else "<before>"


def _place(keys: Sequence[str], item: Any) -> str:
    for key in keys:
        item = item.get(key, "") if isinstance(item, dict) else item
    return json.dumps(item, sort_keys=True)


def dig(answer: Any, *keys: str | int) -> Any:
    """Return a value inside an answer, or the text `missing`, so that a story goes on after a failure."""
    for key in keys:
        try:
            answer = answer[key]
        except (KeyError, IndexError, TypeError):
            return "missing"
    return answer


Story = Callable[[Player], None]


def play(story: Story, address: str) -> list[Heard]:
    """Tell a story to a server and return what was heard."""
    with httpx.Client(base_url=address, timeout=60) as client:
        player = Player(client)
        story(player)
        return player.heard


@dataclass(frozen=True)
class Finding:
    """One field that differs: of which call, and what each said. What is absent is None."""

    story: str
    call: str
    field: str
    peer: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.call}\n    {self.field}: peer {_short(self.peer)}\n    {' ' * len(self.field)}  ours {_short(self.ours)}"


def compare(story: Story, peer: Sequence[Heard], ours: Sequence[Heard]) -> list[Finding]:
    """Return what differs, call by call, field by field; of two errors the message only where clients read it."""
    assert len(peer) == len(ours), "a story is as long for every server"
    return [
        Finding(story.__name__, own.call, *differs)
        for theirs, own in zip(peer, ours, strict=True)
        for differs in _compare(theirs, own)
    ]


_Differs = tuple[str, Any, Any]


def _compare(peer: Heard, ours: Heard) -> Iterator[_Differs]:
    says = _summary(peer), _summary(ours)
    if says[0] != says[1]:
        yield "answer", *says
        return
    if peer.kind != ours.kind:
        yield "content-type", peer.kind, ours.kind
    if ours.status < 400:
        yield from _compare_values("", peer.body, ours.body)
    elif isinstance(ours.body, dict) and isinstance(peer.body, dict):
        yield from _compare_messages(str(peer.body.get("message")), str(ours.body.get("message")))


def _compare_messages(peer: str, ours: str) -> Iterator[_Differs]:
    read = [found[0] for pattern in READ_MESSAGES if (found := pattern.search(peer))]
    if not ours or any(words not in ours for words in read[:1]):
        yield "message", peer, ours


def _compare_values(where: str, peer: Any, ours: Any) -> Iterator[_Differs]:
    if {} in (peer, ours) and None in (peer, ours):
        return  # an empty message says what an absent one does
    if isinstance(peer, dict) and isinstance(ours, dict):
        for key in sorted({*peer, *ours}):
            yield from _compare_values(f"{where}.{key}".lstrip("."), peer.get(key), ours.get(key))
    elif isinstance(peer, list) and isinstance(ours, list):
        for theirs, own in zip_longest(peer, ours):
            yield from _compare_values(f"{where}[]", theirs, own)
    elif peer != ours:
        yield where, peer, ours


def _summary(heard: Heard) -> str:
    return f"{heard.status} {heard.error_code}" if heard.status >= 400 else str(heard.status)


def _as_query(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            yield key, str(item)


def _shown(request: Mapping[str, Any]) -> str:
    return " ".join(
        value if isinstance(value, str) else json.dumps(value, default=repr) for value in request.values() if value
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"
