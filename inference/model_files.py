"""What the files of a model say and whether they are whole, read without MLX.

One rule for both sides: the catalog promises with it what a worker, with the same functions, will do. Only regular
files are opened, only up to a size; whatever is wrong with one is a sentence for people.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from inference.safetensors import BadSafetensors, CutOff, Header, read_header

MAX_JSON_BYTES = 32 * 1024 * 1024
_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("pytorch_model", "model", "consolidated")
_PICKLE = (".bin", ".pt", ".pth", ".ckpt")
_MAX_INTEGER = 1 << 24


class Unusable(Exception):
    """The directory cannot be loaded; the message is the sentence to show."""


class Incomplete(Unusable):
    """Weights are not there, or not to their end, as in a download that did not finish."""


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a regular file. Raises ``Unusable`` with a sentence about ``what``."""
    value = read_json_value(path, what)
    if not isinstance(value, dict):
        raise Unusable(f"{what} is not a JSON object")
    return value


def read_json_value(path: Path, what: str) -> Any:
    """Any JSON from a regular file, else as ``read_json``."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unusable(f"{what} is not a regular file")
        if status.st_size > MAX_JSON_BYTES:
            raise Unusable(f"{what} is {status.st_size} bytes long, which no real one is")
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise Unusable(f"{what} is missing") from None
    except OSError as error:
        raise Unusable(f"{what} cannot be read: {reason(error)}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unusable(f"{what} is not valid JSON: {str(error)[:200]}") from error


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a multimodal config, over the outer values; else the config itself."""
    for name in ("text_config", "llm_config", "language_config"):
        inner = config.get(name)
        if isinstance(inner, dict):
            return {**config, **inner}
    return config


def context_length(config: Mapping[str, Any]) -> int:
    """The longest context in tokens that ``config`` (the text part) names, by itself or by RoPE scaling; 0: unknown."""
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
    length = integer(config, *names)
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return length
    original, factor = integer(scaling, "original_max_position_embeddings"), scaling.get("factor")
    if original and isinstance(factor, int | float) and 1 <= factor <= 1024:
        length = max(length, int(original * factor))
    return length


def weight_names(names: set[str]) -> list[str]:
    """The files mlx-lm loads: ``model*.safetensors`` (others are adapters, or the same weights once more)."""
    return sorted(name for name in names if name.startswith("model") and name.endswith(".safetensors"))


def read_weights(directory: Path, names: set[str]) -> list[Header]:
    """The headers of all weight files. Raises ``Unusable`` when one is missing or broken."""
    weights = weight_names(names)
    if not weights and any(name.startswith(_WEIGHTS) and name.endswith(_PICKLE) for name in names):
        raise Unusable(
            "there are only pickle weights, which are never loaded, as they can run code (.safetensors is wanted)"
        )
    if not weights:
        raise Incomplete("there are no weights: no file is named model*.safetensors")
    if _INDEX in names:
        _check_index(read_json(directory / _INDEX, _INDEX), names)
    headers: list[Header] = []
    for name in weights:
        try:
            headers.append(read_header(directory / name))
        except CutOff as error:
            raise Incomplete(f"{printable(name)} {error}") from error
        except BadSafetensors as error:
            raise Unusable(f"{printable(name)} {error}") from error
        except OSError as error:
            raise Unusable(f"{printable(name)} cannot be read: {reason(error)}") from error
    return headers


def _check_index(index: Mapping[str, Any], names: set[str]) -> None:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise Unusable(f"{_INDEX} has no usable weight_map")
    wanted = set(weight_map.values())
    if any("/" in name or "\\" in name or name in ("", ".", "..") for name in wanted):
        raise Unusable(f"{_INDEX} names a file outside the model's directory")
    missing = sorted(wanted - names)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Incomplete(f"a weight file is missing: {printable(missing[0])}{more} of {len(wanted)}")


def integer(config: Mapping[str, Any], *names: str) -> int:
    """The first of ``names`` that holds a positive, sane whole number; else 0."""
    for name in names:
        value = config.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_INTEGER:
            return value
    return 0


def printable(text: str) -> str:
    """Text from a file, fit for a sentence."""
    return "".join(character if character.isprintable() else "?" for character in text[:128])


def reason(error: OSError) -> str:
    """Why the system refused, without the path."""
    return error.strerror or str(error)
