"""What the web process asks of a worker."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from inference.ipc.requests import GenerateRequest

DEFAULT_SLOTS = 64
"""Choices that a model decodes at once, unless the owner says otherwise."""


class Command(Struct, omit_defaults=True, tag_field="type", tag=str.lower):
    """Base of everything the web process asks of a worker."""


class Load(Command, tag="load"):
    """Load the model at ``path``. ``context`` and ``slots`` are upper bounds; None is as long as the model can.

    ``prefix_cache_bytes`` bounds the prefix cache in memory (0: none; None: the worker's default share of its limit);
    it lies within ``memory_limit_bytes``. ``prefix_disk_dir`` is this model's own directory for cached prefixes, None
    for none, and ``prefix_disk_bytes`` what it may hold.
    """

    path: str
    model_id: str
    context: int | None = None
    slots: int = DEFAULT_SLOTS
    memory_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    trust_remote_code: bool = False
    prefix_cache_bytes: int | None = None
    prefix_disk_dir: str | None = None
    prefix_disk_bytes: int = 0
    options: dict[str, Any] = {}


class Prepare(Command, tag="prepare"):
    """Template, tokenise and validate on the CPU thread; answered by ``Prepared`` or ``Failed``. Nothing runs yet."""

    request: str
    body: GenerateRequest


class Start(Command, tag="start"):
    """Run a prepared request. ``max_tokens`` is the final bound after admission."""

    request: str
    max_tokens: int


class Cancel(Command, tag="cancel"):
    """End a request wherever it is (prepare, queue, prefill, decode) before its next step. Unknown ids are ignored."""

    request: str


class Tokenize(Command, tag="tokenize"):
    """Tokens of ``text``, or of ``body``'s prompt as the model's template makes it; with ``texts`` each one's text."""

    request: str
    text: str
    add_special_tokens: bool = True
    body: GenerateRequest | None = None
    texts: bool = False


class Detokenize(Command, tag="detokenize"):
    request: str
    token_ids: list[int]


class Count(Command, tag="count"):
    """Count the prompt tokens of a request as the model's template makes them."""

    request: str
    body: GenerateRequest


class Embed(Command, tag="embed"):
    request: str
    inputs: list[str | list[int]]
    dimensions: int | None = None


class SetLimits(Command, tag="set_limits"):
    """New bounds; None leaves one as it is. What a lower ``prefix_cache_bytes`` forbids is given back at once."""

    memory_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    slots: int | None = None
    prefix_cache_bytes: int | None = None


class Drain(Command, tag="drain"):
    """Finish what runs within ``deadline_s`` (then cancel it), refuse new starts, answer ``Drained`` and exit 0.

    In between, cached prefixes that are only in memory are written to ``Load.prefix_disk_dir`` for at most ``save_s``.
    """

    deadline_s: float = 10.0
    save_s: float = 0.0


class SaveCache(Command, tag="save_cache"):
    """Write cached prefixes that are only in memory to ``directory``, or to ``Load.prefix_disk_dir`` if it is ""."""

    request: str
    directory: str = ""


class Ping(Command, tag="ping"):
    """A heartbeat; answered by ``Pong`` from the socket thread, with the stepping thread's step number."""

    nonce: int


AnyCommand = (
    Load | Prepare | Start | Cancel | Tokenize | Detokenize | Count | Embed | SetLimits | Drain | SaveCache | Ping
)
