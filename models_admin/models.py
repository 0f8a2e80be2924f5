"""Tables of the inventory: models on disk, their files, and jobs.

The disk is the truth for everything but the hashes: a scan fills ``ModelRecord`` and ``ModelFile`` and corrects them.
Sizes are in bytes, times are UTC.
"""

from __future__ import annotations

from django.db import models


class DiskState(models.TextChoices):
    """``inference.catalog.DiskState``, as choices."""

    ABSENT = "absent", "absent"
    PARTIAL = "partial", "partial"
    ADOPTED = "adopted", "adopted, not yet verified"
    VERIFIED = "verified", "verified"
    CORRUPT = "corrupt", "corrupt"
    OFFLINE = "offline", "offline: volume not mounted"


class ModelKind(models.TextChoices):
    """``inference.catalog.ModelKind``, as choices."""

    LLM = "llm", "text"
    EMBEDDINGS = "embeddings", "embeddings"


class ModelRecord(models.Model):
    """One model directory. ``(source, repo, revision, variant)`` names it, ``path`` finds it.

    ``fingerprint`` covers names, sizes and times of the files: while it stays, the facts below it are still true.
    ``vanished_at`` is set while the directory or its volume is not there.
    """

    path = models.CharField(max_length=4096, unique=True)
    root = models.CharField(max_length=4096)
    mount = models.CharField(
        max_length=4096, blank=True, help_text="where the volume was mounted on which it was last seen"
    )
    source = models.CharField(max_length=32)
    repo = models.CharField(max_length=512)
    revision = models.CharField(max_length=256, blank=True)
    variant = models.CharField(max_length=128, blank=True)
    format = models.CharField(max_length=16, default="mlx")
    kind = models.CharField(max_length=16, choices=ModelKind, default=ModelKind.LLM)

    fingerprint = models.CharField(max_length=64, blank=True)
    architecture = models.CharField(max_length=128, blank=True)
    quantization = models.CharField(max_length=32, blank=True)
    weight_bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(default=0)
    context_length = models.BigIntegerField(default=0)
    kv_bytes_per_token = models.BigIntegerField(default=0)
    has_chat_template = models.BooleanField(default=False)
    template_sha256 = models.CharField(max_length=64, blank=True)
    parameters = models.BigIntegerField(default=0)
    capabilities = models.JSONField(default=list, blank=True)
    licence = models.CharField(max_length=64, blank=True)
    disk_state = models.CharField(max_length=16, choices=DiskState, default=DiskState.ADOPTED)
    problem = models.TextField(blank=True)

    created_at = models.DateTimeField(help_text="when the directory was made, as far as the file system knows")
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    vanished_at = models.DateTimeField(null=True, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True, help_text="when all its files were last found sound")
    verify_began_at = models.DateTimeField(null=True, blank=True, help_text="of a verification that has not ended")

    forgotten = models.CharField(
        max_length=64, blank=True, help_text="the fingerprint with which its owner took it off the list"
    )

    class Meta:
        ordering = ["repo", "revision", "variant"]
        indexes = [
            models.Index(fields=["repo"]),
            models.Index(fields=["root"]),
            models.Index(fields=["disk_state"]),
        ]

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        variant = f":{self.variant}" if self.variant else ""
        return f"{self.repo}{revision}{variant}"


class ModelFile(models.Model):
    """One file of a model. ``sha256_expected`` comes from whoever published it, ``sha256_actual`` from the bytes here.

    ``mtime_ns`` is the file's time in nanoseconds when it was last seen: a hash belongs to that size and time.
    ``basis`` says what a verification compared with, and is empty where none has read the file: the hash that was
    published, or the one recorded at first sight. ``sound`` is False where the content was another one.
    """

    model = models.ForeignKey(ModelRecord, on_delete=models.CASCADE, related_name="files")
    name = models.CharField(max_length=1024)
    size = models.BigIntegerField()
    mtime_ns = models.BigIntegerField(default=0)
    sha256_expected = models.CharField(max_length=64, blank=True)
    sha256_actual = models.CharField(max_length=64, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True)
    basis = models.CharField(max_length=16, blank=True)
    sound = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="one_row_per_file")]

    def __str__(self) -> str:
        return self.name


class SettingsRecord(models.Model):
    """What the owner keeps for one model: ``values`` by the names of ``inference.model_settings_fields``.

    It belongs to the repository (and variant), not to a directory: ``identity`` is its name in lower case, ``name`` as
    it was written. So it stays while volumes, revisions and records of directories come and go.
    """

    identity = models.CharField(max_length=700, unique=True)
    name = models.CharField(max_length=700)
    values = models.JSONField(default=dict)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["identity"]
        verbose_name = "settings of a model"
        verbose_name_plural = "settings of models"

    def __str__(self) -> str:
        return self.name


class RepoRecord(models.Model):
    """What was decided of a repository's revisions, and what the Hub last said of it.

    ``current`` has the bare name while it is usable; empty: the newest has. ``trial`` has been fetched and gets the
    name once it has answered; ``trial_problem`` says why it could not be tried yet. ``failed`` (revision to ``reason``
    and ``at``) did not answer. ``superseded`` (revision to a time) had the name before; ``line`` are all that ever had
    it, in the order in which they came. Times in the JSON are seconds since the epoch.
    """

    repo = models.CharField(max_length=512, unique=True, help_text="in lower case")
    current = models.CharField(max_length=256, blank=True)
    trial = models.CharField(max_length=256, blank=True)
    trial_problem = models.TextField(blank=True)
    failed = models.JSONField(default=dict, blank=True)
    superseded = models.JSONField(default=dict, blank=True)
    line = models.JSONField(default=list, blank=True)
    update = models.JSONField(default=dict, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["repo"]

    def __str__(self) -> str:
        return self.repo


class JobState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    PAUSED = "paused", "paused"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


class Job(models.Model):
    """Work done by a child process: fetch, hash, convert. ``params`` and ``result`` are the child's input and answer.

    ``done`` of ``total`` counts ``unit``s (``bytes``, ``files``, ``tensors``) of the ``phase`` under way; ``total`` 0
    means that nobody knows. ``lease_pid`` is the server that runs it and ``heartbeat_at`` its last sign of life: a
    running job whose server is gone was interrupted. A queued one waits for its turn, since ``queued_at``, and so does
    one that a server left behind and the next goes on with. ``resumed_from`` is the ``done`` with which the last run
    began to do something, None before; ``fruitless`` counts the servers in a row that ended before it got further.
    ``files`` are the ``[name, size, done]`` of a fetch's largest files, in bytes.
    """

    kind = models.CharField(max_length=32)
    subject = models.CharField(max_length=512, blank=True, help_text="the model or file it is about")
    state = models.CharField(max_length=16, choices=JobState, default=JobState.QUEUED)
    phase = models.CharField(max_length=64, blank=True)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    unit = models.CharField(max_length=16, default="bytes")
    resumed_from = models.BigIntegerField(null=True, blank=True)
    fruitless = models.IntegerField(default=0)
    files = models.JSONField(default=list, blank=True)
    error = models.TextField(blank=True)
    params = models.JSONField(default=dict)
    result = models.JSONField(default=dict, blank=True)

    lease_pid = models.IntegerField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    queued_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["state", "kind"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} ({self.state})"
