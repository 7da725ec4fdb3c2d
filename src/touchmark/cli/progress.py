"""A bar for work that counts objects, drawn on standard error where somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from touchmark.cli.output import clean

if TYPE_CHECKING:
    from touchmark.cli.output import Output

__all__ = ["open_counter"]


@contextmanager
def open_counter(output: Output) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Draw one line a noun, with how many are done and in all if that is known; gives None where nobody looks.

    That is with --quiet, with --json, and where standard error is no terminal.
    """
    if output.quiet or output.as_json or not output.err.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    parts = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*parts, console=Console(file=output.err), transient=True) as bars:
        tasks: dict[str, object] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(clean(what), total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield report
