"""What people type on the command line, taken apart: `k=v`, `NAME/3`, a name or a reference. Rules are the domain's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from touchmark.client._registry import Registry

__all__ = ["Number", "find_target", "is_reference", "parse_metrics", "parse_pairs", "parse_version"]


class Number(click.ParamType[int]):
    """A version's number."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Raises click.UsageError."""
        text = str(value)
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            self.fail(f"{text!r} is no version's number: write 3, for one.", param, ctx)
        return int(text)


def parse_pairs(words: Iterable[str], what: str) -> dict[str, str]:
    """Return `k=v` words as a mapping; a value may hold `=`, a key may not. Raises click.UsageError."""
    pairs: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{word!r} is no {what}: write KEY=VALUE.")
        if key in pairs:
            raise click.UsageError(f"The {what} {key!r} is given twice.")
        pairs[key] = value
    return pairs


def parse_metrics(words: Iterable[str]) -> dict[str, float]:
    """Return `auc=0.93` words as numbers; nan, inf and -inf are numbers, too. Raises click.UsageError."""
    metrics: dict[str, float] = {}
    for key, text in parse_pairs(words, "metric").items():
        try:
            metrics[key] = float(text)
        except ValueError:
            raise click.UsageError(f"The metric {key!r} is {text!r}: write a number, such as {key}=0.93.") from None
    return metrics


def is_reference(text: str) -> bool:
    """Answer whether the text chooses a version (`NAME/3`, `NAME@champion`, `models:/...`) rather than naming a model."""
    return "/" in text or "@" in text


def parse_version(text: str) -> tuple[str, int]:
    """Return the name and number of `NAME/3`; an alias may move between two looks, so it is refused here.

    Raises InvalidReferenceError.
    """
    from touchmark.domain.errors import InvalidReferenceError
    from touchmark.domain.references import VersionReference, parse_model_reference

    reference = parse_model_reference(text)
    if not isinstance(reference, VersionReference) or reference.path is not None:
        raise InvalidReferenceError(reference=text[:300], reason="write the number, such as NAME/3")
    return str(reference.name), reference.version


def find_target(registry: Registry, text: str) -> tuple[str, int]:
    """Return the name and number that a reference to a version means now; asks the registry unless it is `NAME/3`.

    Raises InvalidReferenceError, NotFoundError and its kinds.
    """
    from touchmark.domain.errors import InvalidReferenceError
    from touchmark.domain.references import VersionReference, parse_model_reference

    reference = parse_model_reference(text)
    if reference.path is not None:
        raise InvalidReferenceError(reference=text[:300], reason="it names a file in a version")
    if isinstance(reference, VersionReference):
        return str(reference.name), reference.version
    found = registry.resolve(text)
    return found.name, found.version
