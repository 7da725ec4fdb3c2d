"""The history of metrics: every measurement of one key."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark.domain.errors import InvalidFieldError
from touchmark.protocols.mlflow.messages import Message, MetricMessage, to_metric
from touchmark.protocols.mlflow.operations import Fields, Operation, missing
from touchmark.services import runs
from touchmark.wire import AnyRequest, Lane, call

RUNS_LIMIT = 100
"""Runs one question about an interval may name."""
POINTS = 320
"""Points a drawn curve gets unless the question says how many."""


class HistoryQuestion(Fields):
    """GetMetricHistory."""

    run_id: str = ""
    run_uuid: str = ""
    metric_key: str = ""
    max_results: int | None = None
    page_token: str | None = None


class IntervalQuestion(Fields):
    """GetMetricHistoryBulkInterval."""

    run_ids: Sequence[str] = ()
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


class History(Message):
    """GetMetricHistory.Response."""

    metrics: Sequence[MetricMessage] = ()
    next_page_token: str | None = None


async def get_history(request: AnyRequest, fields: HistoryQuestion) -> History:
    """Return measurements by step and time: a page, or all of them if no number was asked for."""
    run_id = fields.run_id or fields.run_uuid
    if not run_id:
        raise missing("run_id")
    if fields.max_results is not None and fields.max_results <= 0:
        sentence = (
            f"Invalid value {fields.max_results} for parameter 'max_results' supplied. It must be a positive integer."
        )
        raise InvalidFieldError(sentence, field="max_results")
    limit = min(fields.max_results or runs.HISTORY_LIMIT, runs.HISTORY_LIMIT)
    page = await call(
        request, Lane.READ, runs.get_metric_history, run_id, fields.metric_key, cursor=fields.page_token, limit=limit
    )
    found = [to_metric(metric) for metric in page.items]
    cursor = page.next_cursor
    while fields.max_results is None and cursor is not None:  # older clients ask for no page and expect everything
        page = await call(
            request, Lane.READ, runs.get_metric_history, run_id, fields.metric_key, cursor=cursor, limit=limit
        )
        found += [to_metric(metric) for metric in page.items]
        cursor = page.next_cursor
    return History(metrics=tuple(found), next_page_token=cursor)


async def get_interval(request: AnyRequest, fields: IntervalQuestion) -> History:
    """Return points of one metric of several runs, thinned out to as many as a curve needs."""
    if not fields.run_ids:
        raise missing("run_ids")
    if len(fields.run_ids) > RUNS_LIMIT:
        raise InvalidFieldError(
            f"GetMetricHistoryBulkInterval request cannot name more than {RUNS_LIMIT} runs.", field="run_ids"
        )
    points = max(1, min(fields.max_results or POINTS, 2_500))
    found: list[MetricMessage] = []
    for run_id in fields.run_ids:
        page = await call(
            request, Lane.READ, runs.get_metric_history, run_id, fields.metric_key, limit=runs.HISTORY_LIMIT
        )
        inside = [
            metric
            for metric in page.items
            if (fields.start_step is None or metric.step >= fields.start_step)
            and (fields.end_step is None or metric.step <= fields.end_step)
        ]
        stride = -(-len(inside) // points) or 1
        kept = inside[::stride]
        if inside and kept[-1] is not inside[-1]:
            kept.append(inside[-1])
        found += [to_metric(metric, run_id=run_id) for metric in kept]
    return History(metrics=tuple(found))


_PATH = "2.0/mlflow/metrics/"
OPERATIONS = (
    Operation(
        method="GET", path=_PATH + "get-history", handler=get_history, fields=HistoryQuestion, required=("metric_key",)
    ),
    Operation(
        method="GET",
        path=_PATH + "get-history-bulk-interval",
        handler=get_interval,
        fields=IntervalQuestion,
        required=("metric_key",),
    ),
)
