"""What the API keeps of itself: responses that clients may fetch and go on from (docs/adr/0010-stored-responses.md).

In a database of its own, ``responses``, because it holds prompts and answers; no other part of the server does.
"""

from __future__ import annotations

from django.db import models


class StoredResponse(models.Model):
    """One response. ``created`` and ``used`` are seconds since the epoch, ``size`` the bytes of all documents.

    ``response`` (without its output), ``inputs`` and ``output`` are JSON, ``events`` the server-sent frames of a
    background stream; all are compressed with zlib. ``owner`` is who may read it.
    """

    id = models.CharField(primary_key=True, max_length=64)
    owner = models.CharField(max_length=200)
    previous = models.CharField(max_length=64, null=True)  # noqa: DJ001 - none is not the empty id
    status = models.CharField(max_length=16)
    created = models.FloatField()
    used = models.FloatField()
    size = models.PositiveBigIntegerField()
    response = models.BinaryField()
    inputs = models.BinaryField()
    output = models.BinaryField()
    events = models.BinaryField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["used"], name="response_used"),
            models.Index(fields=["status"], name="response_status"),
        ]

    def __str__(self) -> str:
        return self.id
