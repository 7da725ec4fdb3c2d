"""Every field of every operation of MLflow's door, bad in every way we know, against a real server on each database.

One field at a time is bad and all others name things that exist, so that what is wrong is met where it would do harm. What
came back is looked at three times: by itself (a refusal in MLflow's form, at once, that tells nothing of the inside), beside
the other database's (the same status and error code), and afterwards (all can still be read, and fsck finds nothing).

TOUCHMARK_SWEEP_CASES says how many of the generated cases are sent (a light sample if unset, `all` of them with a number
that is large enough), TOUCHMARK_SWEEP_SEED which ones. What MLflow's security advisories were about is always sent.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests import postgres
from tests.served import Served, serve
from touchmark.protocols.mlflow.errors import CODES
from touchmark.protocols.mlflow.operations import Operation
from touchmark.protocols.mlflow.routes import OPERATIONS

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3600)]

CASES = int(os.environ.get("TOUCHMARK_SWEEP_CASES") or 4_000)
SEED = int(os.environ.get("TOUCHMARK_SWEEP_SEED") or 1)
SECONDS = 5.0
"""In which each is answered; these machines stand still now and then."""
ANSWER_BYTES = 16_000
"""What a refusal may take, whatever was sent."""
SHOWN = 40
RETRIED = {408, 429, 500, 502, 503, 504}
"""Upon these statuses MLflow's clients send a request again, for about four minutes."""
ERROR_CODES = {code for code, _status in CODES.values()} | {"FEATURE_DISABLED"}
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|sqlite|SQLAlchemy|psycopg|\bSELECT\b|\bINSERT\b|\bUPDATE\b|object at 0x"
)
V = "@@"
"""Stands for the bad value in a body, until it is put in as it is."""


@dataclass(frozen=True)
class Case:
    """One request. `target` and `body` hold the words of `Stage.names`; `prepare` is what is made anew before it."""

    what: str
    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    prepare: str | None = None


# ── bad values ───────────────────────────────────────────────────────────────────────────────────────────────────

PATHS = (
    "..", ".", "./", "/", "//", "../", "../..", "../../../../etc/passwd", "a/../../b", "a/..", "./..", "....//....//etc/passwd",
    "/etc/passwd", "//etc/passwd", "//proc/self/root", "~/.ssh/id_rsa", "~root", "..\\..\\x", "a\\..\\b", "\\\\host\\share\\x",
    "C:\\Windows\\win.ini", "C:/Windows", "c:x", "CON", "a/NUL.txt", "file:///etc/passwd", "file:/etc/passwd", "FILE:///etc",
    "file://host/etc/passwd", "a#b", "#", "a#/../../b", "a?b", "?", "a?/../../b", "a;b", ";/../..", "a;/../../b", "%2e%2e",
    "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f", "%252e%252e%252f", "%25252e%25252e%25252f", "..%5c..%5c",
    "%c0%ae%c0%ae/", "%00", "a%00b", "a%23b", "%23/../..", "%3f/../..", "a%3f/../../..", "%2", "%zz", "%", "a%0d%0ab: c",
    "\u2024\u2024/x", "\uff0e\uff0e/x", "..\u2215x", "a\u0000b", "\u0000", "a\u000ab", "a\u007fb", "a b", " a", "a ", "a.", "...",
    "a//b", "a/./b", "a/", ".git/config", "a\u202eb", "x" * 256, "x/" * 600 + "x", "\u00e9" * 200, "e\u0301", "archive.zip!/../x",
    "a.zip/../../b", "%25" * 12 + "2e",
)  # fmt: skip
"""Paths, or what would be one somewhere."""

SOURCES = (
    "s3://[/x", "s3://[::1", "s3://a\u2100b/x",    "a:b:c", "file%3a///etc/passwd",
    "/tmp", "/etc/passwd", "//etc/passwd", "///etc/passwd", "./x", "../x", "x", "file:///tmp", "file:/etc/passwd", "file:etc",
    "FiLe:///etc/passwd", "file://123.456.789.123/x", "file://localhost/etc/passwd", "file:////etc", "file://host/../x",
    "file%3a///etc", "C:\\Users\\x", "c:/x", "\\\\host\\share", "//host/share",
    "http://169.254.169.254/latest/meta-data", "https://127.0.0.1/x", "http://[::1]/x", "http://2130706433/", "http://0x7f.1/",
    "HTTP://localhost/x", "http:///#/../../../etc", "http://host:9000/models/../../../", "http://x;/../../", "ftp://host:8888/a/../b",
    "sftp://h/x", "gopher://h/x", "hdfs://h/x", "smb://h/x", "http://[", "http://[::1", "runs://[x", "mlflow-artifacts://[::1/0/x/artifacts",
    "models://[/x", "mlflow-artifacts://host:9000/models/../../../", "mlflow-artifacts:/0/../../etc",
    "mlflow-artifacts:/__EXP__/__RUN__/artifacts/../../../other", "mlflow-artifacts:/__EXP__/__OTHER_RUN__/artifacts/model",
    "mlflow-artifacts:/__EXP__/__RUN__/artifacts/%2e%2e/%2e%2e/x", "mlflow-artifacts:/__EXP__/__RUN__/artifacts/model?x=1",
    "mlflow-artifacts:/__EXP__/__RUN__/artifacts/model#/../..", "mlflow-artifacts:/__EXP__/__RUN__/artifacts/a\\..\\..",
    "mlflow-artifacts:sealed/" + "0" * 64, "mlflow-artifacts:/sealed/" + "0" * 64, "runs:/", "runs:", "runs://x/y",
    "runs:/__RUN__/../x", "runs:/__RUN__/%2e%2e/x", "runs:/__RUN__/a%00b", "runs:/__RUN__//etc/passwd",
    "runs:/__RUN__\\..\\x", "models:/", "models:/m-", "models:/m-" + "0" * 32, "models:/__MODEL__/0",
    "models:/__MODEL__/-1", "models:/__MODEL__/99999999999999999999", "models:/__MODEL__/1/../2", "models:/__MODEL__@", "models:/__MODEL__@none",
    "models:/../1", "models:/a%2fb/1", "models:/__LOGGED__/../x", "s3://my_bucket/models/../../../", "s3a://b/..%2f..%2fx", "s3://b/x%00",
    "dbfs:/x/a%3f/../../..", "s3://b/" + "x" * 5000,
    "dummy-source", "prompt-template", ":", "://", "1:x", "\u0000",
)  # fmt: skip
"""What no version is made from."""
UNSEALED = (
    "s3://b/x#y", "gs://b/x#y", "s3://u:secret@b/x", "data:text/plain,x", "javascript:alert(1)", "jar:file:///x.zip!/y",  "local:/etc/passwd",   "runs:/__RUN__/model#x", "runs:/__RUN__/model?x", "s3://b/\u202e",  "runs:/00000000000000000000000000000000/model",
)  # fmt: skip
"""What is kept as text, and never opened."""

