"""``lmx migrate lmstudio`` against a home of LM Studio's as its versions write it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lmx_site.cli import main
from lmx_site.config import load_config
from lmx_site.config_edit import EditError, edited
from tests.live.process import LiveServer
from tests.material import nano_model, place
from tests.material.studio import Studio, new_home


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home: not the real one, without a Hugging Face cache."""
    return new_home(tmp_path / "user", monkeypatch)


@pytest.fixture
def studio(user: Path) -> Studio:
    """With its settings; its server is open to the network on port 4321."""
    made = Studio(user)
    made.settings()
    made.server()
    return made


@pytest.fixture
def file(home: Path) -> Path:
    return home / "config.yaml"


def migrate(*words: str) -> Result:
    return CliRunner().invoke(main, ["migrate", "lmstudio", *words])


def done(*words: str) -> str:
    result = migrate(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*words: str) -> str:
    result = migrate(*words)
    assert result.exit_code == 1, result.stdout
    assert result.stderr.startswith("lmx: ")
    return result.stderr


def cells(said: str) -> Iterator[list[str]]:
    for line in said.splitlines():
        yield [cell.strip() for cell in line.split("  ") if cell.strip()]


class TestCarrying:
    def test_settings_go_into_the_configuration(self, studio: Studio, file: Path) -> None:
        said = done("--open-lan")
        assert yaml.safe_load(file.read_text()) == {
            "server": {"port": 4321, "host": "0.0.0.0"},
            "security": {"trust_lan": True},
            "models": {"idle_unload_sec": 1800},
        }
        load_config(file)
        assert ["port", "4321", "server.port: 4321", "write"] in cells(said)
        assert "use the models without a key" in said
        assert "server: cors true: every web page could drive this server" in said
        assert "settings: defaultContextLength" in said
        assert "settings of the program: chat, language: there is no such setting here" in said
        assert file.stat().st_mode & 0o777 == 0o600

    def test_a_dry_run_writes_nothing(self, studio: Studio, home: Path) -> None:
        assert "Nothing was written" in done("--dry-run")
        assert list(home.iterdir()) == []

    def test_a_second_run_changes_nothing(self, studio: Studio, home: Path, file: Path) -> None:
        studio.model("org/Chat-4bit")
        studio.index_of({"org/Chat-4bit": "publisher/chat"})
        done()
        before = {path.name: path.read_bytes() for path in home.iterdir()}
        assert "There is nothing to write" in done()
        assert {path.name: path.read_bytes() for path in home.iterdir()} == before

    def test_comments_order_and_mode_stay_and_the_old_file_is_kept(self, studio: Studio, file: Path) -> None:
        old = (
            "# mine\nserver:   # where\n  timeout_sec: 60     # long\n\n# models\nmodels:\n"
            "  aliases: {a: 'b'} # short\n\n# the rest\nlogging:\n  level: DEBUG\n"
        )
        file.write_text(old)
        file.chmod(0o640)
        done("--open-lan")
        new = file.read_text().splitlines()
        assert [line for line in old.splitlines() if line not in new] == []
        added = [line.strip() for line in new if line not in old.splitlines()]
        assert added == ["port: 4321", "host: 0.0.0.0", "idle_unload_sec: 1800", "security:", "trust_lan: true"]
        assert new.index("# models") > new.index("  port: 4321")
        assert file.stat().st_mode & 0o777 == 0o640
        copy = file.with_name("config.yaml.before-lmstudio")
        assert copy.read_text() == old
        assert "is as it was" in done("--undo")
        assert file.read_text() == old
        assert file.with_name("config.yaml.undone").read_text().splitlines() == new
        assert "nothing to undo" in refused("--undo")

    def test_what_the_owner_wrote_stays(self, studio: Studio, file: Path) -> None:
        old = "server: {port: 1235, host: 127.0.0.1}\nmodels: {idle_unload_sec: 60}\n"
        file.write_text(old)
        said = done()
        assert "port: 4321: config.yaml has server.port: 1235" in said
        assert "idle time to live: 1800 s: config.yaml has models.idle_unload_sec: 60" in said
        assert file.read_text() == old

    @pytest.mark.parametrize(
        ("config", "changes", "written"),
        [
            ("security: {api_key: k}\n", {}, "0.0.0.0"),
            ("security: {trust_lan: false}\n", {}, None),
            ("", {"networkInterface": "127.0.0.1"}, None),
            ("", {"networkInterface": "not an address"}, None),
            ("", {"requireAuthentication": True}, None),
            ("", {"apiKeys": ["x"]}, None),
            ("", {"access": {"Permissions": {"all": False}}}, None),
            ("", {"more": [{"masterPassword": "x"}]}, None),
            ("", {"clientSecret": "x"}, None),
        ],
    )
    def test_the_network(
        self, studio: Studio, file: Path, config: str, changes: dict[str, object], written: str | None
    ) -> None:
        file.write_text(config)
        studio.server(**changes)
        done("--open-lan")
        values = yaml.safe_load(file.read_text())
        assert values["server"].get("host") == written
        assert not (values.get("security") or {}).get("trust_lan")

    def test_the_network_is_let_in_without_a_key_only_when_asked_for(self, studio: Studio, file: Path) -> None:
        said = done()
        assert "network without a key: 0.0.0.0: anyone there could use the models" in said
        values = yaml.safe_load(file.read_text())
        assert values["server"] == {"port": 4321}
        assert "security" not in values
        file.write_text("security: {trust_lan: true}\n")
        done()
        assert load_config(file).server.host == "0.0.0.0"

    def test_no_secret_is_printed(self, studio: Studio) -> None:
        studio.server(bearerToken="S3CRET", odd={"a": ["S3CRET"]}, words="S3CRET", cors={"authKey": "S3CRET"})
        studio.settings(hubPassword="S3CRET", defaultContextLength={"apiKey": "S3CRET"}, developer={"x": "S3CRET"})
        fields = {"llm.prediction.systemPrompt": "S3CRET", "llm.prediction.odd": "S3CRET", "llm.prediction.topK": 40}
        studio.defaults("org/m", load={"llm.load.hfToken": "S3CRET"}, operation=fields)
        studio.model("org/m")
        studio.preset("p", systemPrompt="S3CRET")
        said = done("--dry-run", "--open-lan")
        assert "S3CRET" not in said
        for named in (
            "server: bearerToken:",
            "server: words:",
            "server: cors:",
            "org/m: hfToken:",
            "preset p (systemPrompt):",
        ):
            assert named in said
        assert "org/m: topK 40:" in said

    def test_a_link_is_followed(self, studio: Studio, file: Path, tmp_path: Path) -> None:
        real = tmp_path / "dotfiles" / "lmx.yaml"
        real.parent.mkdir()
        real.write_text("# kept elsewhere\n")
        file.symlink_to(real)
        done()
        assert file.is_symlink()
        assert real.read_text().startswith("# kept elsewhere\nserver:")


