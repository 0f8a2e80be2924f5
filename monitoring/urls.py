"""Addresses of the pages. Everything that changes something is a POST."""

from __future__ import annotations

from django.urls import path

from monitoring import (
    audit_page,
    discover,
    disk_page,
    model_keeping,
    model_page,
    model_settings,
    models_page,
    transfers,
    views,
)

app_name = "monitoring"

urlpatterns = [
    path("", views.now, name="now"),
    path("connect", views.connect, name="connect"),
    path("audit", audit_page.audit, name="audit"),
    path("audit/export", audit_page.audit_file, name="audit_file"),
    path("discover", discover.discover, name="discover"),
    path("discover/fit", discover.discover_fit, name="discover_fit"),
    path("discover/download", discover.discover_download, name="discover_download"),
    path("discover/transfer", discover.discover_transfer, name="discover_transfer"),
    path("discover/resume", discover.discover_resume, name="discover_resume"),
    path("discover/cancel", discover.discover_cancel, name="discover_cancel"),
    path("discover/model/<path:repo>", discover.discover_model, name="discover_model"),
    path("models", models_page.models, name="models_page"),
    path("models/list", models_page.models_list, name="models_list"),
    path("models/one", model_page.model, name="model_page"),
    path("models/one/state", model_page.model_state, name="model_state"),
    path("models/load", model_page.load, name="load_model"),
    path("models/unload", model_page.unload, name="unload_model"),
    path("models/pin", model_page.pin, name="pin_model"),
    path("models/verify", model_page.verify, name="verify_model"),
    path("models/dismiss", model_page.dismiss, name="dismiss_notice"),
    path("models/restore", model_page.restore, name="restore_model"),
    path("models/forget", model_page.forget, name="forget_model"),
    path("models/check", model_keeping.check, name="check_updates"),
    path("models/update", model_keeping.update, name="update_model"),
    path("models/rollback", model_keeping.rollback, name="rollback_model"),
    path("models/convert", model_keeping.convert, name="convert_model"),
    path("models/delete", model_page.delete, name="delete_model"),
    path("models/delete/plan", model_page.delete_plan, name="delete_plan"),
    path("disk", disk_page.disk, name="disk_page"),
    path("disk/use", disk_page.disk_use, name="disk_use"),
    path("disk/reclaim", disk_page.reclaim, name="reclaim_disk"),
    path("disk/reclaim/plan", disk_page.reclaim_plan, name="reclaim_plan"),
    path("now/models", views.models, name="models"),
    path("now/memory", views.memory, name="memory"),
    path("now/load", views.load, name="load"),
    path("now/unload", views.unload, name="unload"),
    path("now/dismiss", views.dismiss, name="dismiss"),
    path("now/stop", views.stop, name="stop"),
    path("models/settings", model_settings.model_settings, name="model_settings"),
    path("transfers", transfers.transfers, name="transfers"),
    path("transfers/list", transfers.listed, name="transfer_list"),
    # Named as the API's, for the audit log.
    path("transfers/start", transfers.start, name="download_model"),
    path("transfers/pause", transfers.pause, name="pause_job"),
    path("transfers/resume", transfers.resume, name="resume_job"),
    path("transfers/cancel", transfers.cancel, name="cancel_job"),
    path("chat/stream", views.chat_stream, name="chat_stream"),
]