FILTERS = (
    "'", '"', "`", "name", "name =", "name = ", "= 'x'", "name = 'x", "name = x", "name = 1", "name == 'x'", "name = 'x' OR 1=1",
    "name = 'x'; DROP TABLE models; --", "name = 'x' -- ", "name = 'x' /* */", "name = 'x' UNION ALL", "1=1", "AND", "AND AND", "()", "(name = 'x')",
    "name IN ()", "name IN ('a'", "name IN ('a',,)", "name IN (1)", "name IN ('" + "','".join("abcdefgh" * 150) + "')", "name LIKE '\\'",
    "name LIKE '%\\'", "name ILIKE '_%\\_'", "name LIKE '" + "%" * 500 + "'", "name = '\u0000'", "name = '\u202e'", "name = '" + "x" * 20000 + "'",
    "tags.k = 'v'", "tags.`a b` = 'v'", "tags.`` = 'v'", "tags. = 'v'", "tags.`a = 'v'", "tag.k IS NULL", "tags.k IS NOT NULL", "tags.k = 1",
    "tags.\"k'k\" = 'v'", "params.x = 'y'", "params.x > 1", "metrics.loss > 1e999", "metrics.loss > -1e999", "metrics.loss > nan", "metrics.loss = 'x'",
    "metrics.loss > 1" + "0" * 400, "metrics.loss > 0." + "0" * 400 + "1", "metrics.loss = inf", "metrics.`a b` >= 0x10", "metric.loss < .5",
    "attribute.name = 'x'", "attributes.status = 'RUNNING'", "nonsense.x = 'y'", "start_time > 99999999999999999999999", "start_time > 9223372036854775807",
    "start_time = -9223372036854775808", "start_time > 9223372036854776", "start_time = 'x'", "start_time = 1.5", "attributes.end_time <= 1e30", "creation_time >= 10000000000000000000",
    "creation_time = 9223372036854775807", "last_update_time < -1", "experiment_id = '1'", "experiment_id = '99999999999999999999'", "experiment_id = '-1'", "experiment_id = 'x'",
    "experiment_id IN ('1', '" + "9" * 30 + "')", "version_number = 1", "version_number > 99999999999999999999", "version_number = 2147483648", "version_number = '1'", "version_number = 'x'",
    "version_number = -1", "version_number = " + "1" * 5000, "run_id IN ('a')", "run_id = '\u00e9'", "source_path = 'x'", "source_path LIKE '%'", "creation_timestamp > 1" + "0" * 20, "creation_timestamp = 1e308",
    "status = 'READY' AND " * 200 + "status = 'x'", "name = 'a' AND " * 30 + "name = 'b'", "(" * 1000, "not name = 'x'", "name BETWEEN 'a' AND 'b'", "name = (name = 'x')",
    "name != name", "datasets.name = 'x'", "dataset.digest IN ('x')", "datasets.nonsense = 'x'", "user_id = ''", "run_name = 'x'", "`Run Name` = 'x'", "name\u00a0=\u00a0'x'",
    "\u0000", "name = 'x' \u0000", "\ufeffname = 'x'", "a" * 9000, "tags." + "k" * 600 + " = 'v'", "tags.`mlflow.prompt.is_prompt` = 'true'", "tags.`mlflow.prompt.is_prompt` = '\u0000'",
    "name = $1", "name = :x", "name = %s", "name = ?", "name = {x}", "name = '%(x)s'", "name = '{0}'", "{{7*7}}", "attributes.model_id = 'x'", "metrics.loss IN (1)", "params.k IN ('a')",
)  # fmt: skip
ORDERS = (
    "", " ", "name", "name DESC", "name desc asc", "name;", "name; DROP TABLE models", "name, name", "nonsense", "nonsense.x", "metrics.loss", "metrics.`a b` DESC", "metrics.loss NULLS LAST", "tags.k",
    "params.k ASC", "params.`", "params.``", "1", "-1", "*", "name)", "(name)", "name COLLATE NOCASE", "rowid", "last_updated_timestamp", "timestamp ASC", "version_number", "creation_timestamp DESC",
    "start_time", "end_time DESC", "attributes.start_time", "attribute.status", "experiment_id", "\u0000", "tags.\u0000", "tags.`\u0000`", "metrics.`\u202e`", "dataset.name", "k" * 5000, "tags." + "k" * 600,
    "RAND()", "case when 1=1 then name end", "name\tDESC", "name\u00a0DESC", "'name'", '"name"', "`name`", "creation_time", "last_update_time", "Created", "run name", "{}", "%s", "user_id",
)  # fmt: skip
TEXTS = (
    "", " ", "\t", "\n", "\r\n", "\u0000", "a\u0000b", "\u0001", "\u001b[31m", "\u007f", "\u0085", "\u00a0", "\u200b", "\u202eabc", "\u2028", "\ufeff", "\ufffe", "\ufffd", "\ue000", "\U000e0001", "\U0010ffff", "\u0378",
    "e\u0301", "\u00e9", "\u212b", "\u0130", "\u00df", "\U0001f600", "x\nmodels", "'", '"', "''; DROP TABLE models; --", "' OR '1'='1", "%", "_", "\\", "$(id)", "`id`", "${jndi:ldap://x}", "{{7*7}}", "%s%n", "{0}", "{name}",
    "<script>alert(1)</script>", "null", "None", "true", "True", "yes", "NaN", "nan", "Infinity", "-Infinity", "inf", "1e400", "-1e400", "0", "00", "01", "-0", "-1", "+1", " 1", "1 ", "1.0", "1.5", "1e3", "1_000", "0x10", "\u0661", "\uff11", "\u00b2",
    "2147483648", "9007199254740993", "9223372036854775", "9223372036854776", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9" * 30, "9" * 400, "9" * 5000, "latest", "LATEST", "v1", "V2", "champion",
    "m-" + "0" * 32, "m-x", "0" * 32, "__RUN__", "__LOGGED__", "__MODEL__", "__UNSEALED__", "Default", "a/b", "a:b", "a@b", "x" * 251, "x" * 257, "x" * 501, "x" * 1001, "x" * 6001, "\U0001f600" * 250, "eyJ", "AAAA", "W10", "READY", "DELETED", "Archived", "RUNNING",
)  # fmt: skip
LONG_TEXTS = ("x" * 100_001, "\U0001f600" * 60_000, "\u0301" * 50_000, "\\u0000" * 1000, "," * 100_000)
"""For a few fields only, as they take time."""


def deep(levels: int) -> str:
    """Return lists in each other."""
    return "[" * levels + "]" * levels


JSONS = (
    "null", "true", "false", "0", "-0", "1", "-1", "0.5", "-0.0", "1.0", "1e2", "2147483648", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 400, "1" * 4400, "1e308", "1e309", "-1e400", "1e-400",
    "NaN", "Infinity", "-Infinity", "[]", "{}", "[null]", "[true]", "[1]", '["a"]', "[[]]", "[{}]", '[""]', '["a","a"]', '["\\u0000"]',
    '{"a":1}', '{"key":"k"}', '[{"key":null,"value":null}]', '[{"key":"k"}]', '[{"key":"k","value":1}]', '[{"key":1}]',
    '[{"key":["k"],"value":{}}]', '[{"key":"k","value":"v"},{"key":"k","value":"w"}]', '{"key":"k","value":"v"}', '"\\ud800"', '"\\udfff\\ud800"', '"a\\ud83db"',
    '{"\\ud800":1}', '{"a":1,"a":2}', "[" + ",".join(f'{{"key":"k{n}","value":"v"}}' for n in range(1001)) + "]",
    "[" + ",".join(f'"{n + 7}"' for n in range(1100)) + "]", "[" + ",".join("{}" for _ in range(3000)) + "]", deep(40), deep(70), deep(5000),
    '"\\/\\b"', '"\\x41"', "01", "+1", ".5", "1.", "0x10", "'a'", "undefined", "", "tru", "[1,]", '"\t"', "[1", '{"a"}',
)  # fmt: skip
"""Values as JSON has them, or nearly; whole texts are in TEXTS."""
LONG_JSONS = (
    "[" + ",".join(f'"{n + 7}"' for n in range(70_000)) + "]",
    "[" + ",".join(f'{{"key":"k{n}","value":"v"}}' for n in range(30_000)) + "]",
)

