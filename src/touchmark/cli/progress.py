"""Bars for work that takes time, drawn on standard error where somebody looks: counted objects, bytes that move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from touchmark.cli.output import clean

if TYPE_CHECKING:
    from touchmark.cli.output import Output
    from touchmark.client._transfer import Transfer

__all__ = ["open_counter", "open_transfer"]

LINE_BYTES = 16 << 20
"""A file of this size has a line of its own while it moves; smaller ones would only flicker."""


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


@contextmanager
def open_transfer(output: Output, what: str) -> Iterator[Callable[[Transfer], None] | None]:
    """Draw a bar for all bytes of a transfer, and one below it for each large file that moves at this moment.

    Gives None where nobody looks, as `open_counter` does.
    """
    if output.quiet or output.as_json or not output.err.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    parts = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Bars(*parts, console=Console(file=output.err), transient=True) as bars:
        whole = bars.add_task(clean(what), total=None)
        files: dict[str, TaskID] = {}

        def report(transfer: Transfer) -> None:  # one call at a time, from any thread
            bars.update(whole, completed=transfer.done_bytes, total=transfer.total_bytes)
            path, size_bytes = transfer.path, transfer.file_bytes
            if size_bytes < LINE_BYTES or size_bytes == transfer.total_bytes:
                return
            if transfer.file_done_bytes >= size_bytes:
                if path in files:
                    bars.remove_task(files.pop(path))
                return
            if path not in files:
                files[path] = bars.add_task("  " + clean(path), total=size_bytes)
            bars.update(files[path], completed=transfer.file_done_bytes)

        yield report
