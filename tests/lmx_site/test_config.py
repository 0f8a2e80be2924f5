"""The configuration: what is read, what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_site.config import Config, ConfigError, default_file, load_config
from lmx_site.config_yaml import MAX_BYTES

FOUNDING = """
# ~/.opta-lmx/config.yaml

server:
  host: "127.0.0.1"          # Localhost only (trust LAN)
  port: 1234                 # Drop-in LM Studio replacement
  workers: 1                 # Uvicorn workers
  timeout_sec: 300           # Request timeout

models:
  default_model: "mlx-community/Mistral-7B-Instruct-4bit"
  models_directory: "/Users/Shared/Opta-LMX/models"
  auto_load:                 # Models to pre-load at startup
    - "mlx-community/Mistral-7B-Instruct-4bit"
    - "mlx-community/Qwen2.5-7B-Instruct-4bit"
  quantization_preference: "4bit"  # Default quant for downloads

memory:
  max_memory_percent: 90     # Never exceed 90% unified memory
  oom_threshold_percent: 95  # Warn at 95%
  auto_evict_lru: true       # Unload LRU model if needed

logging:
  level: "INFO"              # DEBUG, INFO, WARNING, ERROR
  format: "structured"       # JSON or text
  file: "/var/log/opta-lmx/server.log"

security:
  api_key: null              # Optional: require key on /admin/* (Phase 4)
  admin_key: null            # Optional: separate admin key
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def problems(file: Path, text: str | bytes, env: dict[str, str] | None = None) -> list[str]:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, env or {})
    return [problem.replace(str(file), "FILE") for problem in caught.value.problems]


def only(file: Path, text: str | bytes, env: dict[str, str] | None = None) -> str:
    found = problems(file, text, env)
    assert len(found) == 1, found
    return found[0]


def test_the_founding_file_works_as_it_stands(file: Path) -> None:
    file.write_text(FOUNDING)
    config = load_config(file, {})
    assert config.server.port == 1234
    assert config.models.auto_load[1] == "mlx-community/Qwen2.5-7B-Instruct-4bit"
    assert config.logging.file == Path("/var/log/opta-lmx/server.log")
    settings = config.engine_settings(Path("/h"))
    assert settings.timeout_s == 300
    assert settings.max_memory_percent == 90
    assert settings.auto_load == tuple(config.models.auto_load)
    assert settings.run_dir == Path("/h/run")


@pytest.mark.parametrize("text", ["", "# nothing\n", "server:\nmodels:\n", "---\n...\n", "{}"])
def test_an_empty_file_or_section_means_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_config(file, {}) == Config()


def test_the_grace_of_a_cancel_reaches_the_engine(file: Path) -> None:
    file.write_text("engine: {cancel_grace_sec: 7}")
    assert load_config(file, {}).engine_settings(Path("/h")).cancel_grace_s == 7


def test_a_missing_default_file_means_the_defaults_and_a_missing_named_one_is_a_problem(home: Path) -> None:
    assert load_config(None, {}) == Config()
    assert default_file({"LMX_CONFIG": "/x.yaml"}) == Path("/x.yaml")
    for given, env in ((home / "none.yaml", {}), (None, {"LMX_CONFIG": str(home / "none.yaml")})):
        with pytest.raises(ConfigError, match="no such file"):
            load_config(given, env)


