"""The audit log: who loaded, deleted or changed what, when and from where.

Entries come from two places: ``lmx_site.audit`` tells of every request that may change something, ``heard`` reads out
of the hub's events what nobody asked for by a request of that kind (a model loaded for somebody's prompt, unloaded to
make room). The telemetry writer's thread writes them; what cannot be written waits, and is in the log if it waits too
long.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec
from django.db import DatabaseError, connections
from django.db.models import QuerySet

from monitoring.models import AuditRow

log = logging.getLogger(__name__)

DATABASE = "telemetry"
MOST_WAITING = 10_000
DAY = 86_400
KEEP_DAYS = 3650
_PAGE = 500
_LONGEST = {"who": 200, "who_kind": 16, "address": 64, "action": 64, "subject": 512, "reason": 300, "request_id": 64}
SERVER = "Opta-LMX"
"""Who acts where nobody asked."""

REFUSED = "audit_refused"
"""The attribute by which a page tells of a request that it answers with 200 that nothing was done, and why."""

Via = Literal["api", "page", "inventory", "request", "server"]
Outcome = Literal["done", "refused", "failed", "left"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done, or that was asked for and refused.

    ``at`` in seconds since the epoch. ``who`` and ``who_kind`` are the principal's, ``address`` the peer's. ``action``
    is a verb and its object (``delete_model``), ``subject`` the model's or job's name as it was given. ``status`` is
    that of the HTTP answer, None where there was none; ``reason`` the refusal's code, or why the server did it.
    ``detail`` has the other parameters, bounded and without keys and prompts. ``left``: the client had gone before it
    was answered.
    """

    who: str
    who_kind: str
    via: Via
    action: str
    subject: str = ""
    outcome: Outcome = "done"
    address: str = ""
    status: int | None = None
    reason: str = ""
    request_id: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)

    def row(self) -> AuditRow:
        """For the table; cut to its columns."""
        values = asdict(self)
        for name, most in _LONGEST.items():
            values[name] = _plain(values[name])[:most]
        values["detail"] = msgspec.to_builtins(values["detail"], enc_hook=str)
        return AuditRow(**values)


class AuditQueue:
    """Entries on their way to the database. ``add`` from any thread; ``write`` belongs to the telemetry writer's."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Entry, Future[None]]] = deque()
        self._most = most_waiting
        self._complained = False

    def add(self, entry: Entry) -> Future[None]:
        """Take an entry; the future is done when it is written."""
        written: Future[None] = Future()
        with self._lock:
            self._waiting.append((entry, written))
            lost = self._waiting.popleft() if len(self._waiting) > self._most else None
        if lost is not None:
            log.error("an entry of the audit log could not be written: %s", asdict(lost[0]))
            lost[1].cancel()
        return written

    def write(self) -> None:
        """Write what waits; where the database refuses, it stays for the next time."""
        with self._lock:
            batch = list(self._waiting)
        if not batch:
            return
        try:
            AuditRow.objects.using(DATABASE).bulk_create([entry.row() for entry, _ in batch], batch_size=500)
        except (DatabaseError, OSError) as error:
            self._keep_for_later(error)
            return
        self._complained = False
        written = {id(entry) for entry, _ in batch}
        with self._lock:
            self._waiting = deque(one for one in self._waiting if id(one[0]) not in written)
        for _, future in batch:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def give_up(self) -> None:
        """At the end: what could never be written is told to the log."""
        with self._lock:
            left, self._waiting = self._waiting, deque()
        for entry, written in left:
            log.error("an entry of the audit log could not be written: %s", asdict(entry))
            written.cancel()

    def _keep_for_later(self, error: Exception) -> None:
        if not self._complained:
            log.error("the audit log cannot be written (%s); its entries wait in memory until it can be", error)
            self._complained = True
        connections[DATABASE].close()


def heard(event: dict[str, Any]) -> Entry | None:
    """What an event of the hub tells that no request of an owner did; None for all other events."""
    kind, model = event.get("kind"), str(event.get("model") or "")
    at = float(event.get("at") or time.time())
    if kind == "model.loading" and event.get("wanted") == "request":
        asked = str(event.get("request") or "")
        return Entry(str(event.get("by")), "client", "request", "load_model", model, request_id=asked, at=at)
    if kind == "model.loading" and event.get("wanted") == "server":
        return Entry(SERVER, "server", "server", "load_model", model, reason="models.auto_load", at=at)
    if kind == "model.evicted":
        return Entry(SERVER, "server", "server", "unload_model", model, reason=str(event.get("message") or ""), at=at)
    return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries; an empty one is all. ``since`` and ``until`` in epoch seconds, ``before`` the number of an entry.

    ``model`` is a part of the subject, in any case of letters; the others are compared as they are.
    """

    who: str = ""
    action: str = ""
    model: str = ""
    outcome: str = ""
    via: str = ""
    since: float | None = None
    until: float | None = None
    before: int | None = None

    def rows(self) -> QuerySet[AuditRow]:
        """The newest first."""
        found = AuditRow.objects.using(DATABASE).order_by("-id")
        exact = {"who": self.who, "action": self.action, "outcome": self.outcome, "via": self.via}
        exact = {name: _plain(value) for name, value in exact.items() if value}
        ranges: dict[str, Any] = {"at__gte": self.since, "at__lt": self.until, "id__lt": self.before}
        ranges |= {"subject__icontains": _plain(self.model) or None}
        return found.filter(**exact, **{name: value for name, value in ranges.items() if value is not None})


def entries(wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """At most ``limit`` entries, the newest first. Blocks; closes what it opened."""
    try:
        return [told(row) for row in wanted.rows()[:limit]]
    finally:
        connections[DATABASE].close()


def told(row: AuditRow) -> dict[str, Any]:
    """An entry as the API and exports tell it; ``id`` grows with time."""
    return {
        "id": row.pk,
        "at": row.at,
        "who": row.who,
        "who_kind": row.who_kind,
        "address": row.address,
        "via": row.via,
        "action": row.action,
        "subject": row.subject,
        "outcome": row.outcome,
        "status": row.status,
        "reason": row.reason,
        "request_id": row.request_id,
        "detail": row.detail,
    }


def note_refusal(request: object, why: str) -> None:
    """See ``REFUSED``."""
    setattr(request, REFUSED, why or "refused")


def thin(now: float, keep_days: int = KEEP_DAYS) -> None:
    """Delete what is older than ``keep_days``."""
    AuditRow.objects.using(DATABASE).filter(at__lt=now - keep_days * DAY).delete()


def _plain(text: str) -> str:
    """Without what SQLite or a terminal takes otherwise than as text: NUL, lone surrogates, control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


class AuditLog:
    """Implements ``inference.api.deps.AuditSource``."""

    async def entries(self, limit: int, **wanted: Any) -> list[dict[str, Any]]:
        """At most ``limit`` entries, the newest first; see ``Wanted``."""
        return await asyncio.to_thread(entries, Wanted(**wanted), limit)

    async def pages(self, **wanted: Any) -> AsyncIterator[list[dict[str, Any]]]:
        """All of them, the newest first, in parts."""
        while part := await self.entries(_PAGE, **wanted):
            yield part
            wanted["before"] = part[-1]["id"]
