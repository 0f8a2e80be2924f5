"""The pages at /inventory/: they show everything and change nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from models_admin.models import Job, ModelFile, ModelRecord
from models_admin.store import save_rows
from tests.material.many import many_rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def record() -> ModelRecord:
    now = datetime.now(UTC)
    record = ModelRecord.objects.create(
        path="/m/org/name", root="/m", source="local", repo="org/name", weight_bytes=2048, disk_state="corrupt",
        problem="cut off <b>", created_at=now, first_seen=now, last_seen=now,
    )  # fmt: skip
    ModelFile.objects.create(model=record, name="model.safetensors", size=2048, sha256_expected="ab" * 32)
    Job.objects.create(kind="demo", subject="org/name", state="running", done=5, total=10, unit="tensors")
    return record


@pytest.fixture
def owner(rf: RequestFactory) -> HttpRequest:
    request = rf.get("/inventory/")
    request.user = get_user_model().objects.create_superuser("owner-of-the-test")
    return request


@pytest.mark.parametrize("model", [ModelRecord, ModelFile, Job])
def test_lists_and_details_render(model: type[Model], record: ModelRecord, owner: HttpRequest) -> None:
    admin: ModelAdmin[Any] = site.get_model_admin(model)
    first = model._default_manager.get()
    for response in (admin.changelist_view(owner), admin.change_view(owner, str(first.pk))):
        assert isinstance(response, TemplateResponse)
        page = response.render().content.decode()
        assert response.status_code == 200
        assert 'name="_save"' not in page
    assert not admin.has_add_permission(owner)
    assert not admin.has_delete_permission(owner)


def test_search_and_filters(record: ModelRecord, rf: RequestFactory, owner: HttpRequest) -> None:
    admin = site.get_model_admin(ModelRecord)
    for query, hits in (("q=name", 1), ("q=nothing", 0), ("disk_state__exact=corrupt", 1), ("source__exact=demo", 0)):
        request = rf.get(f"/inventory/?{query}")
        request.user = owner.user
        assert admin.get_changelist_instance(request).result_count == hits
    response = admin.changelist_view(owner)
    assert isinstance(response, TemplateResponse)
    page = response.render().content.decode()
    assert "cut off &lt;b&gt;" in page


@pytest.mark.parametrize("query", ["", "q=model-00042", "disk_state__exact=corrupt", "o=-5", "p=30"])
def test_lists_ask_no_more_of_two_thousand_than_of_twenty(rf: RequestFactory, owner: HttpRequest, query: str) -> None:
    asked = list[int]()
    for number in (20, 2000):
        save_rows(many_rows(number, Path("/many")), [])
        count = 0
        for model in (ModelRecord, ModelFile, Job):
            request = rf.get(f"/inventory/?{query}" if model is ModelRecord else "/inventory/")
            request.user = owner.user
            with CaptureQueriesContext(connection) as caught:
                response = site.get_model_admin(model).changelist_view(request)
                if isinstance(response, TemplateResponse):
                    assert len(response.render().content) < 500_000
            count += len(caught)
            assert sum("COUNT(*)" in one["sql"] for one in caught) <= 1
        asked.append(count)
    assert asked[0] == asked[1]


def test_facts_are_shown(record: ModelRecord, owner: HttpRequest) -> None:
    ModelRecord.objects.update(
        licence="apache-2.0", parameters=123456, capabilities=["chat"], template_sha256="ab" * 32
    )
    page = site.get_model_admin(ModelRecord).change_view(owner, str(record.pk))
    assert isinstance(page, TemplateResponse)
    text = page.render().content.decode()
    for shown in ("apache-2.0", "123456", "chat", "ab" * 32, "model.safetensors"):
        assert shown in text
