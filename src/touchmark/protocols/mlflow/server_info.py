"""What this server says of itself to MLflow's clients before they ask for anything else."""

from __future__ import annotations

from litestar.response.base import ASGIResponse

from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.wire import AnyRequest

SPOKEN_VERSION = "3.17.2"
"""The version of MLflow whose calls are answered here, and what `/version` says.

The one gate on it in MLflow 3.17.2's client is `RestStore.log_spans`, which wants 3.4; traces are not kept here whatever
is said, and its exporter passes over a server that refuses them. Scripts that look at it ask for features of the registry
and of logged models, which are those of this version.
"""


async def get_server_info(request: AnyRequest, _fields: Fields) -> dict[str, object]:
    """Return what is switched on. What is said of transfers is about files of 500 MB and more, and about this client.

    Uploads in parts are on where clients come over a network, which is what a public address means: several connections
    are quicker than one there. On one machine a single PUT is three times as fast (1 GiB: 3 s, in parts 11 s), and the
    client sends it again when it breaks off, which it does not do with a part.

    Downloads in ranges are off: on one machine they take three times as long, every small file costs one more request,
    and a range is not hashed on its way, neither here nor by MLflow's client. Their addresses are given to a client that
    asks all the same (MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD).
    """
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": request.app.state.public_url is not None,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": True,
        "presigned_upload_model_id_supported": True,
        "features_enabled": {"gateway": False},
    }


async def get_server_features(_request: AnyRequest, _fields: Fields) -> dict[str, object]:
    """Return what older clients ask for instead."""
    return {"workspaces_enabled": False}


async def get_version(_request: AnyRequest, _fields: Fields) -> ASGIResponse:
    """Return the version of MLflow that is spoken here, as text."""
    return ASGIResponse(body=SPOKEN_VERSION.encode(), media_type="text/plain")


OPERATIONS = (
    Operation(method="GET", path="3.0/mlflow/server-info", handler=get_server_info),
    Operation(method="GET", path="3.0/mlflow/server-features", handler=get_server_features),
    Operation(method="GET", path="/version", handler=get_version),
)