BODIES = (
    b"", b" ", b"\0", b"null", b"true", b"1", b"[]", b"[{}]", b'"', b'""', b'"x"', b'"{}"', b'"{\\"name\\":\\"x\\"}"', b'"[]"', b'"\\ud800"', b"{", b"}", b"{}", b"{}{}", b"{} x", b'{"a":}', b'{"a":1,}',
    b"{'a':1}", b"{a:1}", b"// x\n{}", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"{\0}\0", b"\xff", b'{"\xff":1}', b'{"name":"\xed\xa0\x80"}', b'{"name":"\xc0\xae"}', b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":"\\u0000"}', b'{"\\u0000":1}', b'{"a":1,"a":2}', b'{"":""}', b'{"__proto__":{},"constructor":1,"__class__":1,"self":1}', b'{"a":' + b"[" * 60_000, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(30_000)) + b"}", b"name=x&version=1", b"<x/>", b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--', gzip.compress(b'{"name":"x"}'), b"\x1f\x8b\x08\0", b"PK\x03\x04",
)  # fmt: skip

HEADERS: tuple[Mapping[str, str], ...] = (
    {}, {"Content-Type": ""}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "multipart/form-data; boundary=b"}, {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Type": "application/json;"}, {"Content-Type": "APPLICATION/JSON"}, {"Content-Type": "application/json, text/plain"}, {"Content-Type": "\xff"}, {"Content-Type": "x" * 5000}, {"Content-Type": "application/jsonx"},
)  # fmt: skip
JSON_HEADERS: tuple[Mapping[str, str], ...] = tuple(
    {"Content-Type": "application/json", **more}
    for more in (
        {"Content-Encoding": "gzip"}, {"Content-Encoding": "br, gzip"}, {"X-MLFLOW-WORKSPACE": "x"}, {"X-MLFLOW-WORKSPACE": "../x"}, {"X-MLFLOW-WORKSPACE": " "}, {"X-Request-Id": "a" * 5000}, {"X-Request-Id": "\xe9%0d%0a"}, {"Accept": "text/html"},
        {"Accept-Encoding": "\xff"}, {"Range": "bytes=0-0"}, {"Range": "bytes=9999999999999999999999-"}, {"If-Match": "*"}, {"If-Match": '"' + "9" * 400 + '"'}, {"If-None-Match": "*"}, {"Authorization": "Basic " + "A" * 4000}, {"Authorization": "\xff"},
        {"Authorization": "Bearer x"}, {"Cookie": "a=b; " * 500}, {"X-Forwarded-Host": "evil.example"}, {"X-Forwarded-For": "' OR 1=1"}, {"X-HTTP-Method-Override": "DELETE"}, {"Idempotency-Key": "\xff" * 50}, {"Idempotency-Key": "x" * 4000}, {"Expect": "nonsense"},
    )
)  # fmt: skip

# ── valid values ─────────────────────────────────────────────────────────────────────────────────────────────────

ITEMS: Mapping[str, Mapping[str, Any]] = {
    "KeyValue": {"key": "k", "value": "v"},
    "BatchMetric": {"key": "loss", "value": 0.5, "timestamp": 1, "step": 0},
    "DatasetInputMessage": {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "s"}},
    "DatasetMessage": {"name": "d", "digest": "1", "source_type": "local", "source": "s"},
    "ModelMessage": {"model_id": "__LOGGED__"},
    "EventMessage": {"entity": "REGISTERED_MODEL", "action": "CREATED"},
    "EndedPart": {"part_number": 1, "etag": '"x"'},
    "LoggedModelOrder": {"field_name": "metrics.loss"},
    "DatasetFilter": {"dataset_name": "d"},
}
"""One valid element of each list, by the name of its message."""

USUAL: Mapping[str, Any] = {
    "name": "__MODEL__", "version": "1", "key": "k", "alias": "champion", "experiment_id": "__EXP__", "experiment_ids": ["__EXP__"],
    "experiment_name": "__EXP_NAME__", "run_id": "__RUN__", "run_ids": ["__RUN__"], "metric_key": "loss", "model_id": "__LOGGED__",
    "source": "s3://bucket/x", "stage": "Production", "stages": [], "upload_id": "__UPLOAD__", "part_number": "1", "webhook_id": "__WEBHOOK__",
    "tag_key": "k", "path": "model/a.bin", "folder": "__EXP__/__RUN__/artifacts/mpu", "parts": [ITEMS["EndedPart"]], "artifact_file_path": "model.bin",
    "value": "v", "new_name": "renamed-__N__", "num_parts": 1,
}  # fmt: skip

SPECIAL: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("POST", "registered-models/create"): {"name": "made-__N__"},
    ("POST", "registered-models/rename"): {"name": "__DOOMED__"},
    ("DELETE", "registered-models/delete"): {"name": "__DOOMED__"},
    ("POST", "model-versions/create"): {"run_id": None, "model_id": None},
    ("DELETE", "model-versions/delete"): {"name": "__DOOMED__"},
    ("POST", "experiments/create"): {"name": "made-__N__"},
    ("POST", "experiments/update"): {"experiment_id": "__DOOMED__"},
    ("POST", "experiments/delete"): {"experiment_id": "__DOOMED__"},
    ("POST", "runs/delete"): {"run_id": "__DOOMED__"},
    ("POST", "runs/log-metric"): {"value": 0.5, "timestamp": 1, "model_id": None},
    ("POST", "runs/log-parameter"): {"key": "p__N__"},
    ("POST", "runs/outputs"): {"models": [ITEMS["ModelMessage"]]},
    ("POST", "runs/log-inputs"): {"datasets": [ITEMS["DatasetInputMessage"]]},
    ("POST", "runs/log-model"): {"model_json": json.dumps({"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": "__RUN__"})},
    ("POST", "logged-models"): {"name": "made"},
    ("PATCH", "logged-models/{model_id}"): {"model_id": "__DOOMED__", "status": "LOGGED_MODEL_READY"},
    ("DELETE", "logged-models/{model_id}"): {"model_id": "__DOOMED__"},
    ("POST", "artifacts/presigned-upload-url"): {"model_id": None},
    ("POST", "mpu/complete/{folder*}"): {"path": "big.bin"},
    ("POST", "webhooks"): {"name": "hook", "url": "http://127.0.0.1:9/x", "events": [ITEMS["EventMessage"]], "status": "DISABLED"},
    ("PATCH", "webhooks/{webhook_id}"): {"name": None},
    ("DELETE", "webhooks/{webhook_id}"): {"webhook_id": "__DOOMED__"},
    ("POST", "webhooks/{webhook_id}/test"): {"webhook_id": "__DEAF__"},
    ("POST", "upload-artifact"): {"run_uuid": "__RUN__"},
}  # fmt: skip
"""What else is valid for an operation; None leaves a field out."""

PREPARED: Mapping[tuple[str, str], str] = {
    ("POST", "registered-models/rename"): "model",
    ("DELETE", "registered-models/delete"): "model",
    ("DELETE", "model-versions/delete"): "version",
    ("POST", "experiments/update"): "experiment",
    ("POST", "experiments/delete"): "experiment",
    ("POST", "runs/delete"): "run",
    ("PATCH", "logged-models/{model_id}"): "logged_model",
    ("DELETE", "logged-models/{model_id}"): "logged_model",
    ("DELETE", "webhooks/{webhook_id}"): "webhook",
}
"""What an operation uses up, so that it must be made again."""

LARGE_FIELDS = {"tags", "filter", "order_by", "experiment_ids", "description", "value", "params", "source", "run_ids", "path", "datasets"}  # fmt: skip


def key_of(operation: Operation) -> tuple[str, str]:
    """Return an operation's short name."""
    return operation.method, re.sub(r"^[0-9.]+/mlflow(-artifacts)?/", "", operation.path)


def fill_valid(operation: Operation) -> dict[str, Any]:
    """Return the fields of an operation with nothing wrong with them."""
    known = {one.name for one in msgspec.structs.fields(operation.fields)}
    values = {name: value for name, value in USUAL.items() if name in known}
    values |= SPECIAL.get(key_of(operation), {})
    return {name: value for name, value in values.items() if value is not None}


# ── cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def json_texts(name: str) -> Iterator[str]:
    """Yield bad values of a field as they stand in a body."""
    yield from JSONS
    texts = [*TEXTS, *PATHS]
    texts += [*SOURCES, *UNSEALED] if name in {"source", "artifact_location", "url"} else []
    texts += FILTERS if name == "filter" else ()
    texts += ORDERS if name in {"order_by", "field_name"} else ()
    for text in texts:
        yield json.dumps(text)
    if name in LARGE_FIELDS:
        yield from LONG_JSONS
        yield from (json.dumps(text) for text in LONG_TEXTS)


def struct_of(annotation: Any) -> type | None:
    """Return the message an annotation is about, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for part in typing.get_args(annotation):
        found = struct_of(part)
        if found is not None:
            return found
    return None


def nest(name: str, annotation: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a field may hold around a bad value, and the name of what is bad there."""
    yield name, V
    is_list = "Sequence" in str(annotation)
    struct = struct_of(annotation)
    if struct is None:
        if is_list:
            yield name, [V]
        return
    valid = dict(ITEMS[struct.__name__])
    for one in msgspec.structs.fields(struct):
        for inner, value in nest(one.name, typing.get_type_hints(struct)[one.name]):
            whole = {**valid, one.name: value}
            yield inner, [whole] if is_list else whole


def encode_path(text: str) -> str:
    """Write a text into a path: what it holds is kept apart from what divides a path, but for the slash."""
    return quote(text, safe="/%~.;:@\\ ").replace("\\", "%5C").replace(" ", "%20")


def build_target(operation: Operation, parts: Mapping[str, str], query: str = "") -> str:
    """Return the address of an operation."""
    path = re.sub(r"\{(\w+)\*?\}", lambda found: parts[found[1]], operation.path)
    return (path if path.startswith("/") else f"/api/{path}") + (f"?{query}" if query else "")


def list_parts(operation: Operation) -> list[str]:
    """Return the names of what stands in an operation's path."""
    return re.findall(r"\{(\w+)\*?\}", operation.path)


def encode_query(fields: Mapping[str, Any]) -> str:
    """Write fields into a query."""
    pairs = [(name, one) for name, value in fields.items() for one in (value if isinstance(value, list) else [value])]
    return "&".join(f"{name}={quote(str(one), safe='')}" for name, one in pairs)


def generate_bodies(operation: Operation) -> Iterator[Case]:
    """Yield cases of an operation whose fields travel in a body."""
    valid, inside = fill_valid(operation), list_parts(operation)
    parts = {name: str(valid.pop(name)) for name in inside}
    target, prepare = build_target(operation, parts), PREPARED.get(key_of(operation))
    for one in msgspec.structs.fields(operation.fields):
        if one.name in inside:
            continue
        for bad, holder in nest(one.name, typing.get_type_hints(operation.fields)[one.name]):
            around = json.dumps({**valid, one.name: holder}).partition(f'"{V}"')
            for text in json_texts(bad):
                body = (around[0] + text + around[2]).encode()
                yield Case(
                    f"{one.name}: {json.dumps(holder)[:60]} = {text[:80]}",
                    operation.method,
                    target,
                    body,
                    prepare=prepare,
                )
    whole = json.dumps(valid).encode()
    for raw in BODIES:
        yield Case(f"body {raw[:60]!r}", operation.method, target, raw, prepare=prepare)
    for headers in (*HEADERS, *JSON_HEADERS):
        yield Case(f"headers {str(headers)[:100]}", operation.method, target, whole, headers, prepare)
    doubled = {
        **valid,
        **{re.sub("_(.)", lambda found: found[1].upper(), name): value for name, value in valid.items()},
    }
    yield Case("both spellings", operation.method, target, json.dumps(doubled).encode(), prepare=prepare)


def generate_queries(operation: Operation) -> Iterator[Case]:
    """Yield cases of an operation whose fields travel in the query."""
    valid, inside = fill_valid(operation), list_parts(operation)
    parts = {name: encode_path(str(valid.pop(name))) for name in inside}
    body = b"x" if not operation.is_json else None
    prepare, headers = PREPARED.get(key_of(operation)), {"Content-Type": "application/octet-stream"} if body else {}
    raws = (
        "%ff",
        "%ed%a0%80",
        "%c0%ae",
        "%",
        "%%",
        "%u002e",
        "a%00",
        "%2500",
        "+",
        "a&",
        "a=b=c",
        "[]",
        "\xe9",
        "\xff\xfe",
        "%F0%9F",
        "a;b",
    )
    for one in msgspec.structs.fields(operation.fields):
        if one.name in inside:
            continue
        others = {name: value for name, value in valid.items() if name != one.name}
        base = encode_query(others)
        texts = [quote(text, safe="") for text in (*TEXTS, *PATHS, *JSONS[:30])]
        texts += [quote(text, safe="") for text in FILTERS] if one.name == "filter" else ()
        texts += [quote(text, safe="") for text in ORDERS] if one.name == "order_by" else ()
        for text in (*raws, *texts):
            if len(text) < 7000:
                query = f"{base}&{one.name}={text}" if base else f"{one.name}={text}"
                what = f"{one.name} = {text[:80]}"
                yield Case(what, operation.method, build_target(operation, parts, query), body, headers, prepare)
        for query in (
            f"{base}&{one.name}=a&{one.name}=b",
            f"{base}&{one.name}",
            f"{base}&{one.name}[]=a",
            f"&&&{base}&=&==",
            base,
        ):
            yield Case(
                f"query {query[:80]}", operation.method, build_target(operation, parts, query), body, headers, prepare
            )
    for headers in JSON_HEADERS:
        target = build_target(operation, parts, encode_query(valid))
        yield Case(f"headers {str(headers)[:100]}", operation.method, target, body, headers, prepare)


ROOTS = (
    "", "__EXP__/__RUN__/artifacts/", "__EXP__/__RUN__/", "__EXP__/models/__LOGGED__/artifacts/", "sealed/__HEX__/", "sealed/", "0/__RUN__/artifacts/", "__EXP__/__OTHER_RUN__/artifacts/../../__RUN__/artifacts/",
)  # fmt: skip
"""Beginnings of addresses of the artifact proxy."""


def generate_paths(operation: Operation) -> Iterator[Case]:
    """Yield cases of what stands in an operation's path."""
    valid, inside = fill_valid(operation), list_parts(operation)
    usual = {name: encode_path(str(valid.pop(name))) for name in inside}
    streams = operation.method != "GET" and not operation.is_json
    body = b"x" if streams else None if operation.method == "GET" else json.dumps(valid).encode()
    query = encode_query(valid) if operation.method == "GET" or not operation.is_json else ""
    headers = {"Content-Type": "application/octet-stream" if streams else "application/json"}
    for name in inside:
        is_rest = f"{{{name}*}}" in operation.path
        texts = [encode_path(text) for text in (*PATHS, *TEXTS) if len(text) < 1500]
        texts += [
            "%ff",
            "%ed%a0%80",
            "a%2fb",
            "%2F",
            "%2e%2e",
            "%252e%252e%252f%252e%252e",
            "%c0%ae%c0%ae%c0%af",
            "\xff",
            "\xe9",
        ]
        if is_rest:
            texts = [root + text for root in ROOTS for text in texts]
        for text in texts:
            target = build_target(operation, {**usual, name: text}, query)
            yield Case(f"path {text[:80]}", operation.method, target, body, headers, PREPARED.get(key_of(operation)))


def generate(operation: Operation) -> Iterator[Case]:
    """Yield all cases of an operation, the same in every run."""
    takes_body = operation.method != "GET" and operation.is_json
    for case in (*(generate_bodies if takes_body else generate_queries)(operation), *generate_paths(operation)):
        yield replace(case, what=f"{operation.method} {operation.path}: {case.what}")


