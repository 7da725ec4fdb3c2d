"""The object tree of a blob store, the same in a local folder and in a bucket. Every key is built here.

    <root>/
    ├── registry                 in a bucket: the id of the registry whose it is
    ├── blobs/
    │   └── sha256/
    │       ├── ab/
    │       │   ├── ab00…c1      the bytes of sha256:ab00…c1 (64 hexadecimal digits), never changed once there
    │       │   └── abf3…9e
    │       └── …                256 shards: the first two digits, so that no folder grows without bound
    └── staging/
        ├── 5d1f…e0              an upload in progress (32 random hexadecimal digits); worthless after a crash
        ├── 77c0…19-ab00…c1      a part of an upload in parts: the upload's id, and the part's SHA-256
        ├── 77c0…19-p00042       a part of one that the client put into the bucket itself: the upload's id, and the part's number
        ├── 3b1c…07.session      an upload in consecutive pieces: its id (a folder has one file, which grows)
        └── 3b1c…07-0…4000000    the same in a bucket, where nothing grows: the id, and where the piece begins

Keys are relative, ASCII, with `/` on every system. Both branches lie under one root because a hard link, and a bucket's
server-side copy, stay within one file system or bucket.
"""

from __future__ import annotations

import re
import secrets

from touchmark.domain.digest import Digest, hex_of

BLOBS_PREFIX = "blobs/sha256"
STAGING_PREFIX = "staging"
OWNER_KEY = "registry"

_BLOB_KEY = re.compile(rf"{BLOBS_PREFIX}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")


def shard_key(digest: Digest) -> str:
    """Return the folder a blob lies in: `blobs/sha256/ab`."""
    return f"{BLOBS_PREFIX}/{hex_of(digest)[:2]}"


def blob_key(digest: Digest) -> str:
    """Return where a blob lies: `blobs/sha256/ab/<64 hex>`."""
    return f"{shard_key(digest)}/{hex_of(digest)}"


def new_staging_key() -> str:
    """Return a fresh key for an upload in progress: `staging/<32 hex>`; 128 random bits, so nobody meets another's."""
    return f"{STAGING_PREFIX}/{secrets.token_hex(16)}"


def part_key(upload_id: str, digest: Digest) -> str:
    """Return where a finished part of an upload lies: `staging/<upload id>-<64 hex>`."""
    return f"{parts_prefix(upload_id)}{hex_of(digest)}"


def sent_part_key(upload_id: str, number: int) -> str:
    """Return where a client may put a part itself: `staging/<upload id>-p<5 digits>`."""
    return f"{parts_prefix(upload_id)}p{number:05d}"


def find_part_number(upload_id: str, key: str) -> int | None:
    """Return the number of the sent part of an upload that lies at `key`, or None if none belongs there."""
    digits = key.removeprefix(f"{parts_prefix(upload_id)}p")
    return int(digits) if digits != key and len(digits) == 5 and digits.isascii() and digits.isdigit() else None


def parts_prefix(upload_id: str) -> str:
    """Return what the keys of an upload's parts begin with."""
    return f"{STAGING_PREFIX}/{upload_id}-"


def session_key(upload_id: str) -> str:
    """Return where the bytes of a session lie in a folder: `staging/<upload id>.session`."""
    return f"{STAGING_PREFIX}/{upload_id}.session"


def piece_key(upload_id: str, offset: int) -> str:
    """Return where a bucket holds the bytes of a session from `offset` on: `staging/<upload id>-<16 hex>`."""
    return f"{parts_prefix(upload_id)}{offset:016x}"


def find_digest(key: str) -> Digest | None:
    """Return the digest whose blob lies at `key`, or None if no blob belongs there."""
    match = _BLOB_KEY.fullmatch(key)
    return Digest("sha256:" + match[2]) if match else None
