"""Writes the hub's domain events into the log: what models and their processes did, beside the requests."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("lmx.events")

TOPIC = "events"
_BAD_ENDINGS = ("died", "failed", "refused", "stopped", "pressure", "timeout", "not_returned")
_REFUSALS_OF_OURS = ("insufficient_memory", "internal_error", "worker_died")  # the others are a client's own matter
_PLAIN = ("seq", "at", "kind")


def log_event(topic: str, payload: Any) -> None:
    """A tap of the hub; ignores what is not a domain event. ``message`` is the sentence, the rest are fields."""
    if topic != TOPIC:
        return
    kind = str(payload.get("kind", ""))
    fields = {name: value for name, value in payload.items() if name not in _PLAIN and name != "message"}
    subject = f" {fields['model']}" if "model" in fields else ""
    sentence = payload.get("message") or payload.get("cause")
    logger.log(
        _level(kind, payload), "%s%s%s", kind, subject, f": {sentence}" if sentence else "", extra={"fields": fields}
    )


def _level(kind: str, payload: Any) -> int:
    if kind == "request.refused":
        return logging.WARNING if payload.get("code") in _REFUSALS_OF_OURS else logging.INFO
    return logging.WARNING if kind.endswith(_BAD_ENDINGS) else logging.INFO
