"""The OpenAPI document in the repository is the one the code makes, and it leaves nothing out."""

from __future__ import annotations

import json
import re

from touchmark.protocols.native import openapi
from touchmark.protocols.native.operations import PREFIX
from touchmark.protocols.native.routes import build_router

HOW = "python -m touchmark.protocols.native.openapi > src/touchmark/protocols/native/openapi.json"


def test_the_document_checked_in_is_the_one_the_code_makes() -> None:
    assert openapi.PATH.read_bytes() == openapi.encode_document(), f"run: {HOW}"


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    routes = {
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path).removeprefix(PREFIX))
        for route in build_router().routes
        for method in route.methods - {"HEAD", "OPTIONS"}
    }
    described = {
        (method.upper(), path)
        for path, operations in json.loads(openapi.PATH.read_bytes())["paths"].items()
        for method in operations
    }

    assert routes == described | {("GET", "/openapi.json")}


def test_every_reference_in_the_document_has_a_target() -> None:
    text = openapi.PATH.read_text(encoding="utf-8")
    components = json.loads(text)["components"]

    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', text):
        assert name in components[kind]


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    names = [operation.name for operation in openapi.OPERATIONS]

    assert len(set(names)) == len(names)
    assert [operation.name for operation in openapi.OPERATIONS if not operation.summary.endswith(".")] == []
