"""Going on from a stored response, references, input items, fetching, deleting; whose is whose."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseItemList

from lmx_site import access
from tests.api.fake_engine import FakeEngine, Script, finished, hello, started, text, thought, tool
from tests.conformance.strict import check
from tests.responses.conftest import EXACTLY, RESPONSES, ResponsesApi

CALL: Script = [
    [started(), thought("hm")],
    [text("Wait."), tool(0, id="call_a", name="weather", arguments="{}"), finished("tool_calls")],
]
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]


async def test_a_conversation_goes_on(api: ResponsesApi, engine: FakeEngine) -> None:
    first = await api.create("One", instructions="Be brief.")
    second = await api.create("Two", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    await api.create("Three", previous_response_id=second["id"], instructions="Be long.")
    assert engine.requests[-1].messages == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Two"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Three"},
    ]


async def test_a_tool_is_called_and_answered(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append(CALL)
    first = await api.create("Weather?", tools=TOOLS)
    output = {"type": "function_call_output", "call_id": "call_a", "output": [{"type": "input_text", "text": "rain"}]}
    await api.create([output], previous_response_id=first["id"], tools=TOOLS)
    assert engine.requests[-1].messages == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": "rain"},
    ]


async def test_items_handed_back_by_hand_are_the_same(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts += [CALL, hello(), hello()]
    first = await api.create("Weather?", tools=TOOLS, store=False)
    history = [{"role": "user", "content": "Weather?"}, *first["output"]]
    history.append({"type": "function_call_output", "call_id": "call_a", "output": "rain"})
    await api.create(history, tools=TOOLS)
    by_hand = engine.requests[-1].messages
    engine.scripts.insert(0, CALL)
    again = await api.create("Weather?", tools=TOOLS)
    await api.create(history[-1:], previous_response_id=again["id"], tools=TOOLS)
    assert engine.requests[-1].messages == by_hand


async def test_an_output_without_its_call_is_refused(api: ResponsesApi) -> None:
    status, error = await api.refused([{"type": "function_call_output", "call_id": "call_x", "output": "rain"}])
    assert (status, error["param"]) == (400, "input")
    assert "call_x" in error["message"]


async def test_references_to_stored_items(api: ResponsesApi, engine: FakeEngine) -> None:
    first = await api.create("One")
    item = first["output"][0]["id"]
    await api.create([{"type": "item_reference", "id": item}, {"id": item}, {"role": "user", "content": "Two"}])
    messages = engine.requests[-1].messages
    assert messages is not None
    assert [message["content"] for message in messages] == ["Hello", "Hello", "Two"]
    for wrong in (item[:-1] + "7", "msg_nobody", "x" * 100):
        status, error = await api.refused([{"type": "item_reference", "id": wrong}])
        assert (status, error["code"]) == (404, "item_not_found")


async def test_fetch_and_delete(api: ResponsesApi) -> None:
    made = await api.create()
    assert await api.fetch(made["id"]) == made
    status, _, content = await api.send("DELETE", f"{RESPONSES}/{made['id']}")
    assert (status, content) == (200, b'{"id":"%s","object":"response","deleted":true}' % made["id"].encode())
    for method in ("GET", "DELETE"):
        status, _, content = await api.send(method, f"{RESPONSES}/{made['id']}")
        assert (status, b"response_not_found" in content) == (404, True)
    status, error = await api.refused(previous_response_id=made["id"])
    assert (status, error["code"], error["param"]) == (400, "previous_response_not_found", "previous_response_id")


async def test_a_streamed_response_is_stored_too(api: ResponsesApi) -> None:
    last = (await api.events())[-1]["response"]
    assert await api.fetch(last["id"]) == last


async def test_what_is_not_to_be_stored_is_not(api: ResponsesApi) -> None:
    made = await api.create(store=False)
    assert (await api.get(f"{RESPONSES}/{made['id']}"))[0] == 404


async def test_only_a_whole_chain_can_be_gone_on_from(api: ResponsesApi) -> None:
    first = await api.create("One")
    second = await api.create("Two", previous_response_id=first["id"])
    await api.send("DELETE", f"{RESPONSES}/{first['id']}")
    assert await api.fetch(second["id"]) == second
    status, error = await api.refused(previous_response_id=second["id"])
    assert (status, error["code"]) == (400, "previous_response_not_found")


async def test_input_items(api: ResponsesApi) -> None:
    items: list[Any] = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"type": "reasoning", "id": "rs_given", "summary": [], "content": [{"type": "reasoning_text", "text": "d"}]},
        {"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_a", "output": "e"},
    ]
    made = await api.create(items)
    path = f"{RESPONSES}/{made['id']}/input_items"
    whole = await listed(api, path + "?order=asc")
    assert [item["type"] for item in whole["data"]] == ["message"] * 3 + [
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert whole["data"][3]["id"] == "rs_given"
    ids = [item["id"] for item in whole["data"]]
    assert (whole["first_id"], whole["last_id"], whole["has_more"]) == (ids[0], ids[-1], False)
    assert [item["id"] for item in (await listed(api, path))["data"]] == ids[::-1]
    page = await listed(api, f"{path}?order=asc&limit=2&after={ids[1]}")
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (ids[2:4], True)
    for wrong in ("limit=0", "limit=101", "limit=x", "order=up", "after=nobody"):
        status, body = await api.get(f"{path}?{wrong}")
        assert (status, body["error"]["param"]) == (400, wrong.split("=")[0])
    assert (await api.get(f"{RESPONSES}/resp_nobody/input_items"))[0] == 404


async def listed(api: ResponsesApi, path: str) -> dict[str, Any]:
    status, body = await api.get(path)
    assert status == 200, body
    check(body, ResponseItemList, EXACTLY)
    return dict(body)


async def test_no_client_reads_what_is_anothers(api: ResponsesApi) -> None:
    access.set_keys(access.Keys.of("api", "admin", trust_lan=False))
    ours, theirs = {"authorization": "Bearer api"}, {"authorization": "Bearer admin"}
    _, _, content = await api.send("POST", RESPONSES, {"input": "Hi"}, headers=ours)
    response_id = content.split(b'"id":"')[1].split(b'"')[0].decode()
    for path in (f"{RESPONSES}/{response_id}", f"{RESPONSES}/{response_id}/input_items"):
        assert (await api.send("GET", path, headers=ours))[0] == 200
        assert (await api.send("GET", path, headers=theirs))[0] == 404
    assert (await api.send("DELETE", f"{RESPONSES}/{response_id}", headers=theirs))[0] == 404
    going_on = {"input": "Hi", "previous_response_id": response_id}
    assert (await api.send("POST", RESPONSES, going_on, headers=theirs))[0] == 400
    assert (await api.send("POST", RESPONSES, going_on, headers=ours))[0] == 200


async def test_without_keys_all_clients_of_this_machine_share(api: ResponsesApi) -> None:
    made = await api.create()
    path = f"{RESPONSES}/{made['id']}"
    assert (await api.send("GET", path, headers={"authorization": "Bearer bot-9"}))[0] == 200


@pytest.mark.parametrize("wrong", ["../x", "resp_", "%00", "a" * 5000])
async def test_strange_ids_are_not_found(api: ResponsesApi, wrong: str) -> None:
    assert (await api.send("GET", f"{RESPONSES}/{wrong}"))[0] == 404
