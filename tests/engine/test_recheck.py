"""What the catalog says of a model's files just before it is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.catalog import ModelRef
from inference.errors import ModelCorrupt, ModelUnavailable
from tests.engine.conftest import World, collect, text_of


class Rechecked:
    """Answers for the catalog with what the test sets."""

    def __init__(self, world: World) -> None:
        self.changes: dict[str, object] = {}
        world.catalog.recheck = self.recheck  # type: ignore[method-assign]
        self.asked: list[str] = []

    async def recheck(self, ref: ModelRef) -> ModelRef:
        self.asked.append(ref.id)
        return replace(ref, **self.changes)  # type: ignore[arg-type]


async def test_a_model_that_turned_out_corrupt_is_refused_until_it_is_not(world: World) -> None:
    disk = Rechecked(world)
    await world.begin()
    disk.changes = {"disk_state": "corrupt", "problem": "its files are corrupt: x", "bad_files": ("x",)}
    with pytest.raises(ModelCorrupt, match="its files are corrupt: x") as refused:
        await world.ask("a")
    assert refused.value.details == {"files": ["x"]}
    assert (world.status("a").state, world.status("a").pid) == ("unloaded", None), "the catalog says why, not the run"
    disk.changes = {"problem": "there is no tokenizer"}
    with pytest.raises(ModelUnavailable, match="there is no tokenizer"):
        await world.ask("a")
    disk.changes = {}
    assert text_of(await collect(await world.ask("a"))), "no back-off: it is loaded at once"
    await collect(await world.ask("a"))
    assert disk.asked == ["a"] * 3, "once for each load"


async def test_a_run_keeps_its_name(world: World) -> None:
    disk = Rechecked(world)
    disk.changes = {"id": "a@other"}
    await world.begin()
    await collect(await world.ask("a"))
    assert world.status("a").state == "ready"
    await world.engine.unload("a")
    assert world.status("a").state == "unloaded"
