"""What the command line prints: data on standard output, talk on standard error.

One `Output` for a command. It is given the JSON of the HTTP API and shows it in one of three ways:

    on a terminal        a table as wide as the terminal; times local, digests short, sizes rounded
    into a file or pipe  one line a row, cells between tabs, no heading, nothing shortened
    with --json          the JSON itself: a list is an array, the log is one object a line

Whatever comes from a registry was written by somebody: `clean` takes out of it what a terminal would obey, and nothing is
ever read as markup. Nothing here asks a registry, and rich is imported only where a table or a bar is drawn.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from shutil import get_terminal_size
from typing import IO, Any

__all__ = [
    "Column",
    "Json",
    "Kind",
    "Output",
    "clean",
    "shorten_digest",
    "show_ago",
    "show_size",
    "show_time",
    "to_json",
]

Json = Mapping[str, Any]
"""One object of the HTTP API, decoded."""

DIGEST_SHOWN = 12
"""Hexadecimal digits of a digest in a table; 48 bits are enough to tell one registry's versions apart by eye."""


class Kind(StrEnum):
    """How a value is shown."""

    TEXT = "text"
    NUMBER = "number"
    SIZE = "size"
    TIME = "time"
    DIGEST = "digest"
    MAP = "map"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, or one line of a record.

    `key` names the field of the JSON (`actor.id`: a field of a field). `rank` says what a narrow terminal can do without:
    the highest goes first, 0 stays.
    """

    key: str
    title: str
    kind: Kind = Kind.TEXT
    rank: int = 0


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_PLAIN = re.compile(r"[\x20-\x7e]*")
# What a terminal obeys (Cc), what hides or turns text around (Cf, among them the bidi marks), what cannot be encoded (Cs),
# and separators that are line breaks to some readers (Zl, Zp). The two joiners are spelling in Persian, Hindi and emoji.
_DANGEROUS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


@lru_cache(maxsize=4096)
def _show_character(char: str) -> str:
    if char not in _JOINERS and unicodedata.category(char) in _DANGEROUS:
        return _NAMED.get(char) or (f"\\u{ord(char):04x}" if ord(char) > 0xFF else f"\\x{ord(char):02x}")
    return char


def clean(text: object, *, lines: bool = False) -> str:
    r"""Return text with every character that a terminal would obey written out (`\x1b`); `lines` lets line ends stand."""
    shown = str(text)
    if _PLAIN.fullmatch(shown):
        return shown
    if lines:
        return "\n".join(clean(line) for line in shown.splitlines())
    return "".join(map(_show_character, shown))


def _dump_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON in which dangerous characters are escapes: the same value to a parser, harmless to a terminal."""
    separators = (",", ":") if indent is None else (",", ": ")
    # An error's fields may hold a path or the like: its text will do.
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators, default=str)
    if written.isascii() and "\x7f" not in written:
        return written
    # Only inside strings can a character be dangerous here: what stands between them is JSON's own, and ASCII.
    escape = json.encoder.encode_basestring_ascii
    return "".join(
        escape(char)[1:-1] if char != "\n" and _show_character(char) is not char else char for char in written
    )


