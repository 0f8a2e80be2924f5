"""The device never waits where it need not: the order in which work is queued and results are read."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from inference.worker.core.core import Core
from inference.worker.core.decode import DecodeBatch, Unread
from tests.worker.core.support import Cycle, llama_model, request, run


class Order:
    """What happened, in order: ``forward``, ``draw`` (queued for the device), ``read`` (the host waits for it)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, bool]] = []
        for owner, name, constrained in (
            (DecodeBatch, "forward", lambda batch: bool(batch.constrained)),
            (DecodeBatch, "draw", lambda batch: bool(batch.constrained)),
            (Unread, "read", lambda unread: bool(unread.constrained)),
        ):
            monkeypatch.setattr(owner, name, self._noted(getattr(owner, name), name, constrained))

    def _noted(self, function: Any, name: str, constrained: Any) -> Any:
        def noted(this: Any, *arguments: Any) -> Any:
            self.events.append((name, constrained(this)))
            return function(this, *arguments)

        return noted

    def of(self, *names: str, constrained: bool) -> list[str]:
        return [name for name, masked in self.events if name in names and masked == constrained]


def test_the_next_step_is_queued_before_the_last_token_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order(monkeypatch)
    run(Core(llama_model()), {0: [request("a", max_tokens=20), request("b", temperature=0.0, max_tokens=20)]})
    free = order.of("forward", "draw", "read", constrained=False)
    assert free[:2] == ["forward", "draw"]
    # Step n + 1 is on its way, sampling included, before the host looks at what step n drew; at the end only reads.
    assert free[2:-1] == ["forward", "draw", "read"] * 19
    assert free[-1] == "read"


def test_only_the_sampling_of_a_masked_batch_waits_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without a mask shares that wait (ADR 0007); the forward pass is on the device all the same."""
    core = Core(llama_model())
    order = Order(monkeypatch)
    masked = request("json", constraints=[Cycle()], max_tokens=20)
    run(core, {0: [request("free", max_tokens=20), masked]})
    waits = order.of("forward", "draw", "read", constrained=True)
    assert waits == ["forward", "draw", *["forward", "read", "draw"] * 19, "read"]


def test_an_awaited_step_is_begun_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is only built: what is queued for a mask is handed to the device before the host computes the mask."""
    core = Core(llama_model())
    handed: list[str] = []
    evaluate = mx.async_eval

    class Watched(Cycle):
        def mask(self, out: Any) -> bool:
            handed.append("mask")
            return super().mask(out)

    def handing(*arrays: Any) -> None:
        handed.append("device")
        evaluate(*arrays)

    monkeypatch.setattr(mx, "async_eval", handing)
    run(core, {0: [request("json", constraints=[Watched()], max_tokens=6)]})
    masks = [at for at, what in enumerate(handed) if what == "mask"]
    assert len(masks) == 6
    for before, after in zip([-1, *masks], masks, strict=False):
        assert "device" in handed[before + 1 : after]