class TestModels:
    def test_keys_that_are_not_known_by_habit_become_aliases(self, studio: Studio, file: Path) -> None:
        for repo in ("org/Chat-4bit", "org/Habit-4bit", "org/Taken-4bit"):
            studio.model(repo)
        studio.index_of({"org/Chat-4bit": "pub/chat", "org/Habit-4bit": "habit", "org/Taken-4bit": "taken!"})
        file.write_text("models: {aliases: {Taken!: other/model}}\n")
        said = done()
        aliases = yaml.safe_load(file.read_text())["models"]["aliases"]
        assert aliases == {"Taken!": "other/model", "pub/chat": "org/Chat-4bit"}
        assert ["model key", "habit", "org/Habit-4bit", "as it is"] in cells(said)
        assert "model key taken!: models.aliases has it for other/model" in said

    def test_another_home_brings_its_folder_and_all_its_keys(self, user: Path, file: Path, tmp_path: Path) -> None:
        other = Studio(user, tmp_path / "other")
        other.model("org/Chat-4bit")
        other.index_of({"org/Chat-4bit": "chat"})
        hub = user / ".cache" / "huggingface" / "hub"
        hub.mkdir(parents=True)
        done("--from", str(other.home))
        assert yaml.safe_load(file.read_text())["models"] == {
            "extra_directories": [str(hub), str(other.home / "models")],
            "aliases": {"chat": "org/Chat-4bit"},
        }
        assert "There is nothing to write" in done("--from", str(other.home))

    def test_a_list_of_directories_is_added_to(self, studio: Studio, file: Path) -> None:
        studio.model("org/m")
        file.write_text("models:\n  extra_directories:\n    - /a  # mine\n    # and no more\nlogging: {}\n")
        done()
        assert load_config(file).models.extra_directories == [Path("/a"), studio.home / "models"]
        assert "# mine" in file.read_text()
        assert "# and no more" in file.read_text()

    def test_what_cannot_be_carried_is_named(self, studio: Studio) -> None:
        gguf = studio.home / "models" / "org" / "Some-GGUF" / "some-Q4_K_M.gguf"
        gguf.parent.mkdir(parents=True)
        gguf.write_bytes(b"GGUF")
        broken = studio.model("org/Broken")
        (broken / "tokenizer.json").unlink()
        studio.write("mcp.json", {"mcpServers": {"files": {}}})
        said = done("--dry-run")
        assert "model org/Some-GGUF: GGUF is not run here" in said
        assert "model org/Broken: there is no tokenizer" in said
        assert "MCP server files" in said