def to_json(value: object) -> Any:
    """Return what the SDK hands out as the JSON of the HTTP API; numbers JSON lacks are the strings the API writes."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
        if hasattr(value, "sealed"):  # the one field of the API that the SDK works out
            found["sealed"] = value.sealed
        return found
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return repr(value)
    return value


def shorten_digest(digest: str) -> str:
    """Return the first 12 hexadecimal digits of a digest, without `sha256:`."""
    return digest.rpartition(":")[2][:DIGEST_SHOWN]


def show_time(at: int) -> str:
    """Return microseconds UTC as local ISO 8601 with its offset, to the second."""
    try:
        return datetime.fromtimestamp(at / 1e6, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    except (OverflowError, OSError, ValueError):  # a year beyond 9999: a number is better than no answer
        return str(at)


_UNITS = (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def show_ago(at: int, now: int) -> str:
    """Return how long ago, or ahead, a time was, in its largest unit: `3 days ago`. Both in microseconds UTC."""
    seconds = abs(now - at) // 1_000_000
    if seconds < 5:
        return "now"
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds >= length), ("second", 1))
    count = seconds // length
    words = f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{words} ago" if at <= now else f"in {words}"


def show_size(size_bytes: int) -> str:
    """Return a size in bytes with its binary unit: `1.2 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    power = 1
    while power < 5 and size_bytes / 1024**power >= 1023.95:  # what would be rounded to 1024.0
        power += 1
    return f"{size_bytes / 1024**power:.1f} {'KMGTP'[power - 1]}iB"


def _pick(item: Json, column: Column) -> Any:
    """Return the field a column shows; a dot goes one object deeper."""
    value: Any = item
    for key in column.key.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _show(value: Any, kind: Kind, *, full: bool) -> str:
    """Return one value as text; `full` shortens nothing and keeps numbers plain."""
    if value is None or value in ("", {}, []):
        return ""
    match kind:
        case Kind.TIME:
            return show_time(value) if full else show_time(value)[:16]
        case Kind.SIZE if not full:
            return show_size(value)
        case Kind.DIGEST if not full:
            return clean(shorten_digest(value))
        case Kind.MAP:
            return clean(", ".join(f"{key}={_show(item, Kind.TEXT, full=full)}" for key, item in value.items()))
        case Kind.LIST:
            return clean(", ".join(map(str, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(value)


def _show_at_length(value: Any, kind: Kind) -> str:
    """Return one value of a record: rounded and exact, a line for each pair of a map, line ends of a text kept."""
    shown = _show(value, kind, full=True)
    match kind:
        case Kind.SIZE:
            return f"{show_size(value)} ({value} bytes)" if value >= 1024 else f"{value} bytes"
        case Kind.TIME:
            return f"{shown} ({show_ago(value, _read_clock())})"
        case Kind.MAP:
            return "\n".join(clean(f"{key} = {_show(item, Kind.TEXT, full=True)}") for key, item in value.items())
        case Kind.TEXT if isinstance(value, str):
            return clean(value, lines=True)
    return shown


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Output:
    """Where a command prints. Reads the terminal's width and nature when it is built."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, out: IO[str] | None = None, err: IO[str] | None = None
    ) -> None:
        """Take standard output and standard error unless others are given."""
        self.as_json = as_json
        self.quiet = quiet
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.is_terminal = self.out.isatty()

    # ── talk ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> None:
        """Tell the person something that is no data; silent with --quiet and with --json."""
        if not self.quiet and not self.as_json:
            self._write(self.err, clean(text, lines=True))

    def warn(self, text: str) -> None:
        """Tell the person or the program's log something that should not be missed; --quiet does not silence it."""
        self._write(self.err, f"Warning: {clean(text)}")

    def fail(self, code: str, message: str, fields: Json, exit_code: int, hint: str | None = None) -> None:
        """Print an error: a sentence and the next step, or with --json one line of JSON."""
        if self.as_json:
            shown = {"code": code, "detail": message, "fields": fields, "exit_code": exit_code, "hint": hint}
            self._write(self.err, _dump_json(shown))
            return
        self._write(self.err, f"Error: {clean(message, lines=True)}")
        if hint:
            self._write(self.err, hint)

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def print_text(self, text: str) -> None:
        """Print one line of data, such as a path or a pinned reference."""
        self._write(self.out, clean(text))

    def print_record(self, found: object, columns: Sequence[Column]) -> None:
        """Print one object of the SDK or of JSON: a line for each field that has a value; all of it with --json."""
        item = to_json(found)
        if self.as_json:
            self._write(self.out, _dump_json(item, indent=2))
            return
        pairs = [(column, _pick(item, column)) for column in columns]
        if not self.is_terminal:
            self._write_lines(f"{column.key}\t{_show(value, column.kind, full=True)}" for column, value in pairs)
            return
        width = max((len(column.title) for column in columns), default=0) + 2
        for column, value in pairs:
            if value not in (None, "", {}, []):
                first, *others = _show_at_length(value, column.kind).split("\n")
                self._write_lines([f"{column.title:<{width}}{first}", *(" " * width + line for line in others)])

    def print_table(self, values: Iterable[object], columns: Sequence[Column], *, empty: str) -> None:
        """Print a list, page by page as it comes where no table is drawn; `empty` is said of a list without items."""
        items = map(to_json, values)
        if self.as_json:
            self._print_array(items)
            return
        first = next(items, None)
        if first is None:
            self.say(empty)
            return
        if self.is_terminal:
            self._draw_table([first, *items], columns)
            return
        self._write_row(first, columns)
        for item in items:
            self._write_row(item, columns)

    def print_event(self, item: Json, columns: Sequence[Column]) -> None:
        """Print one entry of a stream at once: a line of JSON with --json, else a row that needs no table around it."""
        if self.as_json:
            self._write(self.out, _dump_json(item))
        elif self.is_terminal:
            self._write(self.out, "  ".join(filter(None, (_show(_pick(item, c), c.kind, full=False) for c in columns))))
        else:
            self._write_row(item, columns)
        self.out.flush()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _print_array(self, items: Iterable[Json]) -> None:
        before = "[\n"
        for item in items:
            self.out.write(before + _dump_json(item))
            before = ",\n"
        self._write(self.out, "[]" if before == "[\n" else "\n]")

    def _write_row(self, item: Json, columns: Sequence[Column]) -> None:
        self._write(self.out, "\t".join(_show(_pick(item, column), column.kind, full=True) for column in columns))

    def _write_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._write(self.out, line)

    @staticmethod
    def _write(stream: IO[str], line: str) -> None:
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError:  # a terminal or file of an old encoding: an escape is better than no answer
            encoding = str(getattr(stream, "encoding", None) or "ascii")
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    def _draw_table(self, items: Sequence[Json], columns: Sequence[Column]) -> None:
        # Not rich.table: with its widths decided here it only lays out, at 1 s a thousand rows where this takes 0.05 s.
        cells = {c: [_show(_pick(item, c), c.kind, full=False) for item in items] for c in columns}
        shown = {c: found for c, found in cells.items() if c.rank == 0 or any(found)}
        widths = _fit(shown, get_terminal_size().columns)
        self._write_cells([column.title for column in widths], widths)
        for row in zip(*(cells[column] for column in widths), strict=True):
            self._write_cells(row, widths)

    def _write_cells(self, row: Sequence[str], widths: Mapping[Column, int]) -> None:
        """Write one row of a table: a name too long for its column goes on below, other text is cut short."""
        from rich.cells import chop_cells, set_cell_size

        parts: list[list[str]] = []
        for cell, (column, width) in zip(row, widths.items(), strict=True):
            lines = chop_cells(cell, width) or [""]
            if column.rank > 0 and len(lines) > 1:  # a name cut short would be another name; this is none
                lines = [set_cell_size(lines[0], width - 1) + "…"]
            right = column.kind in {Kind.NUMBER, Kind.SIZE}
            parts.append([line.rjust(width) if right else set_cell_size(line, width) for line in lines])
        for number in range(max(map(len, parts))):
            line = (" " * _GAP).join(
                lines[number] if number < len(lines) else " " * width
                for lines, width in zip(parts, widths.values(), strict=True)
            )
            self._write(self.out, line.rstrip())


_FLEXIBLE = frozenset({Kind.TEXT, Kind.MAP, Kind.LIST})
_LEAST = 20
_GAP = 2


def _fit(cells: Mapping[Column, Sequence[str]], room: int) -> dict[Column, int]:
    """Return the columns to show and their widths in cells, together at most `room` if that can be.

    Text shrinks to 20 cells; then the columns of the highest rank go; then what is left, the names among it, is folded.
    """
    from rich.cells import cell_len

    widths = {each: max(map(cell_len, [each.title, *shown])) for each, shown in cells.items()}

    def shrink(flexible: Sequence[Column], least: int) -> None:
        while (over := sum(widths.values()) + _GAP * (len(widths) - 1) - room) > 0:
            widest = max(flexible, key=lambda each: widths[each], default=None)
            if widest is None or widths[widest] <= least:
                return
            next_width = max((widths[each] for each in flexible if widths[each] < widths[widest]), default=least)
            widths[widest] = max(widths[widest] - over, next_width, least)

    full = dict(widths)
    while True:
        shrink([each for each in widths if each.kind in _FLEXIBLE and each.rank > 0], _LEAST)
        if sum(widths.values()) + _GAP * (len(widths) - 1) <= room:
            return widths
        last = max(widths, key=lambda each: each.rank)
        if last.rank == 0:
            shrink(list(widths), 1)
            return widths
        del widths[last]
        widths.update({each: full[each] for each in widths})


def _read_clock() -> int:
    return int(datetime.now(UTC).timestamp() * 1e6)
