"""The backend of embedding models through its whole life, with random BERTs and the real MiniLM."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from inference import ipc
from inference.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, Unsupported
from inference.worker.backends.embeddings import EmbeddingBackend
from inference.worker.embedding.turns import BATCH_TOKENS, Batch
from tests.material import encoder_model
from tests.material.encoder import CONTEXT
from tests.worker.backends.embedding import TEXTS, Embedding
from tests.worker.backends.real import minilm
from tests.worker.backends.test_process import Worker
from tests.worker.backends.threaded import PATIENCE_S


class Gated(EmbeddingBackend):
    """Computes no batch until it may; ``batches`` are those it was about to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Semaphore(0)
        self.batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def _compute(self, batch: Batch) -> list[list[float]]:
        self.batches.put([job.request for job, _, _ in batch.rows])
        assert self.may.acquire(timeout=PATIENCE_S)
        return super()._compute(batch)


@pytest.fixture(scope="module")
def bert() -> Iterator[Embedding]:
    with Embedding(encoder_model()) as made:
        yield made


class TestVectors:
    def test_it_works(self, bert: Embedding) -> None:
        made = bert.embed(*TEXTS)
        assert made.shape == (len(TEXTS), 64)
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-6)
        assert bert.prompt_tokens == sum(len(bert.backend.tokenize(text, True)) for text in TEXTS)

    def test_what_is_told_about_a_loaded_model(self, bert: Embedding) -> None:
        loaded, capabilities = bert.loaded, bert.loaded.capabilities
        assert (loaded.context, loaded.vocab_size, loaded.embedding_dimensions) == (CONTEXT, 300, 64)
        assert (capabilities.embeddings, capabilities.chat, capabilities.completion) == (True, False, False)
        assert (loaded.backend, loaded.kv_bytes_per_token) == ("embeddings", 0)
        assert loaded.weight_bytes > 100_000
        phases = [note.phase for note in bert.notes if isinstance(note, ipc.LoadProgress)]
        assert list(dict.fromkeys(phases)) == ["import", "weights", "warmup", "tokenizer"]

    def test_alone_and_together(self, bert: Embedding) -> None:
        together = bert.embed(*TEXTS)
        for text, vector in zip(TEXTS, together, strict=True):
            np.testing.assert_allclose(bert.embed(text)[0], vector, atol=1e-5)
        np.testing.assert_allclose(bert.embed(*reversed(TEXTS)), together[::-1], atol=1e-5)

    def test_token_ids_are_taken_as_they_are(self, bert: Embedding) -> None:
        ids = bert.backend.tokenize("the sea", True)
        assert (ids[0], ids[-1]) == (2, 3)
        np.testing.assert_allclose(bert.embed(ids), bert.embed("the sea"), atol=1e-6)
        assert np.abs(bert.embed(ids[1:-1]) - bert.embed("the sea")).max() > 1e-3
        assert bert.backend.detokenize(bert.backend.tokenize("the sea", False)) == "the sea"

    def test_shorter_vectors(self, bert: Embedding) -> None:
        whole = bert.embed(*TEXTS)[:, :16]
        expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        np.testing.assert_allclose(bert.embed(*TEXTS, dimensions=16), expected, atol=1e-6)

    def test_the_longest_input_is_whole(self, bert: Embedding) -> None:
        longest = [5] * CONTEXT
        assert np.abs(bert.embed(longest) - bert.embed([*longest[:-1], 6])).max() > 1e-6
        assert bert.prompt_tokens == CONTEXT

    def test_several_batches_of_one_request_keep_their_order(self, bert: Embedding) -> None:
        before = bert.backend.step_number()
        inputs = [[5 + index % 200] * (1 + index % CONTEXT) for index in range(400)]
        made = bert.embed(*inputs)
        assert bert.backend.step_number() - before > 400 * CONTEXT / 2 / BATCH_TOKENS
        for index in (0, 63, 64, 200, 399):
            np.testing.assert_allclose(bert.embed(inputs[index])[0], made[index], atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("inputs", "dimensions", "param", "says"),
        [
            ([[5], [300]], None, "input", r"input\[1\] holds 300"),
            ([[-1]], None, "input", r"input\[0\] holds -1"),
            ([[2**40]], None, "input", "no token of this model"),
            (["x", []], None, "input", r"input\[1\] has no tokens"),
            ([], None, "input", "must not be empty"),
            (["x"], 65, "dimensions", "from 1 to 64"),
            (["x"], 0, "dimensions", "from 1 to 64"),
        ],
    )
    def test_bad_input(
        self, bert: Embedding, inputs: list[str | list[int]], dimensions: int | None, param: str, says: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=says) as error:
            bert.backend.embed("bad", inputs, dimensions)
        assert error.value.param == param
        assert not bert.backend.busy()

    @pytest.mark.parametrize("given", ["x" * 63, [5] * 65])
    def test_too_long_is_not_cut_off(self, bert: Embedding, given: str | list[int]) -> None:
        with pytest.raises(ContextLengthExceeded, match=r"64 tokens.*input\[1\] resulted in 65") as error:
            bert.backend.embed("long", ["fits", given], None)
        assert error.value.param == "input"
        assert error.value.details == {"context": 64, "prompt_tokens": 65, "input_index": 1}

    def test_it_generates_nothing(self, bert: Embedding) -> None:
        for body in (ipc.GenerateRequest(prompt="x"), ipc.GenerateRequest(messages=[{"role": "user", "content": "x"}])):
            with pytest.raises(Unsupported, match="embedding model"):
                bert.backend.prepare("r", body)
        bert.backend.start("never-prepared", 5)
        answer = bert.answers.get(timeout=PATIENCE_S)
        assert isinstance(answer, ipc.Failed)
        assert answer.code == "unsupported"

    def test_it_counts_a_prompt_but_no_messages(self, bert: Embedding) -> None:
        assert bert.backend.count(ipc.GenerateRequest(prompt="a b")) == 4
        with pytest.raises(Unsupported, match="no template"):
            bert.backend.count(ipc.GenerateRequest(messages=[{"role": "user", "content": "x"}]))

    def test_ids_that_are_none_have_no_text(self, bert: Embedding) -> None:
        with pytest.raises(InvalidRequest, match="holds 300"):
            bert.backend.detokenize([300])


