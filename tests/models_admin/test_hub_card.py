"""Cards of models: whatever is in one, it stays inside its box and asks nobody for anything."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it.token import Token

from models_admin import hub_card
from models_admin.hub_card import LONGEST, render

BASE = "https://huggingface.co/acme/nano/blob/main/"
ALLOWED = {"a", "blockquote", "br", "code", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "strong"}
ALLOWED |= {"table", "tbody", "td", "th", "thead", "tr", "ul"}


class Seen(HTMLParser):
    """The tags and attributes of a piece of HTML as a browser takes it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(html: str) -> Seen:
    seen = Seen(html)
    assert set(seen.tags) <= ALLOWED
    assert {name for name, _ in seen.attributes} <= {"href", "rel"}
    links = [value for name, value in seen.attributes if name == "href"]
    assert all(value.startswith(("http://", "https://")) for value in links)
    rels = [value for name, value in seen.attributes if name == "rel"]
    assert len(rels) >= len(links)  # one whose target was taken away leads nowhere and has it too
    assert set(rels) <= {"noreferrer nofollow"}
    return seen


def test_it_works() -> None:
    text = "---\nlicense: mit\n---\n# Nano\n\nA *small* model.\n\n| a | b |\n|---|---|\n| 1 | `2` |\n\n```\ncode\n```\n"
    html, cut = render(text, BASE)
    assert not cut
    assert html.startswith("<h3>Nano</h3>\n<p>A <em>small</em> model.</p>")
    assert {"table", "code", "pre"} <= set(harmless(html).tags)
    assert "license" not in html


def test_links_lead_to_the_hub_or_the_web_and_say_nothing_of_this_page() -> None:
    html, _ = render('[file](LICENSE) [web](https://x.example/y "t") <http://z.example/>', BASE)
    assert f'href="{BASE}LICENSE" rel="noreferrer nofollow"' in html
    assert 'href="https://x.example/y"' in html
    harmless(html)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<script>alert(1)</script>", ""),
        ("a <script>alert(1)</script> b", "a alert(1) b"),
        ("<style>body {display: none}</style>", ""),
        ("<div align=center><img src=http://evil.example/x.png onerror=alert(1)>Text</div>", "Text"),
        ("x <b onclick=alert(1)>bold</b>", "x bold"),
        ("![logo](http://evil.example/x.png)", "[logo]"),
        ("![](http://evil.example/x.png)", ""),
        ("[![badge](http://evil.example/b.svg)](https://ok.example/)", "[badge]"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("[x](JaVaScRiPt&colon;alert(1))", "[x](JaVaScRiPt:alert(1))"),
        ("[x](data:text/html;base64,PHN2Zz4=)", "[x](data:text/html;base64,PHN2Zz4=)"),
        ("[x](//evil.example/y)", "x"),
        ("<iframe src=http://evil.example></iframe>", ""),
        ("<form action=http://evil.example><input name=a><button>Log in</button></form>", "Log in"),
        ("<!-- hidden --> shown", "shown"),
        ("<svg><a xlink:href='javascript:alert(1)'>x</a></svg>", "x"),
        ("&lt;img src=x onerror=alert(1)&gt;", "<img src=x onerror=alert(1)>"),
        ("<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>", "<script>alert(1)</script>"),
        ("\x00\x1b[31m red", "\ufffd\x1b[31m red"),
    ],
)
def test_what_is_hostile_is_words_at_most(text: str, left: str) -> None:
    html, _ = render(text, BASE)
    seen = harmless(html)
    assert seen.text.strip() == left
    assert "evil.example" not in html or "img" not in seen.tags


@given(st.text(alphabet=st.sampled_from("<>/&;:'\"=()[]!#`*_|- \n\tahrefscriptjv1")))
def test_nothing_gets_out(text: str) -> None:
    harmless(render(text, BASE)[0])


def test_a_card_that_is_too_long_is_cut() -> None:
    html, cut = render("word " * LONGEST, BASE)
    assert cut
    assert len(html) < 2 * LONGEST


@pytest.mark.parametrize("piece", ["[", "![", "[![", "![](", "*a ", "> ", "|a"])
def test_no_more_of_a_card_is_read_than_its_bound(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    """What opens without end takes time that grows with its square, in the one process that asks the Hub."""
    read, parse = list[int](), hub_card._markdown.parse

    def counted(text: str) -> list[Token]:
        read.append(len(text))
        return parse(text)

    monkeypatch.setattr(hub_card._markdown, "parse", counted)
    html, cut = render(f"---\nlicense: mit\n---\n{piece * (256 * 1024 // len(piece))}", BASE)
    assert (read, cut) == ([32 * 1024], True)
    harmless(html)


@pytest.mark.parametrize("piece", ["[", "*a ", "<", "> ", "|a", "![](", "- ", "<b>"])
def test_what_is_nested_too_deep_is_harmless(piece: str) -> None:
    harmless(render(piece * 5000, BASE)[0])