class TestOddHomes:
    def test_no_lm_studio(self, user: Path, home: Path) -> None:
        assert "LM Studio is not here" in refused()
        assert "is no directory" in refused("--from", str(user / "nowhere"))
        assert list(home.iterdir()) == []

    def test_an_empty_home(self, user: Path, home: Path) -> None:
        Studio(user)
        said = done()
        assert "There is nothing to carry over" in said
        assert list(home.iterdir()) == []

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b"[]", "not a JSON object"),
            (b'\xef\xbb\xbf{"port": 1}', "not valid JSON"),
            ('{"port": 1}'.encode("utf-16"), "not valid JSON"),
            (b"[" * 200_000, "not valid JSON"),
            (b'{"port": "\xff"}', "not valid JSON"),
        ],
    )
    def test_files_that_cannot_be_read_are_named(self, studio: Studio, content: bytes, why: str) -> None:
        names = ("settings.json", ".internal/http-server-config.json", "mcp.json", "config-presets/x.preset.json")
        for name in names:
            studio.write(name, content)
        said = done("--dry-run")
        for name in names:
            assert f"file {name}: {name} is {why}" in said

    def test_huge_files_pipes_and_links_that_lead_nowhere(self, studio: Studio) -> None:
        settings = studio.home / "settings.json"
        with settings.open("wb") as stream:
            stream.truncate(1 << 40)
        server = studio.home / ".internal" / "http-server-config.json"
        server.unlink()
        os.mkfifo(server)
        (studio.home / "mcp.json").symlink_to("nowhere")
        (studio.home / "config-presets").symlink_to(studio.home)
        said = done("--dry-run")
        assert "file settings.json: settings.json is 1099511627776 bytes long" in said
        assert "is not a regular file" in said
        assert "mcp.json is missing" in said

    @pytest.mark.parametrize("port", [0, 65536, -1, True, "1234", 1e9, [1], {"a": 1}])
    def test_ports_that_are_none(self, studio: Studio, file: Path, port: object) -> None:
        studio.server(port=port, networkInterface=7)
        assert "that is no port" in done()
        assert "server" not in yaml.safe_load(file.read_text())

    def test_other_shapes_than_the_known_ones(self, studio: Studio, home: Path) -> None:
        developer = {"jitModelTTL": {"enabled": True, "ttlSeconds": -5}, "x\x1b[31m": "y"}
        studio.settings(downloadsFolder=5, developer=developer, defaultContextLength=None)
        studio.server(port=1234, networkInterface="127.0.0.1", more={"a": ["b" * 5000]})
        studio.write(".internal/user-concrete-model-default-config/a/b.json", {"load": {"fields": [1, {"key": 2}]}})
        studio.write(".internal/user-concrete-model-default-config/a/c.json", {"load": [], "operation": {"fields": 1}})
        studio.write(".internal/user-concrete-model-default-config/a/d.json", {"preset": "@local:mine"})
        said = done()
        assert "\x1b" not in said
        assert "a/d: preset @local:mine" in said
        assert max(map(len, said.splitlines())) < 400
        assert list(home.iterdir()) == []


