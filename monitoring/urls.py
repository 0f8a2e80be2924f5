"""Addresses of the pages. Everything that changes something is a POST."""

from __future__ import annotations

from django.urls import path

from monitoring import audit_page, discover, model_settings, transfers, views

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
    path("discover/cancel", discover.discover_cancel, name="discover_cancel"),
    path("discover/model/<path:repo>", discover.discover_model, name="discover_model"),
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