def choose() -> list[Case]:
    """Return the cases that are sent, in an order that mixes the operations."""
    everything = [case for operation in OPERATIONS for case in generate(operation)]
    random.Random(SEED).shuffle(everything)
    # Both prefixes lead to the same operations; an advisory was about a check that one of them lacked.
    return [
        replace(case, target=re.sub("^/api/", "/ajax-api/", case.target)) if number % 3 == 0 else case
        for number, case in enumerate(everything[:CASES])
    ]


# ── a server and what is in it ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def code(self) -> str | None:
        """The error code of a refusal in MLflow's form."""
        if self.status < 400:
            return None
        try:
            found = json.loads(self.body)["error_code"]
        except (ValueError, KeyError, TypeError):
            return "no form of MLflow's"
        return str(found)


@dataclass
class Stage:
    """A server with some of everything in it, and one connection that is kept."""

    served: Served
    database: list[str]
    names: dict[str, str] = field(default_factory=dict)
    link: socket.socket | None = None
    left: bytes = b""
    is_used_up: bool = True
    prepared: str | None = None

    def close(self) -> None:
        """Hang up."""
        if self.link is not None:
            self.link.close()
        self.link, self.left = None, b""

    def fill(self, data: bytes, number: int) -> bytes:
        """Put the names of what exists into a text."""
        if b"__" not in data:
            return data
        for name, value in self.names.items():
            data = data.replace(b"__%s__" % name.encode(), value.encode())
        return data.replace(b"__N__", b"%d" % number)

    def send(self, case: Case, number: int = 0) -> Answered:
        """Send a case on the connection that is kept, and read its answer."""
        body = None if case.body is None else self.fill(case.body, number)
        headers = {"Host": f"127.0.0.1:{self.served.port}", **case.headers}
        if body is not None:
            headers["Content-Length"] = str(len(body))
        elif case.method != "GET":
            headers["Content-Length"] = "0"
        target = self.fill(case.target.encode("latin-1", "xmlcharrefreplace"), number)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        return self.exchange(case.method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + (body or b""))

    def exchange(self, request: bytes, *, has_body: bool = True) -> Answered:
        """Send bytes and read one answer. Raises TimeoutError if none comes."""
        start = time.monotonic()
        if self.link is None:
            self.link = socket.create_connection(("127.0.0.1", self.served.port), timeout=4 * SECONDS)
        with suppress(ConnectionError):  # it may answer before it has read everything, and hang up
            self.link.sendall(request)
        found = self.left
        while b"\r\n\r\n" not in found:
            found += self._receive(found)
        head, _, rest = found.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        size = int(headers.get("content-length", "0")) if has_body and status != 304 else 0
        while len(rest) < size:
            rest += self._receive(rest)
        self.left = rest[size:]
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answered(status, headers, rest[:size], time.monotonic() - start)

    def _receive(self, before: bytes) -> bytes:
        assert self.link is not None
        try:
            chunk = self.link.recv(1 << 16)
        except TimeoutError:
            self.close()
            raise
        if not chunk:
            self.close()
            raise ConnectionError(f"the connection was cut after {before[:200]!r}")
        return chunk

    def ask(self, method: str, path: str, fields: Any = None, **more: Any) -> Any:
        """Send a request that must succeed, and return its JSON."""
        target = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
        if method == "GET":
            target += "?" + encode_query(fields or {})
        body = more.get("data") or (None if method == "GET" else json.dumps(fields or {}).encode())
        answer = self.send(Case(path, method, target, body))
        assert answer.status == 200, (method, path, str(fields)[:300], answer)
        return json.loads(answer.body or b"{}")

    def make_all(self) -> None:
        """Make one of everything that a case may name."""
        names = self.names
        names |= {
            "MODEL": "risk",
            "UNSEALED": "loose",
            "EXP_NAME": "trials",
            "HEX": "0" * 64,
            "DEAF": "",
            "DOOMED": "none",
        }
        for number in range(3):  # so that no bad value happens to be the id of the experiment that all cases need
            self.ask("POST", "experiments/create", {"name": f"early-{number}"})
        names["EXP"] = self.ask("POST", "experiments/create", {"name": "trials"})["experiment_id"]
        for name in ("RUN", "OTHER_RUN"):
            run = self.ask("POST", "runs/create", {"experiment_id": names["EXP"], "run_name": name.lower()})["run"]
            names[name] = run["info"]["run_id"]
            self.put(f"{names['EXP']}/{names[name]}/artifacts/model/a.bin", b"weights of " + name.encode())
        self.ask("POST", "runs/log-metric", {"run_id": names["RUN"], "key": "loss", "value": 0.5, "timestamp": 1})
        names["LOGGED"] = self.make("logged_model")
        self.put(f"{names['EXP']}/models/{names['LOGGED']}/artifacts/model.bin", b"weights")
        self.ask("PATCH", f"logged-models/{names['LOGGED']}", {"status": "LOGGED_MODEL_READY"})
        for name in ("risk", "loose"):
            self.ask("POST", "registered-models/create", {"name": name, "tags": [{"key": "k", "value": "v"}]})
        source = f"runs:/{names['RUN']}/model"
        made = self.ask("POST", "model-versions/create", {"name": "risk", "source": source, "run_id": names["RUN"]})
        assert made["model_version"].get("status_message") is None
        self.ask("POST", "model-versions/create", {"name": "loose", "source": "s3://bucket/x"})
        address = self.ask("GET", "model-versions/get-download-uri", {"name": "risk", "version": "1"})["artifact_uri"]
        names["HEX"] = address.rpartition("/")[2]
        self.ask("POST", "registered-models/alias", {"name": "risk", "alias": "champion", "version": "1"})
        names["WEBHOOK"], names["DEAF"] = self.make("webhook"), self.make("webhook")
        names["UPLOAD"] = self.make("upload")
        names["MODEL"] = "risk"

    def put(self, place: str, data: bytes) -> None:
        """Upload a file through the artifact proxy."""
        self.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}", data=data)

    def make(self, kind: str, number: int = 0) -> str:
        """Make something and return its id or name."""
        match kind:
            case "model" | "version":
                name = f"doomed-{number}"
                self.ask("POST", "registered-models/create", {"name": name})
                if kind == "version":
                    self.ask("POST", "model-versions/create", {"name": name, "source": "s3://bucket/x"})
                return name
            case "experiment":
                return str(self.ask("POST", "experiments/create", {"name": f"doomed-{number}"})["experiment_id"])
            case "run":
                return str(
                    self.ask("POST", "runs/create", {"experiment_id": self.names["EXP"]})["run"]["info"]["run_id"]
                )
            case "logged_model":
                made = self.ask("POST", "logged-models", {"experiment_id": self.names["EXP"], "name": "net"})
                return str(made["model"]["info"]["model_id"])
            case "upload":
                place = f"{self.names['EXP']}/{self.names['RUN']}/artifacts/mpu"
                path = f"/api/2.0/mlflow-artifacts/mpu/create/{place}"
                return str(self.ask("POST", path, {"path": "big.bin", "num_parts": 1})["upload_id"])
            case _:
                events = [ITEMS["EventMessage"]]
                hook = {"name": "hook", "url": "http://127.0.0.1:9/x", "events": events, "status": "DISABLED"}
                return str(self.ask("POST", "webhooks", hook)["webhook"]["webhook_id"])

    def play(self, cases: Sequence[Case]) -> list[tuple[Case, Answered | str]]:
        """Send cases one after the other; what one uses up is made again before the next that needs it."""
        found: list[tuple[Case, Answered | str]] = []
        for number, case in enumerate(cases, 1):
            try:
                if case.prepare is not None and (self.is_used_up or self.prepared != case.prepare):
                    self.names["DOOMED"], self.prepared = self.make(case.prepare, number), case.prepare
                answer: Answered | str = self.send(case, number)
                if case.prepare is not None:
                    self.is_used_up = not isinstance(answer, Answered) or answer.status == 200
            except Exception as error:  # noqa: BLE001 - one more line of the report
                answer = f"{type(error).__name__}: {error}"[:300]
            found.append((case, answer))
        return found


