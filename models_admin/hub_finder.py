"""``HubFinder``: searches the Hub, shows a model of it, and says whether it fits. Implements
``inference.finding.Finder``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from inference.catalog import ModelRef
from inference.engine.contract import MemoryFit, Size
from inference.errors import LmxError, ModelNotFound, ModelUnavailable
from inference.finding import Card, Found, Here, HubFile, HubModel, ModelView, Query, Variant, Verdict
from inference.hub_names import is_repo
from models_admin.fetch import KEEP_FREE_BYTES
from models_admin.fetch_names import Wanted, endpoint, parse_wanted
from models_admin.hub_client import HubClient
from models_admin.hub_disk import room_for, with_parts
from models_admin.hub_fit import Outlook, of_disk, of_hub, outlook, settled
from models_admin.hub_pages import Pages
from models_admin.hub_variants import DEFAULT_PREFERENCE, choose, siblings, stem, with_quantization
from models_admin.row import Row

_INFO_S, _CONFIG_S, _CARD_S, _SEARCH_S = 60.0, 3600.0, 600.0, 60.0
"""How long answers are kept. Files of a commit do not change."""

_SUMMARIES = 1000
_MOST_SIBLINGS = 100
_FITTING = ("fits", "fits_after_unloading", "unknown")
_MLX_MAKER = "mlx-community"


class _Catalog(Protocol):
    def resolve_exactly(self, name: str) -> ModelRef: ...

    def resolve(self, name: str) -> ModelRef: ...

    def all(self) -> list[ModelRef]: ...

    def rows_of(self, repo: str) -> list[Row]: ...


class _MemoryJudge(Protocol):
    def __call__(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit: ...


class HubFinder:
    """``models`` is where downloads go; ``preference`` are quantizations, the preferred first; ``judge`` the
    engine's.
    """

    def __init__(
        self,
        client: HubClient,
        catalog: _Catalog,
        models: Path,
        *,
        judge: _MemoryJudge,
        preference: Sequence[str] = DEFAULT_PREFERENCE,
        keep_free: int = KEEP_FREE_BYTES,
    ) -> None:
        self._client, self._catalog, self._models = client, catalog, models
        self._judge, self._preference, self._keep_free = judge, tuple(preference), keep_free
        self._summaries: OrderedDict[str, HubModel] = OrderedDict()
        self._pages = Pages(self._ask_page)

    async def stop(self) -> None:
        await self._client.stop()

    # -------------------------------------------------------------------------------------------------- searching

    async def search(self, query: Query) -> Found:
        """See ``inference.finding.Finder``."""
        found = await self._pages.page(query)
        here = self._revisions_here()
        models = (replace(model, here=tuple(here.get(model.model_id.lower(), ()))) for model in found.models)
        return replace(found, models=tuple(models))

    def _revisions_here(self) -> dict[str, list[str]]:
        """Revisions on this machine by repository in lower case, in one pass: there may be thousands."""
        found: dict[str, list[str]] = {}
        for ref in self._catalog.all():
            if ref.disk_state not in ("absent", "offline"):
                found.setdefault(ref.id.partition("@")[0].lower(), []).append(ref.revision or "local")
        return found

    async def _ask_page(self, params: dict[str, Any]) -> tuple[list[HubModel], str]:
        answer = await self._client.ask("search", params, keep_s=_SEARCH_S)
        models = [_model(told) for told in answer["models"]]
        for model in models:
            self._remember(model)
        return models, answer["cursor"]

    def _remember(self, model: HubModel) -> None:
        self._summaries[model.model_id] = replace(model, tags=())
        self._summaries.move_to_end(model.model_id)
        while len(self._summaries) > _SUMMARIES:
            self._summaries.popitem(last=False)

    def _with_here(self, model: HubModel) -> HubModel:
        rows = self._catalog.rows_of(model.model_id)
        return replace(model, here=tuple(row.found.revision or "local" for row in rows)) if rows else model

    # ------------------------------------------------------------------------------------------------- one model

    async def view(self, model_id: str, revision: str | None = None) -> ModelView:
        """See ``inference.finding.Finder``."""
        wanted = parse_wanted(model_id, revision)
        answer = await self._info(wanted)
        model = self._with_here(_model(answer["model"]))
        files = [HubFile(**file) for file in answer["files"]]
        card, config = await asyncio.gather(self._tried(self._card(model)), self._tried(self._config(model)))
        read, found = self._outlook(model, config, [file.name for file in files])
        variants, why = await self._variants(model, found)
        parts = await asyncio.to_thread(with_parts, self._models, model, files)
        return ModelView(
            model=model,
            verdict=await self._verdict(model, found, None, parts, token=answer["token"], readable=read),
            files=tuple(parts),
            more_files=answer["more"],
            fetched_bytes=answer["fetched_bytes"],
            card=Card(**card) if isinstance(card, dict) else Card(),
            variants=variants,
            chosen=next((variant.model_id for variant in variants if variant.chosen), ""),
            why=why,
            address=f"{endpoint()}/{model.model_id}",
        )

    async def fit(self, model_id: str, context: int | None = None, *, brief: bool = False) -> Verdict:
        """See ``inference.finding.Finder``."""
        if not brief and (ref := self._local(model_id)) is not None:
            size = Size(ref.weight_bytes, ref.kv_bytes_per_token, ref.context_length)
            context = context or ref.settings.context
            return of_disk(ref, self._judge(size, context, ref.id) if ref.weight_bytes else None)
        wanted = parse_wanted(model_id)
        summary = self._summaries.get(wanted.repo) if brief and wanted.revision == "main" else None
        if summary is not None and summary.weight_bytes:
            return await self._brief(self._with_here(summary), context)
        answer = await self._info(wanted)
        model = self._with_here(_model(answer["model"]))
        files = [HubFile(**file) for file in answer["files"]]
        read, found = self._outlook(model, await self._tried(self._config(model)), [file.name for file in files])
        parts = await asyncio.to_thread(with_parts, self._models, model, files)
        return await self._verdict(model, found, context, parts, token=answer["token"], readable=read)

    async def _brief(self, summary: HubModel, context: int | None) -> Verdict:
        """From what a search told, and the config that the size of the KV cache is in."""
        config = await self._tried(self._config(summary)) if summary.format in ("mlx", "safetensors") else None
        read, found = self._outlook(summary, config, ())
        return await self._verdict(summary, found, context, None, token=False, readable=read)

    def _local(self, model_id: str) -> ModelRef | None:
        """A model of the catalog; None for what can only be one of the Hub. Raises ``ModelNotFound`` for what is
        neither.
        """
        try:
            return self._catalog.resolve_exactly(model_id)
        except ModelNotFound:
            if is_repo(model_id.strip().partition("@")[0]) or "://" in model_id:
                return None
            return self._catalog.resolve(model_id)

    async def _info(self, wanted: Wanted) -> dict[str, Any]:
        revision = "" if wanted.revision == "main" else wanted.revision
        return await self._client.ask("info", {"repo": wanted.repo, "revision": revision}, keep_s=_INFO_S)

    async def _config(self, model: HubModel) -> dict[str, Any]:
        if model.format not in ("mlx", "safetensors"):
            return {"config": None}
        params = {"repo": model.model_id, "revision": model.revision or "main"}
        return await self._client.ask("config", params, keep_s=_CONFIG_S if model.revision else _INFO_S)

    async def _card(self, model: HubModel) -> dict[str, Any]:
        params = {"repo": model.model_id, "revision": model.revision or "main"}
        return await self._client.ask("card", params, keep_s=_CARD_S)

    async def _tried(self, question: Any) -> Any:
        """The answer, or the refusal if it is one that says something of the model."""
        try:
            return await question
        except LmxError as error:
            if error.code in ("hub_unreachable", "rate_limit_exceeded"):
                raise
            return error

    def _outlook(self, model: HubModel, config: Any, names: Sequence[str]) -> tuple[bool | None, Outlook]:
        """Whether its files can be read (None: not tried), and what it would be."""
        if isinstance(config, BaseException):
            if not isinstance(config, LmxError):
                raise config
            missing = config.code == "file_not_found"
            found = outlook(model, None, names)
            if missing and not found.problem:
                found = replace(found, problem="it has no config.json, so nothing says what model it is")
            return (False if config.code in ("model_gated", "model_not_found") else None), found
        if config is None or config["config"] is None:
            return None, outlook(model, None, names)
        return True, outlook(model, config["config"], names)

    # ------------------------------------------------------------------------------------------------- the verdict

    async def _verdict(
        self,
        model: HubModel,
        found: Outlook,
        context: int | None,
        files: Sequence[HubFile] | None,
        *,
        token: bool,
        readable: bool | None,
    ) -> Verdict:
        memory = self._judge(found.size, context) if found.size.weight_bytes and not found.problem else None
        rows = self._catalog.rows_of(model.model_id)
        here = any(row.found.revision == model.revision for row in rows)
        disk = None
        if not here:
            size = model.weight_bytes if files is None else sum(file.size for file in files if file.fetched)
            have = sum(file.part for file in files or ())
            disk = await asyncio.to_thread(room_for, self._models, size, have, self._keep_free)
        verdict = of_hub(model, found, memory, disk, token=token, readable=readable)
        return self._beside(verdict, rows) if rows else verdict

    def _beside(self, verdict: Verdict, rows: Sequence[Row]) -> Verdict:
        """The verdict with what is here of that repository."""
        ids = {ref.path: ref.id for ref in self._catalog.all()}
        here = []
        for row in rows:
            revision = row.found.revision
            current = None if not revision or not verdict.revision else revision == verdict.revision
            name = ids.get(row.found.path, verdict.model_id)
            here.append(Here(name, str(row.found.path), revision, row.disk_state, current))
        newer = verdict.revision if here and all(one.current is False for one in here) else ""
        return settled(replace(verdict, here=tuple(here), newer=newer))

    # -------------------------------------------------------------------------------------------------- variants

    async def choose(self, repo: str, quantization: str | None = None) -> str:
        """What to fetch for ``repo``, whose name has no quantization: itself if there is such a model, else a variant.

        With ``quantization`` that variant by the same author, else the first preferred that fits this machine. Raises
        ``ModelNotFound`` where there is none of the quantization asked for; what else goes wrong is left for the
        download to tell.
        """
        try:
            own = _model((await self._info(Wanted(repo)))["model"])
            if quantization is None or with_quantization({repo: own.quantization}, quantization):
                return repo
        except ModelNotFound:
            pass
        except LmxError:
            return repo
        found = {model.model_id: model for model in await self._siblings(repo, repo.partition("/")[0])}
        named = {name: model.quantization for name, model in found.items()}
        if quantization is None:
            return choose(named, self._preference, self._fitting(found, None)).model_id or repo
        chosen = with_quantization(named, quantization)
        if not chosen:
            known = f": there are {', '.join(sorted(named))}" if named else ""
            raise ModelNotFound(f"There is no {quantization[:40]} of {repo} at the Hub{known}.", param="quantization")
        return chosen

    async def _siblings(self, repo: str, author: str) -> list[HubModel]:
        """The same model in other quantizations by that author, those that can be fetched."""
        name = stem(repo).rpartition("/")[2]
        params = {"text": name, "author": author, "filters": [], "sort": "downloads", "limit": _MOST_SIBLINGS}
        found, _ = await self._ask_page(params | {"cursor": ""})
        alike = set(siblings(f"{author}/{name}", (model.model_id for model in found)))
        return [model for model in found if model.model_id in alike and model.format in ("mlx", "safetensors")]

    async def _variants(self, model: HubModel, found: Outlook) -> tuple[tuple[Variant, ...], str]:
        """The variants with a verdict each, by the KV size of ``model``; none where there is only itself."""
        models = {model.model_id: model}
        for author in dict.fromkeys([model.author, *([_MLX_MAKER] if model.format != "mlx" else [])]):
            try:
                others = await self._siblings(model.model_id, author)
            except LmxError:  # what else there is, is not worth losing the page for
                continue
            models |= {other.model_id: other for other in others if other.model_id != model.model_id}
        if len(models) < 2:
            return (), ""
        usable = {name: one for name, one in models.items() if one.format in ("mlx", "safetensors")}
        fitting = self._fitting(usable, found)
        choice = choose({name: one.quantization for name, one in usable.items()}, self._preference, fitting)
        variants = [self._variant(one, found, chosen=name == choice.model_id) for name, one in models.items()]
        variants.sort(key=lambda variant: (variant.weight_bytes or 1 << 62, variant.model_id))
        return tuple(variants), choice.why

    def _variant(self, model: HubModel, found: Outlook, *, chosen: bool) -> Variant:
        verdict = self._light(model, found)
        here = bool(self._catalog.rows_of(model.model_id))
        return Variant(
            model.model_id, model.quantization, model.weight_bytes, verdict.verdict, verdict.sentence, here, chosen
        )

    def _light(self, model: HubModel, found: Outlook | None) -> Verdict:
        """The verdict of a sibling, without asking for its files."""
        own = outlook(model, None)
        if found is not None and not own.problem:
            own = replace(found, size=replace(found.size, weight_bytes=model.weight_bytes))
        memory = self._judge(own.size) if own.size.weight_bytes and not own.problem else None
        return of_hub(model, own, memory, None, token=False, readable=None)

    def _fitting(self, models: Mapping[str, HubModel], found: Outlook | None) -> dict[str, bool]:
        """Which of them fit with a usual context; where none does, which fit with less."""
        words = {name: self._light(model, found).verdict for name, model in models.items()}
        whole = {name: word in _FITTING for name, word in words.items()}
        return (
            whole if any(whole.values()) else {name: word == "fits_with_less_context" for name, word in words.items()}
        )


def _model(told: Mapping[str, Any]) -> HubModel:
    try:
        return msgspec.convert(told, HubModel)
    except msgspec.ValidationError as error:
        raise ModelUnavailable(f"The Hub's answer cannot be read: {error}", code="hub_error") from error
