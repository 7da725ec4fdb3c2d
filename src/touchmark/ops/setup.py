"""Opening a registry: make or migrate the home, join database and blobs, begin the log.

In the home, a folder with mode 0700:

- `format`: one line that says how the home is laid out,
- `registry.db`: the database (SQLite), unless a database URL says otherwise,
- `blobs/`: content-addressed bytes (artifacts/layout.py),
- `lock`: held while one process migrates or restores.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.open_store import check_address, open_store
from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import HomeBusyError, UnsupportedHomeError
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.ops.durable import make_folder, sync_folder, write_file
from touchmark.registry import Registry, read_clock
from touchmark.storage import experiments, ledger
from touchmark.storage.engine import Database
from touchmark.storage.migrations import migrate

LOCK_TIMEOUT_SECONDS = 60
"""How long a process waits for another one that migrates or restores the same home."""
# SQLite's own warning (sqlite.org/howtocorrupt.html, section 2): locks over a network do not hold.
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "davfs", "vboxsf",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.davfs",
})  # fmt: skip
FORMAT = "touchmark home 1"
"""What the file `format` says. Another line means that files lie elsewhere or mean something else."""


_OWN_FOLDERS = frozenset({"blobs", "staging"})  # of a blob store (artifacts/layout.py)
ARTIFACTS_FILE = "artifacts"
"""In a home whose bytes are in a bucket: its address."""
FOLDER = "folder"
"""What the database says of a registry whose bytes are in the folder of its home. Two such homes are not told apart."""


def default_home() -> Path:
    """Return TOUCHMARK_HOME, or ~/.touchmark."""
    return Path(os.environ.get("TOUCHMARK_HOME") or Path.home() / ".touchmark")


def open_registry(
    home: Path,
    database_url: str | None = None,
    *,
    artifacts: str | None = None,
    blobs: BlobStore | None = None,
    is_restored: bool = False,
) -> Registry:
    """Open the registry in a home, made and migrated if need be; several processes may do so at once.

    Args:
        home: folder of the bytes, and of the database unless `database_url` is given.
        database_url: `postgresql://…` or `sqlite:///…`.
        artifacts: the address of the bucket that bytes are in, if not in `home/blobs`; the home and the database remember it.
        blobs: an open store instead, of which neither remembers anything.
        is_restored: whether bytes have just come to where this home has them, whatever the database says.

    Raises UnsupportedHomeError (the files of the registry in the database are elsewhere, for one), HomeBusyError, SchemaTooNewError, MissingExtraError, InvalidFieldError,
    BusyError if the database does not let us in.

    """
    home = home.expanduser().absolute()
    try:
        make_folder(home)
    except OSError as error:
        raise UnsupportedHomeError(home=str(home), reason=f"the folder cannot be made ({error.strerror})") from None
    if database_url is None:
        check_home(home)
        database_url = f"sqlite:///{home / 'registry.db'}"
    elif database_url.startswith("sqlite:///"):
        check_home(Path(database_url.removeprefix("sqlite:///")).absolute().parent)
    database = Database(database_url)
    try:
        database.reach()
        with hold_lock(home):
            _check_format(home)
            migrate(database)
            place = None if blobs is not None else get_place(home, artifacts)
            _begin_rows(database, home, place, is_restored=is_restored)
            if place is not None and place != FOLDER and not (home / ARTIFACTS_FILE).is_file():
                write_file(home / ARTIFACTS_FILE, f"{place}\n".encode())
            registry = Registry(database, blobs or open_blobs(home), home=home)
            _begin_log(registry)
    except BaseException:
        database.close()
        raise
    return registry


def open_blobs(home: Path) -> BlobStore:
    """Open the store a home's bytes are in: the bucket it was begun with, else its own folder.

    Raises InvalidFieldError if the home names no bucket's address, BusyError.
    """
    place = get_place(home)
    return open_store(home / "blobs" if place == FOLDER else place)


def get_place(home: Path, artifacts: str | None = None) -> str:
    """Return where a home's bytes are or shall be: a bucket's address, or FOLDER.

    Raises UnsupportedHomeError if `artifacts` names another place than the home was begun with, InvalidFieldError.
    """
    file, wanted = home / ARTIFACTS_FILE, None if artifacts is None else check_address(artifacts)
    kept = check_address(file.read_text(errors="replace").strip()) if file.is_file() else None
    if kept is None and wanted is not None:
        if (home / "blobs").is_dir():
            reason = (
                f"its files are in {home / 'blobs'}, not in {wanted}: back it up and restore it elsewhere to move them"
            )
            raise UnsupportedHomeError(home=str(home), reason=reason)
        if _OWN_FOLDERS & set(wanted.split("/")[3:]):
            reason = f"{wanted} may lie among the objects of another registry, which sweeps them: name it otherwise"
            raise UnsupportedHomeError(home=str(home), reason=reason)
    if kept is not None and wanted is not None and kept != wanted:
        raise UnsupportedHomeError(home=str(home), reason=f"its files are in {kept}, not in {wanted}")
    return kept or wanted or FOLDER


def _check_format(home: Path) -> None:
    file = home / "format"
    found = file.read_text(errors="replace").strip() if file.exists() else ""
    if not found:  # a new home, or one whose maker was stopped just here, before the home's own name was safe perhaps
        sync_folder(home.parent)
        write_file(file, f"{FORMAT}\n".encode())
    elif found != FORMAT:
        reason = f"its format is {found[:100]!r}, this Touchmark reads {FORMAT!r}"
        raise UnsupportedHomeError(home=str(home), reason=reason)


def _begin_rows(database: Database, home: Path, place: str | None, *, is_restored: bool) -> None:
    """Write what every registry has, and where its files are. Raises UnsupportedHomeError if the database says elsewhere."""
    with database.write(read_clock()) as tx:
        ledger.create_head(tx, uuid.uuid4().hex)
        experiments.create_default(tx)
        if is_restored:
            ledger.set_place(tx, place)
        found = place if place is None else ledger.keep_place(tx, place)
    if found == place:
        return
    where = (
        "the folder of a home, not in a bucket" if found == FOLDER else f"{found}: start it with --artifacts {found}"
    )
    raise UnsupportedHomeError(home=str(home), reason=f"its database says that the registry's files are in {where}")


def _begin_log(registry: Registry) -> None:
    with registry.write() as tx:
        if tx.index == 0:
            effect = Effect(SubjectKind.REGISTRY, {}, None, {"registry_id": tx.registry_id})
            ledger.append(tx, SYSTEM, EventKind.REGISTRY_CREATED, [effect])


def check_home(home: Path) -> None:
    """Refuse a folder where SQLite cannot be trusted. Raises UnsupportedHomeError."""
    kind = _find_file_system(home)
    if kind in _NETWORK:
        reason = f"it lies on a network file system ({kind}), where SQLite's locks do not hold; use --database postgresql://…"
        raise UnsupportedHomeError(home=str(home), reason=reason)
    if sqlite3.sqlite_version_info < (3, 35, 0):
        raise UnsupportedHomeError(home=str(home), reason=f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is needed")


def _find_file_system(folder: Path) -> str | None:
    """Return the type of the file system a folder lies on, or None where the system does not tell (/proc/mounts)."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return None
    best, found = -1, None
    target = os.path.realpath(folder)
    for line in lines:
        _device, point, kind, *_rest = line.split(" ")
        point = point.replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), kind
    return found


@contextmanager
def hold_lock(home: Path) -> Iterator[None]:
    """Hold the home's lock file.

    Raises HomeBusyError if another process keeps it for longer than LOCK_TIMEOUT_SECONDS, UnsupportedHomeError if the home
    cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # no flock here: the database's own migration lock has to do
        yield
        return
    try:
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnsupportedHomeError(home=str(home), reason=f"it cannot be written ({error.strerror})") from None
    try:
        end = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise HomeBusyError(home=str(home)) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