class TestOddConfigurations:
    @pytest.mark.parametrize("text", ["server: {prot: 1}\n", "{", "- a\n", "server:\n  port: 1\n  port: 2\n"])
    def test_a_wrong_one_is_refused_and_left_as_it_is(self, studio: Studio, file: Path, text: str) -> None:
        file.write_text(text)
        assert "config.yaml" in refused()
        assert file.read_text() == text
        assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]

    @pytest.mark.parametrize("text", ["", "# words\n", "server:\n", "server: {}\nmodels: null\n", "---\n{}\n"])
    def test_empty_ones(self, studio: Studio, file: Path, text: str) -> None:
        file.write_text(text)
        done()
        assert load_config(file).server.port == 4321
        assert "# words" not in text or file.read_text().startswith("# words\n")

    def test_changes_that_would_not_be_valid_are_not_written(
        self, studio: Studio, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LMX_SECURITY__TRUST_LAN", "false")
        file.write_text("# mine\n")
        said = refused("--open-lan")
        assert "would not be valid" in said
        assert str(file) in said
        assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]
        assert file.read_text() == "# mine\n"

    @pytest.mark.parametrize("name", ["yes", "1:20", "a: b", "# x", "null", "0x1F", "é", "'", "1_000"])
    def test_names_that_look_like_something_else(self, name: str) -> None:
        text = edited("models: {}\n", {("models", "aliases", name): name})
        assert yaml.safe_load(text) == {"models": {"aliases": {name: name}}}

    def test_a_place_that_cannot_hold_it(self) -> None:
        with pytest.raises(EditError):
            edited("server: 5\n", {("server", "port"): 1})


class TestCutOver:
    def test_what_to_switch_off_and_whether_the_port_is_free(self, studio: Studio, file: Path, free_port: int) -> None:
        studio.server(port=free_port, networkInterface="127.0.0.1")
        file.write_text("server: {port: 1235} # mine\n")
        said = done("--cut-over")
        assert load_config(file).server.port == free_port
        assert "# mine" in file.read_text()
        assert "lms server stop" in said
        assert "autoStartOnLaunch is on" in said
        assert f"Port {free_port} is free" in said
        with socket.socket() as other:
            other.bind(("127.0.0.1", free_port))
            other.listen()
            assert f"Port {free_port} is taken by another program" in done("--cut-over", "--dry-run")
        done("--undo")
        assert file.read_text() == "server: {port: 1235} # mine\n"

    def test_undo_stands_alone(self, studio: Studio) -> None:
        result = migrate("--undo", "--dry-run")
        assert result.exit_code == 2
        assert "stands alone" in result.stderr

    @pytest.mark.live
    def test_every_name_is_asked_for_a_token(
        self, studio: Studio, home: Path, file: Path, free_port: int, start_server: Callable[..., LiveServer]
    ) -> None:
        for name in ("good", "bad"):
            place(nano_model(), home / "models" / name)
        studio.server(port=free_port, networkInterface="127.0.0.1")
        file.write_text("models: {aliases: {one: good, two: bad}, demo: false}\n")
        assert "the same command asks every name" in done("--cut-over")
        (home / "models" / "bad" / "tokenizer.json").unlink()
        server = start_server(home)
        said = done("--cut-over")
        assert f"Asking {server.url} for one token by each of 2 names" in said
        assert "one: good answers" in said
        assert "two: does not answer: " in said
        assert server.stop() == 0
