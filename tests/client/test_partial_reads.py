"""Files read where they are: by ranges, in the cache, one tensor at a time, and from where a server sends us."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import touchmark
from tests.client.peer import Peer, Reply, Request, digest_of, open_peer, serve_version, to_problem
from touchmark import errors
from touchmark.client._remote_file import AHEAD_BYTES, FIRST_BYTES

CONFIG = b'{"layers": 12}'
LARGE = random.Random(7).randbytes(9_000_001)
FILES = {"config.json": CONFIG, "data/weights.bin": LARGE, "data/empty": b""}


def with_ranges(answer: Any) -> Any:
    """Let a peer answer ranges of blobs as our server does."""

    def ranged(request: Request) -> Reply:
        reply: Reply = answer(request)
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
        if match is None or "/blobs/" not in request.path or reply.status != 200:
            return reply
        begin, end = int(match[1]), int(match[2] or len(reply.body) - 1) + 1
        part = reply.body[begin:end]
        return Reply(206, part, {"Content-Range": f"bytes {begin}-{begin + len(part) - 1}/{len(reply.body)}"})

    return ranged


@pytest.fixture
def registry(peer: Peer) -> Iterator[touchmark.Registry]:
    peer.answer = with_ranges(serve_version(FILES))
    with touchmark.connect(peer.url) as opened:
        yield opened


def count_bytes(peer: Peer) -> int:
    """Return how many bytes of blobs were asked for."""
    total = 0
    for request in peer.requests:
        if match := re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", request.headers.get("range", "")):
            total += int(match[2]) - int(match[1]) + 1
        elif "/blobs/" in request.path:
            total += len(LARGE)
    return total


def test_a_small_file_comes_whole_in_one_request(registry: touchmark.Registry, peer: Peer) -> None:
    with registry.open_file("churn/1", "config.json") as stream:
        assert json.load(stream) == {"layers": 12}
    with registry.open_file("models:/churn/1/config.json") as stream:
        assert stream.read() == CONFIG

    assert sum("/blobs/" in request.path for request in peer.requests) == 2


def test_a_part_costs_little_more_than_itself(registry: touchmark.Registry, peer: Peer) -> None:
    with registry.open_file("churn/1", "data/weights.bin") as stream:
        stream.seek(5_000_000)
        assert stream.read(1000) == LARGE[5_000_000:5_001_000]
        assert stream.tell() == 5_001_000

    assert count_bytes(peer) <= FIRST_BYTES + 65536


def test_reading_ahead_is_bounded_and_grows_while_the_file_is_read_in_order(
    registry: touchmark.Registry, peer: Peer
) -> None:
    with registry.open_file("churn/1", "data/weights.bin") as stream:
        got = b"".join(iter(lambda: stream.read(10_000), b""))

    asked = [request.headers["range"] for request in peer.requests if "range" in request.headers]
    sizes = [int(last) - int(first) + 1 for first, last in (each[6:].split("-") for each in asked)]
    assert got == LARGE
    assert sizes[0] == FIRST_BYTES
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]
    assert max(sizes) <= AHEAD_BYTES
    assert sum(sizes) == len(LARGE)


@pytest.mark.parametrize("seed", range(5))
def test_reading_anywhere_gives_what_a_file_would(registry: touchmark.Registry, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    place = tmp_path / "same"
    place.write_bytes(LARGE)
    with registry.open_file("churn/1", "data/weights.bin") as remote, place.open("rb") as local:
        for _ in range(60):
            match chance.randrange(4):
                case 0:
                    where = (chance.randrange(len(LARGE) + 100), io.SEEK_SET)
                case 1:
                    where = (-chance.randrange(1000), io.SEEK_END)
                case _:
                    where = (chance.randrange(3000), io.SEEK_CUR)
            assert remote.seek(*where) == local.seek(*where)
            size = chance.choice([0, 1, 100, 70_000, 900_000])
            assert remote.read(size) == local.read(size)
            assert remote.tell() == local.tell()
        with pytest.raises((ValueError, OSError)):
            remote.seek(-1)
        remote.seek(0)
        assert hashlib.file_digest(remote, "sha256").hexdigest() == digest_of(LARGE)[7:]


def test_an_empty_file_is_empty(registry: touchmark.Registry) -> None:
    with registry.open_file("churn/1", "data/empty") as stream:
        assert stream.read() == b""
        assert (stream.seekable(), stream.readable(), stream.writable()) == (True, True, False)


@pytest.mark.parametrize("path", ["nothing", "data", None])
def test_a_file_that_is_not_there_is_named(registry: touchmark.Registry, path: str | None) -> None:
    with pytest.raises(
        (errors.ArtifactNotFoundError, errors.InvalidReferenceError), match=path or "name a file"
    ) as caught:
        registry.open_file("churn/1", path)
    assert "'data/empty'" in caught.value.message


def test_wrong_bytes_are_found_when_a_file_is_read_to_its_end(peer: Peer) -> None:
    wrong = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    peer.answer = with_ranges(
        serve_version(FILES, blobs={digest_of(LARGE): wrong, digest_of(CONFIG): b'{"layers": 13}'})
    )
    with touchmark.connect(peer.url) as registry:
        with registry.open_file("churn/1", "config.json") as stream:
            for _ in range(2):
                with pytest.raises(errors.DigestMismatchError, match="hash to"):
                    stream.read()
        with registry.open_file("churn/1", "data/weights.bin") as stream:
            got = b""
            with pytest.raises(errors.DigestMismatchError):
                while chunk := stream.read(100_000):
                    got += chunk
        assert len(got) < len(LARGE)


def test_a_read_that_breaks_off_or_meets_a_busy_server_is_made_again(registry: touchmark.Registry, peer: Peer) -> None:
    version, wrong = peer.answer, [Reply(503), Reply(206, b"12", cut=1), Reply(cut=-1)]
    peer.answer = lambda request: wrong.pop() if "/blobs/" in request.path and wrong else version(request)

    with registry.open_file("churn/1", "config.json") as stream:
        assert stream.read() == CONFIG
    assert wrong == []


def test_a_server_without_ranges_says_what_to_do(peer: Peer) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        with registry.open_file("churn/1", "config.json") as stream:
            assert stream.read() == CONFIG  # whole is what it has
        with (
            registry.open_file("churn/1", "data/weights.bin") as stream,
            pytest.raises(errors.UnsupportedError, match=r"pull 'data/weights\.bin'"),
        ):
            stream.read(1)


# ── tensors ──


def write_tensors(tensors: dict[str, tuple[str, tuple[int, ...], bytes]], **changes: Any) -> bytes:
    """Return a safetensors file of names to dtype, shape and bytes; `changes` replace entries of the header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps({**header, **changes}).encode()
    return len(text).to_bytes(8, "little") + text + data


