"""A model that says what a test tells it: nano's shape, with weights under which each token has one successor.

Attention and MLP write nothing, each piece has a dimension of its own, and the output row of a piece reads only its
predecessor's. The first piece follows the line feed with which the chat template opens an answer.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_HIDDEN = 32
_LOUD = 20.0


def spoken_model(directory: Path, pieces: Sequence[str]) -> Path:
    """Make a model at ``directory`` whose greedy answer to any chat is ``pieces``, one token each, and then its end."""
    from tests.material import EOS_TOKEN_ID, nano_model

    if len(pieces) >= _HIDDEN or len(set(pieces)) != len(pieces):
        raise ValueError(f"at most {_HIDDEN - 1} pieces, all different")
    shutil.copytree(nano_model(), directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = len(tokenizer["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    ids = range(vocabulary, vocabulary + len(pieces))
    tokenizer["added_tokens"] += [{"id": at, "content": text, **flags} for at, text in zip(ids, pieces, strict=True)]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = vocabulary + len(pieces)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    chain = [tokenizer["model"]["vocab"]["\u010a"], *ids, EOS_TOKEN_ID]
    _write_weights(directory / "model.safetensors", config["vocab_size"], chain)
    return directory


def _write_weights(path: Path, vocabulary: int, chain: Sequence[int]) -> None:
    """The file of nano with zeros for every weight but the norms', the embeddings and the output of ``chain``."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    offset, blocks, entries = 0, [], {}
    for name, entry in header.items():
        shape = [vocabulary, _HIDDEN] if name in ("model.embed_tokens.weight", "lm_head.weight") else entry["shape"]
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = array("f", [1.0 if "norm" in name else 0.0]) * count
        for dimension, (token, successor) in enumerate(pairwise(chain)):
            if name == "model.embed_tokens.weight":
                values[token * _HIDDEN + dimension] = 1.0
            elif name == "lm_head.weight":
                values[successor * _HIDDEN + dimension] = _LOUD
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * count]}
        offset += 4 * count
        blocks.append(values.tobytes())
    text = json.dumps(entries | {"__metadata__": {"format": "mlx"}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))
