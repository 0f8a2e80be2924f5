"""What the terminal says once the server listens: where it is, what it has, and two lines that work when pasted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from lmx_site import __version__
from lmx_site.access import is_loopback

_SHOWN = 5
_PYTHON = (
    "import json, urllib.request as u; "
    "r = u.Request('{url}/v1/chat/completions', json.dumps({body}).encode(), {headers}); "
    "print(json.load(u.urlopen(r))['choices'][0]['message']['content'])"
)


def base_url(host: str, port: int) -> str:
    """A URL that works on this machine for a server bound to ``host``."""
    if host in ("0.0.0.0", "::", "") or is_loopback(host):
        shown = "[::1]" if host == "::1" else "127.0.0.1"
    else:
        shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def lines(url: str, models: Sequence[str], default: str | None, *, needs_key: bool) -> Iterator[str]:
    """The announcement. ``models`` are those that can be loaded; ``default`` is shown in the examples."""
    yield f"Opta-LMX {__version__} serves {url}  (Ctrl-C stops it)"
    if models:
        more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
        yield f"{len(models)} model{'s' if len(models) > 1 else ''}: {', '.join(models[:_SHOWN])}{more}"
    chosen = default if default in models else next(iter(models), None)
    if chosen is not None:
        yield "Ask it from another terminal:"
        yield from examples(url, chosen, needs_key=needs_key)


def demo_ready(url: str, model: str, *, needs_key: bool) -> Iterator[str]:
    """What is said once the first model has been brought."""
    yield f"{model} is ready. Ask it from another terminal:"
    yield from examples(url, model, needs_key=needs_key)


def stopping(answers: int, drain_s: float) -> str:
    """What a stop says at once, so that nobody takes the wait for a hang."""
    if not answers:
        return "Stopping"
    running, them = ("1 answer", "it") if answers == 1 else (f"{answers} answers", "them")
    return f"Stopping: {running} may run on for up to {drain_s:g} s (Ctrl-C again ends {them} now)"


def examples(url: str, model: str, *, needs_key: bool) -> Iterator[str]:
    """A curl line and a Python line (standard library only) that ask ``model``, for any POSIX shell."""
    # At temperature 0 even a small model greets.
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 32,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    if needs_key:
        headers["Authorization"] = "Bearer YOUR_KEY"
    flags = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())
    yield f"curl {url}/v1/chat/completions {flags} -d {shlex.quote(json.dumps(body))}"
    program = _PYTHON.format(url=url, body=body, headers=headers)
    yield f"python3 -c {_double_quoted(program)}"
    yield f"OpenAI clients: base_url={url}/v1" + ("" if needs_key else ", any api_key")


def _double_quoted(text: str) -> str:
    """For a shell, in double quotes: the program itself is written with single ones."""
    for special in ("\\", '"', "$", "`"):
        text = text.replace(special, "\\" + special)
    return f'"{text}"'
