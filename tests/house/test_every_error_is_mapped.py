"""Every error of the domain has a form in every protocol, by a line of its own or by that of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import pytest

from touchmark.domain.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    DeniedError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    TouchmarkError,
    UnauthenticatedError,
    UnsupportedError,
    list_error_classes,
)
from touchmark.protocols.native import errors as native
from touchmark.protocols.native import openapi
from touchmark.protocols.native.operations import Operation
from touchmark.protocols.oci import errors as oci

KINDS = {
    BusyError, ConflictError, CorruptError, DeniedError, InvalidError, NotFoundError, PreconditionError,
    UnauthenticatedError, UnsupportedError,
}  # fmt: skip
TABLES: dict[str, Mapping[type[TouchmarkError], object]] = {"native": native.STATUS, "oci": oci.CODES}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("cls", list_error_classes())
def test_an_error_is_mapped_by_itself_or_by_its_kind(
    cls: type[TouchmarkError], table: Mapping[type[TouchmarkError], object]
) -> None:
    nearest = next(kind for kind in cls.__mro__ if kind in table)

    assert nearest is not TouchmarkError or cls is TouchmarkError, "only the root itself may fall to the root's line"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_knows_every_kind_and_nothing_that_is_no_error(
    table: Mapping[type[TouchmarkError], object],
) -> None:
    assert {TouchmarkError, *KINDS} <= set(table) <= set(list_error_classes())


@pytest.mark.parametrize("cls", list_error_classes())
def test_the_native_status_of_an_error_is_one_of_its_kind(cls: type[TouchmarkError]) -> None:
    status = HTTPStatus(native.status_of(cls))

    server_kinds = (CorruptError, BusyError, UnsupportedError)
    ours = cls is TouchmarkError or issubclass(cls, server_kinds)
    assert status // 100 == (5 if ours else 4)


@pytest.mark.parametrize("operation", openapi.OPERATIONS, ids=lambda operation: operation.name)
def test_an_operation_lists_only_errors_that_exist(operation: Operation) -> None:
    codes = {cls.code for cls in list_error_classes()}

    for status, listed in openapi.list_errors(operation).items():
        assert HTTPStatus(status) // 100 in {4, 5}
        assert set(listed) <= codes
