"""What was read of earlier prompts is not computed again, and changes no answer."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx
import numpy as np
import pytest

from inference.ipc import Sampling
from inference.worker.core import prefix_kv
from inference.worker.core.core import Core
from inference.worker.core.prefix_cache import SHORTEST
from inference.worker.core.prefix_tree import Node
from inference.worker.core.types import CoreEvent, CoreRequest, PrefillProgress, Tokens
from tests.worker.core.support import Answer, Outcome, alone, prompt, run, same
from tests.worker.core.test_isolation import MODELS, core_of

LARGE = 1 << 40
KINDS = list(MODELS)
CUTTABLE = ["attention"]


def core_with(kind: str, limit: int = LARGE, **fields: int) -> Core:
    core = Core(MODELS[kind](), slots=64, prefix_cache_bytes=limit, **fields)
    assert core.prefixes is not None
    return core


def greedy(key: str, tokens: Iterable[int], max_tokens: int = 6, n: int = 1) -> CoreRequest:
    sampling = Sampling(temperature=0.0, top_logprobs=3)
    return CoreRequest(key, list(tokens), max_tokens, sampling=sampling, n=n)


def cached(outcome: Outcome, key: str) -> int:
    found = {event.cached for event in _progress(outcome.events, key)}
    assert len(found) == 1
    return found.pop()


def _progress(events: list[CoreEvent], key: str) -> list[PrefillProgress]:
    return [event for event in events if isinstance(event, PrefillProgress) and event.key == key]


def fresh(kind: str, request: CoreRequest) -> Answer:
    """What a core without a cache gives."""
    return alone(core_of(kind), request).answers[request.key, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_identical_prompt_is_not_read_again(kind: str) -> None:
    core, tokens = core_with(kind), prompt(100)
    first = alone(core, greedy("first", tokens))
    before = core.stats().prefilled
    second = alone(core, greedy("second", tokens))
    assert (cached(first, "first"), cached(second, "second")) == (0, 99)
    assert core.stats().prefilled == before
    same(second.answers["second", 0], first.answers["first", 0])
    same(first.answers["first", 0], fresh(kind, greedy("fresh", tokens)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_turn_begins_after_the_first_answer(kind: str) -> None:
    core, tokens = core_with(kind), prompt(70)
    answer = alone(core, greedy("first", tokens, max_tokens=30)).answers["first", 0]
    turn = greedy("second", [*tokens, *answer.tokens, *prompt(40, seed=1)])
    second = alone(core, turn)
    assert cached(second, "second") == 70 + 30 - 1  # the last token was drawn, and never fed
    same(second.answers["second", 0], fresh(kind, turn))


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_departs_from_the_end_of_the_prompt_begins_before_it(kind: str) -> None:
    """As a template does that puts an empty thought where the answer begins, and leaves it out of the history."""
    core, tokens = core_with(kind), prompt(400)
    alone(core, greedy("first", tokens))
    turn = greedy("second", [*tokens[:-4], *prompt(90, seed=1)])
    second = alone(core, turn)
    assert cached(second, "second") >= 400 - 17
    same(second.answers["second", 0], fresh(kind, turn))


@pytest.mark.parametrize("kind", KINDS)
def test_a_third_agent_begins_where_the_second_departed(kind: str) -> None:
    core, shared = core_with(kind), prompt(500)
    agents = [greedy(f"agent {number}", [*shared, *prompt(100, seed=number + 1)]) for number in range(3)]
    outcomes = [alone(core, agent) for agent in agents]
    assert cached(outcomes[2], "agent 2") == 500
    assert cached(outcomes[1], "agent 1") == (500 if kind in CUTTABLE else 0)
    for agent, outcome in zip(agents, outcomes, strict=True):
        same(outcome.answers[agent.key, 0], fresh(kind, agent))


@pytest.mark.parametrize("kind", KINDS)
def test_agents_that_come_together_read_their_shared_prompt_once(kind: str) -> None:
    core, shared = core_with(kind), prompt(600)
    agents = [greedy(f"agent {number}", [*shared, *prompt(50, seed=number + 1)]) for number in range(6)]
    before = core.stats().prefilled
    together = run(core, {0: agents})
    assert core.stats().prefilled - before == 600 + 6 * 49
    assert [cached(together, agent.key) for agent in agents] == [0, 600, 600, 600, 600, 600]
    for agent in agents:
        same(together.answers[agent.key, 0], fresh(kind, agent))


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_comes_later_goes_on_from_where_the_first_has_come_to(kind: str) -> None:
    """The first is in the middle of its prompt, beyond what both have in common or before it."""
    core, shared = core_with(kind, prefill_chunk=128), prompt(600)
    first = greedy("first", [*shared, *prompt(900, seed=1)])
    early = greedy("early", [*shared, *prompt(20, seed=2)])
    late = greedy("late", [*shared[:520], *prompt(20, seed=3)])
    found = run(core, {0: [first], 2: [early], 9: [late]})
    assert cached(found, "early") == 600
    if kind in CUTTABLE:
        assert cached(found, "late") == 520
    for one in (first, early, late):
        same(found.answers[one.key, 0], fresh(kind, one))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_for_a_client_that_left_is_there_when_it_asks_again(kind: str) -> None:
    core, tokens = core_with(kind, prefill_chunk=64), prompt(500)
    left = run(core, {0: [greedy("left", tokens)]}, cancels={4: [("left", None)]})
    done = max(event.done for event in _progress(left.events, "left"))
    assert 64 <= done < 499
    again = alone(core, greedy("again", tokens))
    assert cached(again, "again") == done
    same(again.answers["again", 0], fresh(kind, greedy("fresh", tokens)))


def test_those_that_wait_for_a_shared_prompt_go_on_when_its_reader_leaves() -> None:
    core, shared = core_with("attention", prefill_chunk=64), prompt(600)
    agents = [greedy(f"agent {number}", [*shared, *prompt(30, seed=number + 1)]) for number in range(3)]
    found = run(core, {0: agents}, cancels={3: [("agent 0", None)]})
    assert found.answers["agent 0", 0].reason == "cancelled"
    assert 0 < cached(found, "agent 1") < 600
    assert cached(found, "agent 2") == 600
    for agent in agents[1:]:
        same(found.answers[agent.key, 0], fresh("attention", agent))


@pytest.mark.parametrize("kind", KINDS)
def test_choices_of_one_request_are_kept_each(kind: str) -> None:
    core, tokens = core_with(kind), prompt(60)
    sampling = Sampling(temperature=1.3, seed=4)
    two = alone(core, CoreRequest("two", tokens, 25, sampling=sampling, n=2)).answers
    assert two["two", 0].tokens != two["two", 1].tokens
    for choice in range(2):
        turn = greedy(f"turn {choice}", [*tokens, *two["two", choice].tokens, *prompt(9)])
        outcome = alone(core, turn)
        assert cached(outcome, turn.key) == 60 + 25 - 1
        same(outcome.answers[turn.key, 0], fresh(kind, turn))


def test_short_prompts_are_computed_together_instead() -> None:
    core, tokens = core_with("attention"), prompt(SHORTEST)
    alone(core, greedy("first", tokens))
    assert cached(alone(core, greedy("again", tokens)), "again") == 0


def held(node: Node) -> int:
    states = node.whole.arrays() if node.whole is not None else []
    return sum(array.nbytes for array in [*prefix_kv.arrays_of(node.pairs), *states])


@pytest.mark.parametrize(
    ("kind", "limit"),
    [*(("attention", limit) for limit in (0, 3_000, 30_000, 200_000)), *((kind, 30_000) for kind in KINDS[1:])],
)
def test_the_bound_holds_whatever_is_read(kind: str, limit: int) -> None:
    core = core_with(kind, limit)
    assert core.prefixes is not None
    for seed in range(6):
        tokens = [*prompt(150, seed=seed % 3), *prompt(50 + 60 * seed, seed=seed)]
        outcome = alone(core, greedy("one", tokens))
        assert core.prefixes.tree.nbytes <= limit
        assert core.prefixes.tree.nbytes == sum(map(held, core.prefixes.tree.nodes()))
        same(outcome.answers["one", 0], fresh(kind, greedy("one", tokens)))
    assert (core.prefixes.tree.entries > 0) == (core.prefixes.tree.nbytes > 0)
    core.prefixes.limit = limit // 2
    core.call(core.prefixes.trim)
    core.step()
    assert core.prefixes.tree.nbytes <= limit // 2


def test_what_is_used_again_outlives_what_is_not() -> None:
    core = core_with("attention")
    assert core.prefixes is not None
    alone(core, greedy("often", prompt(300)))
    core.prefixes.limit = core.prefixes.tree.nbytes * 3
    for seed in range(1, 10):
        alone(core, greedy("once", prompt(300, seed=seed)))
        assert cached(alone(core, greedy("often", prompt(300))), "often") == 299


def test_of_a_prompt_that_does_not_fit_the_beginning_is_kept_and_not_for_all_that_is_there() -> None:
    core = core_with("attention")
    assert core.prefixes is not None
    core.prefixes.limit = 1200 * core.kv_bytes_per_token
    alone(core, greedy("other", prompt(500, seed=1)))
    alone(core, greedy("long", prompt(2000)))
    assert cached(alone(core, greedy("again", prompt(2000))), "again") == 600
    assert cached(alone(core, greedy("other", prompt(500, seed=1))), "other") == 499


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_cannot_be_kept_whole_takes_nothing_from_others(kind: str) -> None:
    core = core_with(kind)
    assert core.prefixes is not None
    alone(core, greedy("other", prompt(200)))
    core.prefixes.limit = core.prefixes.tree.nbytes
    alone(core, greedy("long", prompt(900, seed=1)))
    assert cached(alone(core, greedy("other", prompt(200))), "other") == 199


def test_logits_that_are_not_numbers_leave_nothing_behind() -> None:
    core = core_with("attention")
    assert core.prefixes is not None
    alone(core, greedy("sound", prompt(100)))
    spoiled = core._queue._model.model.layers[0].self_attn
    sound = spoiled.o_proj.weight
    spoiled.o_proj.weight = sound * float("nan")
    assert "not numbers" in alone(core, greedy("spoiled", prompt(100, seed=1))).failures["spoiled"].message
    spoiled.o_proj.weight = sound
    assert core.prefixes.tree.nbytes == 0
    tokens = prompt(100, seed=1)
    same(alone(core, greedy("again", tokens)).answers["again", 0], fresh("attention", greedy("again", tokens)))


def test_what_is_not_numbers_is_handed_to_nobody() -> None:
    """A fault that is over: only the prompts that were read in it fail, and not those that begin as they did."""
    core, shared = core_with("attention", prefill_chunk=64), prompt(300)
    spoiled = core._queue._model.model.layers[0].self_attn.o_proj
    sound = spoiled.weight
    spoiled.weight = sound * float("nan")
    core.submit(greedy("leader", [*shared, *prompt(20, seed=1)]))
    outcome = Outcome()
    for _ in range(2):
        outcome.add(core.step())
    spoiled.weight = sound
    later = [greedy(f"{number}", [*shared, *prompt(20, seed=number + 2)]) for number in range(20)]
    rest = run(core, {step: [one] for step, one in enumerate(later)})
    assert set(rest.failures) == {"leader"}
    for one in later:
        same(rest.answers[one.key, 0], fresh("attention", one))


def test_what_was_read_for_one_that_left_in_a_fault_is_not_used() -> None:
    core, tokens = core_with("attention", prefill_chunk=64), prompt(300)
    spoiled = core._queue._model.model.layers[0].self_attn.o_proj
    sound = spoiled.weight
    spoiled.weight = sound * float("nan")
    run(core, {0: [greedy("left", tokens)]}, cancels={3: [("left", None)]})
    spoiled.weight = sound
    again = alone(core, greedy("again", tokens))
    assert cached(again, "again") == 0
    same(again.answers["again", 0], fresh("attention", greedy("again", tokens)))
    assert core.prefixes is not None
    assert all(core.prefixes.tree.holds(node) for node in core.prefixes.tree.ends())


def test_a_prompt_is_computed_whole_when_what_was_found_cannot_be_gone_on_from() -> None:
    core, tokens = core_with("attention"), prompt(100)
    assert core.prefixes is not None
    alone(core, greedy("first", tokens))
    for node in core.prefixes.tree.nodes():
        node.pairs[0] = mx.zeros((1, 3, 99, 8)), mx.zeros((1, 3, 99, 8))  # of as many heads as no layer has
    again = greedy("again", [*tokens, *prompt(50, seed=1)])
    found = alone(core, again)
    same(found.answers["again", 0], fresh("attention", again))
    assert core.prefixes.defects == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("common", [511, 512, 513])
def test_one_that_departs_just_where_the_first_has_come_to(kind: str, common: int) -> None:
    core, tokens = core_with(kind, prefill_chunk=512), prompt(1500)
    first, second = greedy("first", tokens), greedy("second", [*tokens[:common], *prompt(40, seed=1)])
    found = run(core, {0: [first], 1: [second]})
    if kind in CUTTABLE or common >= 512:
        assert cached(found, "second") == common
    same(found.answers["second", 0], fresh(kind, second))


def first_tokens_after(limit: int | None, requests: dict[int, list[CoreRequest]], key: str) -> int:
    """Prompt tokens that were computed before a request had its first token."""
    core = Core(MODELS["attention"](), prefill_chunk=64, prefix_cache_bytes=limit)
    for step in range(1000):
        for one in requests.get(step, []):
            core.submit(one)
        for event in core.step():
            if isinstance(event, Tokens) and any(row.key == key for row in event.rows):
                return core.stats().prefilled
    raise AssertionError("no token")


def test_a_short_prompt_behind_a_long_one_is_not_slower_than_without_a_cache() -> None:
    shared = prompt(300, seed=9)
    requests = {
        0: [greedy("old", prompt(3200, seed=1)), greedy("middle", prompt(2000, seed=2))],
        1: [greedy("leader", [*shared, *prompt(2700, seed=3)])],
        2: [greedy("short", [*shared, *prompt(40, seed=4)])],
    }
    without = first_tokens_after(None, requests, "short")
    assert first_tokens_after(LARGE, requests, "short") <= without + 300


def test_nobody_waits_for_what_will_not_be_kept() -> None:
    shared = prompt(2000, seed=9)
    requests = {
        0: [greedy("leader", [*shared, *prompt(50, seed=3)])],
        1: [greedy("short", [*shared[:400], *prompt(10, seed=4)])],
    }
    assert first_tokens_after(1, requests, "short") == first_tokens_after(None, requests, "short")


def test_a_cache_that_fails_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    core, tokens = core_with("attention"), prompt(100)
    assert core.prefixes is not None
    alone(core, greedy("first", tokens))
    for node in core.prefixes.tree.nodes():
        node.pairs[0] = (mx.zeros(3), mx.zeros(3))
    answer = alone(core, greedy("second", tokens)).answers["second", 0]
    same(answer, fresh("attention", greedy("fresh", tokens)))
    assert "a cached prefix could not be used" in caplog.text
    assert cached(alone(core, greedy("third", tokens)), "third") == 99


def test_many_at_once_with_beginnings_of_every_length() -> None:
    core, base = core_with("attention", prefill_chunk=128), np.array(prompt(900))
    requests = [
        greedy(f"{number}", [*base[:length], *prompt(5 + number, seed=number)], max_tokens=4 + number)
        for number, length in enumerate([10, 40, 300, 700, 333, 512, 511, 513, 800, 260, 900])
    ]
    found = run(core, {0: requests[:4], 3: requests[4:8], 7: requests[8:]})
    for one in requests:
        same(found.answers[one.key, 0], fresh("attention", one))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_place_that_gave_way_is_not_written_down(kind: str) -> None:
    core = core_with(kind)
    assert core.prefixes is not None
    tree = core.prefixes.tree
    alone(core, greedy("one", prompt(400)))
    ends = sorted(tree.ends(), key=lambda node: -node.end)
    assert [node.end for node in ends] == [399, 383]
    assert all(map(tree.holds, ends))
    tree.trim(tree.nbytes - 1)
    assert [tree.holds(node) for node in ends] == [True, False]
    with pytest.raises(ValueError, match="are gone"):
        core.prefixes.layout.layers([node.pairs for node in ends[1].path()], ends[1].whole)
    tree.trim(0)
    assert [tree.holds(node) for node in ends] == [False, False]
