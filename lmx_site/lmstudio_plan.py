"""What of LM Studio's settings can be carried over here, and what not, read from its files. Writes nothing.

The files are LM Studio's own business (``models_admin.lmstudio``): what is missing, broken or unknown becomes a line of
what was not carried.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from inference.model_files import Unusable, integer, printable, read_json
from lmx_site import lmstudio_models
from lmx_site.access import is_loopback
from lmx_site.config_model import ServerSection
from lmx_site.config_yaml import KeyPath
from lmx_site.home import known_directories
from lmx_site.lmstudio_models import DEFAULTS, PRESETS, PROMPT, short
from models_admin import lmstudio
from models_admin import row as examined
from models_admin.lmstudio_names import studio_names
from models_admin.row import examine
from models_admin.scan import scan

SERVER = ".internal/http-server-config.json"
_MAX_FILES = 5000
_OWN_PORT = 1234
_MAX_NAME = 120

_HERE = {
    "cors": "every web page could drive this server; name the pages in security.cors_origins",
    "autoStartOnLaunch": "it starts LM Studio's server beside this one: switch it off there",
    "justInTimeModelLoading": "a model is loaded when it is asked for, always; models.auto_load does it at the start",
    "defaultContextLength": "a model has its whole context, and takes memory for what is used of it",
    "modelLoadingGuardrails": "memory.max_memory_percent decides what fits",
    "unloadPreviousJITModelOnLoad": "models stay until their memory is needed, or models.idle_unload_sec is over",
    "llm.load.numParallelSessions": "requests take memory for what they use; 'lmx set MODEL slots=N' bounds them",
    "llm.load.mlx.kvCacheQuantization": "the key-value cache is kept in full precision here",
}
_PRIVATE = re.compile("auth|token|key|secret|passw|credential|permission", re.IGNORECASE)
_UNKNOWN = "there is no such setting here"


@dataclass(frozen=True, slots=True)
class Row:
    """A setting of LM Studio's: what it is there, what it is here, and what is to do (``write`` or ``as it is``)."""

    name: str
    theirs: str
    ours: str
    done: str


