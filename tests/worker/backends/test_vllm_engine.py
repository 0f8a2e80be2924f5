"""Models that the core cannot run, whole through vllm-mlx's own engine: the same answers, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mlx_lm.models.cache import KVCache

from inference import ipc
from inference.errors import InvalidRequest, ModelUnavailable
from inference.ipc import GenerateRequest, OutputFormat, Sampling
from inference.worker.backends.vllm_engine import VllmEngineBackend
from inference.worker.backends.vllm_mlx import Stepper, VllmMlxBackend
from inference.worker.vllm_compat.loading import LoadedModel
from inference.worker.vllm_compat.whole import PREFILL_CHUNK
from tests.material import nano_model
from tests.worker.backends.served import Served
from tests.worker.backends.test_process import Worker

HI = [{"role": "user", "content": "hi"}]
LONG = list(range(20, 220)) * 6


def request(prompt: str | list[int] | None = None, max_tokens: int = 24, **options: Any) -> GenerateRequest:
    sampling = Sampling(**({"temperature": 0.0} | options.pop("sampling", {})))
    messages = HI if prompt is None else None
    return GenerateRequest(messages=messages, prompt=prompt, max_tokens=max_tokens, sampling=sampling, **options)


class ExoticCache:
    """All that mlx-lm asks of a cache, and nothing of what a batch needs."""

    def __init__(self) -> None:
        self._inner = KVCache()

    @property
    def offset(self) -> int:
        return int(self._inner.offset)

    @property
    def state(self) -> Any:
        return self._inner.state

    def update_and_fetch(self, keys: Any, values: Any) -> Any:
        return self._inner.update_and_fetch(keys, values)

    def make_mask(self, *arguments: Any, **options: Any) -> Any:
        return self._inner.make_mask(*arguments, **options)


class Exotic(VllmMlxBackend):
    """The default backend with a model whose caches are none the core knows."""

    def _stepper(self, loaded: LoadedModel, command: ipc.Load) -> Stepper:
        loaded.model.make_cache = lambda: [ExoticCache() for _ in loaded.model.layers]
        return super()._stepper(loaded, command)


class Hopeless(VllmMlxBackend):
    """A model that cannot be run with a cache at all."""

    def _stepper(self, loaded: LoadedModel, command: ipc.Load) -> Stepper:
        loaded.model.make_cache = lambda: ["not a cache"] * len(loaded.model.layers)
        return super()._stepper(loaded, command)


@pytest.fixture(scope="module")
def whole() -> Iterator[Served]:
    with Served(nano_model(), VllmEngineBackend()) as made:
        yield made


@pytest.fixture(scope="module")
def core() -> Iterator[Served]:
    with Served(nano_model()) as made:
        yield made


@pytest.mark.parametrize("prompt", [None, "once upon a time", [7], LONG], ids=["chat", "text", "one", "long"])
def test_a_greedy_answer_is_that_of_the_core(whole: Served, core: Served, prompt: str | list[int] | None) -> None:
    body = request(prompt, max_tokens=64)
    ours, theirs = core.run(body).choices[0], whole.run(body).choices[0]
    assert theirs == ours


def test_what_it_says_it_can(whole: Served) -> None:
    loaded, capabilities = whole.loaded, whole.loaded.capabilities
    assert (loaded.backend, loaded.slots, loaded.vocab_size) == ("vllm_engine", 1, 512)
    assert (capabilities.batching, capabilities.json_schema, capabilities.logprobs) == (False, False, False)
    assert (capabilities.chat, capabilities.tools) == (True, True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("n", {"n": 2}),
        ("response_format", {"output_format": OutputFormat("json_object")}),
        ("logprobs", {"sampling": {"top_logprobs": 0}}),
        ("logprobs", {"sampling": {"top_logprobs": 0}, "prompt_logprobs": 0, "echo": True}),
        ("prompt_logprobs", {"prompt_logprobs": 0, "echo": True}),
        ("seed", {"sampling": {"seed": 0}}),
        ("logit_bias", {"sampling": {"logit_bias": {1: 1.0}}}),
        ("presence_penalty", {"sampling": {"presence_penalty": 0.5}}),
        ("frequency_penalty", {"sampling": {"frequency_penalty": 0.5}}),
        ("repetition_penalty", {"sampling": {"repetition_penalty": 1.1}}),
        ("ignore_eos", {"ignore_eos": True}),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(whole: Served, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        whole.backend.prepare("refused", request(**options))
    assert caught.value.param == name


def test_it_samples(whole: Served) -> None:
    result = whole.run(request(sampling={"temperature": 1.0, "top_p": 0.9, "top_k": 40, "min_p": 0.01}))
    assert result.choices[0].usage.completion_tokens >= 1
    one_way = whole.run(request(sampling={"temperature": 5.0, "top_k": 1}))
    assert one_way.content == whole.run(request()).content


def test_stop_strings_are_found_and_end_the_decoding(whole: Served) -> None:
    content = whole.run(request(max_tokens=64)).content
    stop = content[5:8]
    said = whole.run(request(max_tokens=64, stop=[stop])).choices[0]
    assert said.content == content[: content.index(stop)]
    assert (said.reason, said.stop_sequence) == ("stop", stop)
    assert said.usage.completion_tokens < 64


def test_the_end_token_ends_it(whole: Served) -> None:
    backend = whole.backend
    assert isinstance(backend, VllmEngineBackend)
    tokens = whole.run(request(max_tokens=8)).choices[0].tokens
    name = whole.prepare(request(max_tokens=8))
    backend._ready[name].core.eos = frozenset({tokens[3]})
    backend.start(name, 8)
    said = whole.result(name).choices[0]
    assert said.reason == "stop"
    assert said.tokens == tokens[: tokens.index(tokens[3]) + 1]


def test_one_at_a_time_and_a_cancel_ends_each_of_them(whole: Served) -> None:
    first = whole.start(request(max_tokens=1500))
    whole.until(first, ipc.Delta)
    second, third = whole.start(request(max_tokens=4)), whole.start(request(max_tokens=4))
    whole.backend.cancel(second)
    assert [choice.reason for choice in whole.result(second).choices] == ["cancelled"]
    assert whole.backend.busy()
    whole.backend.cancel(first)
    assert whole.result(first).choices[0].reason == "cancelled"
    events = whole.result(third).events
    assert isinstance(events[0], ipc.Started)
    assert not whole.backend.busy()


def test_a_long_prompt_is_read_in_chunks_and_can_be_given_up_between_them(whole: Served) -> None:
    assert len(LONG) > 2 * PREFILL_CHUNK
    result = whole.run(request(LONG, max_tokens=1))
    done = [event.done for event in result.events if isinstance(event, ipc.Prefill)]
    assert done[:2] == [PREFILL_CHUNK, 2 * PREFILL_CHUNK]
    assert done[-1] == len(LONG)
    name = whole.start(request(LONG, max_tokens=1000))
    whole.until(name, ipc.Prefill)
    whole.backend.cancel(name)
    assert whole.until(name, ipc.Finished).reason == "cancelled"  # type: ignore[attr-defined]


def test_a_model_with_caches_of_its_own_kind_runs_this_way_by_itself(core: Served) -> None:
    with Served(nano_model(), Exotic()) as served:
        assert served.loaded.backend == "vllm_engine"
        notes = [note for note in served.notes if isinstance(note, ipc.Log)]
        assert [note.level for note in notes] == ["warning"]
        assert "one request at a time" in notes[0].message
        assert served.run(request(max_tokens=32)).content == core.run(request(max_tokens=32)).content
        with pytest.raises(InvalidRequest, match="seed"):
            served.prepare(request(sampling={"seed": 1}))


def test_a_model_that_neither_can_run_does_not_load() -> None:
    with pytest.raises(ModelUnavailable, match=r"cannot be stepped here: .*nor by vllm-mlx"):
        Hopeless().load(ipc.Load(str(nano_model()), "hopeless"), lambda events: None)


def test_stopping_cuts_off_what_is_open() -> None:
    with Served(nano_model(), VllmEngineBackend()) as served:
        running = served.start(request(max_tokens=1500))
        served.until(running, ipc.Delta)
    assert served.until(running, ipc.Failed) == ipc.Failed.cut_off(running)


def test_in_a_worker_process(core: Served) -> None:
    worker = Worker()
    try:
        worker.send(ipc.Load(str(nano_model()), "test/nano", options={"backend": "vllm_engine"}))
        loaded = worker.next(ipc.Loaded, ipc.LoadFailed)
        assert isinstance(loaded, ipc.Loaded)
        assert loaded.backend == "vllm_engine"
        worker.send(ipc.Prepare("bad", request(sampling={"seed": 1})), ipc.Prepare("r", request()))
        refused = worker.next(ipc.Failed)
        assert isinstance(refused, ipc.Failed)
        assert (refused.request, refused.code, refused.param) == ("bad", "invalid_request", "seed")
        worker.next(ipc.Prepared)
        worker.send(ipc.Start("r", 24))
        text = ""
        while isinstance(event := worker.next(ipc.Delta, ipc.Finished, ipc.Failed), ipc.Delta):
            text += event.content
        assert isinstance(event, ipc.Finished)
        assert text == core.run(request()).content
        worker.send(ipc.Drain(5.0))
        worker.next(ipc.Drained)
        assert worker.close()[0] == 0
    finally:
        worker.socket.close()
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()