def find_fault(stage: Stage, case: Case, answer: Answered | str) -> str | None:
    """Say what is wrong with an answer, or None."""
    if isinstance(answer, str):
        return answer
    text = answer.body.decode("utf-8", "replace")
    if answer.seconds > SECONDS:
        return f"it takes {answer.seconds:.1f} s"
    if answer.status >= 500 and not (
        answer.status == 501 and text.startswith('{"error_code":"NOT_IMPLEMENTED","message":"Multipart upload')
    ):
        return f"{answer.status} {text[:300]}"
    if answer.status < 400:
        return None
    if not case.target.isascii() and (answer.status, text) == (400, ""):
        return None  # bytes that no address may hold, which the HTTP layer refuses
    if answer.headers.get("content-type") != "application/json":
        return f"{answer.status} of the type {answer.headers.get('content-type')}: {text[:200]}"
    try:
        found = json.loads(answer.body)
    except ValueError:
        return f"no JSON: {text[:300]}"
    if set(found) != {"error_code", "message"} or found["error_code"] not in ERROR_CODES or not found["message"]:
        return f"not MLflow's form: {text[:300]}"
    if len(answer.body) > ANSWER_BYTES:
        return f"{len(answer.body)} bytes: {text[:100]}"
    if LEAKS.search(text) is not None or str(stage.served.home) in text:
        return f"it tells of the inside: {text[:500]}"
    return None


@dataclass
class Played:
    """A server after the sweep."""

    stage: Stage
    answers: list[tuple[Case, Answered | str]]


def open_stage(request: pytest.FixtureRequest, home: Path, name: str, stack: ExitStack) -> Stage:
    """Start a server on a database and fill it."""
    database: list[str] = []
    if name == "postgres":
        server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
        database = ["--database", stack.enter_context(server.open_database())]
    # Webhooks may name a port of this machine that nobody listens on, so that nothing is ever sent anywhere.
    served = serve(home, "--no-log-requests", "--webhook-http", "--webhook-private", *database)
    stage = Stage(stack.enter_context(served), database)
    stack.callback(stage.close)
    stage.make_all()
    return stage


@pytest.fixture(scope="module")
def sqlite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Play the sweep on SQLite."""
    with ExitStack() as stack:
        stage = open_stage(request, tmp_path_factory.mktemp("home"), "sqlite", stack)
        yield Played(stage, stage.play(choose()))


@pytest.fixture(scope="module")
def postgresql(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Play the sweep on PostgreSQL."""
    with ExitStack() as stack:
        stage = open_stage(request, tmp_path_factory.mktemp("home"), "postgres", stack)
        yield Played(stage, stage.play(choose()))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def played(request: pytest.FixtureRequest) -> Played:
    """Return the server of each database after the sweep."""
    found: Played = request.getfixturevalue(request.param)
    return found


# ── the sweep ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_bad_input_is_refused_in_mlflows_form_and_at_once(played: Played) -> None:
    faults = [(case, find_fault(played.stage, case, answer)) for case, answer in played.answers]
    wrong = [f"{case.what}: {fault}" for case, fault in faults if fault is not None]

    assert not wrong, f"{len(wrong)} of {len(faults)}\n" + "\n".join(wrong[:SHOWN])
    assert sum(isinstance(answer, Answered) and 400 <= answer.status < 500 for _, answer in played.answers) > CASES // 4


@pytest.mark.postgres
def test_every_database_answers_alike(sqlite: Played, postgresql: Played) -> None:
    wrong = []
    for (case, one), (_, other) in zip(sqlite.answers, postgresql.answers, strict=True):
        if isinstance(one, str) or isinstance(other, str) or (one.status, one.code) == (other.status, other.code):
            continue
        wrong.append(f"{case.what}:\n    {one.status} {one.body[:200]!r}\n    {other.status} {other.body[:200]!r}")

    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:SHOWN])


def test_deep_json_inside_a_field_is_refused_or_passed_over(played: Played) -> None:
    stage = played.stage
    for text in (
        "[" * 90_000,
        "[" * 5_000 + "]" * 5_000,
        '{"a":' * 15_000,
        '{"flavors":' + "[" * 5_000 + "]" * 5_000 + "}",
    ):
        body = json.dumps({"run_id": stage.names["RUN"], "model_json": text}).encode()
        answer = stage.send(Case("model_json", "POST", "/api/2.0/mlflow/runs/log-model", body))
        assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE"), text[:40]

        run_id = stage.make("run")
        stage.ask("POST", "runs/set-tag", {"run_id": run_id, "key": "mlflow.log-model.history", "value": text})
        model = json.dumps({"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": run_id})
        stage.ask("POST", "runs/log-model", {"run_id": run_id, "model_json": model})
        tags = stage.ask("GET", "runs/get", {"run_id": run_id})["run"]["data"]["tags"]
        (noted,) = [tag["value"] for tag in tags if tag["key"] == "mlflow.log-model.history"]
        assert json.loads(noted) == [json.loads(model)]

        model_id = stage.names["LOGGED"]
        tag = [{"key": "mlflow.modelVersions", "value": text}]
        stage.ask("PATCH", f"logged-models/{model_id}/tags", {"model_id": model_id, "tags": tag})
        source = {"name": "loose", "source": f"models:/{model_id}", "model_id": model_id}
        stage.ask("POST", "model-versions/create", source)


@pytest.mark.parametrize(
    "text",
    ["%25" * 1_200_000, "%" * 3_500_000, "9" * 3_900_000, "\u0301" * 1_900_000, "'" * 3_900_000, "../" * 1_200_000],
    ids=["encoded", "percent", "digits", "marks", "quotes", "parts"],
)
def test_four_megabytes_of_one_field_hold_nobody_up(sqlite: Played, text: str) -> None:
    # One event loop serves all clients: what takes a second there holds all of them up for as long.
    stage, late = sqlite.stage, []
    for method, path, name in (
        ("POST", "model-versions/create", "source"), ("POST", "artifacts/presigned-upload-url", "path"),
        ("POST", "runs/search", "filter"), ("POST", "runs/create", "experiment_id"), ("POST", "logged-models/search", "page_token"),
        ("POST", "registered-models/create", "name"), ("POST", "runs/log-metric", "step"), ("PATCH", "model-versions/update", "version"),
        ("POST", "registered-models/create", "A" * 100),
    ):  # fmt: skip
        (operation,) = [one for one in OPERATIONS if key_of(one) == (method, path)]
        key = name if name.islower() else "A" * 3_900_000
        body = json.dumps({**fill_valid(operation), key: text if name.islower() else 1}, ensure_ascii=False).encode()
        times = []
        for _ in range(3):  # these machines stand still now and then
            answer = stage.send(Case(path, method, f"/api/2.0/mlflow/{path}", body))
            assert answer.status < 500
            times.append(answer.seconds)
            if answer.seconds < 0.5:
                break
        else:
            late.append((path, name, times))

    assert not late


