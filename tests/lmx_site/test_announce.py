"""What the terminal shows."""

from __future__ import annotations

import json
import subprocess

import pytest

from lmx_site.announce import base_url, demo_ready, examples, lines, stopping


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("192.168.1.2", "http://192.168.1.2:1"),
        ("fd00::2", "http://[fd00::2]:1"),
    ],
)
def test_the_url_works_on_this_machine(host: str, url: str) -> None:
    assert base_url(host, 1) == url


def test_it_names_models_and_uses_the_default_in_the_examples() -> None:
    shown = list(lines("http://u", [f"m{n}" for n in range(7)], "m3", needs_key=False))
    assert shown[1] == "7 models: m0, m1, m2, m3, m4 and 2 more"
    assert shown[2] == "Ask it from another terminal:"
    assert '"model": "m3"' in shown[3]


def test_a_demo_model_that_has_come_is_named() -> None:
    first, curl, *_ = demo_ready("http://u", "org/demo", needs_key=False)
    assert first == "org/demo is ready. Ask it from another terminal:"
    assert curl.startswith("curl http://u/v1/chat/completions")


def test_a_stop_says_what_it_waits_for() -> None:
    assert stopping(0, 10.0) == "Stopping"
    assert stopping(1, 10.0) == "Stopping: 1 answer may run on for up to 10 s (Ctrl-C again ends it now)"
    assert stopping(20, 0.5) == "Stopping: 20 answers may run on for up to 0.5 s (Ctrl-C again ends them now)"


def test_without_models_there_are_no_examples() -> None:
    assert len(list(lines("http://u", [], None, needs_key=False))) == 1


def shell_words(line: str) -> list[str]:
    """The words of a command as a real shell takes them."""
    script = f"set -- {line}; printf '%s\\0' \"$@\""
    return subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("model", ["plain", "it's", 'say "x"', "a$HOME`x`\\"])
def test_the_lines_survive_a_shell(model: str) -> None:
    curl, python, _ = examples("http://u", model, needs_key=True)
    words = shell_words(curl)
    assert json.loads(words[words.index("-d") + 1])["model"] == model
    assert "Authorization: Bearer YOUR_KEY" in words
    program = shell_words(python)[2]
    compile(program, "line", "exec")
    assert repr(model) in program
