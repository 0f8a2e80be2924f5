"""The configuration: ``config.yaml`` and ``LMX_SECTION__KEY`` variables into one checked, immutable ``Config``.

Nothing starts on a doubtful configuration: every unknown key and wrong value is reported at once, each with its file
and line (or variable), its key and the nearest valid one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from inference.engine.settings import EngineSettings
from lmx_site import paths
from lmx_site.access import OWN_NAMES, is_loopback
from lmx_site.config_model import (
    CacheSection,
    ClientName,
    ClientSection,
    DiskSection,
    EngineSection,
    LoggingSection,
    MemorySection,
    ModelsSection,
    ResponsesSection,
    Section,
    SecuritySection,
    ServerSection,
    Text,
)
from lmx_site.config_settings import NAMES, SETTINGS, ModelValues, values_of
from lmx_site.config_yaml import Document, KeyPath, parse_scalar, read_document

PREFIX = "LMX_"
_CLIENTS = "clients"
_NAMED = (_CLIENTS, SETTINGS)  # the parts of the file whose keys are names that the owner gives
_MB = 1024 * 1024
_GB = 1024 * _MB


class Config(Section):
    """All sections; what nobody set has its default."""

    server: ServerSection = ServerSection()
    models: ModelsSection = ModelsSection()
    memory: MemorySection = MemorySection()
    logging: LoggingSection = LoggingSection()
    security: SecuritySection = SecuritySection()
    engine: EngineSection = EngineSection()
    cache: CacheSection = CacheSection()
    disk: DiskSection = DiskSection()
    responses: ResponsesSection = ResponsesSection()
    clients: dict[ClientName, ClientSection] = {}
    model_settings: dict[Text, ModelValues] = {}

    def settings_of_models(self) -> dict[str, dict[str, Any]]:
        """What is set for single models, by their names."""
        return {name: values_of(told) for name, told in self.model_settings.items()}

    def model_standards(self) -> dict[str, Any]:
        """What holds for every model of which nothing else is said, by the names of its settings."""
        ttl, cache = self.models.idle_unload_sec, self.cache.memory_mb
        return {"slots": self.engine.slots, "ttl": ttl, "prefix_cache_mb": cache}

    def disk_quotas(self) -> dict[str, int]:
        """How many bytes there may be of a kind on the disk; kinds without a bound are left out."""
        found = {"models": self.disk.models_gb, "prefix_cache": self.cache.disk_gb if self.cache.disk else None}
        return {kind: int(gb * _GB) for kind, gb in found.items() if gb is not None}

    def engine_settings(self, home: Path) -> EngineSettings:
        """What the engine needs of it."""
        engine, memory = self.engine, self.memory
        return EngineSettings(
            run_dir=home / "run",
            auto_load=tuple(self.models.auto_load),
            max_memory_percent=memory.max_memory_percent,
            oom_threshold_percent=memory.oom_threshold_percent,
            auto_evict_lru=memory.auto_evict_lru,
            memory_reserve_bytes=memory.reserve_mb * _MB,
            memory_cap_bytes=memory.cap_mb * _MB if memory.cap_mb is not None else None,
            timeout_s=self.server.timeout_sec,
            load_timeout_s=engine.load_timeout_sec,
            queue_timeout_s=engine.queue_timeout_sec,
            queue_limit=engine.queue_limit,
            slots=engine.slots,
            drain_s=engine.drain_sec,
            idle_unload_s=self.models.idle_unload_sec,
            prefix_cache_bytes=self.cache.memory_mb * _MB if self.cache.memory_mb is not None else None,
            prefix_dir=home / "cache" / "prefix",
            prefix_disk_bytes=int(self.cache.disk_gb * _GB) if self.cache.disk else 0,
            cancel_grace_s=engine.cancel_grace_sec,
            heartbeat_s=engine.heartbeat_sec,
            heartbeat_misses=engine.heartbeat_misses,
            max_crashes=engine.max_crashes,
            crash_window_s=engine.crash_window_sec,
            worker_backend=engine.backend,
            worker_env=dict(engine.worker_env),
        )


SECTIONS: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in Config.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` are sentences that say where and what."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(slots=True)
class _Sources:
    """Where each value came from, to say so in a problem."""

    file: Path | None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    variables: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        for length in range(len(path), 0, -1):
            if (variable := self.variables.get(path[:length])) is not None:
                return variable
            if (line := self.lines.get(path[:length])) is not None:
                return f"{self.file}:{line}"
        return str(self.file or "configuration")

    def order(self, path: KeyPath) -> int:
        return next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1 << 30)


def default_file(env: Mapping[str, str]) -> Path:
    """``$LMX_CONFIG``, else ``config.yaml`` in ``LMX_HOME``."""
    named = env.get("LMX_CONFIG")
    return Path(named).expanduser().absolute() if named else paths.home() / "config.yaml"


def load_config(path: Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Read and check. A file that was named must exist; the default one may be missing. Raises ``ConfigError``."""
    named = path is not None or bool(env.get("LMX_CONFIG"))
    file = path or default_file(env)
    document, problems = _read(file, must_exist=named)
    sources = _Sources(file, document.lines)
    located = [(line, f"{file}:{line}: {text}") for line, text in document.problems]
    values = {name: dict(v) if isinstance(v, dict) else v for name, v in document.values.items()}
    values = {name: {} if v is None and name in (*SECTIONS, *_NAMED) else v for name, v in values.items()}
    problems += _apply_environment(values, env, sources)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        located += [_worded(item, sources) for item in error.errors(include_url=False)]
    else:
        located += [(sources.order(p), f"{sources.place(p)}: {text}") for p, text in _contradictions(config)]
        if not located and not problems:
            return config
    raise ConfigError(problems + [text for _, text in sorted(located, key=lambda pair: pair[0])])


