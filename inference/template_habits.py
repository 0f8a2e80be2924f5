"""What a chat template and the tokens beside it say of a model's habits, read without rendering anything.

One rule for both sides: a worker names its parsers by it, and the catalog says by it what a model can do before it is
loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_REASONING_BY_MODEL_TYPE = (
    ("deepseek_v4", "deepseek_v4"),
    ("deepseek", "deepseek_r1"),
    ("glm4", "glm4"),
    ("step3p", "step3p5"),
    ("poolside", "poolside_v1"),
)
_TOOLS = re.compile(r"\btools\b")


def names_tools(template: str) -> bool:
    """Whether the template has a place for tools. A worker, which renders it, may still find that it shows none."""
    return _TOOLS.search(template) is not None


def reasoning_parser(template: str, vocabulary: Collection[str], kind: str) -> str | None:
    """The parser of the model's reasoning, by vllm-mlx's name; None where it marks none.

    ``vocabulary`` has at least the special tokens, ``kind`` is the ``model_type`` in lower case.
    """
    if kind == "gpt_oss" or ("<|channel|>" in template and "<|message|>" in template):
        return "gpt_oss"
    if "<|channel>" in vocabulary and "<channel|>" in vocabulary:
        return "gemma4"
    if "[THINK]" in template or ("[THINK]" in vocabulary and "[/THINK]" in vocabulary):
        return "mistral"
    if "</think>" not in template and "</think>" not in vocabulary:
        return None
    return next((name for prefix, name in _REASONING_BY_MODEL_TYPE if kind.startswith(prefix)), "qwen3")
