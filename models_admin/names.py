"""From directories to names and back: which model is meant by what a client writes. Pure; no disk, no database."""

from __future__ import annotations

import contextlib
import difflib
import heapq
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count

from inference.catalog import ModelRef
from inference.errors import ModelNotFound
from models_admin.lmstudio_names import EMBEDDING_PREFIX, QUANTIZATION_SUFFIX, StudioNames, studio_names

DEFAULT_NAMES = frozenset({"", "default", "local-model"})
_NAME = re.compile(r"(?P<base>.+?)(?:@(?P<revision>[^@:]+))?(?::(?P<variant>[^@:]+))?")
_MAX_ALIAS_HOPS = 8
_MAX_COMPARED = 200
_MAX_ASKED = 200


@dataclass(frozen=True, slots=True)
class Placed:
    """A model with what decides who gets the bare name: lower ``rank`` first. ``ref.id`` holds the repository."""

    ref: ModelRef
    rank: tuple[int, ...] = ()


def _assign_ids(placed: Iterable[Placed]) -> dict[str, tuple[str, ModelRef]]:
    """Id to (repository, model): the best of a repository has the bare name, the others ``@revision``."""
    groups: dict[str, list[Placed]] = defaultdict(list)
    for item in placed:
        groups[item.ref.id].append(item)
    named: dict[str, tuple[str, ModelRef]] = {}
    # Plain directories may be called anything, also like a revision of another; shorter names choose first.
    for repo, group in sorted(groups.items()):
        for item in sorted(group, key=lambda item: (item.rank, str(item.ref.path))):
            name = _free_name(repo, item.ref, named)
            named[name] = (repo, replace(item.ref, id=name))
    return named


def _free_name(repo: str, ref: ModelRef, taken: Container[str]) -> str:
    wanted = [repo]
    if ref.revision:
        wanted += [f"{repo}@{ref.revision[:12]}", f"{repo}@{ref.revision}"]
    wanted += [f"{repo}@{ref.source}"]
    numbered = (f"{repo}@{ref.source}-{number}" for number in count(2))
    return next(name for name in chain(wanted, numbered) if name not in taken)