def _read(file: Path, *, must_exist: bool) -> tuple[Document, list[str]]:
    try:
        return read_document(file), []
    except (FileNotFoundError, NotADirectoryError):
        return Document(), [f"{file}: there is no such file"] if must_exist else []
    except OSError as error:
        return Document(), [f"{file}: cannot be read: {error.strerror}"]


# ------------------------------------------------------------------------------------------------------- environment


def _apply_environment(values: dict[str, Any], env: Mapping[str, str], sources: _Sources) -> list[str]:
    """Put ``LMX_SECTION__KEY`` variables over the file's values; return what is wrong with their names."""
    problems: list[str] = []
    for variable in sorted(name for name in env if name.startswith(PREFIX)):
        section, double, key = variable[len(PREFIX) :].lower().partition("__")
        if not double:
            problems += _single_underscore(variable)
            continue
        if key not in _keys_of(section):
            problems.append(f"{variable}: there is no such setting{_suggest(variable, _all_variables(), cutoff=0.8)}")
            continue
        if env[variable] == "":
            continue
        target = values.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = _from_text(section, key, env[variable])
            _forget(sources, (section, key))
            sources.variables[(section, key)] = variable
    return problems


def _single_underscore(variable: str) -> Iterator[str]:
    for candidate in _all_variables():
        if variable == candidate.replace("__", "_"):
            yield f"{variable}: there is no such setting; did you mean {candidate}?"


def _from_text(section: str, key: str, text: str) -> Any:
    """A variable's text as the value its key takes; keys of text type keep it as it is."""
    annotation = SECTIONS[section].model_fields[key].annotation
    if text.strip().lower() in ("null", "none"):
        return None
    if get_origin(annotation) is list or any(get_origin(part) is list for part in get_args(annotation)):
        value = parse_scalar(text)
        return value if isinstance(value, list) else [part.strip() for part in text.split(",") if part.strip()]
    default = SECTIONS[section].model_fields[key].default
    if isinstance(default, bool | int | float | dict) or _may_be_number(annotation):
        return parse_scalar(text)
    return text


def _may_be_number(annotation: Any) -> bool:
    kinds = [get_args(part)[0] if get_origin(part) is Annotated else part for part in get_args(annotation)]
    return int in kinds or float in kinds


def _forget(sources: _Sources, path: KeyPath) -> None:
    for known in [known for known in sources.lines if known[: len(path)] == path]:
        del sources.lines[known]


def _keys_of(section: str) -> list[str]:
    kind = SECTIONS.get(section)
    return list(kind.model_fields) if kind is not None else []


def _siblings(path: KeyPath) -> list[str]:
    """The keys that may stand where the last one of ``path`` stands, or below a section or client that is meant."""
    if path[0] == _CLIENTS:
        return list(ClientSection.model_fields) if len(path) > 1 else []
    if path[0] == SETTINGS:
        return NAMES if len(path) > 1 else []
    return _keys_of(path[0])


def _all_variables() -> list[str]:
    return [f"{PREFIX}{s.upper()}__{key.upper()}" for s in SECTIONS for key in _keys_of(s)]


# ------------------------------------------------------------------------------------------------------------- words


def _worded(item: ErrorDetails, sources: _Sources) -> tuple[int, str]:
    path = tuple(str(part) for part in item["loc"])
    shown = path[:-1] if path and path[-1] == "[key]" else path
    return sources.order(shown), f"{sources.place(shown)}: {_sentence(item, shown)}"