def test_a_filter_that_asks_for_a_number_nobody_has_is_answered_at_once(played: Played) -> None:
    # Looking for something that is no int in a range walks through all of it: 2**64 numbers, for ever, in the event loop.
    stage = played.stage
    for digits in (19, 20, 40, 41, 400, 5_000):
        for text in ("9" * digits, "'" + "9" * digits + "'", "-" + "9" * digits, "1." + "0" * digits):
            filters = {
                "registered-models/search": f"name = {text}", "model-versions/search": f"version_number = {text}",
                "experiments/search": f"experiment_id = {text}", "runs/search": f"start_time > {text}",
                "logged-models/search": f"creation_timestamp > {text}",
            }  # fmt: skip
            for path, wanted in filters.items():
                fields = {"filter": wanted, "experiment_ids": [stage.names["EXP"]]}
                if path in {"registered-models/search", "model-versions/search"}:
                    case = Case(path, "GET", f"/api/2.0/mlflow/{path}?filter={quote(wanted)}", headers={})
                else:
                    case = Case(path, "POST", f"/api/2.0/mlflow/{path}", json.dumps(fields).encode())
                answer = stage.send(case)
                assert answer.status in {200, 400}, (path, wanted[:60], answer)


# ── what MLflow's security advisories were about ─────────────────────────────────────────────────────────────────

CLIMBING = (
    "../../../../etc/passwd", "..", "a/../../../etc/passwd", "/etc/passwd", "//etc/passwd", "//proc/self/root/etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fetc%252fpasswd", "%25252e%25252e/x", "..%5c..%5cx", "..\\..\\x",
    "C:\\Windows\\win.ini", "C:/Windows/win.ini", "\\\\host\\share", "#/../../etc/passwd", "a#/../..", "%23/../../etc", "a%00b", "\u0000", "a/.%2e/b",
)  # fmt: skip
"""CVE-2023-1177, -2780, -6831, -6909, -6977, CVE-2024-1483, -1558, -1560, -1593, -1594, -2928, -3848, CVE-2026-2614."""


def refuse_all(stage: Stage, cases: Sequence[Case], statuses: set[int]) -> None:
    """Send cases that must each be refused in MLflow's form with one of the statuses, none of which is sent again."""
    assert not statuses & RETRIED
    wrong = []
    for case in cases:
        answer = stage.send(case)
        fault = find_fault(stage, case, answer) or (
            None if answer.status in statuses else f"{answer.status} {answer.body[:200]!r}"
        )
        if fault is not None:
            wrong.append(f"{case.method} {case.target[:200]} {(case.body or b'')[:200]!r}: {fault}")
    assert not wrong, "\n".join(wrong[:SHOWN])


@pytest.fixture
def outside(played: Played) -> Iterator[Path]:
    """Put a file beside the home that nothing may read, write or delete."""
    path = played.stage.served.home.parent / "outside.txt"
    path.write_text("nobody may read this")
    yield path
    assert path.read_text() == "nobody may read this"


def test_no_path_climbs_out_of_a_run_a_logged_model_or_a_version(played: Played, outside: Path) -> None:
    stage = played.stage
    texts = [*CLIMBING, f"../../{outside.name}", str(outside), f"file://{outside}"]
    cases = []
    for text in texts:
        coded = quote(text, safe="")
        addresses = (
            f"/get-artifact?run_id=__RUN__&path={coded}", f"/get-artifact?run_uuid=__RUN__&path={coded}",
            f"/model-versions/get-artifact?name=risk&version=1&path={coded}", f"/api/2.0/mlflow/artifacts/list?run_id=__RUN__&path={coded}",
            f"/ajax-api/2.0/mlflow/logged-models/__LOGGED__/artifacts/files?artifact_file_path={coded}",
            f"/ajax-api/2.0/mlflow/logged-models/__LOGGED__/artifacts/directories?artifact_directory_path={coded}",
            f"/api/2.0/mlflow-artifacts/artifacts?path={coded}",
        )  # fmt: skip
        cases += [Case(text, "GET", address, headers={}) for address in addresses]
        for root in ROOTS[:4]:
            for prefix in ("/api", "/ajax-api"):
                address = f"{prefix}/2.0/mlflow-artifacts/artifacts/{root}"
                cases += [
                    Case(text, method, address + coded, b"x" if method == "PUT" else None)
                    for method in ("GET", "PUT", "DELETE")
                ]
                cases.append(Case(text, "GET", f"{prefix}/2.0/mlflow-artifacts/presigned/{root}{coded}"))
                body = json.dumps(
                    {"path": "x", "upload_id": stage.names["UPLOAD"], "parts": [{"part_number": 1}]}
                ).encode()
                cases += [
                    Case(text, "POST", f"{prefix}/2.0/mlflow-artifacts/mpu/{verb}/{root}{coded}", body)
                    for verb in ("create", "complete", "abort")
                ]
        cases.append(Case(text, "POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid=__RUN__&path={coded}", b"x"))

    # Behind the address of a folder a second slash is none, and `file:` is a legal name: both stay inside it. And what
    # stands beside `artifacts/` is no place, where nothing is found and nothing deleted, whatever its name.
    inside = [case for case in cases if "file%3A" in case.target or re.search("/__.*/%2F|/__RUN__/C%3A", case.target)]
    refuse_all(stage, [case for case in cases if case not in inside], {400})
    for case in inside:
        answer = stage.send(case)
        assert answer.status in {200, 400, 404}, (case, answer)
        assert b"nobody may read this" not in answer.body
    assert [path for path in stage.served.home.parent.rglob("*passwd*") if stage.served.home not in path.parents] == []


def test_a_name_on_the_clients_disk_leads_nowhere_in_a_multipart_upload(played: Played) -> None:
    stage = played.stage
    target = "/api/2.0/mlflow-artifacts/mpu/create/__EXP__/__RUN__/artifacts"
    refuse_all(
        stage,
        [
            Case(name, "POST", target, json.dumps({"path": name}).encode())
            for name in ("..", "a/..", "a\\..", "a/", "/", "a/\u0000", " ", "a/.")
        ],
        {400},
    )
    for number in (0, -1, 10_001, 2**63, 2**70):
        answer = stage.send(Case("parts", "POST", target, json.dumps({"path": "a", "num_parts": number}).encode()))
        # 501 in these words makes the client send the file in one piece; it is not sent again
        assert answer.status == 501
        assert answer.body.startswith(b'{"error_code":"NOT_IMPLEMENTED","message":"Multipart upload is not supported')


def test_no_source_makes_the_server_read_a_file_or_ask_a_host(played: Played, outside: Path) -> None:
    stage = played.stage
    listener = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    sources = [
        *SOURCES,
        str(outside),
        f"file://{outside}",
        f"http://{host}/x",
        f"https://{host}/x",
        f"ftp://{host}/x",
        f"smb://{host}/x",
        f"http:{host}",
        f"hTTp://{host}/",
    ]
    bases: tuple[dict[str, str], ...] = ({}, {"run_id": "__RUN__"}, {"model_id": "__LOGGED__"})
    cases = [
        Case(
            text,
            "POST",
            f"{prefix}/2.0/mlflow/model-versions/create",
            json.dumps({"name": "risk", "source": text, **base}).encode(),
        )
        for text in sources
        for base in bases
        for prefix in ("/api", "/ajax-api")
    ]
    try:
        refuse_all(stage, cases, {400, 404})
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
    finally:
        listener.close()


@pytest.mark.parametrize("source", UNSEALED)
def test_a_source_out_of_reach_is_kept_as_text_and_never_sealed(played: Played, source: str) -> None:
    stage = played.stage
    body = json.dumps({"name": "loose", "source": source}).encode()
    answer = stage.send(Case(source, "POST", "/api/2.0/mlflow/model-versions/create", body))
    assert answer.status == 200, answer
    version = json.loads(answer.body)["model_version"]
    assert version["status_message"]
    native = stage.served.ask("GET", f"/api/v1/models/loose/versions/{version['version']}").json()
    assert native["sealed"] is False
    asked = {"name": "loose", "version": version["version"], "path": "x"}
    read = stage.send(Case("read", "GET", "/model-versions/get-artifact?" + encode_query(asked), headers={}))
    assert (read.status, read.code) in {(404, "RESOURCE_DOES_NOT_EXIST"), (409, "RESOURCE_CONFLICT")}, read


