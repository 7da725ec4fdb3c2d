"""`touchmark serve`: run a server in the foreground. What the settings mean is server/settings.py's business."""

from __future__ import annotations

from typing import Any

import click

from touchmark.cli.invocation import Invocation, command, require_server

__all__ = ["serve_command"]


@command(
    "serve",
    "touchmark serve",
    "touchmark serve --home /srv/touchmark --port 8080",
    "touchmark serve --database postgresql://registry@db/registry --home /srv/touchmark",
    shared=["home"],
)
@click.option("--host", help="Address to listen on: this machine's own.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 5000]")
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead.")
@click.option("--database", metavar="URL", help="postgresql://... or sqlite:///...; SQLite in the home if left out.")
@click.option("--config", metavar="FILE", help="A TOML file with settings; options and environment stand over it.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How log lines are written.  [default: text]")
@click.option("--log-requests/--no-log-requests", default=None, help="Write a log line for each request, or not.")
@click.option("--max-upload-bytes", type=int, metavar="N", help="The largest file taken.")
@click.option("--artifacts", metavar="URL", help="Keep files in s3://BUCKET/PREFIX (gs://, az://) instead of the home.")
@click.option(
    "--presign/--no-presign",
    default=None,
    help="Let clients fetch files from the bucket, and send large ones into it, by signed addresses.",
)
@click.option("--public-url", metavar="URL", help="The address clients reach this server at, if not the one they ask.")
@click.option(
    "--unsealed",
    type=click.Choice(["allow", "refuse"]),
    help="What an MLflow registration without reachable files gets.  [default: allow]",
)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="URL",
    help="An MLflow server from whose runs registrations are imported; credentials go into --config.",
)
@click.option(
    "--import-from",
    multiple=True,
    metavar="PREFIX",
    help="An address (s3://bucket/key, https://host/path, hf://org) below which versions may be imported from.",
)
@click.option("--max-import-bytes", type=int, metavar="N", help="The most that is imported for one version.")
@click.option("--drain-seconds", type=int, metavar="N", help="Go on for so long when asked to stop; /health says 503.")
@click.option("--webhook-http/--no-webhook-http", default=None, help="Let webhooks have http addresses too.")
@click.option("--webhook-private/--no-webhook-private", default=None, help="Let webhooks have private addresses.")
@click.option("--exit-with-parent", is_flag=True, default=None, hidden=True, help="End when standard input ends.")
@click.pass_obj
def serve_command(invocation: Invocation, /, **flags: Any) -> None:
    """Run a server until it is interrupted.

    Every option but --config can be set in the environment (TOUCHMARK_PORT ...) and in the file; options win over the
    environment, and that over the file. The home is ~/.touchmark unless one is named; it is made if need be.
    """
    if invocation.url:
        raise click.UsageError(
            "touchmark serve runs a server, and --url names one that runs already: say where to listen with --host and "
            "--port, or --uds."
        )
    with require_server("touchmark serve"):
        from touchmark.server.serving import serve
        from touchmark.server.settings import load_settings
    for name in ("upstreams", "import_from"):
        flags[name] = flags[name] or None
    serve(load_settings({"home": invocation.home, **flags}))
