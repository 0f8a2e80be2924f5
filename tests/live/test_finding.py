"""Finding models over the API and the command line of a real server, with a Hub on this machine."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import psutil
import pytest
from click.testing import CliRunner, Result

from lmx_site.cli import main
from tests.live.process import MODEL, LiveServer
from tests.material.hub import COMMIT, Hub
from tests.models_admin.hub_site import repo
from tests.models_admin.site import ask

pytestmark = pytest.mark.live

GROWTH_BYTES = 8_000_000
"""What asking the Hub may cost the web process: its library alone would be three times that."""


@pytest.fixture
def hub(hub: Hub) -> Hub:
    hub.repos = {"acme/nano-4bit": repo(4), "acme/nano-8bit": repo(8, downloads=50)}
    return hub


def lmx(server: LiveServer, *words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"LMX_URL": server.url, "LMX_KEY": None})


def test_over_the_api(start_server: Callable[..., LiveServer], hub: Hub) -> None:
    server = start_server(LMX_MODELS__QUANTIZATION_PREFERENCE="8bit,4bit")
    web = psutil.Process(server.pid)
    ask(server, "/admin/models/list")
    before = web.memory_info().rss
    status, found = ask(server, "/admin/hub/search?" + urlencode({"q": "nano", "limit": 1}))
    assert (status, [model["model_id"] for model in found["models"]]) == (200, ["acme/nano-4bit"])
    status, found = ask(server, "/admin/hub/search?" + urlencode({"q": "nano", "cursor": found["cursor"]}))
    assert [model["model_id"] for model in found["models"]] == ["acme/nano-8bit"]
    status, view = ask(server, "/admin/hub/model?model_id=acme/nano-4bit")
    assert (status, view["model"]["revision"], view["verdict"]["verdict"]) == (200, COMMIT, "fits")
    assert (view["chosen"], len(view["variants"])) == ("acme/nano-8bit", 2)
    status, fit = ask(server, "/admin/model/fit", {"model_id": "acme/nano-4bit", "context": 1024})
    assert (status, fit["source"], fit["memory"]["context"], fit["disk"]["fits"]) == (200, "hub", 1024, True)
    status, fit = ask(server, "/admin/model/fit", {"model_id": MODEL})
    assert (status, fit["source"], fit["verdict"]) == (200, "disk", "fits")

    assert web.memory_info().rss - before < GROWTH_BYTES
    assert sum("hub_worker" in " ".join(child.cmdline()) for child in web.children()) == 1

    status, body = ask(server, "/admin/model/download", {"model_id": "acme/nano", "wait": True})
    assert (status, body["model_id"], body["job"]["state"]) == (200, "acme/nano-8bit", "done")
    status, body = ask(server, "/admin/model/download", {"model_id": "acme/nano", "quantization": "3bit"})
    assert (status, body["error"]["param"]) == (404, "quantization")
    status, body = ask(server, "/admin/model/download", {"model_id": "acme/nano", "quantization": "4bit", "wait": True})
    assert (status, body["model_id"]) == (200, "acme/nano-4bit")
    assert ask(server, "/admin/hub/search?q=8bit")[1]["models"][0]["here"] == [COMMIT]

    told = [(one["action"], one["subject"]) for one in ask(server, "/admin/audit")[1]["entries"]]
    assert told[:-1] == [("download_model", "acme/nano")] * 3  # asking whether something fits changes nothing

    for path, status in {
        "/admin/hub/search?limit=0": 400,
        "/admin/hub/search?limit=101": 400,
        "/admin/hub/search?sort=size": 400,
        "/admin/hub/search?cursor=x": 400,
        "/admin/hub/search?q=%00": 400,
        "/admin/hub/model": 400,
        "/admin/hub/model?model_id=../x": 400,
        "/admin/hub/model?model_id=acme/none": 404,
        "/admin/hub/model?model_id=acme/nano-4bit&revision=nope": 404,
    }.items():
        assert ask(server, path)[0] == status, path
    assert ask(server, "/admin/model/fit", {"model_id": "acme/none"})[0] == 404
    assert ask(server, "/admin/model/fit", {"model_id": "nowhere"})[0] == 404
    assert ask(server, "/admin/model/fit", {"model_id": MODEL, "context": 0})[0] == 400

    hub.status, hub.headers = 429, {"Retry-After": "30"}
    status, body = ask(server, "/admin/hub/search?q=other")
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert server.stop() == 0, server.stderr


def test_from_the_command_line(hub: Hub, start_server: Callable[..., LiveServer]) -> None:
    server = start_server()
    found = lmx(server, "search", "nano", "--sort", "likes", "--limit", "1")
    assert found.exit_code == 0, found.output
    assert "acme/nano-4bit" in found.output
    assert "there is more" in found.output
    assert "nothing was found" in lmx(server, "search", "nonesuch").output
    assert "acme/nano-8bit" in lmx(server, "search", "--quantization", "8bit", "--format", "any").output
    said = lmx(server, "fit", "acme/nano-4bit", "--context", "512").output
    assert "Fits with 512 tokens of context" in said
    assert "mlx, llama, 4bit" in said
    assert "to fetch" in said
    assert "Fits with" in lmx(server, "fit", MODEL).output
    refused = lmx(server, "fit", "acme/none")
    assert (refused.exit_code, refused.output.startswith("lmx: There is no model acme/none")) == (1, True)
    hub.status = 503
    away = lmx(server, "search", "other")
    assert (away.exit_code, "answered with status 503" in away.output) == (1, True)
    assert server.stop() == 0
