"""Writes one run's figures: JSON for programs, a Markdown table and an SVG for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_COLOURS = ["#999999", "#56b4e9", "#0072b2", "#e69f00", "#d55e00"]


def write(name: str, run: dict[str, Any], directory: Path) -> None:
    """``run`` is {"about": {...}, "models": {model: [rows]}}; writes ``name``.json, .md and .svg."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(run, indent=1) + "\n")
    (directory / f"{name}.md").write_text(markdown(name, run))
    (directory / f"{name}.svg").write_text(svg(run["models"]))


def markdown(name: str, run: dict[str, Any]) -> str:
    about = " · ".join(f"{key}: {value}" for key, value in run["about"].items())
    parts = [f"# Benchmark `{name}`\n", f"{about}\n", f"![tokens per second]({name}.svg)\n"]
    for model, rows in run["models"].items():
        parts += [f"## {model}\n", _table(rows), _ratios(rows)]
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    names = ["stack", "streams", "tok/s", "TTFT p50 ms", "TTFT p99 ms", "gap p99 ms"]
    names += ["web CPU µs/token", "web MB idle / loaded", "start s"]
    head = "| " + " | ".join(names) + " |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        if "streams" not in row:
            lines.append(f"| {row['stack']} | did not run: {row['problem'].splitlines()[-1][:120]} | | | | | | | |")
            continue
        cpu = row.get("cpu_us_per_token", {}).get("web")
        memory = f"{_mb(row['memory_idle'])} / {_mb(row['memory_loaded'])}" if "memory_idle" in row else ""
        cells = [
            row["stack"],
            str(row["streams"]),
            f"{row['tokens_per_second']:,.0f}",
            *(f"{row[key] * 1000:,.1f}" if key in row else "" for key in ("ttft_p50", "ttft_p99", "gap_p99")),
            f"{cpu:,.0f}" if cpu is not None else "",
            memory,
            f"{row['start_s']:.1f}" if "start_s" in row else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mb(parts: dict[str, int]) -> str:
    return f"{parts['web'] / 1e6:,.0f}"


def _ratios(rows: list[Row]) -> str:
    """This server ÷ raw loop and ÷ the better of the other two, per stream count."""
    speed = {(row["stack"], row["streams"]): row["tokens_per_second"] for row in rows if "streams" in row}
    lines = ["| streams | server ÷ raw | server ÷ better peer |", "|--:|--:|--:|"]
    for streams in sorted({streams for _, streams in speed}):
        ours = speed.get(("opta-lmx", streams))
        raw = speed.get(("raw loop", streams))
        peers = [speed[key] for key in speed if key[1] == streams and key[0] in ("vllm-mlx serve", "mlx_lm.server")]
        if ours:
            to_raw = f"{ours / raw:.2f}" if raw else ""
            to_peer = f"{ours / max(peers):.2f}" if peers else ""
            lines.append(f"| {streams} | {to_raw} | {to_peer} |")
    return "\n".join(lines) + "\n"


def svg(models: dict[str, list[Row]]) -> str:
    """Grouped bars of tokens per second, one panel per model; readable on light and dark ground."""
    width, panel = 720, 220
    shapes: list[str] = []
    for index, (model, rows) in enumerate(models.items()):
        shapes += _panel(
            model, [row for row in rows if "streams" in row], 20, index * panel + 10, width - 40, panel - 60
        )
    stacks = list(dict.fromkeys(row["stack"] for rows in models.values() for row in rows))
    height = len(models) * panel + 30
    for place, stack in enumerate(stacks):
        x = 20 + place * 135
        shapes.append(f'<rect x="{x}" y="{height - 22}" width="10" height="10" fill="{_COLOURS[place % 5]}"/>')
        shapes.append(f'<text x="{x + 14}" y="{height - 13}">{stack}</text>')
    style = "text{font:11px system-ui,sans-serif;fill:#777} .n{font-size:9px}"
    label = "Tokens per second by server and number of streams"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return f"{head}<style>{style}</style>{''.join(shapes)}</svg>\n"


def _panel(title: str, rows: list[Row], x: float, y: float, width: float, height: float) -> list[str]:
    shapes = [f'<text x="{x}" y="{y + 10}">{title}: tokens per second</text>']
    counts = sorted({row["streams"] for row in rows})
    stacks = list(dict.fromkeys(row["stack"] for row in rows))
    top = max((row["tokens_per_second"] for row in rows), default=1.0)
    group = width / max(len(counts), 1)
    bar = group * 0.85 / max(len(stacks), 1)
    for row in rows:
        tall = row["tokens_per_second"] / top * (height - 30)
        left = x + counts.index(row["streams"]) * group + stacks.index(row["stack"]) * bar
        base = y + height
        colour = _COLOURS[stacks.index(row["stack"]) % 5]
        shapes.append(
            f'<rect x="{left:.1f}" y="{base - tall:.1f}" width="{bar - 2:.1f}" height="{tall:.1f}" fill="{colour}"/>'
            f'<text class="n" x="{left:.1f}" y="{base - tall - 2:.1f}">{row["tokens_per_second"]:,.0f}</text>'
        )
    for place, streams in enumerate(counts):
        word = "stream" if streams == 1 else "streams"
        shapes.append(f'<text x="{x + place * group:.1f}" y="{y + height + 14}">{streams} {word}</text>')
    return shapes