def test_the_default_file_is_read(home: Path) -> None:
    (home / "config.yaml").write_text("server: {port: 4321}")
    assert load_config(None, {}).server.port == 4321


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("server:\n  prot: 1", "FILE:2: server.prot is not a key; did you mean server.port?"),
        ("\nmodles:\n  x: 1", "FILE:2: modles is not a section; did you mean models?"),
        (
            "zzz: 1",
            (
                "FILE:1: zzz is not a section; there are "
                "server, models, memory, logging, security, engine, cache, disk, responses, clients, model_settings"
            ),
        ),
        ("port: 1", "FILE:1: port stands at the top but belongs under its section: server.port"),
        ("models:\n  api_key: x", "FILE:2: models.api_key is not a key; did you mean security.api_key?"),
        ("server: {port: abc}", "FILE:1: server.port must be a whole number, not 'abc'"),
        ("server: {port: true}", "FILE:1: server.port must be a whole number, not true"),
        ("server: {port: '1234'}", "FILE:1: server.port must be a whole number, not '1234'"),
        ("server: {port: 1.5}", "FILE:1: server.port must be a whole number, not 1.5"),
        ("server: {port: 65536}", "FILE:1: server.port must be at most 65535, not 65536"),
        ("server: {port: -1}", "FILE:1: server.port must be at least 0, not -1"),
        ("server: {port: null}", "FILE:1: server.port must not be null; leave the line out for the default (1234)"),
        ("server: {strict: 'yes'}", "FILE:1: server.strict must be true or false, not 'yes'"),
        ("server: {timeout_sec: .nan}", "FILE:1: server.timeout_sec must be at most 86400, not nan"),
        ("server: {timeout_sec: .inf}", "FILE:1: server.timeout_sec must be at most 86400, not inf"),
        ("server: 5", "FILE:1: server must hold keys such as 'host:', not 5"),
        ("server: []", "FILE:1: server must hold keys such as 'host:', not []"),
        ("models: {auto_load: a}", "FILE:1: models.auto_load must be a list, not 'a'"),
        ("models:\n  auto_load:\n  - a\n  - 3", "FILE:4: models.auto_load.1 must be text (put it in quotes), not 3"),
        ("models: {default_model: ' '}", "FILE:1: models.default_model is empty"),
        ("models: {aliases: {a: 1}}", "FILE:1: models.aliases.a must be text (put it in quotes), not 1"),
        ("models: {aliases: [a]}", "FILE:1: models.aliases must be a mapping of names to names, not ['a']"),
        ("memory: {max_memory_percent: 0}", "FILE:1: memory.max_memory_percent must be at least 1, not 0"),
        ("memory: {max_memory_percent: 101}", "FILE:1: memory.max_memory_percent must be at most 100, not 101"),
        ("security: {trust_lan: 1}", "FILE:1: security.trust_lan must be true or false, not 1"),
        (
            "security: {api_key: 1234567}",
            "FILE:1: security.api_key must be text (put it in quotes), not what was given",
        ),
        ("security: {api_key: ''}", "FILE:1: security.api_key is empty; use null for no key"),
        ("logging: {file: relative/x}", "FILE:1: logging.file: 'relative/x' is not an absolute path"),
        ("- a\n- b", "FILE:1: expected sections such as 'server:' at the top"),
        ("just text", "FILE:1: expected sections such as 'server:' at the top"),
        ("null: 1", "FILE:1: a key must be a plain word"),
        ("? [a]\n: 1", "FILE:1: a key must be a plain word"),
    ],
)
def test_a_problem_names_file_line_key_and_what_would_be_right(file: Path, text: str, sentence: str) -> None:
    assert only(file, text) == sentence


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("logging: {level: INF0}", "not 'INF0'; did you mean INFO?"),
        ("logging: {format: jsn}", "did you mean json?"),
        ("server: {workers: 4}", "server.workers must be 1: one process owns the models"),
        ("server: {host: '*'}", "0.0.0.0 listens on every address"),
        ("server: {host: 'http://x:1'}", "is not a host name or address"),
        ("server: {allowed_hosts: ['*']}", "DNS rebinding"),
        ("server: {allowed_hosts: ['a:80']}", "is not a host name or address"),
        ("security: {cors_origins: ['*']}", "name the origins"),
        ("security: {cors_origins: ['null']}", "name the origins"),
        ("security: {cors_origins: ['localhost:3000']}", "is not an origin"),
        ("security: {cors_origins: ['http://a/b']}", "is not an origin"),
        ("security: {api_key: 'a b'}", "printable ASCII"),
        ("security: {api_key: 'schlüssel'}", "printable ASCII"),
        ("server: {host: 0.0.0.0}", "can be reached from other machines"),
        ("server: {host: '::'}", "can be reached from other machines"),
        ("memory: {max_memory_percent: 96}", "must not be below"),
        ("server:\n\t- x", "not YAML"),
        ("server: {port: 1", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        (b"server: {port: \xff\xfe}", "not YAML"),
        (b"server:\0", "not YAML"),
        ("server: *nobody", "not YAML"),
        ("server: !!python/object/apply:os.system ['true']", "server"),
        ("server: {port: !!python/name:os.system ''}", "the tag"),
        ("models: {default_model: !secret x}", "the tag !secret is not allowed"),
        ("[" * 5000, "nested too deeply"),
        ("models: " + "{a: " * 30 + "1" + "}" * 30, "nested too deeply"),
        ("#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_hostile_and_wrong_files_are_refused(file: Path, text: str | bytes, part: str) -> None:
    found = problems(file, text)
    assert any(part in problem for problem in found), found
    assert all("Traceback" not in problem for problem in found)


def test_an_alias_bomb_is_bounded(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert any("values, aliases included" in problem for problem in problems(file, "\n".join(lines)))


def test_a_file_that_contains_itself_is_refused(file: Path) -> None:
    assert any("too deeply" in problem for problem in problems(file, "server: &s {host: *s}"))


def test_a_second_value_for_a_key_is_refused(file: Path) -> None:
    text = "server:\n  port: 1\n  port: 2\nserver: {}\n"
    assert problems(file, text) == [
        "FILE:3: server.port stands here a second time (first in line 2)",
        "FILE:4: server stands here a second time (first in line 1)",
    ]


def test_all_problems_come_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = "server:\n  prot: 1\n  port: x\nmodles: {}\nlogging:\n  level: loud\n"
    found = problems(file, text)
    assert [problem.split(":")[1] for problem in found] == ["2", "3", "4", "6"]


def test_a_key_never_appears_in_a_problem_or_in_what_is_shown(file: Path) -> None:
    found = problems(file, "security: {api_key: 'hunter2 is my key', admin_key: [hunter2], cors_origins: 1}")
    assert "hunter2" not in "".join(found)
    file.write_text("security: {api_key: hunter2}")
    config = load_config(file, {})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.model_dump_json()


def test_variables_override_the_file_and_are_read_by_the_type_of_their_key(file: Path) -> None:
    file.write_text("server: {port: 1, host: 0.0.0.0}\nmodels: {auto_load: [x]}")
    config = load_config(
        file,
        {
            "LMX_SERVER__PORT": "1235",
            "LMX_SERVER__STRICT": "true",
            "LMX_SECURITY__API_KEY": "12345",
            "LMX_MODELS__AUTO_LOAD": "org/a, org/b",
            "LMX_MODELS__EXTRA_DIRECTORIES": "['/a', '/b']",
            "LMX_MODELS__ALIASES": "{fast: org/a}",
            "LMX_MODELS__DEFAULT_MODEL": "3",
            "LMX_MEMORY__CAP_MB": "512",
            "LMX_ENGINE__BACKEND": "fake",
            "LMX_ENGINE__DRAIN_SEC": "2.5",
            "LMX_LOGGING__LEVEL": "debug",
            "LMX_SERVER__TIMEOUT_SEC": "",
            "LMX_HOME": "/somewhere",
            "LMX_KEY": "for the command line",
            "PATH": "/bin",
        },
    )
    assert config.server.port == 1235
    assert config.engine.answers_sec == 1.875, "a quarter of a short drain is for ending the processes"
    assert config.server.strict
    assert config.server.timeout_sec == 300
    assert config.security.api_key is not None
    assert config.security.api_key.get_secret_value() == "12345"
    assert config.models.auto_load == ["org/a", "org/b"]
    assert config.models.extra_directories == [Path("/a"), Path("/b")]
    assert config.models.aliases == {"fast": "org/a"}
    assert config.models.default_model == "3"
    assert config.logging.level == "DEBUG"
    settings = config.engine_settings(Path("/h"))
    assert settings.memory_cap_bytes == 512 * 1024 * 1024
    assert settings.worker_backend == "fake"
    assert settings.drain_s == 2.5


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LMX_SERVER__PROT", "1", "LMX_SERVER__PROT: there is no such setting; did you mean LMX_SERVER__PORT?"),
        ("LMX_SERVER_PORT", "1", "LMX_SERVER_PORT: there is no such setting; did you mean LMX_SERVER__PORT?"),
        ("LMX_NOWHERE__AT_ALL", "1", "LMX_NOWHERE__AT_ALL: there is no such setting"),
        ("LMX_SERVER__PORT", "many", "LMX_SERVER__PORT: server.port must be a whole number, not 'many'"),
        ("LMX_SERVER__STRICT", "maybe", "LMX_SERVER__STRICT: server.strict must be true or false, not 'maybe'"),
        (
            "LMX_MODELS__ALIASES",
            "a",
            "LMX_MODELS__ALIASES: models.aliases must be a mapping of names to names, not 'a'",
        ),
    ],
)
def test_a_wrong_variable_is_named(file: Path, variable: str, value: str, sentence: str) -> None:
    assert only(file, "", {variable: value}) == sentence


def test_another_address_needs_a_key_or_trust(file: Path) -> None:
    for extra in ("api_key: k", "admin_key: k", "trust_lan: true"):
        file.write_text(f"server: {{host: 0.0.0.0}}\nsecurity: {{{extra}}}")
        assert load_config(file, {}).server.host == "0.0.0.0"
    file.write_text("server: {host: localhost}")
    assert load_config(file, {}).server.host == "localhost"


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})
