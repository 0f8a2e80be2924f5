"""What the API needs for finding models at the Hub before any of them is fetched. ``models_admin`` implements it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from inference.engine.contract import MemoryFit

ModelFormat = Literal["mlx", "safetensors", "gguf", "pickle", "other"]
FORMATS: tuple[ModelFormat, ...] = ("mlx", "safetensors", "gguf", "pickle", "other")
Sort = Literal["downloads", "likes", "updated", "trending"]
SORTS: tuple[Sort, ...] = ("downloads", "likes", "updated", "trending")
Word = Literal[
    "fits",
    "fits_after_unloading",
    "fits_with_less_context",
    "too_large",
    "unsupported",
    "disk_full",
    "gated",
    "unknown",
]
"""The one thing about a model that matters most, in the order of a person's surprise: what speaks against it first."""

MOST_RESULTS = 100


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched. ``format`` None: any, MLX first. Sizes in bytes, parameters as a count.

    ``cursor`` is that of the page before.
    """

    text: str = ""
    author: str = ""
    format: ModelFormat | None = "mlx"
    quantization: str = ""
    sort: Sort = "downloads"
    min_bytes: int = 0
    max_bytes: int = 0
    min_parameters: int = 0
    max_parameters: int = 0
    limit: int = 20
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class HubModel:
    """What the Hub says of a model, cleaned. 0 and "" where it says nothing.

    ``weight_bytes`` is the sum of its weight files, or worked out from its tensors where the files are not listed.
    ``parameters`` counts a quantized model's as if it were not. ``gated`` is ``auto`` or ``manual``. ``updated_at``
    is in seconds since the epoch. ``here`` names the revisions on this machine.
    """

    model_id: str
    author: str = ""
    revision: str = ""
    format: ModelFormat = "other"
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    weight_bytes: int = 0
    downloads: int = 0
    likes: int = 0
    updated_at: float = 0.0
    licence: str = ""
    gated: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    here: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A page of results; ``cursor`` is "" on the last. ``looked_at`` counts the Hub's own results behind it."""

    models: tuple[HubModel, ...]
    cursor: str = ""
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class HubFile:
    """``fetched``: a download takes it. ``part`` is how many of its bytes are here from a download that was cut off."""

    name: str
    size: int
    fetched: bool
    part: int = 0


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """Whether a download has room: ``needed_bytes`` are still to come, ``have_bytes`` lie here partly fetched."""

    needed_bytes: int
    have_bytes: int
    free_bytes: int
    keep_free_bytes: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Here:
    """A revision on this machine; ``current`` None where it is not known whether the Hub has a newer one."""

    model_id: str
    path: str
    revision: str
    disk_state: str
    current: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model can be used here, before any byte of it is fetched.

    ``sentence`` says it to people. ``supported`` is about format and architecture, ``problem`` why not. ``memory`` is
    None where the size is not known. ``gated`` and ``token`` (there is one) say whether it can be fetched;
    ``readable`` None where it was not tried. ``newer`` is the Hub's revision where those here are older.
    """

    model_id: str
    source: Literal["disk", "hub"]
    verdict: Word
    sentence: str
    revision: str = ""
    format: ModelFormat = "other"
    architecture: str = ""
    quantization: str = ""
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0
    context_length: int = 0
    supported: bool = True
    problem: str = ""
    memory: MemoryFit | None = None
    disk: DiskRoom | None = None
    gated: str = ""
    token: bool = False
    readable: bool | None = None
    here: tuple[Here, ...] = ()
    newer: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A repository of the same model in another quantization."""

    model_id: str
    quantization: str
    weight_bytes: int
    verdict: Word
    sentence: str
    here: bool = False
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """The model's README as HTML that is safe to show; ``cut`` when it was too long to be shown whole."""

    html: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ModelView:
    """All there is to know of a model at the Hub. ``more_files`` are left out of ``files``.

    ``address`` is its page at the Hub. ``chosen`` is the variant that the owner's preference picks, ``why`` the
    reason in a sentence.
    """

    model: HubModel
    verdict: Verdict
    files: tuple[HubFile, ...] = ()
    more_files: int = 0
    fetched_bytes: int = 0
    card: Card = field(default_factory=Card)
    variants: tuple[Variant, ...] = ()
    chosen: str = ""
    why: str = ""
    address: str = ""


class Finder(Protocol):
    """Asks the Hub, never on the event loop, with bounds in time, size and number. All methods belong to the loop.

    Every method that asks raises 503 ``hub_unreachable`` (no network, no answer in time, switched off) and
    ``hub_error`` (what came is no answer), and 429 with the Hub's own wait. A caller that is cancelled takes back a
    question that nobody else waits for.
    """

    async def search(self, query: Query) -> Found:
        """One page of models. Raises ``InvalidRequest`` for a cursor that is none of ours."""
        ...

    async def view(self, model_id: str, revision: str | None = None) -> ModelView:
        """A model of the Hub. Raises ``InvalidRequest`` for what is no name, 404 ``model_not_found``."""
        ...

    async def fit(self, model_id: str, context: int | None = None, *, brief: bool = False) -> Verdict:
        """Whether it fits, with so many tokens: a model on this machine without asking the Hub, else one of the Hub.

        ``brief`` is content with what a search has told of it. Raises ``ModelNotFound``.
        """
        ...
