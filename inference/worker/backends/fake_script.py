"""What a fake model says and does: its words, its tokenizer, its answers, its gates and the script of its misdeeds."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from inference import ipc

WORDS = tuple(
    re.findall(
        r"\w+",
        "the sea was calm and bright that day while small boats went out to find silver fish near old grey rocks where"
        " gulls cry and children play until evening light turns every wave into gold then sleep comes softly over all",
    )
)
FIRST_WORD = 256
DIRECTIVE = re.compile(r"<<fake\s+(\{.*?\})\s*>>", re.DOTALL)
GATE_POLL_S = 0.002


class FakeToolCall(Struct):
    name: str
    arguments: dict[str, Any] = {}


class Script(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What a fake model or request does. Counts are in tokens of the answer, gates are paths, times in seconds.

    Load: ``load_*``, sizes, ``context``, ``slots``, ``embedding_dimensions`` (not 0: it makes vectors and no answers),
    ``prefix_bytes`` (what its prefix cache says it holds, as far as its bound lets it), ``prefix_found`` (how many of
    the 100 tokens that it says it was asked for it had).
    Request: all others. ``text`` replaces the drawn answer;
    ``tokens`` is its length when drawn. ``die_after`` 0 dies before the first token. ``eat_bytes`` is held in memory.
    """

    context: int = 32768
    slots: int | None = None
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    load_steps: int = 0
    load_gate: str | None = None
    load_error: str | None = None
    load_code: str = "model_unavailable"
    load_die: Literal["kill", "exit"] | None = None
    eat_bytes: int = 0
    embedding_dimensions: int = 0
    prefix_bytes: int = 0
    prefix_found: int = 0
    tokens: int = 16
    text: str | None = None
    reasoning: int = 0
    tools: list[FakeToolCall] = []
    interval_s: float = 0.0
    token_padding: int = 0
    prefill_chunk: int = 0
    prepare_gate: str | None = None
    prepare_error: Literal["refuse", "crash", "panic", "chatter"] | None = None
    stats_panic: bool = False
    start_gate: str | None = None
    prefill_gate: str | None = None
    hold_after: int | None = None
    gate: str | None = None
    die_after: int | None = None
    die: Literal["kill", "exit", "panic"] = "kill"
    fail_after: int | None = None
    fail_code: str = "internal_error"
    hang_after: int | None = None


class Panic(BaseException):
    """As the panics of Rust libraries: no ``Exception``."""


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def detokenize(token_ids: Iterable[int]) -> str:
    pieces = (bytes([t]) if t < FIRST_WORD else f" {WORDS[(t - FIRST_WORD) % len(WORDS)]}".encode() for t in token_ids)
    return b"".join(pieces).decode(errors="replace")


def draw(seed: bytes, choice: int, count: int) -> list[int]:
    """``count`` word tokens that depend on ``seed`` and ``choice`` alone."""
    state = zlib.crc32(seed + bytes([choice % 256]))
    tokens = []
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        tokens.append(FIRST_WORD + (state >> 8) % len(WORDS))
    return tokens


def vector(seed: bytes, dimensions: int) -> list[float]:
    """A vector of length 1 that depends on ``seed`` alone; a shorter one is the beginning of a longer, rescaled."""
    numbers = [token - FIRST_WORD - len(WORDS) / 2 + 0.25 for token in draw(seed, 0, dimensions)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def text_of(body: ipc.GenerateRequest) -> str:
    """The prompt as the fake's template makes it: one line ``role: text`` per message."""
    if body.messages is None:
        return body.prompt if isinstance(body.prompt, str) else detokenize(body.prompt or [])
    lines = []
    for message in body.messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        lines.append(f"{message.get('role', '')}: {content}")
    return "\n".join(lines)


def reach(gate: str) -> None:
    Path(gate + ".reached").touch()


def is_open(gate: str | None) -> bool:
    return gate is None or os.path.exists(gate)


def wait_at(gate: str | None) -> None:
    if gate is not None:
        reach(gate)
        while not is_open(gate):
            time.sleep(GATE_POLL_S)


def die(how: Literal["kill", "exit", "panic"]) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "panic":
        raise Panic(f"a panic in process {os.getpid()}")
    os._exit(99)


class Piece(Struct):
    """One token of an answer and what becomes visible with it."""

    token_id: int
    content: str = ""
    reasoning: str = ""
    tool: ipc.ToolFragment | None = None


def pieces_of(body: ipc.GenerateRequest, script: Script, prompt: str, choice: int) -> tuple[list[Piece], str | None]:
    """The whole answer of one choice, cut at the first stop string, and that string."""
    pieces = [Piece(t, reasoning=detokenize([t])) for t in draw(prompt.encode(), choice + 128, script.reasoning)]
    if script.tools:
        for index, call in enumerate(script.tools):
            first = ipc.ToolFragment(index, f"call_{choice}_{index}", call.name)
            pieces.append(Piece(FIRST_WORD, tool=first))
            arguments = json.dumps(call.arguments)
            for at in range(0, len(arguments), 8):
                pieces.append(Piece(FIRST_WORD, tool=ipc.ToolFragment(index, arguments=arguments[at : at + 8])))
        return pieces, None
    if script.text is not None:
        answer = [(zlib.crc32(p.encode()) % 256, p) for p in re.findall(r"\s*\S+|\s+", script.text)]
    elif body.output_format.kind in ("json_object", "json_schema"):
        answer = [(zlib.crc32(p.encode()) % 256, p) for p in ("{", '"answer"', ": ", '"the', " sea", '"', "}")]
    else:
        answer = [(t, detokenize([t])) for t in draw(prompt.encode(), choice, script.tokens)]
    if body.echo:
        answer.insert(0, (FIRST_WORD, prompt))
    padding = "." * script.token_padding
    return cut_at_stop(pieces, [Piece(t, content=text + padding) for t, text in answer], body.stop)


def cut_at_stop(before: list[Piece], answer: list[Piece], stop: list[str]) -> tuple[list[Piece], str | None]:
    text = "".join(piece.content for piece in answer)
    found = [(text.index(s), s) for s in stop if s and s in text]
    if not found:
        return before + answer, None
    end, sequence = min(found)
    kept: list[Piece] = []
    for piece in answer:
        kept.append(Piece(piece.token_id, content=piece.content[:end]))
        end -= len(piece.content)
        if end <= 0:
            break
    return before + kept, sequence
