"""What the command line makes of an error: an exit code, a sentence, a next step.

One table from class to exit code, looked up along the MRO; docs/reference/cli.md prints it. No error is raised or
caught here; `main` (cli/__init__.py) is the one place that catches.
"""

from __future__ import annotations

import os

from touchmark.domain import errors

OK = 0
UNEXPECTED = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES: dict[type[errors.TouchmarkError], int] = {
    errors.TouchmarkError: UNEXPECTED,
    errors.NotFoundError: 3,
    errors.ConflictError: 4,
    errors.PreconditionError: 4,
    errors.InvalidError: 5,
    errors.DeniedError: 6,
    errors.UnauthenticatedError: 6,
    errors.CorruptError: 7,
    errors.BusyError: 8,
    errors.UnsupportedError: 9,
}
"""The exit code of each kind; a class that is not here has that of its nearest ancestor."""

MEANINGS: dict[int, str] = {
    OK: "done",
    UNEXPECTED: "an error nobody foresaw",
    USAGE: "the command was typed wrongly: an unknown option, a missing argument",
    3: "the model, version, alias, run or file named does not exist",
    4: "the present state does not allow it (a conflict, or `--if-match` did not hold); nothing was changed; of `import` and "
    "`export`: something did not come or go, or not as it was, and the rest did",
    5: "the request is not valid: a name, reference, filter, source or value",
    6: "you may not do this, or did not say who you are",
    7: "stored bytes or rows are damaged",
    8: "busy, full or out of reach; nothing was changed, and the same command may succeed later",
    9: "this installation cannot do it: something is to be installed or upgraded, or there is no registry in the home named",
    INTERRUPTED: "interrupted (Ctrl-C), or the answer to a question was no",
    BROKEN_PIPE: "whoever read the output stopped reading (`touchmark ls | head`)",
}
"""What each exit code says, in the words of the reference."""

# Only where there is a next step that the sentence itself does not name. Looked up along the MRO like the codes.
HINTS: dict[type[errors.TouchmarkError], str] = {
    errors.ModelNotFoundError: "touchmark ls lists the models.",
    errors.VersionNotFoundError: "touchmark ls NAME lists the versions of a model.",
    errors.AliasNotFoundError: "touchmark alias ls NAME lists the aliases of a model.",
    errors.VersionDeletedError: "touchmark undelete NAME/VERSION brings it back.",
    errors.AliasMovedError: "touchmark alias ls NAME shows where it is, and the number for --if-match.",
    errors.InvalidSourceError: "A source is a file, a folder, runs:/RUN/PATH, a models:/ reference, or an address the server takes (touchmark serve --import-from).",
    errors.UnauthenticatedError: "Put a token into TOUCHMARK_TOKEN.",
    errors.ServerUnreachableError: "Or pass --home FOLDER: a registry on this machine needs no server.",
    errors.DigestMismatchError: "Try again; if it stays, run touchmark fsck --deep where the registry is.",
    errors.HomeBusyError: "Stop it, or wait until it has ended; then try again.",
}


def exit_code_of(error: type[errors.TouchmarkError]) -> int:
    """Return the exit code of a class: its own line in the table, or that of its nearest ancestor."""
    return next(EXIT_CODES[cls] for cls in error.__mro__ if cls in EXIT_CODES)


def find_hint(error: errors.TouchmarkError) -> str | None:
    """Return what to do next, or None where the sentence says it or nothing helps."""
    return next((HINTS[cls] for cls in type(error).__mro__ if cls in HINTS), None)


def describe_unexpected(error: Exception) -> tuple[str, str | None]:
    """Return the sentence and the next step for what is none of our errors: the machine's refusal, or our mistake."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, str | os.PathLike) else ""
        return f"{error.strerror}{place}.", None
    sentence = f"Something nobody foresaw: {type(error).__name__}: {error}"
    return sentence, "Set TOUCHMARK_TRACEBACK=1 and try again to see where it happened, and report it."
