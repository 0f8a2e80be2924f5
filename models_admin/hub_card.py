"""A model's card: Markdown from anybody, made into HTML that is safe to show. For the process that asks the Hub only.

Raw HTML loses its tags and keeps its text; a picture becomes its description, so nothing is fetched from anywhere;
links lead to http and https only, and say nothing of where they were followed. What the Markdown library makes is
then cleaned by a second library that knows nothing of the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape
from urllib.parse import urljoin

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

LONGEST = 32 * 1024
"""Characters of a card that are shown. What opens brackets or quotes only takes time that grows with its square."""

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n.*?^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_TAGS = {"a", "blockquote", "br", "code", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong"}
_TAGS |= {"table", "tbody", "td", "th", "thead", "tr", "ul"}
_SHIFT = 2
"""The page has a heading of its own, and one for the card."""


def render(text: str, base: str) -> tuple[str, bool]:
    """HTML of a card, and whether it was cut; ``base`` is the address that relative links are relative to."""
    body = _FRONT_MATTER.sub("", text.removeprefix("\ufeff"), count=1)
    cut = len(body) > LONGEST
    tokens = _markdown.parse(body[:LONGEST])
    _make_plain(tokens, base)
    html = _markdown.renderer.render(tokens, _markdown.options, {})
    return clean(html), cut


def clean(html: str) -> str:
    """Only harmless tags, no attribute but the target of a link."""
    cleaned: str = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"*": set(), "a": {"href"}},
        url_schemes={"http", "https"},
        link_rel="noreferrer nofollow",
    )
    return cleaned


def _make_plain(tokens: Sequence[Token], base: str) -> None:
    for token in tokens:
        if token.children:
            _make_plain(token.children, base)
        if token.type == "html_inline":
            token.type, token.content = "text", _text_of(token.content)
        elif token.type == "html_block":
            text = _text_of(token.content).strip()
            token.content = f"<p>{escape(text)}</p>" if text else ""
        elif token.type == "image":
            _describe(token)
        elif token.type == "link_open":
            token.attrSet("href", urljoin(base, str(token.attrGet("href") or "")))
        elif token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _SHIFT)}"


def _describe(token: Token) -> None:
    """A picture is fetched from whoever the card names: its words stand for it."""
    token.type, token.children = "text", None
    token.content = f"[{token.content}]" if token.content.strip() else ""


def _text_of(html: str) -> str:
    """What is between the tags, without what scripts and styles hold."""
    return unescape(nh3.clean(html, tags=set()))


_markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
