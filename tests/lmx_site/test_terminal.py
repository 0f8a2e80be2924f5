"""What ``lmx status`` makes of ``/admin/status``."""

from __future__ import annotations

from typing import Any

from lmx_site.terminal import status_lines


def model(**fields: Any) -> dict[str, Any]:
    load = {"phase": None, "done": 0, "total": 0, "seconds": 1.0}
    values = {"model_id": "org/one", "state": "ready", "memory_used_bytes": 2**31, "running": 1, "queued": 2}
    return {**values, "tokens_per_second": 12.3, "load": load, "ttl": None, "prefix_cache": None, **fields}


def waiting(place: int | None, client: str, **fields: Any) -> dict[str, Any]:
    values = {"model": "org/one", "queue_position": place, "client": client, "priority": "normal", "id": f"r-{client}"}
    return {**values, **fields}


def lines(models: list[dict[str, Any]], requests: list[dict[str, Any]]) -> list[str]:
    said: dict[str, Any] = {"status": "healthy", "version": "1", "uptime_s": 5, "reasons": [], "memory": {}}
    return list(status_lines("http://here", {**said, "models": models, "requests": requests}))


def test_queue_and_cache() -> None:
    cache = {"bytes": 1.2 * 2**30, "found_percent": 83.4}
    shown = lines(
        [model(ttl=600, prefix_cache=cache)],
        [waiting(2, "late", priority="low"), waiting(None, "running"), waiting(1, "early")],
    )
    assert shown[2].split()[-7:] == ["1.2", "GB,", "83", "%", "found", "10", "min"]
    assert shown[3].split() == ["WAITING", "FOR", "PLACE", "CLIENT", "PRIORITY", "REQUEST"]
    assert [line.split()[1:4] for line in shown[4:]] == [["1", "early", "normal"], ["2", "late", "low"]]


def test_without_either() -> None:
    assert lines([], [])[1:] == ["no model is loaded"]
    assert lines([model(prefix_cache={"bytes": 0, "found_percent": None})], [])[2].split()[-2:] == ["–", "–"]
