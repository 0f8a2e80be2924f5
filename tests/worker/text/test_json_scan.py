"""One JSON value followed as it comes: what was read is always the beginning of one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.worker.text.json_scan import JsonScanner
from tests.worker.text.hearing import cuts, in_two

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


def scan(pieces: list[str]) -> tuple[JsonScanner, str, str]:
    """The scanner, what it read, and what it left."""
    scanner, read, left = JsonScanner(), "", ""
    for piece in pieces:
        at, text = scanner.take(piece, 0)
        read += text
        left += piece[at:]
    return scanner, read, left


@given(value=st.dictionaries(st.text(), values) | st.lists(values) | st.text(), data=st.data())
def test_any_value_is_read_to_its_end(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    scanner, read, left = scan(data.draw(cuts(text + "}rest")))
    assert (read, left, scanner.done, scanner.failed) == (text, "}rest", True, False)


@given(data=st.data(), alphabet=st.sampled_from(['{}[]",:\\ \n', '{"a":[1,-2.5e3,true,null,false]}\\u0']))
def test_rubbish_is_read_the_same_however_cut(data: st.DataObject, alphabet: str) -> None:
    text = data.draw(st.text(alphabet, max_size=30))
    scanner, read, left = scan([text])
    other, *same = scan(data.draw(cuts(text)))
    assert (same, other.done, other.failed) == ([read, left], scanner.done, scanner.failed)
    if scanner.done:
        json.loads(read)


@pytest.mark.parametrize(
    "text", ["{,", '{"a" 1', '{"a":1,}', "[1,]", "[01]", "-a", "1.e", "tru3", "[}", "{1:2}", "]", "x"]
)
def test_what_cannot_be_is_refused_at_the_first_character_that_cannot(text: str) -> None:
    for pieces in in_two(text):
        assert scan(pieces)[0].failed
    with pytest.raises(ValueError):
        json.loads(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"a\nb\tc\x01"', "a\nb\tc\x01"),
        ('"\\d+\\s"', "\\d+\\s"),
        ('"it\\\'s"', "it's"),
        ('"\\\n"', "\\\n"),
    ],
)
def test_lapses_within_strings_are_mended(written: str, meant: str) -> None:
    for pieces in in_two(written):
        assert json.loads(scan(pieces)[1]) == meant


def test_depth_costs_no_recursion() -> None:
    scanner, read, _ = scan(["[" * 200_000, "]" * 200_000])
    assert scanner.done
    assert len(read) == 400_000


def test_a_broken_escape_ends_the_value() -> None:
    scanner, read, left = scan(['"\\u12', 'x4"'])
    assert scanner.failed
    assert (read, left) == ('"\\u12', 'x4"')
