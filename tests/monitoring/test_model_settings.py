"""The form of a model's settings over a real catalog: what it shows, what it changes, what it refuses."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient

from inference.api import deps
from models_admin.catalog import DiskCatalog
from models_admin.settings import SettingsBook
from models_admin.settings_shelf import SettingsShelf
from tests.material import encoder_model, nano_model, place
from tests.monitoring.fakes import FakeEngine
from tests.monitoring.test_views import HTMX
from tests.monitoring.test_views import client as client
from tests.monitoring.test_views import engine as engine

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/models/settings"
ONE = "org/one"


@pytest.fixture
async def book(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[SettingsBook]:
    place(nano_model(), tmp_path / "models" / ONE)
    place(nano_model(), tmp_path / "models" / "org" / "<b>two")
    place(encoder_model(), tmp_path / "models" / "vectors")
    shelf = SettingsShelf({ONE: {"top_k": 7, "system_prompt": "<i>Be kind."}})
    catalog = DiskCatalog([tmp_path / "models"], settings=shelf)
    await catalog.refresh()
    book = SettingsBook(catalog)
    deps.configure(catalog=catalog, settings=book)
    yield book
    deps.configure()
    catalog.close()


async def shown(client: AsyncClient, model: str = ONE) -> str:
    response = await client.get(URL, {"model_id": model})
    assert response.status_code == 200
    return str(response.content.decode())


def fields(page: str) -> dict[str, str]:
    """What a browser would send of the form as it is."""
    form = page.partition('hx-post="/models/settings"')[2]
    found = dict(re.findall(r'<input type="(?:text|hidden)"(?: id="[^"]*")? name="(\w+)" value="([^"]*)"', form))
    found |= dict(re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL))
    for name, options in re.findall(r'<select [^>]*name="(\w+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.findall(r'<option value="([^"]*)" selected', options)
        found[name] = chosen[0] if chosen else ""
    return {name: html.unescape(value).replace("\n", "\r\n") for name, value in found.items()}


async def save(client: AsyncClient, entered: dict[str, str], **headers: str) -> Any:
    return await client.post(URL, entered, headers=headers)


async def test_what_is_not_touched_is_not_changed(client: AsyncClient, book: SettingsBook) -> None:
    everything = {
        "aliases": ["a", "b"],
        "pinned": False,
        "context": 64,
        "ttl": "never",
        "temperature": 0.5,
        "seed": -3,
        "stop": ["x", " y ", "a\nb", "back\\slash", "\\n"],
        "system_prompt": '\nOne.\n\n  <two> "three"\n',
        "chat_template_kwargs": {"a": ["é", 1.5, None]},
        "tool_parser": "hermes",
        "enable_thinking": True,
    }
    await book.change(ONE, everything)
    entered = fields(await shown(client))
    assert set(entered) >= set(everything) | {"model_id", "was", "top_p"}
    response = await save(client, entered)
    assert (response.status_code, response["Location"]) == (302, f"{URL}?model_id=org%2Fone&saved=1")
    assert book.show(ONE).stored == everything
    # As if it had been made when nothing was set: all of it is read from the form.
    for name in everything:
        await book.change(ONE, {name: None})
    empty = fields(await shown(client))["was"]
    await save(client, {**entered, "was": empty})
    assert book.show(ONE).stored == everything


async def test_it_shows_what_holds_and_where_from(client: AsyncClient, book: SettingsBook) -> None:
    page = await shown(client)
    assert 'placeholder="7"' in page
    assert "Set in config.yaml." in page
    assert "&lt;i&gt;Be kind." in page
    assert "<i>Be" not in page
    assert "<b>two" not in await shown(client, "org/<b>two")
    assert 'name="temperature"' not in await shown(client, "vectors")


async def test_setting_and_putting_back(client: AsyncClient, book: SettingsBook) -> None:
    entered = fields(await shown(client)) | {"temperature": " 0.25 ", "aliases": "x\r\n\r\n y \r\n", "pinned": "yes"}
    page = (await save(client, entered, **HTMX)).content.decode()
    assert page.lstrip().startswith('<section class="settings" id="model-settings"')
    assert "Saved, and in force." in page
    assert book.show(ONE).stored == {"temperature": 0.25, "aliases": ["x", "y"], "pinned": True}
    entered = fields(page) | {"temperature": "", "aliases": "", "pinned": ""}
    await save(client, entered, **HTMX)
    assert book.show(ONE).stored == {}


async def test_what_somebody_else_set_meanwhile_stays(client: AsyncClient, book: SettingsBook) -> None:
    entered = fields(await shown(client))
    await book.change(ONE, {"slots": 3, "temperature": 1.5})
    await save(client, entered | {"temperature": "0.5"})
    assert book.show(ONE).stored == {"slots": 3, "temperature": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("temperature", "hot", "Temperature must be a number, from 0 to 2."),
        ("temperature", "nan", "Temperature must be a number"),
        ("context", "9" * 5000, "Context must be a whole number"),
        ("context", "1.5", "Context must be a whole number"),
        ("pinned", "maybe", "Pinned must be true or false."),
        ("ttl", "soon", "or never."),
        ("aliases", "default", "the default model"),
        ("aliases", "vectors", "is the name of vectors"),
        ("stop", "\n".join("x" * n for n in range(1, 20)), "at most 16 texts"),
        ("chat_template_kwargs", "[" * 100_000, "must be an object"),
        ("tool_parser", "<b>", "must be one of auto"),
    ],
)
async def test_a_mistake_is_told_beside_its_field_and_nothing_is_saved(
    client: AsyncClient, book: SettingsBook, name: str, text: str, why: str
) -> None:
    entered = fields(await shown(client)) | {"slots": "5", name: text}
    response = await save(client, entered)
    page = html.unescape(response.content.decode())
    assert response.status_code == 400
    assert why in page.partition(f'id="about-{name}"')[2].partition("</p>")[0]
    assert 'aria-invalid="true"' in page
    if name not in ("pinned", "tool_parser"):
        assert text[:50] in page
    assert 'value="5"' in page
    assert book.show(ONE).stored == {}
    fragment = await save(client, entered, **HTMX)
    assert fragment.status_code == 200
    assert "Nothing was saved" in fragment.content.decode()


async def test_a_model_that_is_loaded_otherwise(client: AsyncClient, book: SettingsBook, engine: FakeEngine) -> None:
    engine.make_ready(ONE)
    assert "Load it again now" not in await shown(client)
    engine.statuses[ONE].reload_needed = True
    assert "Load it again now" in await shown(client)


@pytest.mark.parametrize("was", ["", "{", "[]", "5", '{"stop": 5, "temperature": "x", "chat_template_kwargs": 1}'])
async def test_what_is_no_form_of_ours_does_no_harm(client: AsyncClient, book: SettingsBook, was: str) -> None:
    response = await save(client, {"model_id": ONE, "was": was, "nonsense": "x", "slots": "2"})
    assert response.status_code == 302
    assert book.show(ONE).stored == {"slots": 2}


async def test_who_may_and_for_which_models(client: AsyncClient, book: SettingsBook) -> None:
    for query, status in (({}, 400), ({"model_id": "x" * 513}, 400), ({"model_id": "nobody"}, 404)):
        assert (await client.get(URL, query)).status_code == status
    assert (await client.put(URL)).status_code == 405
    strict = AsyncClient(enforce_csrf_checks=True)
    assert (await strict.post(URL, {"model_id": ONE, "slots": "2"})).status_code == 403
    deps.configure()
    assert (await client.get(URL, {"model_id": ONE})).status_code == 503
