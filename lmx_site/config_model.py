"""What can be configured: sections, keys, types, bounds and defaults. Read from YAML by ``lmx_site.config``.

Every value is checked strictly (``true`` is not a number, ``"1234"`` is not a port). The sentences raised here are
shown to the owner with file, line and key in front.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

_HOST_NAME = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$")
_LONGEST_NAME = 64
_ORIGIN = re.compile(r"^[a-z][a-z0-9+.-]*://[^/\s?#]*$")


def _refuse(message: str) -> PydanticCustomError:
    # The message goes through str.format with no context: braces that come from a value must survive it.
    return PydanticCustomError("refused", message.replace("{", "{{").replace("}", "}}"))


def _one_worker(value: int) -> int:
    if value != 1:
        raise _refuse(
            "must be 1: one process owns the models and their memory, and serves all requests at once; "
            "more workers would load every model again"
        )
    return value


def _bind_address(value: str) -> str:
    if value == "*":
        raise _refuse("'*' is not an address; 0.0.0.0 listens on every address")
    if not _is_address(value) and not _HOST_NAME.match(value):
        raise _refuse(f"{value!r} is not a host name or address (no scheme, no port)")
    return value


def _allowed_host(value: str) -> str:
    name = value.lower().strip("[]")
    if "*" in name:
        raise _refuse(
            "'*' would switch off the defence against DNS rebinding; list names, or '.example.com' for all of it"
        )
    if not _is_address(name) and not _HOST_NAME.match(name.removeprefix(".")):
        raise _refuse(f"{value!r} is not a host name or address (no scheme, no port)")
    return name.rstrip(".")


def _origin(value: str) -> str:
    origin = value.lower().rstrip("/") if value.count("/") == 3 else value.lower()
    if origin in ("*", "null"):
        raise _refuse(f"{value!r} would let every web page drive this server; name the origins")
    if not _ORIGIN.match(origin):
        raise _refuse(f"{value!r} is not an origin; write it as 'http://name:port', without a path")
    return origin


def _key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise _refuse("is empty; use null for no key")
    if not all(33 <= ord(c) <= 126 for c in text):
        raise _refuse("may hold printable ASCII only, no spaces: it travels in an HTTP header")
    return value


def _some_text(value: str) -> str:
    if not value.strip():
        raise _refuse("is empty")
    return value.strip()


def _path(value: str) -> Path:
    if "\0" in value:
        raise _refuse("is not a path")
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise _refuse(f"{value!r} is not an absolute path")
    return path


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _text_to_path(value: object) -> object:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise _refuse("must be a path in text form")
    return _path(value)


def _client_name(value: str) -> str:
    if not value.isprintable() or len(value) > _LONGEST_NAME or value != value.strip():
        raise _refuse(f"is not a name: printable characters, {_LONGEST_NAME} at most, no spaces around them")
    return value


Text = Annotated[str, AfterValidator(_some_text)]
ClientName = Annotated[str, AfterValidator(_some_text), AfterValidator(_client_name)]
Quantizations = Annotated[list[Text], BeforeValidator(_one_or_several), Field(min_length=1, max_length=32)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Directory = Annotated[Path, BeforeValidator(_text_to_path)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Percent = Annotated[float, Field(ge=1, le=100)]


class Section(BaseModel):
    """Base of the sections: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ServerSection(Section):
    """Where the server listens and how it treats requests."""

    host: Annotated[str, AfterValidator(_bind_address)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 1234
    workers: Annotated[int, AfterValidator(_one_worker)] = 1
    timeout_sec: Seconds = 300
    allowed_hosts: list[Annotated[str, AfterValidator(_allowed_host)]] = []
    strict: bool = False


class ModelsSection(Section):
    """Which models there are."""

    default_model: Text | None = None
    models_directory: Directory | None = None
    extra_directories: list[Directory] | None = None
    auto_load: list[Text] = []
    aliases: dict[Text, Text] = {}
    quantization_preference: Quantizations = ["4bit", "6bit", "8bit"]
    idle_unload_sec: Annotated[float, Field(ge=1, le=31_536_000)] | None = None
    demo: bool = True
    max_downloads: Annotated[int, Field(ge=1, le=16)] = 2
    download_retry_sec: Seconds = 300
    keep_free_gb: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 1
    check_updates: bool = True
    verify_every_days: Annotated[float, Field(ge=0, le=3650)] = 30
    keep_revisions_days: Annotated[float, Field(ge=0, le=3650)] | None = None


class MemorySection(Section):
    """How much memory models may use."""

    max_memory_percent: Percent = 90
    oom_threshold_percent: Percent = 95
    auto_evict_lru: bool = True
    reserve_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    cap_mb: Annotated[int, Field(ge=64)] | None = None


class LoggingSection(Section):
    """What is logged, how and where."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    format: Annotated[Literal["structured", "json", "text"], BeforeValidator(_lower)] = "structured"
    file: Directory | None = None
    access: bool = True
    history_days: Annotated[int, Field(ge=1, le=3650)] = 30
    audit_days: Annotated[int, Field(ge=30, le=36500)] = 3650


class SecuritySection(Section):
    """Who may use the server."""

    api_key: Key | None = None
    admin_key: Key | None = None
    trust_lan: bool = False
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = []


class ClientSection(Section):
    """One client by its name: how urgent its requests are, and a key of its own if it shall have one."""

    priority: Annotated[Literal["low", "normal", "high"], BeforeValidator(_lower)] = "normal"
    key: Key | None = None


class CacheSection(Section):
    """Keeping what models have read, so that the same beginning of a prompt is not read again."""

    memory_mb: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    disk: bool = True
    disk_gb: Annotated[float, Field(ge=0, le=100_000)] = 20


class DiskSection(Section):
    """How much may be kept on the disk."""

    models_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class ResponsesSection(Section):
    """What is kept of responses (``/v1/responses``), which hold prompts and answers."""

    store: bool = True
    max_count: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    max_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    days: Annotated[float, Field(gt=0, le=3650)] = 30


_ENDING_S = 2.0


class EngineSection(Section):
    """How models run."""

    slots: Annotated[int, Field(ge=1, le=1024)] = 64
    queue_limit: Annotated[int, Field(ge=0, le=100_000)] = 256
    queue_timeout_sec: Seconds = 300
    load_timeout_sec: Seconds = 600
    drain_sec: Annotated[float, Field(ge=0, le=3600)] = 10
    cancel_grace_sec: Seconds = 30
    heartbeat_sec: Annotated[float, Field(gt=0, le=60)] = 1
    heartbeat_misses: Annotated[int, Field(ge=2, le=1000)] = 15
    max_crashes: Annotated[int, Field(ge=1, le=100)] = 3
    crash_window_sec: Seconds = 600
    backend: Literal["vllm_mlx", "vllm_engine", "fake"] | None = None
    worker_env: dict[Text, str] = {}

    @property
    def answers_sec(self) -> float:
        """How long answers may run on when the server stops: what ``drain_sec`` leaves beside ending the processes."""
        return self.drain_sec - min(_ENDING_S, self.drain_sec / 4)