class TestTurns:
    def test_requests_take_turns_and_a_cancelled_one_ends(self) -> None:
        backend = Gated()
        with Embedding(encoder_model(), backend) as gated:
            backend.embed("large", [[5] * CONTEXT] * 1000, None)
            assert set(backend.batches.get(timeout=PATIENCE_S)) == {"large"}
            backend.embed("small", ["x"], None)
            assert backend.stats().running == 2
            backend.may.release()
            assert set(backend.batches.get(timeout=PATIENCE_S)) == {"large"}
            backend.cancel("large")
            backend.may.release(10)
            answer = gated.answers.get(timeout=PATIENCE_S)
            assert isinstance(answer, ipc.Embedded)
            assert answer.request == "small"
            assert not backend.busy()
            assert gated.answers.empty()

    def test_stopping_fails_what_is_open(self) -> None:
        backend = Gated()
        with Embedding(encoder_model(), backend) as gated:
            backend.embed("a", [[5] * CONTEXT] * 1000, None)
            backend.batches.get(timeout=PATIENCE_S)
            backend.stop()
            backend.may.release()
        answer = gated.answers.get(timeout=PATIENCE_S)
        assert isinstance(answer, ipc.Failed)
        assert (answer.request, answer.code) == ("a", "model_unavailable")
        with pytest.raises(ModelUnavailable):
            backend.embed("late", ["x"], None)

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (RuntimeError("secret"), "internal_error"),
            (RuntimeError("Unable to allocate 5 bytes"), "insufficient_memory"),
        ],
    )
    def test_a_defect_ends_only_its_requests(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, code: str
    ) -> None:
        with Embedding(encoder_model()) as made:
            working = made.backend._model.head

            def broken(*_: Any) -> mx.array:
                raise error

            monkeypatch.setattr(made.backend, "_model", _with_head(made.backend, broken))
            made.backend.embed("a", ["x"], None)
            failed = made.answers.get(timeout=PATIENCE_S)
            assert isinstance(failed, ipc.Failed)
            assert failed.code == code
            assert "secret" not in failed.message + capfd.readouterr().err
            monkeypatch.setattr(made.backend, "_model", _with_head(made.backend, working))
            assert made.embed("x").shape == (1, 64)