def test_nothing_below_a_sealed_versions_own_address_is_written_or_deleted(played: Played) -> None:
    stage = played.stage
    before = stage.send(Case("read", "GET", "/api/2.0/mlflow-artifacts/artifacts/sealed/__HEX__/a.bin", headers={}))
    assert (before.status, before.body) == (200, b"weights of RUN")
    cases = []
    for prefix in ("/api", "/ajax-api"):
        for root in (
            "sealed/__HEX__", "sealed//__HEX__", "./sealed/__HEX__", "%73ealed/__HEX__", "sealed%2F__HEX__", "%2573ealed/__HEX__", "sealed/" + "0" * 64, "sealed/" + "A" * 64, "sealed",
        ):  # fmt: skip
            for tail in ("/a.bin", "/new.bin", "/", "", "/a.bin/x", "/."):
                address = f"{prefix}/2.0/mlflow-artifacts/artifacts/{root}{tail}"
                cases += [Case("sealed", "PUT", address, b"tampered"), Case("sealed", "DELETE", address)]
            body = json.dumps(
                {"path": "a.bin", "upload_id": stage.names["UPLOAD"], "parts": [{"part_number": 1}]}
            ).encode()
            cases += [
                Case("sealed", "POST", f"{prefix}/2.0/mlflow-artifacts/mpu/{verb}/{root}", body)
                for verb in ("create", "complete", "abort")
            ]

    refuse_all(stage, cases, {409})

    after = stage.send(Case("read", "GET", "/api/2.0/mlflow-artifacts/artifacts/sealed/__HEX__/a.bin", headers={}))
    assert after.body == before.body
    address = f"{stage.names['EXP']}/{stage.names['RUN']}/artifacts/model/a.bin"
    stage.put(address, b"the run may change")
    assert (
        stage.send(Case("read", "GET", "/model-versions/get-artifact?name=risk&version=1&path=a.bin")).body
        == before.body
    )
    stage.put(address, before.body)


def test_what_is_sent_back_never_runs_in_a_browser(played: Played) -> None:
    # CVE-2024-27132, -27133: pages and tables that were somebody's model.
    stage = played.stage
    address = f"{stage.names['EXP']}/{stage.names['OTHER_RUN']}/artifacts/page.html"
    stage.put(address, b"<script>alert(1)</script>")
    for target in (
        f"/api/2.0/mlflow-artifacts/artifacts/{address}",
        "/get-artifact?run_id=__OTHER_RUN__&path=page.html",
    ):
        answer = stage.send(Case("page", "GET", target, headers={"Accept": "text/html"}))
        assert answer.status == 200
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "html" not in answer.headers.get("content-type", "")


def test_a_page_of_another_site_changes_nothing_and_a_foreign_host_reads_nothing(played: Played) -> None:
    # CVE-2025-14279 (DNS rebinding); CVE-2023-43472 and CVE-2024-8859 were read by pages too.
    stage = played.stage
    body = json.dumps({"name": "risk", "key": "k", "value": "stolen"}).encode()
    for more in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        headers = {"Content-Type": "application/json", **more}
        answer = stage.send(Case("tag", "POST", "/api/2.0/mlflow/registered-models/set-tag", body, headers))
        assert answer.status == 403
        stage.close()
    assert (
        stage.send(
            Case("read", "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": "evil.example"})
        ).status
        == 403
    )
    stage.close()


def test_a_webhook_names_no_address_inside_unless_it_is_allowed(tmp_path: Path) -> None:
    # CVE-2026-2393.
    urls = [
        "http://127.0.0.1/x", "https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest", "https://10.0.0.1/", "https://0/", "https://0.0.0.0/",
        "https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://[fe80::1%25lo]/", "https://[::]/", "https://100.64.0.1/", "https://192.168.0.1:443/", "https://x@127.0.0.1/", "https://127.0.0.1#@example.org/",
        "https://127.0.0.1\\@example.org/", "file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "https://", "https://[::1", "https://[/", "https://a\r\nb/", "https://a b/", "//127.0.0.1/", "x", " ", "https://127.0.0.1:99999/",
        "https://127.0.0.1:-1/", "https://127.0.0.1:x/", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020\u30020\u30021/", "https://[64:ff9b::7f00:1]/", "https://" + "a" * 300 + "/",
    ]  # fmt: skip
    with serve(tmp_path / "home", "--no-log-requests") as served:
        stage = Stage(served, [])
        bodies = [json.dumps({"name": "h", "url": url, "events": [ITEMS["EventMessage"]]}).encode() for url in urls]
        refuse_all(stage, [Case("hook", "POST", "/api/2.0/mlflow/webhooks", body) for body in bodies], {400})
        assert stage.ask("GET", "webhooks") == {}
        stage.close()


def test_every_head_is_answered_like_its_get_without_a_body(played: Played) -> None:
    stage = played.stage
    stage.close()
    for operation in OPERATIONS:
        if operation.method != "GET":
            continue
        valid = fill_valid(operation)
        parts = {name: str(valid.pop(name)) for name in list_parts(operation)}
        target = stage.fill(build_target(operation, parts, encode_query(valid)).encode(), 0)
        host = f"Host: 127.0.0.1:{stage.served.port}\r\n\r\n".encode()
        head = stage.exchange(b"HEAD " + target + b" HTTP/1.1\r\n" + host, has_body=False)
        got = stage.exchange(b"GET " + target + b" HTTP/1.1\r\n" + host)
        assert head.status == got.status < 500, (operation.path, head, got)


def test_the_server_answers_afterwards_and_all_that_was_kept_can_be_read(played: Played) -> None:
    stage = played.stage
    stage.close()
    assert stage.ask("GET", "/health")["status"] == "ok"
    assert [line for line in stage.served.log if '"failure"' in line or "Traceback" in line][:5] == []

    for path, fields in (
        ("registered-models/search", {"filter": ""}),
        ("registered-models/search", {"filter": "tags.`mlflow.prompt.is_prompt` = 'true'"}),
        ("model-versions/search", {"filter": ""}),
    ):
        read_pages(stage, "GET", path, {**fields, "max_results": 100})
    read_pages(stage, "POST", "experiments/search", {"view_type": "ALL", "max_results": 100})
    found = stage.ask("POST", "experiments/search", {"view_type": "ALL", "max_results": 50_000})["experiments"]
    ids = [each["experiment_id"] for each in found]
    read_pages(stage, "POST", "runs/search", {"experiment_ids": ids, "run_view_type": "ALL", "max_results": 100})
    read_pages(stage, "POST", "logged-models/search", {"experiment_ids": ids, "max_results": 100})
    runs = [f"runs?experiment={each}&" for each in ids[:50]]
    for path in ("models?", "versions?include_deleted=true&", "experiments?", *runs):
        cursor = ""
        while True:
            answer = stage.served.ask("GET", f"/api/v1/{path}limit=100{cursor}")
            assert answer.status == 200, (path, answer.body[:300])
            if not answer.json().get("next_cursor"):
                break
            cursor = f"&cursor={quote(answer.json()['next_cursor'], safe='')}"


def read_pages(stage: Stage, method: str, path: str, fields: Mapping[str, Any]) -> None:
    """Read all pages of a search."""
    token = None
    for _ in range(10_000):
        found = stage.ask(method, path, {**fields, **({"page_token": token} if token else {})})
        token = found.get("next_page_token")
        if not token:
            return
    pytest.fail(f"{path} never ends")


def test_fsck_finds_nothing_afterwards(played: Played) -> None:
    stage = played.stage
    words = [sys.executable, "-m", "touchmark", "fsck", "--deep", "--home", str(stage.served.home), *stage.database]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHMARK_")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environ)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
