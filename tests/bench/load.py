"""The load: N streamed chat completions at once over HTTP, and what each client saw.

Run as its own process (``python -m tests.bench.load URL MODEL TOKENS STREAMS``) so that its CPU time is nobody
else's; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

PROMPT_TOKENS = 48
TTFT_ROUNDS = 20
_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning)": ?"[^"]')
"""Text that is not empty, in the role chunk or any other."""
SETTINGS: dict[str, float] = {"temperature": 0.8, "min_p": 0.05}
_WORDS = [
    "river",
    "stone",
    "lamp",
    "window",
    "garden",
    "letter",
    "winter",
    "market",
    "bridge",
    "paper",
    "silver",
    "ocean",
    "forest",
    "candle",
    "mirror",
    "engine",
]


@dataclass
class Stream:
    """One client's view; times in seconds since its request was sent."""

    ttft: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    problem: str | None = None


def body(model: str, tokens: int, seed: int) -> dict[str, Any]:
    """A chat request with a prompt of its own, so that no prefix cache helps."""
    words = " ".join(random.Random(seed).choices(_WORDS, k=PROMPT_TOKENS - 16))
    return {
        "model": model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **SETTINGS,
    }


async def one(host: str, port: int, payload: dict[str, Any]) -> Stream:
    """Send one request over a connection of its own and read its events as they come."""
    stream = Stream()
    data = json.dumps(payload).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port)
    try:
        began = last = time.perf_counter()
        writer.write(head.encode() + data)
        answer = b""
        tail = b""
        while chunk := await reader.read(65536):
            now = time.perf_counter()
            if not answer:
                answer = chunk
            if _TEXT.search(chunk):
                if stream.ttft:
                    stream.gaps.append(now - last)
                else:
                    stream.ttft = now - began
                last = now
            tail = (tail + chunk)[-8192:]
        stream.tokens = _completion_tokens(tail)
        if b" 200 " not in answer[:20] or not stream.tokens:
            stream.problem = (answer[:300] + b" ... " + tail[-300:]).decode(errors="replace")
    finally:
        writer.close()
    return stream


def _completion_tokens(tail: bytes) -> int:
    """``usage.completion_tokens`` of the last event that has one; 0 if none has."""
    marker = b'"completion_tokens":'
    place = tail.rfind(marker)
    digits = tail[place + len(marker) :].lstrip()[:12] if place >= 0 else b""
    number = bytes(byte for byte in digits.split(b",")[0].split(b"}")[0] if 48 <= byte <= 57)
    return int(number or 0)


async def run(host: str, port: int, model: str, tokens: int, streams: int) -> dict[str, Any]:
    """All streams at once; tokens/s over the whole, TTFT and gaps in seconds.

    With one stream, the time to first token is taken from ``TTFT_ROUNDS`` short requests after it, one by one.
    """
    base = random.randrange(1 << 30)
    began = time.perf_counter()
    seen = await asyncio.gather(*(one(host, port, body(model, tokens, base + index)) for index in range(streams)))
    seconds = time.perf_counter() - began
    first = seen
    if streams == 1:
        first = [await one(host, port, body(model, 4, base + index)) for index in range(1, TTFT_ROUNDS)]
    problems = [stream.problem for stream in seen if stream.problem]
    return figures(streams, sum(stream.tokens for stream in seen), seconds, [(s.ttft, s.gaps) for s in seen]) | {
        "ttft_p50": quantile([stream.ttft for stream in first], 0.50),
        "ttft_p99": quantile([stream.ttft for stream in first], 0.99),
        "problems": len(problems),
        "problem": problems[0] if problems else None,
    }


def figures(streams: int, tokens: int, seconds: float, seen: list[tuple[float, list[float]]]) -> dict[str, Any]:
    """The figures of one run from each stream's time to first token and gaps."""
    gaps = [gap for _, some in seen for gap in some] or [0.0]
    return {
        "streams": streams,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "ttft_p50": quantile([ttft for ttft, _ in seen], 0.50),
        "ttft_p99": quantile([ttft for ttft, _ in seen], 0.99),
        "gap_p99": quantile(gaps, 0.99),
    }


def quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def median(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """The pass with the median speed."""
    return sorted(passes, key=lambda row: float(row["tokens_per_second"]))[len(passes) // 2]


def main(arguments: list[str]) -> None:
    host, port, model, tokens, streams = arguments
    print(json.dumps(asyncio.run(run(host, int(port), model, int(tokens), int(streams)))))


if __name__ == "__main__":
    main(sys.argv[1:])
