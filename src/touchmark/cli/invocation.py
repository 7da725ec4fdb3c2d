"""One run of the command: the options every command shares, the registry they name, and how a command is declared.

`touchmark --json ls` and `touchmark ls --json` mean the same. No command is defined here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from touchmark.cli.output import Output

if TYPE_CHECKING:
    from touchmark.client._registry import Registry

__all__ = ["ASKING", "Command", "Group", "Invocation", "command", "get_invocation", "require_server", "shared_options"]


class Invocation:
    """What was said beside the command itself. Which registry: --url or --home, else TOUCHMARK_URL, else TOUCHMARK_HOME."""

    def __init__(self) -> None:
        """Begin with nothing said; the options write here as they are read."""
        self.url: str | None = None
        self.home: str | None = None
        self.as_json = False
        self.quiet = False
        self.offline = False

    @cached_property
    def output(self) -> Output:
        """Where this command prints; built on first use, when all options are known."""
        return Output(as_json=self.as_json, quiet=self.quiet)

    @contextmanager
    def open_registry(self, *, makes_home: bool = False) -> Iterator[Registry]:
        """Connect to the server, or start the one of a home for as long as the block runs.

        A home that is not there is an error, a mistyped one most likely, unless the command may begin one. Raises click.UsageError, ServerUnreachableError, UnsupportedHomeError, MissingExtraError.
        """
        import touchmark

        if self.url and self.home:
            raise click.UsageError("Give --url or --home, not both: each names a registry.")
        if self.offline and self.home:
            raise click.UsageError("Give --home or --offline, not both: a home is on this machine.")
        url, home = self.url, self.home
        if not url and not home:
            url, home = os.environ.get("TOUCHMARK_URL"), os.environ.get("TOUCHMARK_HOME")
        if home and not url and not makes_home:
            check_is_home(home)
        offline = True if self.offline else None  # None: as TOUCHMARK_OFFLINE says
        with (
            self._say_warnings(),
            touchmark.open(home) if home and not url else touchmark.connect(url, offline=offline) as registry,
        ):
            yield registry

    @contextmanager
    def _say_warnings(self) -> Iterator[None]:
        """Print what the SDK warns users of, such as a deprecated version: a sentence without file and line, each once."""
        said: set[str] = set()
        otherwise = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, UserWarning):
                otherwise(message, category, *place, **more)
            elif str(message) not in said:
                said.add(str(message))
                self.output.warn(str(message))

        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show
            yield


def check_is_home(folder: str) -> None:
    """Raise UnsupportedHomeError if no registry was ever begun in a folder."""
    from pathlib import Path

    home = Path(folder).expanduser().absolute()
    if not (home / "format").is_file():
        from touchmark.domain.errors import UnsupportedHomeError

        raise UnsupportedHomeError(
            home=str(home), reason="there is no registry in it; touchmark register, import and serve begin one"
        )


@contextmanager
def require_server(what: str) -> Iterator[None]:
    """Turn a failed import of the server's parts into the sentence that says what to install. Raises MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "touchmark":
            raise
        from touchmark.domain.errors import MissingExtraError

        raise MissingExtraError(what=what, install="pip install 'touchmark[server]'") from error


def get_invocation(context: click.Context) -> Invocation:
    """Return the one invocation of a run of the command, made on first use."""
    return context.find_root().ensure_object(Invocation)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        setattr(get_invocation(context), str(parameter.name), value)


EVERYWHERE = ("url", "home", "json", "quiet")
ASKING = (*EVERYWHERE, "offline")
"""The shared options of a command that the cache may answer."""


def shared_options(*wanted: str) -> list[click.Option]:
    """Return fresh options, those named or EVERYWHERE; they write into the invocation, and the function is not given them."""

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, **settings)

    options = {
        "url": option("--url", metavar="URL", help="The server to ask.  [env: TOUCHMARK_URL]"),
        "home": option("--home", metavar="FOLDER", help="The registry in a folder here.  [env: TOUCHMARK_HOME]"),
        "json": option("--json", "as_json", is_flag=True, help="Print JSON, as the HTTP API gives it."),
        "quiet": option("-q", "--quiet", is_flag=True, help="Print data and errors only."),
        "offline": option(
            "--offline", is_flag=True, help="Ask no server: use what is in the cache.  [env: TOUCHMARK_OFFLINE]"
        ),
    }
    return [options[name] for name in wanted or EVERYWHERE]


class Command(click.Command):
    """A command with examples, and with the shared options it understands behind its own."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), shared: Sequence[str] = (), **settings: Any) -> None:
        """Take what click takes, whole command lines as `examples`, and the names of shared options if not all."""
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.params = [*self.params, *shared_options(*shared)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        if self.examples:
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A noun with several verbs: `touchmark alias set`."""

    command_class = Command


def command(name: str, *examples: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command by its name and the command lines shown as its examples."""
    return click.command(name, cls=Command, examples=examples, **settings)
