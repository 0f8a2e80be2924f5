"""Texts to token ids and back, by the ``tokenizers`` library alone where the model has a ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from inference.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable


def load_tokenizer(path: Path, architecture: str) -> Tokenizer:
    """The tokenizer without the truncation and padding that a file may carry. Raises ``ModelUnavailable``."""
    file = path / "tokenizer.json"
    try:
        # Where a text may end in a token, tokenizer_config.json decides on it, which only transformers reads.
        if file.is_file() and architecture not in ("llama", "mistral"):
            tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = _by_transformers(path)
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(f"the tokenizer cannot be loaded: {type(error).__name__}: {str(error)[:200]}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _by_transformers(path: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    backend = getattr(made, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelUnavailable("the tokenizer is of a kind that is not supported: there is no tokenizer.json")
    return backend


class Inputs:
    """What one input becomes; ``vocabulary`` is the number of rows of the model's embedding, ``context`` in tokens."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, context: int, *, lowercase: bool) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._context = context
        self._lowercase = lowercase

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        text = text.lower() if self._lowercase else text
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        self._check_ids(ids, "tokens", {})
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def all(self, inputs: list[str | list[int]]) -> list[list[int]]:
        """The token ids of every input. Raises ``InvalidRequest`` naming the first that cannot be embedded whole."""
        made: list[list[int]] = []
        for index, given in enumerate(inputs):
            where = {"input_index": index}
            ids = self.encode(given) if isinstance(given, str) else given
            if not ids:
                raise InvalidRequest(f"input[{index}] has no tokens", param="input", details=where)
            if len(ids) > self._context:
                raise self._too_long(len(ids), where)
            self._check_ids(ids, f"input[{index}]", where)
            made.append(ids)
        return made

    def _too_long(self, tokens: int, where: Mapping[str, Any]) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"This model's maximum context length is {self._context} tokens. "
            f"However, input[{where['input_index']}] resulted in {tokens} tokens. It is not cut off silently.",
            param="input",
            details={"context": self._context, "prompt_tokens": tokens, **where},
        )

    def _check_ids(self, ids: list[int], what: str, where: dict[str, Any]) -> None:
        """An id outside the vocabulary would read memory that is not the embedding's."""
        lowest, highest = min(ids, default=0), max(ids, default=0)
        if lowest < 0 or highest >= self._vocabulary:
            wrong = lowest if lowest < 0 else highest
            raise InvalidRequest(
                f"{what} holds {wrong}, which is no token of this model (0 to {self._vocabulary - 1})",
                param="input" if where else "tokens",
                details=where,
            )
