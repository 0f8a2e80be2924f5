"""History in the ``telemetry`` database. Rows are written in batches by ``monitoring.telemetry`` and only read here.

Times are seconds since the epoch, sizes bytes. Nothing here holds a prompt or an answer.
"""

from __future__ import annotations

from django.db import models


class RequestRow(models.Model):
    """One finished request: ``inference.records.RequestRecord`` as it was when it ended."""

    request_id = models.CharField(max_length=64)
    protocol = models.CharField(max_length=32)
    endpoint = models.CharField(max_length=128)
    client = models.CharField(max_length=200)
    client_kind = models.CharField(max_length=16)
    model_asked = models.CharField(max_length=300)
    model = models.CharField(max_length=300)
    stream = models.BooleanField()
    received = models.FloatField()
    prepared = models.FloatField(null=True)
    queued = models.FloatField(null=True)
    load_waited_s = models.FloatField()
    started = models.FloatField(null=True)
    first_token = models.FloatField(null=True)
    finished = models.FloatField(null=True)
    prompt_tokens = models.PositiveIntegerField()
    cached_tokens = models.PositiveIntegerField()
    completion_tokens = models.PositiveIntegerField()
    reasoning_tokens = models.PositiveIntegerField()
    finish_reason = models.CharField(max_length=32, default="")
    status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=64, default="")
    cancelled_by = models.CharField(max_length=200, default="")

    class Meta:
        indexes = [
            models.Index(fields=["received"], name="request_received"),
            models.Index(fields=["model", "received"], name="request_model_received"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} {self.model}"


class EventRow(models.Model):
    """One entry of the hub's ``events`` log. ``data`` holds its fields other than those with a column."""

    seq = models.BigIntegerField(primary_key=True)
    at = models.FloatField()
    kind = models.CharField(max_length=64)
    model = models.CharField(max_length=300, default="")
    data = models.JSONField()

    class Meta:
        indexes = [
            models.Index(fields=["at"], name="event_at"),
            models.Index(fields=["model", "at"], name="event_model_at"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"


class MemorySample(models.Model):
    """The machine's memory in one second. ``models`` maps a model to ``[weights, kv and caches, tokens/s]``."""

    at = models.BigIntegerField(primary_key=True)
    total = models.BigIntegerField()
    used = models.BigIntegerField()
    other = models.BigIntegerField()
    limit = models.BigIntegerField()
    gpu_limit = models.BigIntegerField(null=True)
    models = models.JSONField()

    def __str__(self) -> str:
        return f"{self.at}: {self.used}"


class AuditRow(models.Model):
    """Who loaded, deleted or changed what, when and from where: ``monitoring.audit.Entry``. Rows are only added.

    The database itself refuses to change one (a trigger); they go when they are older than ``logging.audit_days``.
    """

    at = models.FloatField()
    who = models.CharField(max_length=200)
    who_kind = models.CharField(max_length=16)
    address = models.CharField(max_length=64, default="")
    via = models.CharField(max_length=16)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=512, default="")
    outcome = models.CharField(max_length=16)
    status = models.PositiveSmallIntegerField(null=True)
    reason = models.CharField(max_length=300, default="")
    request_id = models.CharField(max_length=64, default="")
    detail = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["at"], name="audit_at"),
            models.Index(fields=["action", "id"], name="audit_action"),
            models.Index(fields=["who", "id"], name="audit_who"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.who} {self.action} {self.subject}"
