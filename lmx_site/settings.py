"""Django's settings. Flat, no variants: what an owner may change is in ``config.yaml`` (``lmx_site.config``).

Importing this module reads ``LMX_HOME`` and changes nothing on disk; ``lmx_site.server`` prepares the directory.
"""

from __future__ import annotations

import secrets
from typing import Any

from lmx_site import paths
from lmx_site.secret import read_secret_key

HOME = paths.home()
ASSETS = paths.assets()

DEBUG = False
# A process that only checks or tests has no home yet; what it signs need not outlive it.
SECRET_KEY = read_secret_key(HOME) or secrets.token_urlsafe(48)
# The edge refuses foreign hosts itself, in the shape of the protocol spoken and for websockets too.
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "ninja",
    "inference",
    "models_admin",
    "monitoring",
]
MIDDLEWARE = [
    "lmx_site.edge.EdgeMiddleware",
    "lmx_site.audit.AuditMiddleware",
    "lmx_site.middleware.Sessions",
    "lmx_site.middleware.Csrf",
    "lmx_site.middleware.OwnerUser",
    "lmx_site.middleware.Messages",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "lmx_site.urls"
ASGI_APPLICATION = "lmx_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ASSETS / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [ASSETS / "static"]


def _database(name: str, *pragmas: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HOME / f"{name}.sqlite3",
        # Writers queue for the lock instead of failing with "database is locked" when a read turns into a write.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 5,
            "init_command": " ".join(["PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;", *pragmas]),
        },
        # A file, because tests use it from several threads.
        "TEST": {"NAME": HOME / f"test-{name}.sqlite3"},
    }


DATABASES = {
    "default": _database("inventory"),
    "telemetry": _database("telemetry"),
    # It holds prompts and answers: what is deleted is overwritten.
    "responses": _database("responses", "PRAGMA secure_delete=ON;"),
}
DATABASE_ROUTERS = ["lmx_site.databases.Router"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# No table: a page costs no query for its session, and only the web process's own signature counts.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
SESSION_COOKIE_NAME = "lmx_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_NAME = "lmx_csrf"
CSRF_COOKIE_SAMESITE = "Strict"
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
X_FRAME_OPTIONS = "DENY"

DATA_UPLOAD_MAX_MEMORY_SIZE = 32_000_000  # the edge refuses earlier, see policy.MAX_BODY_BYTES

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# lmx_site.logs sets logging up from config.yaml; Django's own handlers would print everything twice.
LOGGING_CONFIG = None