@dataclass(slots=True)
class Plan:
    """``changes`` are new values by their place in config.yaml; ``left`` is (what, why) of what is not carried.

    ``port`` is LM Studio's own; ``autostart`` whether LM Studio starts its server by itself.
    """

    home: Path
    changes: dict[KeyPath, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    port: int = _OWN_PORT
    autostart: bool = False


def make_plan(home: Path, values: Mapping[str, Any], *, open_lan: bool = False) -> Plan:
    """``values`` is what stands in config.yaml; it stays, whatever LM Studio says.

    ``open_lan``: a server of LM Studio's that the network may use without a key becomes such a one here.
    """
    plan = Plan(home)
    _Reader(plan, values, open_lan).read()
    return plan


class _Reader:
    def __init__(self, plan: Plan, values: Mapping[str, Any], open_lan: bool) -> None:
        self._plan = plan
        self._values = values
        self._open_lan = open_lan

    def read(self) -> None:
        self._server(self._json(SERVER))
        self._settings(self._json(lmstudio.SETTINGS))
        self._models()
        servers = self._json("mcp.json").get("mcpServers")
        for name in servers if isinstance(servers, dict) else ():
            self._leave(f"MCP server {printable(name)}", "MCP servers are not spoken to here")

    # ------------------------------------------------------------------------------------------------------- settings

    def _server(self, told: dict[str, Any]) -> None:
        port, interface = told.pop("port", None), told.pop("networkInterface", None)
        if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
            self._plan.port = port
            self._want("port", port, ("server", "port"), port, _OWN_PORT)
        elif port is not None:
            self._leave(f"port: {_shown(port)}", "that is no port")
        if isinstance(interface, str) and interface:
            self._network(interface, told)
        self._plan.autostart = told.get("autoStartOnLaunch") is True
        if told.get("justInTimeModelLoading") is True:
            del told["justInTimeModelLoading"]
        self._leave_rest("server", {name: value for name, value in told.items() if value not in (False, None)})

    def _network(self, interface: str, told: Mapping[str, Any]) -> None:
        name = "network"
        if is_loopback(interface):
            self._plan.rows.append(Row(name, _shown(interface), "server.host: 127.0.0.1", "as it is"))
            return
        if (keyed := _private_name(told)) is not None:
            asks = f"LM Studio asks for a key ({printable(keyed)})"
            why = f"{asks}: set security.api_key here, then server.host: {interface}"
            self._leave(f"network: {_shown(interface)}", why)
            return
        security, clients = self._section("security"), self._section("clients")
        keys = [security.get("api_key"), security.get("admin_key")]
        keys += [one.get("key") for one in clients.values() if isinstance(one, dict)]
        trusted = security.get("trust_lan", self._open_lan or None)
        if not any(keys) and trusted is None:
            why = "anyone there could use the models: set security.api_key, or give --open-lan for no key at all"
            self._leave(f"network without a key: {_shown(interface)}", why)
            return
        if not any(keys) and trusted is not True:
            self._leave(f"network: {_shown(interface)}", "config.yaml has security.trust_lan: false, and no key")
            return
        try:
            ServerSection(host=interface)
        except ValidationError:
            self._leave(f"network: {_shown(interface)}", "that is no address to listen on")
            return
        self._want(name, interface, ("server", "host"), interface, "127.0.0.1")
        if not any(keys) and self._section("server").get("host", interface) == interface:
            self._want("network without a key", True, ("security", "trust_lan"), True, False)

    def _settings(self, told: dict[str, Any]) -> None:
        folder = lmstudio.downloads_folder(self._plan.home)
        if told.pop("downloadsFolder", None) is not None and folder is None:
            self._leave("downloadsFolder", "it names no folder of this machine")
        self._folders()
        developer = told.pop("developer", None)
        developer = dict(developer) if isinstance(developer, dict) else {}
        ttl = developer.pop("jitModelTTL", None)
        if isinstance(ttl, dict) and ttl.get("enabled") is True and (seconds := integer(ttl, "ttlSeconds")) > 0:
            seconds = min(seconds, 31_536_000)
            self._want("idle time to live", f"{seconds} s", ("models", "idle_unload_sec"), seconds, None)
        self._leave_rest("settings", {name: value for name, value in told.items() if name in _HERE})
        self._leave_rest("settings", {name: value for name, value in developer.items() if value and name in _HERE})
        others = sorted(printable(name) for name in {**told, **developer} if name not in _HERE)
        if others:
            self._leave(f"settings of the program: {', '.join(others)}", _UNKNOWN)

    def _folders(self) -> None:
        folders = lmstudio.model_folders(self._plan.home)
        usual = known_directories()
        listed = self._section("models").get("extra_directories")
        known = {str(Path(str(one)).expanduser()) for one in (usual if listed is None else listed)}
        missing = [str(folder) for folder in folders if str(folder) not in known]
        if missing:
            # The list takes the place of the usual directories, so those go into it.
            start = [str(one) for one in usual] if listed is None else list(listed)
            self._plan.changes["models", "extra_directories"] = [*start, *missing]
        for folder in folders:
            here = "searched by default" if listed is None and not missing else "models.extra_directories"
            done = "write" if str(folder) in missing else "as it is"
            self._plan.rows.append(Row("models folder", str(folder), here, done))

    # --------------------------------------------------------------------------------------------------------- models

    def _models(self) -> None:
        """Aliases for what LM Studio calls its models, where it is not what they are called here anyway."""
        folders = lmstudio.model_folders(self._plan.home)
        found = [examine(one) for one in scan(folders, folders).found]
        refs = [(row.found.repo, row.ref()) for row in found]
        names = studio_names(refs, lmstudio.model_keys(self._plan.home))
        told = names.shown
        # Of another home than the one that the server looks at, it knows no names.
        derived = studio_names(refs, {}).derived if self._plan.home == lmstudio.find_home() else {}
        aliases = self._section("models").get("aliases")
        known = {str(name).lower(): target for name, target in aliases.items()} if isinstance(aliases, dict) else {}
        for repo, keys in sorted(told.items()):
            for key in keys:
                if derived.get(key.lower()) == repo or key.lower() == repo.lower():
                    self._plan.rows.append(Row("model key", key, repo, "as it is"))
                elif known.get(key.lower(), repo) != repo:
                    self._leave(f"model key {key}", f"models.aliases has it for {_shown(known[key.lower()])}")
                else:
                    done = "as it is" if key.lower() in known else "write"
                    self._plan.rows.append(Row("model key", key, f"models.aliases: {repo}", done))
                    if done == "write":
                        self._plan.changes["models", "aliases", key] = repo
        self._single_models(found, {**names.derived, **names.told})
        for row in found:
            if row.problem:
                self._leave(f"model {row.found.repo}", row.problem)
        for folder in folders:
            for repo in sorted({printable(str(file.parent.relative_to(folder))) for file in _files(folder, ".gguf")}):
                self._leave(f"model {repo}", "GGUF is not run here; fetch the model in MLX's format")

    def _single_models(self, found: list[examined.Row], keys: Mapping[str, str]) -> None:
        """What is set for single models, as ``model_settings``."""
        home = self._plan.home
        lmstudio_models.Found(
            home,
            models={row.found.repo.lower(): row for row in found},
            keys=keys,
            fields=self._fields,
            put=self._put,
            leave=self._leave,
            unknown=self._unknown,
        ).read(_files(home / DEFAULTS, ".json"), _files(home / PRESETS, ".preset.json"))

    def _put(self, repo: str, setting: str, value: Any) -> None:
        """Carry a setting of one model, unless config.yaml has its own."""
        section, model, _ = path = lmstudio_models.place(self._values, repo, setting)
        there = self._section(section).get(model)
        own = there.get(setting) if isinstance(there, dict) else None
        shown = f"{len(value)} characters" if setting == "system_prompt" else _shown(value)
        if own is not None and own != value:
            said = "its own" if setting == "system_prompt" else _shown(own)
            self._leave(f"{repo}: {setting} {shown}", f"config.yaml has {section}: {said}")
            return
        done = "write" if own is None else "as it is"
        self._plan.rows.append(Row(f"{setting} of {repo}", shown, f"{section}: {setting}", done))
        if own is None:
            self._plan.changes[path] = value

    def _unknown(self, model: str, key: str, value: Any) -> None:
        self._leave(f"{model}: {_told(key, value, short(key))}", _HERE.get(key, _UNKNOWN))

    # ---------------------------------------------------------------------------------------------------------- parts

    def _fields(self, file: Path) -> tuple[dict[str, Any], str]:
        """What a file of settings for a model sets, by key, without what it switches off; and the preset it names."""
        told = self._json(str(file.relative_to(self._plan.home)))
        found: dict[str, Any] = {}
        for part in ("load", "operation"):
            inner = told.get(part)
            fields = inner.get("fields") if isinstance(inner, dict) else None
            for one in fields if isinstance(fields, list) else ():
                if not isinstance(one, dict) or not isinstance(one.get("key"), str):
                    continue
                value = one.get("value")
                if isinstance(value, dict) and "checked" in value:
                    value = value.get("value") if value["checked"] is True else None
                if isinstance(value, dict) and value.get("enabled") is False:
                    continue
                if value not in (None, "", []):
                    found[printable(one["key"])] = value
        preset = told.get("preset")
        return found, preset if isinstance(preset, str) else ""

    def _json(self, name: str) -> dict[str, Any]:
        file = self._plan.home / name
        if not os.path.lexists(file):
            return {}
        try:
            return read_json(file, name)
        except Unusable as problem:
            self._leave(f"file {printable(name)}", printable(str(problem)))
            return {}

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self._values.get(name)
        return section if isinstance(section, dict) else {}

    def _want(self, name: str, theirs: Any, path: KeyPath, value: Any, default: Any) -> None:
        """Carry a value, unless config.yaml has its own."""
        section, key = path
        there = self._section(section)
        place = f"{section}.{key}"
        if key in there and there[key] != value:
            self._leave(f"{name}: {_shown(theirs)}", f"config.yaml has {place}: {_shown(there[key])}")
            return
        done = "as it is" if key in there or value == default else "write"
        self._plan.rows.append(Row(name, _shown(theirs), f"{place}: {_shown(value)}", done))
        if done == "write":
            self._plan.changes[path] = value

    def _leave(self, what: str, why: str) -> None:
        self._plan.left.append((what, why))

    def _leave_rest(self, part: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._leave(f"{part}: {_told(name, value, printable(name))}", _HERE.get(name, _UNKNOWN))


def _files(root: Path, ending: str) -> Iterator[Path]:
    """The files of that ending below ``root``, sorted, links to directories not followed; so many and no more."""

    def walk() -> Iterator[Path]:
        for directory, folders, names in os.walk(root):
            folders.sort()
            yield from (Path(directory) / name for name in sorted(names) if name.lower().endswith(ending))

    return islice(walk(), _MAX_FILES)


def _private_name(value: Any) -> str | None:
    """The first name in it, at any depth, that has to do with a key and is set; None where there is none."""
    rest = [value]
    while rest:
        one = rest.pop(0)
        if isinstance(one, dict):
            for name, inner in one.items():
                if inner and _PRIVATE.search(name):
                    return str(name)
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return None


def _told(key: str, value: Any, name: str) -> str:
    """The name, with the value where it is known what that is: nobody's secrets go to a terminal or into a log."""
    number = isinstance(value, int | float)
    known = key in _HERE or (key.startswith("llm.prediction.") and number)
    if not known or key == PROMPT or _private_name({key: value}) is not None:
        return name
    return f"{name} {_shown(value)}"


def _shown(value: Any) -> str:
    text = printable(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"
