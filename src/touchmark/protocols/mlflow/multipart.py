"""Uploads in parts: what MLflow's clients do with a large file once server-info.py says that they may.

The client asks for as many addresses as the file has parts, PUTs each part to its address, several at once, with no
credentials and no other header, and asks to complete the upload with the ETag that each part was answered with. The
addresses are this server's own; the upload's id stands in the query, which no log of requests shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.domain.errors import UnsupportedError
from touchmark.domain.tracking import ArtifactOwner
from touchmark.protocols.mlflow.artifacts import Place, drained, get_writable_place, public_address
from touchmark.protocols.mlflow.messages import Message
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import uploads
from touchmark.wire import AnyRequest, Lane, call

_UNSUPPORTED = "Multipart upload is not supported"
"""How an answer begins that makes MLflow's client send the file in one piece instead."""


class NewUploadFields(Fields):
    """CreateMultipartUpload. `path` is that of the file on the client's disk: its last part is the file's name."""

    folder: str = ""
    path: str = ""
    num_parts: int = 1


class Credential(Message, kw_only=True):
    """MultipartUploadCredential, without headers."""

    url: str
    part_number: int


class NewUpload(Message, kw_only=True):
    """CreateMultipartUpload.Response."""

    upload_id: str
    credentials: Sequence[Credential] = ()


async def create_upload(request: AnyRequest, fields: NewUploadFields) -> NewUpload:
    """Begin an upload and give out an address for each of its parts."""
    place, owner, path = _get_target(fields.folder, fields.path)
    if not 1 <= fields.num_parts <= uploads.PARTS_LIMIT:
        raise UnsupportedError(f"{_UNSUPPORTED} for {fields.num_parts} parts; it is for 1 to {uploads.PARTS_LIMIT}.")
    upload_id = await call(request, Lane.BYTES, uploads.create_upload, owner, path, experiment_id=place.experiment_id)
    address = f"{public_address(request)}/api/2.0/mlflow-artifacts/mpu/parts"
    credentials = [
        Credential(url=f"{address}/{number}?upload_id={upload_id}", part_number=number)
        for number in range(1, fields.num_parts + 1)
    ]
    return NewUpload(upload_id=upload_id, credentials=credentials)


class PartFields(Fields):
    """Which part of which upload."""

    part_number: int = 0
    upload_id: str = ""


async def put_part(request: AnyRequest, fields: PartFields) -> ASGIResponse:
    """Store the body as a part of an upload."""
    limit = request.app.state.max_upload_bytes
    async with drained(request):
        part = await call(request, Lane.BYTES, uploads.open_part, fields.upload_id, fields.part_number, limit)
        try:
            await wire.write_pieces(request, wire.stream_pieces(request, part.left_bytes), part.write)
            stored = await wire.run(request, Lane.BYTES, part.commit)
        finally:
            part.close()
    return ASGIResponse(headers={"etag": f'"{stored.digest}"'})


class EndedPart(msgspec.Struct, kw_only=True):
    """MultipartUploadPart, as the client was answered."""

    part_number: int
    etag: str | None = None
    url: str | None = None


class EndFields(Fields):
    """CompleteMultipartUpload, AbortMultipartUpload."""

    folder: str = ""
    path: str = ""
    upload_id: str = ""
    parts: Sequence[EndedPart] = ()


async def complete_upload(request: AnyRequest, fields: EndFields) -> None:
    """Join the parts into the file."""
    place, owner, path = _get_target(fields.folder, fields.path)
    await call(
        request,
        Lane.BYTES,
        uploads.complete_upload,
        owner,
        path,
        fields.upload_id,
        [uploads.NamedPart(part.part_number, part.etag) for part in fields.parts],
        request.app.state.max_upload_bytes,
        experiment_id=place.experiment_id,
    )


async def abort_upload(request: AnyRequest, fields: EndFields) -> None:
    """Drop an upload; one that is not there is no error, since the client aborts whatever went wrong."""
    _place, owner, path = _get_target(fields.folder, fields.path)
    await call(request, Lane.BYTES, uploads.abort_upload, owner, path, fields.upload_id)


def _get_target(folder: str, local_path: str) -> tuple[Place, ArtifactOwner, str]:
    """Return the folder of the address, its owner, and where the file goes: under its name on the client's disk."""
    place, owner = get_writable_place(folder)
    name = re.split(r"[/\\]", local_path)[-1]  # of a system that need not be ours
    return place, owner, f"{place.path}/{name}" if place.path else name


_MPU = "2.0/mlflow-artifacts/mpu/"
OPERATIONS = (
    Operation(
        method="POST",
        path=_MPU + "create/{folder*}",
        handler=create_upload,
        fields=NewUploadFields,
        required=("path",),
    ),
    Operation(method="PUT", path=_MPU + "parts/{part_number}", handler=put_part, fields=PartFields, is_json=False),
    Operation(
        method="POST",
        path=_MPU + "complete/{folder*}",
        handler=complete_upload,
        fields=EndFields,
        required=("path", "upload_id", "parts"),
    ),
    Operation(
        method="POST",
        path=_MPU + "abort/{folder*}",
        handler=abort_upload,
        fields=EndFields,
        required=("path", "upload_id"),
    ),
)
