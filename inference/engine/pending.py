"""Requests that have not started, and how each of them ends: refused, cancelled by somebody, overdue, or let through.

Such a request runs in its caller's task, so ending it means cancelling that task, as ``asyncio.timeout`` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inference.errors import DeadlineExceeded, InvalidRequest, LmxError, RequestCancelled
from inference.records import EventSink, RecordSink, RequestRecord

DEADLINE = "deadline"
"""Who cancelled a request whose client's patience (``X-Timeout``) is over, as its record tells it."""


class _Pending:
    def __init__(self, record: RequestRecord) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.record = record
        self._task = task
        self._cancelling = task.cancelling()
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None
        if record.deadline is not None:
            left = max(0.0, record.deadline - time.time())
            self._timer = asyncio.get_running_loop().call_later(left, self.cancel, DEADLINE)

    def cancel(self, by: str) -> None:
        if not self._cancelled:
            self._cancelled = True
            self.record.cancelled_by = by
            self._task.cancel()

    def was_ours(self) -> bool:
        """Take our cancellation back; False when the caller itself is being cancelled, too or instead."""
        return self._cancelled and self._task.uncancel() <= self._cancelling

    def done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def overdue(record: RequestRecord) -> DeadlineExceeded:
    """The refusal of a request whose deadline has come. Not to be tried again: its client has given up."""
    assert record.deadline is not None
    waited = record.deadline - record.received
    refusal = DeadlineExceeded(f"the request was not done within the {waited:g} s that its client gave it (X-Timeout)")
    refusal.retryable = False
    return refusal


class PendingRequests:
    """Everything before the start of an answer, and questions that are answered once. Belongs to the event loop."""

    def __init__(self, records: RecordSink, events: EventSink) -> None:
        self._records = records
        self._events = events
        self._open: dict[str, _Pending] = {}

    def records(self) -> list[RequestRecord]:
        return [pending.record for pending in self._open.values()]

    def cancel(self, request_id: str, by: str) -> bool:
        """End a request that has not started; False if there is none of that id."""
        pending = self._open.get(request_id)
        if pending is not None:
            pending.cancel(by)
        return pending is not None

    @contextmanager
    def guard(self, model: str, record: RequestRecord) -> Iterator[None]:
        """Around the work on ``record``. Whatever ends it early is put on record, and worded for its client."""
        pending = self._open[record.id] = _Pending(record)
        try:
            yield
        except asyncio.CancelledError:
            refusal = self._cancelled(record) if pending.was_ours() else None
            if refusal is None:
                record.cancelled_by = record.cancelled_by or "client"
                self.close(record, RequestCancelled.code, 499)
                raise
            self._refused(model, record, refusal)
            raise refusal from None
        except LmxError as error:
            self._refused(model, record, error)
            raise
        except BaseException:
            self.close(record, "internal_error", 500)
            raise
        finally:
            pending.done()
            self._open.pop(record.id, None)

    @staticmethod
    def _cancelled(record: RequestRecord) -> LmxError:
        if record.cancelled_by == DEADLINE:
            return overdue(record)
        return RequestCancelled(f"the request was cancelled by {record.cancelled_by}")

    def _refused(self, model: str, record: RequestRecord, error: LmxError) -> None:
        self.close(record, error.code, error.status)
        if not isinstance(error, RequestCancelled):
            fields = {"code": error.code, "message": _public(error), "client": record.principal.id}
            self._events.emit("request.refused", model=record.model or model, request=record.id, **fields)

    def close(self, record: RequestRecord, code: str | None, status: int) -> None:
        """Put away the record of a request that is over."""
        record.finished, record.error_code, record.queue_position = time.time(), code, None
        record.status = record.status or status
        self._records.put(record)


def _public(error: LmxError) -> str:
    """A refusal as logs and pages may know it: what quotes the request's own words is told to its client alone."""
    if error.code == InvalidRequest.code:
        return f"its {error.param} cannot be used" if error.param else "it cannot be used"
    return error.message
