"""What MLflow's API has and a model registry does not: each answers at once, as an endpoint that does not exist.

The error code is the one by which clients tell a missing endpoint; the status (404) is none they send again for.
"""

from __future__ import annotations

import re

from touchmark.domain.errors import RouteNotFoundError

_FAMILIES = (
    (r"traces?\b|mlflow/search-traces|otel|v1/traces", "traces"),
    (r"datasets\b", "evaluation data sets"),
    (r"scorers?\b|issues\b|label", "scorers and reviews of traces"),
    (r"gateway|endpoints\b|secrets\b|budgets?\b", "the AI gateway"),
    (r"assistant|chat\b", "the assistant"),
    (r"prompt-optimization|jobs?\b", "optimisation jobs"),
    (r"workspaces?\b", "workspaces"),
    (r"users\b|permissions\b|roles\b", "MLflow's own users and permissions"),
)
_PATTERNS = [(re.compile(rf"/mlflow/(?:{pattern})"), name) for pattern, name in _FAMILIES]


def no_route(method: str, path: str) -> RouteNotFoundError:
    """Return the error of an address that does not exist, with a word on what it would be about."""
    shown = path[:300]
    for pattern, name in _PATTERNS:
        if pattern.search(shown):
            sentence = f"This server is a model registry and has no {name}: there is nothing at {method} {shown}."
            return RouteNotFoundError(sentence, method=method, path=shown)
    return RouteNotFoundError(method=method, path=shown)