class Names:
    """An immutable index of the models known at one moment.

    ``aliases`` maps an alias to a name; ``keys`` is what LM Studio calls its models (``models_admin.lmstudio``).
    """

    def __init__(
        self,
        placed: Iterable[Placed],
        aliases: Mapping[str, str],
        default_model: str | None,
        keys: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._default = default_model
        self._aliases = {alias.lower(): target for alias, target in aliases.items()}
        named = _assign_ids(placed)
        self._repo = {name: repo for name, (repo, _) in named.items()}
        self._by_id = {name: ref for name, (_, ref) in named.items()}
        self._studio = StudioNames()
        self._index()
        self._studio = studio_names(((self._repo[ref.id], ref) for ref in self.all), keys or {})
        for name, own in self._aliases_by_id(aliases).items():
            self._by_id[name] = replace(self._by_id[name], aliases=tuple(own))
        self._index()

    def _aliases_by_id(self, aliases: Mapping[str, str]) -> dict[str, list[str]]:
        """Aliases that lead to a model now, the owner's first; one that leads nowhere says so when it is asked for."""
        found: dict[str, list[str]] = defaultdict(list)
        for alias, target in sorted(aliases.items()):
            with contextlib.suppress(ModelNotFound):
                if (ref := self._find(target)) is not None:
                    found[ref.id].append(alias)
        for name, keys in self._studio.shown.items():
            known = {name.lower(), *(alias.lower() for alias in found.get(name, ()))}
            # A key that means another model here (an id, an alias of the owner's) is none of this one's.
            found[name] += [key for key in keys if key.lower() not in known and self._means(key) == name]
        return {name: own for name, own in found.items() if own}

    def _means(self, name: str) -> str | None:
        with contextlib.suppress(ModelNotFound):
            ref = self._find(name)
            return ref.id if ref is not None else None
        return None

    def _index(self) -> None:
        self.all = sorted(self._by_id.values(), key=lambda ref: (ref.id.lower(), ref.id))
        self._by_lower: dict[str, list[ModelRef]] = defaultdict(list)
        self._by_repo: dict[str, list[ModelRef]] = defaultdict(list)
        self._by_short: dict[str, set[str]] = defaultdict(set)
        for ref in self.all:
            repo = self._repo[ref.id].lower()
            self._by_lower[ref.id.lower()].append(ref)
            self._by_repo[repo].append(ref)
            self._by_short[repo.rsplit("/", 1)[-1]].add(repo)

    def resolve(self, name: str) -> ModelRef:
        """See ``inference.catalog.Catalog.resolve``."""
        asked = name.strip()
        ref = self._find(asked)
        if ref is not None:
            return ref
        if asked.lower() in DEFAULT_NAMES:
            return self._default_ref()
        raise self._not_found(asked)

    def resolve_exactly(self, name: str) -> ModelRef:
        """The model that ``name`` is the name of: its id, in any case where one fits, an alias, LM Studio's own key.

        For what cannot be taken back: no default, no part of a name, no guess. Raises ``ModelNotFound``.
        """
        asked = name.strip()
        ref = self._by_id.get(asked)
        if ref is None and asked.lower() not in DEFAULT_NAMES:
            ref = self._named_so(asked)
        if ref is not None:
            return ref
        meant = self._means(asked)
        if meant is None and asked.lower() not in DEFAULT_NAMES:
            raise self._not_found(asked)
        hint = f": it could be {meant!r}" if meant else ""
        raise ModelNotFound(
            f"{asked[:_MAX_ASKED]!r} is not the whole name of one model{hint}. What deletes or forgets a model wants "
            "its id or an alias, as 'lmx models' lists them.",
            param="model_id",
            details={"nearest": [meant] if meant else []},
        )

    def _by_alias(self, name: str) -> tuple[ModelRef | None, str]:
        """The model of that id or alias; None with the name that the aliases end in."""
        for _ in range(_MAX_ALIAS_HOPS):
            if (ref := self._by_id.get(name)) is not None:
                return ref, name
            target = self._aliases.get(name.lower())
            if target is None:
                break
            name = target
        return None, name

    def _named_so(self, name: str) -> ModelRef | None:
        ref, name = self._by_alias(name)
        if ref is not None:
            return ref
        same = self._by_lower.get(name.lower(), [])
        told = self._studio.told.get(name.lower())
        if not same and told is not None:
            # One key for a repository that lies in several directories says not which.
            same = self._by_repo[self._repo[told].lower()]
        if len(same) > 1:
            raise _ambiguous(name, [ref.id for ref in same])
        return same[0] if same else None

    def _find(self, name: str) -> ModelRef | None:
        """Exact name, alias, name in any case, LM Studio's own key, short name, a key by its habit; None when unknown.

        Raises when several models fit.
        """
        ref, name = self._by_alias(name)
        if ref is not None:
            return ref
        same = self._by_lower.get(name.lower(), [])
        if len(same) == 1:
            return same[0]
        if same:
            raise _ambiguous(name, [ref.id for ref in same])
        if (told := self._studio.told.get(name.lower())) is not None:
            return self._by_id[told]
        match = _NAME.fullmatch(name)
        derived = self._studio.derived.get(name.lower())
        try:
            found = self._by_parts(name, **match.groupdict()) if match else None
        except ModelNotFound:
            if derived is None:
                raise
            found = None
        if found is None and derived is not None:
            return self._by_id[derived]
        if found is None and name.lower().startswith(EMBEDDING_PREFIX):
            found = self._find(name[len(EMBEDDING_PREFIX) :])
            return found if found is not None and found.kind == "embeddings" else None
        return found

    def _by_parts(self, name: str, base: str, revision: str | None, variant: str | None) -> ModelRef | None:
        repos = [base.lower()] if base.lower() in self._by_repo else sorted(self._by_short.get(base.lower(), ()))
        if variant and variant.lower() != "latest":
            fitting = [ref for repo in repos for ref in self._by_repo[repo] if _is_variant(ref, variant)]
            fitting = fitting or self._siblings(base.lower(), variant.lower())
        else:
            fitting = [ref for repo in repos for ref in self._by_repo[repo]]
        if revision:
            fitting = [ref for ref in fitting if _is_revision(ref, revision)]
        if len({self._repo[ref.id] for ref in fitting}) > 1:
            raise _ambiguous(name, [ref.id for ref in fitting])
        # The bare name sorts before its ``@revision``s: it is the preferred one.
        return min(fitting, key=lambda ref: ref.id, default=None)

    def _siblings(self, base: str, variant: str) -> list[ModelRef]:
        """Repositories named after another quantization of the same model: ``x-8bit`` for ``x:8bit``."""
        stem = QUANTIZATION_SUFFIX.sub("", base)
        wanted = f"{stem}-{variant}"
        repos = [wanted] if wanted in self._by_repo else sorted(self._by_short.get(wanted, ()))
        return [ref for repo in repos for ref in self._by_repo[repo]]

    def _default_ref(self) -> ModelRef:
        if self._default is not None:
            ref = self._find(self._default)
            if ref is None:
                raise ModelNotFound(
                    f"The default model {self._default!r} is not on this server.{self._nearest(self._default)}"
                )
            return ref
        usable = [ref for ref in self.all if ref.problem is None]
        # Who names no model wants an answer in words.
        usable = [ref for ref in usable if ref.kind == "llm"] or usable
        if len(usable) == 1:
            return usable[0]
        if not usable:
            raise ModelNotFound("There is no model on this server that can be loaded.", param="model")
        some = ", ".join(ref.id for ref in usable[:5])
        raise ModelNotFound(f"No default_model is set. Name one of the {len(usable)} models: {some}", param="model")

    def _not_found(self, asked: str) -> ModelNotFound:
        shown = asked if len(asked) <= _MAX_ASKED else asked[:_MAX_ASKED] + "…"
        if not self.all:
            return ModelNotFound(
                f"The model {shown!r} does not exist: there are no models on this server.", param="model"
            )
        nearest = self.nearest(asked)
        hint = f" The nearest is {nearest[0]!r}." if nearest else ""
        return ModelNotFound(f"The model {shown!r} does not exist.{hint}", param="model", details={"nearest": nearest})

    def _nearest(self, name: str) -> str:
        nearest = self.nearest(name)
        return f" The nearest is {nearest[0]!r}." if nearest else ""

    def nearest(self, asked: str, number: int = 3) -> list[str]:
        """Ids that look most like ``asked``, best first; comparing is bounded however many models there are."""
        wanted = asked.lower()[:_MAX_ASKED]
        pieces = _pieces(wanted)
        few = heapq.nlargest(_MAX_COMPARED, self.all, key=lambda ref: len(pieces & _pieces(ref.id.lower())))
        ratios = [(_likeness(wanted, ref.id.lower()), ref.id) for ref in few]
        best = sorted(ratios, key=lambda pair: (-pair[0], pair[1]))
        return [name for _, name in best[:number]]


def _likeness(wanted: str, name: str) -> float:
    """How alike, 0 to 1: the better of the whole name and the name without its organisation."""
    return max(difflib.SequenceMatcher(None, wanted, text).ratio() for text in {name, name.rsplit("/", 1)[-1]})


def _pieces(text: str) -> set[str]:
    return {text[start : start + 2] for start in range(len(text) - 1)}


def _is_variant(ref: ModelRef, variant: str) -> bool:
    return variant.lower() in ((ref.variant or "").lower(), (ref.quantization or "").lower())


def _is_revision(ref: ModelRef, revision: str) -> bool:
    return (ref.revision or "").lower().startswith(revision.lower())


def _ambiguous(name: str, ids: list[str]) -> ModelNotFound:
    shown = ", ".join(ids[:5])
    return ModelNotFound(
        f"The name {name!r} fits {len(ids)} models: {shown}", param="model", details={"nearest": ids[:5]}
    )
