"""``lmx set``: what is kept for one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from lmx_site.cli_base import KEY, URL, UsageFailure, connected

_FROM = {"model": "set here", "config": "config.yaml", "default": "default"}
_LONGEST = 60
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@click.command(name="set")
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--reset", multiple=True, metavar="KEY", help="Put this setting back; may be given several times.")
@URL
@KEY
def set_(name: str, settings: tuple[str, ...], reset: tuple[str, ...], url: str | None, key: str | None) -> None:
    """Keep settings for the model NAME, as temperature=0.7; without any, show them."""
    given = _given(settings)
    for one in reset:
        if one in given:
            raise UsageFailure(f"{one} is both set and reset")
    with connected(url, key) as client:
        told = client.get("/admin/model/settings?" + urlencode({"model_id": name}))
        if given or reset:
            kinds = {field["name"]: field["type"] for field in told["fields"]}
            changes = {one: _value(one, kinds.get(one, ""), texts) for one, texts in given.items()}
            changes |= dict.fromkeys(reset)
            told = client.post("/admin/model/settings", {"model_id": told["model_id"], "settings": changes})
    for line in _shown(told):
        click.echo(line)


def _shown(told: dict[str, Any]) -> Iterator[str]:
    from lmx_site import terminal

    of = "" if told["identity"] == told["model_id"] else f" (kept for {told['identity']})"
    yield f"{told['model_id']}{of}"
    rows = [
        [field["name"], _text(told["effective"].get(field["name"])), _FROM[field["source"]]] for field in told["fields"]
    ]
    yield from terminal.table(["SETTING", "VALUE", "FROM"], rows)
    if told["reload_needed"]:
        yield "The model is loaded with other bounds: they hold from its next load on ('lmx load' does it now)."


def _text(value: Any) -> str:
    if value in (None, "", []):
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _given(words: tuple[str, ...]) -> dict[str, list[str]]:
    """The texts by name; a name that is given several times has several."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise UsageFailure(f"{name or word} needs a value: KEY=VALUE; see 'lmx set --help'")
        found.setdefault(name, []).append(value)
    for name, texts in found.items():
        if len(texts) > 1 and name not in ("stop", "aliases"):
            raise UsageFailure(f"{name} is given {len(texts)} times")
    return found


def _value(name: str, kind: str, texts: list[str]) -> Any:
    """A text as what a setting of that kind holds; what does not look like it stays text, for the server to refuse."""
    text = texts[-1]
    match kind:
        case "strings":
            # Names have no commas around them; a text to stop at may be one.
            listed = [one.strip() for each in texts for one in each.split(",")] if name == "aliases" else texts
            return [one for one in listed if one]
        case "boolean":
            low = text.lower()
            return True if low in _YES else False if low in _NO else text
        case "integer" | "number" | "seconds" | "object":
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                return text
        case _:
            return text
