"""A real S3 server for tests: Ceph's gateway (mon, osd and radosgw from the distribution's packages) on loopback.

One cluster a pytest process that asks for one, in a folder of its own, without authentication between its daemons, and
gone with the process: nothing of it says how durable a real cluster is. The gateway checks S3 signatures as any would.
Objects are in memory; what the monitor writes is small, so it need not end, as it would, where a disk is 95 % full.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from obstore.store import S3Store

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool", "ceph")
ACCESS_KEY, SECRET_KEY = "touchmark", "a-secret-of-the-tests"
START_SECONDS = 120.0


@dataclass(frozen=True)
class Ceph:
    """A running gateway."""

    endpoint: str
    folder: Path

    def environ(self) -> dict[str, str]:
        """Return what tells an S3 client of obstore where it is and who we are."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "default",
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"b{uuid.uuid4().hex[:16]}"
        _create_bucket(self.endpoint, name)
        return name

    def set_quota(self, bucket: str, limit_bytes: int | None) -> None:
        """Let a bucket hold so many bytes at most, or as many as it likes."""
        admin = ("radosgw-admin", "-c", str(self.folder / "ceph.conf"), "-n", "client.admin")
        scope = ("--quota-scope=bucket", f"--bucket={bucket}")
        if limit_bytes is None:
            _run(*admin, "quota", "disable", *scope)
        else:
            _run(*admin, "quota", "set", *scope, f"--max-size={limit_bytes}")
            _run(*admin, "quota", "enable", *scope)

    def open_bucket(self) -> S3Store:
        """Open an empty bucket."""
        return S3Store(
            self.make_bucket(),
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="default",
            endpoint=self.endpoint,
            client_options={"allow_http": True},
        )


def find_missing() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def open_cluster() -> Iterator[Ceph]:
    """Run a cluster until the block ends."""
    with contextlib.ExitStack() as stack:
        for left in reversed(range(3)):  # a port may be taken meanwhile
            try:
                folder = stack.enter_context(_keep_folder())
                cluster = _start(folder, stack)
                break
            except TimeoutError:
                stack.close()
                if not left:
                    raise
        yield cluster


@contextmanager
def _keep_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tmk-ceph-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _start(folder: Path, stack: contextlib.ExitStack) -> Ceph:
    fsid, mon_port, web_port = str(uuid.uuid4()), _find_port(), _find_port()
    conf = folder / "ceph.conf"
    conf.write_text(_CONF.format(folder=folder, fsid=fsid, mon=mon_port, web=web_port))
    flags = ("-c", str(conf))
    for name in ("mon", "osd", "rgw", "run"):
        (folder / name).mkdir()
    keyring = folder / "keyring"
    for who, caps in (("mon.", ("mon", "allow *")), ("client.admin", ("mon", "allow *", "osd", "allow *"))):
        made = [each for cap, value in zip(caps[::2], caps[1::2], strict=True) for each in ("--cap", cap, value)]
        create = () if keyring.exists() else ("--create-keyring",)
        _run("ceph-authtool", *create, str(keyring), "--gen-key", "-n", who, *made)
    monmap = folder / "monmap"
    _run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", "--fsid", fsid, str(monmap))
    _run("ceph-mon", *flags, "--mkfs", "-i", "a", "--monmap", str(monmap), "--keyring", str(keyring))
    monitor = _launch(folder, "mon", "ceph-mon", *flags, "-i", "a", "-f")
    stack.callback(_end, monitor)
    _wait(lambda: _check_monitor(monitor, flags), "the monitor", seconds=60)
    osd_uuid = str(uuid.uuid4())
    _run("ceph", *flags, "osd", "new", osd_uuid)
    _run("ceph-osd", *flags, "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
    for _ in range(3):  # it sometimes needs a second start
        osd = _launch(folder, "osd", "ceph-osd", *flags, "-i", "0", "-f")
        stack.callback(_end, osd)
        with contextlib.suppress(TimeoutError):
            _wait(lambda: _check_osd(flags), "the store", seconds=30)
            break
    stack.callback(_end, _launch(folder, "rgw", "radosgw", *flags, "-n", "client.admin", "-f"))
    endpoint = f"http://127.0.0.1:{web_port}"
    _wait(lambda: urllib.request.urlopen(endpoint, timeout=5).read(), "the gateway")
    words = ("user", "create", f"--uid={ACCESS_KEY}", "--display-name=tests")
    _run("radosgw-admin", *flags, *words, f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
    return Ceph(endpoint, folder)


def _check_monitor(monitor: subprocess.Popen[bytes], flags: tuple[str, ...]) -> None:
    if monitor.poll() is not None:
        said = (Path(flags[1]).parent / "mon.out").read_text(errors="replace")[-2000:]
        raise TimeoutError(f"the monitor ended with {monitor.returncode}: {said}")
    _run("ceph", *flags, "--connect-timeout", "5", "mon", "stat", seconds=10)


def _check_osd(flags: tuple[str, ...]) -> None:
    if b"1 up" not in _run("ceph", *flags, "--connect-timeout", "5", "osd", "stat"):
        raise OSError


def _create_bucket(endpoint: str, name: str) -> None:
    # obstore makes no buckets; a signed PUT does (AWS Signature Version 4, of an empty body).
    now = datetime.now(UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    empty = hashlib.sha256(b"").hexdigest()
    host = endpoint.partition("://")[2]
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": stamp}
    signed = ";".join(headers)
    lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
    request = f"PUT\n/{name}\n\n{lines}\n{signed}\n{empty}"
    scope = f"{day}/default/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, "default", "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    asked = urllib.request.Request(f"{endpoint}/{name}", method="PUT", headers=headers)
    urllib.request.urlopen(asked, timeout=30).read()


def _run(*words: str, seconds: float = 60) -> bytes:
    done = subprocess.run(words, capture_output=True, check=False, timeout=seconds)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def _launch(folder: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.out").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def _wait(ready: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            ready()
        except TimeoutError:
            raise
        except (OSError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not start: {error}") from None
            time.sleep(0.3)
        else:
            return


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
mon initial members = a
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
ms mon client mode = crc
mon allow pool size one = true
mon data avail crit = 0
mon data avail warn = 0
mon warn on pool no redundancy = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
ms bind ipv6 = false
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd max object name len = 256
osd max object namespace len = 64
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{web}
rgw enable usage log = false
mon max pg per osd = 500
setuser match path =
"""
