"""A stand-in for Azure's blobs: Azurite, Microsoft's own emulator, if its program is on the path (`npm install azurite`).

It checks signatures, and is no cloud: how it keeps bytes, and what it does under load, says nothing of Azure. One a pytest process,
in memory, gone with it. For Google Cloud Storage there is none: fake-gcs-server does not know the XML API that obstore speaks.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from obstore.store import AzureStore

from tests.served import find_port

# Azurite's own, which its documentation gives to everybody.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzureStandIn:
    """A running Azurite."""

    program = "azurite-blob"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def environ(self) -> dict[str, str]:
        """Return what tells obstore where it is and who we are."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{_ACCOUNT}",
            "AWS_ALLOW_HTTP": "true",
        }

    def make_bucket(self) -> str:
        """Make an empty container and return its name."""
        name = f"b{uuid.uuid4().hex[:16]}"
        date = formatdate(usegmt=True)
        # Shared Key ("Authorize with Shared Key", Azure's REST reference): an empty body has no length to sign.
        resource = f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
        text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
        signature = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
        asked = urllib.request.Request(f"{self.endpoint}/{_ACCOUNT}/{name}?restype=container", method="PUT")
        asked.add_header("x-ms-date", date)
        asked.add_header("x-ms-version", "2021-08-06")
        asked.add_header("Authorization", f"SharedKey {_ACCOUNT}:{signature}")
        urllib.request.urlopen(asked, timeout=30).close()
        return name

    def open_bucket(self) -> AzureStore:
        """Open an empty container."""
        return AzureStore(
            self.make_bucket(),
            account_name=_ACCOUNT,
            account_key=_KEY,
            endpoint=f"{self.endpoint}/{_ACCOUNT}",
            client_options={"allow_http": True},
        )


def find_program(name: str) -> str | None:
    """Return a program's path, if it is installed."""
    return shutil.which(name)


@contextmanager
def open_azure(program: str) -> Iterator[AzureStandIn]:
    """Run an Azurite until the block ends."""
    port = find_port()
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--disableTelemetry"]
    endpoint = f"http://127.0.0.1:{port}"
    with _run([program, *words, "--inMemoryPersistence", "--skipApiVersionCheck"], endpoint):
        yield AzureStandIn(endpoint)


@contextmanager
def _run(words: list[str], endpoint: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="tmk-cloud-") as folder, Path(folder, "out").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    with contextlib.suppress(urllib.error.HTTPError):  # an answer, whatever it says
                        urllib.request.urlopen(endpoint, timeout=5).close()
                    break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() > end:
                        raise TimeoutError(f"{words[0]} did not start: {error}") from None
                    time.sleep(0.2)
            yield
        finally:
            process.kill()
            process.wait()