def _sentence(item: ErrorDetails, path: KeyPath) -> str:
    name, kind = ".".join(path), item["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    secret = (path[0] == "security" and path[-1].endswith("_key")) or (path[0] == _CLIENTS and path[-1] != "priority")
    shown = "what was given" if secret else _shown(item["input"])
    context = item.get("ctx", {})
    if kind == "refused":
        return f"{name} {item['msg']}" if item["msg"].startswith(("must", "is ", "may")) else f"{name}: {item['msg']}"
    if item["input"] is None:
        return f"{name} must not be null; leave the line out for the default ({_default(path)})"
    if kind == "literal_error":
        wanted = str(context["expected"])
        valid = [part.strip(" '") for part in wanted.replace(" or ", ",").split(",")]
        return f"{name} must be one of {', '.join(valid)}, not {shown}{_suggest(str(item['input']), valid)}"
    if kind in ("model_type", "model_attributes_type") or (len(path) == 1 and kind.endswith("_type")):
        return f"{name} must hold keys such as '{next(iter(_siblings(path)), 'name')}:', not {shown}"
    return f"{name} must be {_wanted(kind, context, path)}, not {shown}"


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (put it in quotes)",
    "list_type": "a list",
    "dict_type": "a mapping of names to names",
}


def _wanted(kind: str, context: Mapping[str, Any], path: KeyPath) -> str:
    bounds = {
        "greater_than": "greater than {gt:g}",
        "greater_than_equal": "at least {ge:g}",
        "less_than_equal": "at most {le:g}",
        "less_than": "less than {lt:g}",
    }
    if kind in bounds:
        return bounds[kind].format(**context)
    return _TYPES.get(kind, f"a valid value ({kind.replace('_', ' ')})")


def _unknown_key(path: KeyPath) -> str:
    name, key = ".".join(path), path[-1]
    if len(path) == 1:
        homes = [f"{section}.{key}" for section in SECTIONS if key in _keys_of(section)]
        if homes:
            return f"{key} stands at the top but belongs under its section: {' or '.join(homes)}"
        return f"{key} is not a section{_suggest(key, [*SECTIONS, *_NAMED])}"
    siblings = [".".join((*path[:-1], sibling)) for sibling in _siblings(path)]
    everything = [f"{section}.{other}" for section in SECTIONS for other in _keys_of(section)]
    elsewhere = [other for other in everything if other.partition(".")[2] == key and path[0] not in _NAMED]
    if elsewhere:
        return f"{name} is not a key; did you mean {elsewhere[0]}?"
    return f"{name} is not a key{_suggest(name, siblings)}"


def _suggest(given: str, valid: list[str], cutoff: float = 0.55) -> str:
    close = difflib.get_close_matches(given.lower(), [candidate.lower() for candidate in valid], n=1, cutoff=cutoff)
    if close:
        return f"; did you mean {next(candidate for candidate in valid if candidate.lower() == close[0])}?"
    return f"; there are {', '.join(valid)}" if len(valid) <= 16 else ""


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


def _default(path: KeyPath) -> Any:
    info = SECTIONS[path[0]].model_fields.get(path[1]) if len(path) > 1 and path[0] in SECTIONS else None
    return _shown(info.default) if info is not None else "none"


def _contradictions(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What each key allows on its own but not together."""
    server, security, memory = config.server, config.security, config.memory
    keys = [security.api_key, security.admin_key, *(client.key for client in config.clients.values())]
    keyless = not any(keys)
    if not is_loopback(server.host) and keyless and not security.trust_lan:
        text = (
            f"server.host {server.host} can be reached from other machines; set security.api_key (or admin_key), "
            "or security.trust_lan: true if everyone on the network may use this server"
        )
        yield ("server", "host"), text
    if memory.oom_threshold_percent < memory.max_memory_percent:
        text = (
            f"memory.oom_threshold_percent ({memory.oom_threshold_percent:g}) must not be below "
            f"memory.max_memory_percent ({memory.max_memory_percent:g})"
        )
        yield ("memory", "oom_threshold_percent"), text

    yield from _doubtful_clients(config)


def _doubtful_clients(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """A key must tell who asks; the names that the server gives out itself have keys of their own."""
    taken = {key.get_secret_value() for key in (config.security.api_key, config.security.admin_key) if key}
    for name, client in config.clients.items():
        path = ("clients", name, "key")
        if client.key is None:
            continue
        if name in OWN_NAMES:
            yield path, f"clients.{name} can have no key of its own: security has it"
        if client.key.get_secret_value() in taken:
            yield path, f"clients.{name}.key is another one's key too; each needs its own"
        taken.add(client.key.get_secret_value())


_config: Config | None = None


def set_config(config: Config | None) -> None:
    """The configuration of this process; None forgets it."""
    global _config
    _config = config


def get_config() -> Config:
    """The configuration of this process; the defaults where nothing was loaded (tests, management commands)."""
    return _config if _config is not None else Config()
