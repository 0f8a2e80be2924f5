"""The life of one request, filled at every phase and handed to a sink when it ends."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.principal import Principal


@dataclass(slots=True)
class RequestRecord:
    """Wall-clock seconds since the epoch for each phase (None: not reached). Holds no prompt and no answer text.

    ``priority`` is -1 (low), 0 or 1 (high). ``deadline`` is when the client gives up on it, None if it never said; both
    come from ``principal``.
    ``queue_position`` is 1 for the next to get a slot of its model, None while it does not wait for one.
    """

    id: str
    protocol: str
    endpoint: str
    principal: Principal
    model_asked: str
    model: str = ""
    stream: bool = False
    received: float = field(default_factory=time.time)
    prepared: float | None = None
    queued: float | None = None
    load_waited_s: float = 0.0
    started: float | None = None
    first_token: float | None = None
    finished: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    prefill_done: int = 0
    priority: int = field(init=False)
    deadline: float | None = field(init=False)
    queue_position: int | None = None
    finish_reason: str | None = None
    status: int = 0
    error_code: str | None = None
    cancelled_by: str | None = None

    def __post_init__(self) -> None:
        asker = self.principal
        self.priority = asker.priority
        self.deadline = None if asker.patience_s is None else self.received + asker.patience_s

    @property
    def phase(self) -> str:
        """``preparing``, ``queued``, ``prefill``, ``decode`` or ``done``: what to show of a request in flight."""
        if self.finished is not None:
            return "done"
        if self.first_token is not None:
            return "decode"
        if self.started is not None:
            return "prefill"
        return "queued" if self.prepared is not None else "preparing"


def new_record(
    protocol: str, prefix: str, model: str | None, principal: Principal, endpoint: str, *, stream: bool = False
) -> RequestRecord:
    """The record of a request that has just come, with an id of its own that begins with ``prefix``."""
    return RequestRecord(
        id=prefix + secrets.token_hex(12),
        protocol=protocol,
        endpoint=endpoint,
        principal=principal,
        model_asked=model or "",
        stream=stream,
    )


class RecordSink(Protocol):
    """Takes finished records. Must not block and must not raise."""

    def put(self, record: RequestRecord) -> None: ...


class EventSink(Protocol):
    """Takes domain events (``model.loaded``, ``worker.died``, ...) for the hub's log topics. Must not block."""

    def emit(self, kind: str, /, **fields: Any) -> None: ...
