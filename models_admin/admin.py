"""Django's admin at ``/inventory/``: the tables as they are.

Everything is read-only: a scan, a hash or a running job knows these values, and a hand edit would only lie. Actions ask
the running server. No list counts all its rows twice, or asks for anything row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from models_admin import admin_actions
from models_admin.admin_actions import each
from models_admin.models import Job, ModelFile, ModelRecord, SettingsRecord

if TYPE_CHECKING:
    from django.db.models import Model

    RecordAdmin = admin.ModelAdmin[ModelRecord]
    FileAdmin = admin.ModelAdmin[ModelFile]
    JobsAdmin = admin.ModelAdmin[Job]
    SettingsAdmin = admin.ModelAdmin[SettingsRecord]
    FileInline = admin.TabularInline[ModelFile, ModelRecord]
else:
    RecordAdmin = FileAdmin = JobsAdmin = SettingsAdmin = admin.ModelAdmin
    FileInline = admin.TabularInline


class ReadOnly:
    """Nothing can be added, changed or deleted here; looking needs the usual permission."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class FilesInline(ReadOnly, FileInline):
    model = ModelFile
    extra = 0
    fields = ["name", "size", "sha256_expected", "sha256_actual", "basis", "sound", "verified_at"]


@admin.register(ModelRecord)
class ModelRecordAdmin(ReadOnly, RecordAdmin):
    list_display = [
        "repo",
        "revision",
        "architecture",
        "quantization",
        "weights",
        "parameters",
        "context_length",
        "licence",
        "disk_state",
        "problem",
        "verified_at",
        "last_seen",
    ]
    actions = ["verify", "pin", "forget"]
    list_filter = ["disk_state", "kind", "source", "architecture", "quantization"]
    search_fields = ["repo", "revision", "path", "architecture", "licence", "problem"]
    inlines = [FilesInline]
    list_per_page = 50
    show_full_result_count = False

    @admin.display(description="weights", ordering="weight_bytes")
    def weights(self, record: ModelRecord) -> str:
        return filesizeformat(record.weight_bytes)

    @admin.action(description="Verify: read all files")
    def verify(self, request: HttpRequest, records: QuerySet[ModelRecord]) -> None:
        each(request, records, admin_actions.verify, "Being verified (see Jobs)")

    @admin.action(description="Pin: load, and keep in memory")
    def pin(self, request: HttpRequest, records: QuerySet[ModelRecord]) -> None:
        each(request, records, admin_actions.pin, "Being loaded, to stay in memory")

    @admin.action(description="Take off the list (deletes nothing)")
    def forget(self, request: HttpRequest, records: QuerySet[ModelRecord]) -> None:
        each(request, records, admin_actions.forget, "Taken off the list")


@admin.register(ModelFile)
class ModelFileAdmin(ReadOnly, FileAdmin):
    list_display = ["model", "name", "bytes", "sha256_actual", "basis", "sound", "verified_at"]
    list_filter = ["model__disk_state", "sound", "basis", "verified_at"]
    list_select_related = ["model"]
    # By name all rows would have to be sorted first.
    ordering = ["-id"]
    search_fields = ["name", "sha256_actual", "sha256_expected", "model__repo"]
    list_per_page = 50
    show_full_result_count = False

    @admin.display(description="size", ordering="size")
    def bytes(self, file: ModelFile) -> str:
        return filesizeformat(file.size)


@admin.register(Job)
class JobAdmin(ReadOnly, JobsAdmin):
    list_display = [
        "id",
        "kind",
        "subject",
        "state",
        "phase",
        "progress",
        "error",
        "created_at",
        "finished_at",
    ]
    list_filter = ["state", "kind", "created_at"]
    search_fields = ["subject", "error", "kind"]
    list_per_page = 50
    show_full_result_count = False

    @admin.display(description="progress")
    def progress(self, job: Job) -> str:
        if not job.total:
            return ""
        if job.unit == "bytes":
            return f"{filesizeformat(job.done)} of {filesizeformat(job.total)}"
        return f"{job.done} of {job.total} {job.unit}"


@admin.register(SettingsRecord)
class SettingsRecordAdmin(ReadOnly, SettingsAdmin):
    """Changed by the model's page, ``lmx set`` or the API, which ask the model and tell it to the engine."""

    list_display = ["name", "shown", "updated_at"]
    search_fields = ["name"]
    fields = ["name", "values", "updated_at"]
    list_per_page = 50
    show_full_result_count = False

    @admin.display(description="set")
    def shown(self, record: SettingsRecord) -> str:
        return ", ".join(sorted(record.values))