def _with_head(backend: EmbeddingBackend, head: Any) -> Any:
    from dataclasses import replace

    return replace(backend._model, head=head)


class TestProcess:
    @pytest.fixture
    def worker(self) -> Iterator[Worker]:
        made = Worker()
        yield made
        made.socket.close()
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()

    def test_through_a_real_worker(self, worker: Worker) -> None:
        worker.send(ipc.Load(str(encoder_model()), "bert", options={"backend": "embeddings"}))
        loaded = worker.next(ipc.Loaded, ipc.LoadFailed)
        assert isinstance(loaded, ipc.Loaded)
        worker.send(
            ipc.Embed("one", ["a secret: xylophone"]),
            ipc.Embed("two", ["x", "y"], 8),
            ipc.Embed("bad", ["x"], 65),
            ipc.Prepare("chat", ipc.GenerateRequest(prompt="x")),
        )
        answers = {}
        for _ in range(4):
            answer = worker.next(ipc.Embedded, ipc.Failed)
            assert isinstance(answer, ipc.RequestEvent)
            answers[answer.request] = answer
        one, two, bad, chat = (answers[name] for name in ("one", "two", "bad", "chat"))
        assert isinstance(one, ipc.Embedded)
        assert isinstance(two, ipc.Embedded)
        assert ([len(vector) for vector in one.vectors], [len(vector) for vector in two.vectors]) == ([64], [8, 8])
        assert isinstance(bad, ipc.Failed)
        assert (bad.code, bad.param) == ("invalid_request", "dimensions")
        assert isinstance(chat, ipc.Failed)
        assert (chat.code, chat.param) == ("unsupported", "model")
        worker.send(ipc.Ping(7))
        pong = worker.next(ipc.Pong)
        assert isinstance(pong, ipc.Pong)
        assert pong.step >= 1
        worker.send(ipc.Drain(5.0))
        assert isinstance(worker.next(ipc.Drained), ipc.Drained)
        code, said = worker.close()
        assert code == 0
        assert "xylophone" not in said

    def test_a_large_request_is_cancelled_and_pings_are_answered_meanwhile(self, worker: Worker) -> None:
        worker.send(ipc.Load(str(encoder_model()), "bert", options={"backend": "embeddings"}))
        worker.next(ipc.Loaded)
        inputs: list[str | list[int]] = [[5] * CONTEXT] * 40_000
        worker.send(ipc.Embed("large", inputs))
        nonce, step = 0, 0
        while not step:  # it has begun to compute
            worker.send(ipc.Ping(nonce := nonce + 1))
            pong = worker.next(ipc.Pong)
            assert isinstance(pong, ipc.Pong)
            step = pong.step
        worker.send(ipc.Cancel("large"), ipc.Embed("small", ["x"]))
        answer = worker.next(ipc.Embedded, ipc.Failed)
        assert isinstance(answer, ipc.Embedded)
        assert answer.request == "small"
        worker.send(ipc.Ping(0))
        pong = worker.next(ipc.Pong)
        assert isinstance(pong, ipc.Pong)
        assert pong.step < 40_000 * CONTEXT / BATCH_TOKENS


@pytest.fixture(scope="module")
def real() -> Iterator[Embedding]:
    with Embedding(minilm()) as made:
        yield made


@pytest.mark.slow
class TestMiniLM:
    def test_meaning(self, real: Embedding) -> None:
        cat, kitten, market = real.embed("a cat sits", "a kitten rests", "stock market")
        assert float(cat @ kitten) == pytest.approx(0.66054, abs=1e-4)
        assert float(cat @ market) == pytest.approx(0.08202, abs=1e-4)
        assert real.prompt_tokens == 5 + 5 + 4

    def test_limits_are_those_of_the_model(self, real: Embedding) -> None:
        assert (real.loaded.context, real.loaded.embedding_dimensions) == (256, 384)
        assert real.embed("word " * 254).shape == (1, 384)
        with pytest.raises(ContextLengthExceeded, match="resulted in 257"):
            real.backend.embed("r", ["word " * 255], None)