MATRIX = np.arange(600_000, dtype="<f4").reshape(600, 1000)
TENSORS = {
    "layer.0.weight": ("F32", (600, 1000), MATRIX.tobytes()),
    "layer.1.weight": ("F16", (2, 3), np.arange(6, dtype="<f2").tobytes()),
    "scalar": ("I64", (), (7).to_bytes(8, "little")),
    "half": ("BF16", (3,), (np.array([1.0, -2.5, 3e38], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()),
    "mask": ("BOOL", (4,), b"\1\0\0\1"),
    "rare": ("F8_E4M3", (2,), b"\1\2"),
    "padding": ("U8", (5_000_000,), bytes(5_000_000)),
}


def test_one_tensor_is_read_without_the_rest_of_the_file(peer: Peer) -> None:
    data = write_tensors(TENSORS)
    peer.answer = with_ranges(serve_version({"model.safetensors": data}))
    with touchmark.connect(peer.url) as registry:
        matrix = registry.read_tensor("churn/1", "model.safetensors", "layer.0.weight")
        small = registry.read_tensor("churn/1", "model.safetensors", "layer.1.weight")
        scalar = registry.read_tensor("churn/1", "model.safetensors", "scalar")
        mask = registry.read_tensor("churn/1", "model.safetensors", "mask")

    np.testing.assert_array_equal(matrix, MATRIX)
    assert (matrix.dtype, matrix.flags.writeable) == (np.dtype("f4"), True)
    assert (small.dtype, small.tolist()) == (np.dtype("f2"), [[0, 1, 2], [3, 4, 5]])
    assert (scalar.shape, int(scalar)) == ((), 7)
    assert mask.tolist() == [True, False, False, True]
    assert count_bytes(peer) < len(data)


def test_bfloat16_becomes_the_float32_of_the_same_value(peer: Peer) -> None:
    peer.answer = with_ranges(serve_version({"m": write_tensors(TENSORS)}))
    with touchmark.connect(peer.url) as registry:
        half = registry.read_tensor("churn/1", "m", "half")

    assert half.dtype == np.dtype("f4")
    assert half.tolist()[:2] == [1.0, -2.5]


def test_a_tensor_is_what_safetensors_itself_reads(peer: Peer, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {"a": MATRIX, "b": np.array([[1, 2], [3, 4]], dtype=np.int8)}
    safetensors.save_file(arrays, tmp_path / "model.safetensors")
    peer.answer = with_ranges(serve_version({"model.safetensors": (tmp_path / "model.safetensors").read_bytes()}))
    with touchmark.connect(peer.url) as registry:
        for name, array in arrays.items():
            found = registry.read_tensor("churn/1", "model.safetensors", name)
            np.testing.assert_array_equal(found, array)
            assert found.dtype == array.dtype


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (write_tensors(TENSORS), "missing", "no tensor 'missing', only 'layer.0.weight'.* and 2 more"),
        (write_tensors(TENSORS), "__metadata__", "no tensor"),
        (write_tensors(TENSORS), "rare", "F8_E4M3"),
        (b"", "a", "no safetensors file"),
        (b"\x80\x04}", "a", "no safetensors file"),
        ((10**15).to_bytes(8, "little") + b"{}", "a", "no safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "a", "no safetensors file"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "a", "no safetensors file"),
        (write_tensors({}, a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}), "a", "does not say"),
        (write_tensors({}, a={"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}), "a", "does not say"),
        (write_tensors({}, a={"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}), "a", "does not say"),
        (write_tensors({}, a={"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}), "a", "does not say"),
        (write_tensors({}, a={"dtype": "F32", "shape": [1]}), "a", "does not say"),
        (write_tensors({}, a=7), "a", "does not say"),
        (write_tensors({}, a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}), "a", "it ends within"),
    ],
)
def test_what_is_no_tensor_is_refused(peer: Peer, data: bytes, name: str, said: str) -> None:
    peer.answer = with_ranges(serve_version({"m": data}))

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.InvalidFieldError, match=said):
        registry.read_tensor("churn/1", "m", name)


# ── sent on to where the bytes are ──


def redirect(version: Any, bucket: Peer, status: int = 307) -> Any:
    """Answer blobs with an address in a bucket, as a signature in its query makes it readable."""

    def answer(request: Request) -> Reply:
        if "/blobs/" in request.path:
            digest = request.path.rpartition("/")[2]
            return Reply(status, b"", {"Location": f"{bucket.url}/bucket/{digest[7:]}?X-Signature=abc%2Fdef"})
        return version(request)

    return answer


def serve_bucket(request: Request) -> Reply:
    """Answer as a bucket with the files."""
    name = request.path.rpartition("/")[2].partition("?")[0]
    found = {hashlib.sha256(data).hexdigest(): data for data in FILES.values()}[name]
    return with_ranges(lambda _request: Reply(body=found, headers={"ETag": '"another"'}))(
        Request(request.method, "/blobs/", request.headers, b"", request.client)
    )


def test_a_redirect_is_followed_without_our_token_and_gone_on_with_there(peer: Peer, tmp_path: Path) -> None:
    with open_peer() as bucket:
        cuts = [4_000_000, 100_000]

        def cutting(request: Request) -> Reply:
            reply = serve_bucket(request)
            if len(reply.body) > 1_000_000 and cuts:
                return Reply(reply.status, reply.body, reply.headers, cut=cuts.pop(0))
            return reply

        bucket.answer = cutting
        peer.answer = redirect(serve_version(FILES), bucket)
        with touchmark.connect(peer.url, token="secret") as registry:
            registry.pull("churn/1", tmp_path)
            with registry.open_file("churn/1", "data/weights.bin") as stream:
                stream.seek(1_000_000)
                assert stream.read(10) == LARGE[1_000_000:1_000_010]

        assert (tmp_path / "data/weights.bin").read_bytes() == LARGE
        assert cuts == []
        assert all(request.headers["authorization"] == "Bearer secret" for request in peer.requests)
        assert not [request for request in bucket.requests if "authorization" in request.headers]
        assert {request.path.partition("?")[2] for request in bucket.requests} == {"X-Signature=abc%2Fdef"}
        ranges = [request.headers["range"] for request in bucket.requests if "range" in request.headers]
        assert [each.partition("-")[0] for each in ranges[:2]] == ["bytes=4000000", "bytes=4100000"]


def test_a_bucket_that_lies_is_caught(peer: Peer, tmp_path: Path) -> None:
    with open_peer(lambda _request: Reply(body=b"x" * len(CONFIG))) as bucket:
        peer.answer = redirect(serve_version(FILES), bucket)
        with touchmark.connect(peer.url) as registry, pytest.raises(errors.DigestMismatchError):
            registry.pull("churn/1/config.json", tmp_path)

    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    "location", ["", "file:///etc/passwd", "ftp://host/x", "/elsewhere", "http://", "http://u:p@host/x", "http://h:x/"]
)
def test_a_redirect_to_what_is_no_address_is_refused(peer: Peer, tmp_path: Path, status: int, location: str) -> None:
    version = serve_version(FILES)
    peer.answer = lambda request: (
        Reply(status, b"", {"Location": location}) if "/blobs/" in request.path else version(request)
    )

    with (
        touchmark.connect(peer.url) as registry,
        pytest.raises(errors.ServerUnreachableError, match="the server sends on to"),
    ):
        registry.pull("churn/1/config.json", tmp_path)


def test_a_second_redirect_is_not_followed(peer: Peer, tmp_path: Path) -> None:
    with open_peer(lambda _request: Reply(307, b"", {"Location": "http://127.0.0.1:9/"})) as bucket:
        peer.answer = redirect(serve_version(FILES), bucket)
        with touchmark.connect(peer.url) as registry, pytest.raises(errors.ServerUnreachableError, match="twice"):
            registry.pull("churn/1/config.json", tmp_path)

        assert len(bucket.requests) == 1


def test_what_a_bucket_answers_is_told(peer: Peer, tmp_path: Path) -> None:
    with open_peer(lambda _request: Reply(403, b"<Error><Code>ExpiredToken</Code></Error>")) as bucket:
        peer.answer = redirect(serve_version(FILES), bucket)
        with touchmark.connect(peer.url) as registry, pytest.raises(errors.DeniedError):
            registry.pull("churn/1/config.json", tmp_path)


def test_a_redirect_of_anything_else_is_not_followed(peer: Peer) -> None:
    with open_peer() as bucket:
        peer.answer = lambda _request: Reply(307, b"", {"Location": bucket.url})
        with touchmark.connect(peer.url) as registry, pytest.raises(errors.TouchmarkError, match="a redirect"):
            registry.resolve("churn/1")

        assert bucket.requests == []


def test_a_problem_of_the_server_is_raised_as_its_class(peer: Peer) -> None:
    version = serve_version(FILES)
    peer.answer = lambda request: (
        to_problem(404, "blob_not_found", "There is no such blob.") if "/blobs/" in request.path else version(request)
    )

    with (
        touchmark.connect(peer.url) as registry,
        registry.open_file("churn/1", "config.json") as stream,
        pytest.raises(errors.BlobNotFoundError),
    ):
        stream.read()


def test_a_closed_file_is_closed(registry: touchmark.Registry) -> None:
    stream = registry.open_file("churn/1", "config.json")
    stream.close()

    with pytest.raises(ValueError, match="closed"):
        stream.read()
    assert os.path.basename(str(stream.name)) == "config.json"  # noqa: PTH119 - a path in a version
