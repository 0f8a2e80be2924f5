"""Addresses of the pages. Everything that changes something is a POST."""

from __future__ import annotations

from django.urls import path

from monitoring import views

app_name = "monitoring"

urlpatterns = [
    path("", views.now, name="now"),
    path("connect", views.connect, name="connect"),
    path("now/models", views.models, name="models"),
    path("now/memory", views.memory, name="memory"),
    path("now/load", views.load, name="load"),
    path("now/unload", views.unload, name="unload"),
    path("now/dismiss", views.dismiss, name="dismiss"),
    path("now/stop", views.stop, name="stop"),
    path("chat/stream", views.chat_stream, name="chat_stream"),
]
