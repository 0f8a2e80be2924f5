"""Chat messages as OpenAI clients send them, made into what a chat template can read. Pure; raises InvalidRequest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference.errors import InvalidRequest

ROLES = ("system", "developer", "user", "assistant", "tool")
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_TEXT_PARTS = ("text", "input_text", "output_text")

Message = dict[str, Any]


def normalise(
    messages: Sequence[Mapping[str, Any]], *, arguments_as_text: bool, developer: bool, short_ids: bool = False
) -> list[Message]:
    """Every message with a known role and its content as one text; what was wrong is named by its place.

    ``arguments_as_text`` leaves the arguments of tool calls as JSON text, else they become a mapping. Without
    ``developer`` that role is written ``system``. With ``short_ids`` the ids of calls are nine letters and digits, as
    Mistral's templates demand. The system messages at the beginning become one, as most templates
    allow no second.
    """
    if not messages:
        raise InvalidRequest("messages must not be empty", param="messages")
    names: dict[str, str] = {}
    made: list[Message] = []
    for index, message in enumerate(messages):
        clean = _message(message, f"messages[{index}]", names, arguments_as_text)
        if clean["role"] == "developer" and not developer:
            clean["role"] = "system"
        if short_ids:
            _shorten_ids(clean)
        made.append(clean)
    return _merge_leading_system(made)


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates that know no system message: its text goes before the next user message's own."""
    made: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            made.append(message | {"content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            made.append(message)
    if waiting:
        made.append({"role": "user", "content": "\n\n".join(waiting)})
    return made


def fold_late_system(messages: Sequence[Message]) -> list[Message]:
    """For templates that know a system message only at the beginning."""
    first = [messages[0]] if messages[0]["role"] in ("system", "developer") else []
    return [*first, *fold_system(messages[len(first) :])]


def spell_out(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """For templates that know no tools: they, earlier calls and their results become text, as Hermes writes them."""
    made: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            _add_result(made, f"<tool_response>\n{message['content']}\n</tool_response>")
        elif message.get("tool_calls"):
            calls = [_spelled_call(call["function"]) for call in message["tool_calls"]]
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            made.append(rest | {"content": "\n".join(filter(None, [message["content"], *calls]))})
        else:
            made.append(message)
    if not tools:
        return made
    text = _TOLD.format(tools="\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools))
    if made[0]["role"] in ("system", "developer"):
        return [made[0] | {"content": f"{made[0]['content']}\n\n{text}".lstrip()}, *made[1:]]
    return [{"role": "system", "content": text}, *made]


_TOLD = """You can call these functions, each described by a JSON object:
<tools>
{tools}
</tools>
To call one, write its name and its arguments like this, and nothing after it:
<tool_call>
{{"name": "the name", "arguments": {{"the parameter": "the value"}}}}
</tool_call>"""


def _add_result(made: list[Message], text: str) -> None:
    """Results are the user's, and those of one answer one message, because most templates want turns to alternate."""
    if made and made[-1].get("role") == "user" and made[-1]["content"].endswith("</tool_response>"):
        made[-1] = made[-1] | {"content": f"{made[-1]['content']}\n{text}"}
    else:
        made.append({"role": "user", "content": text})


def _spelled_call(function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], "arguments": _arguments_mapping(function["arguments"])}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _message(message: Mapping[str, Any], place: str, names: dict[str, str], arguments_as_text: bool) -> Message:
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRequest(f"{place}.role is {role!r}; it must be one of {', '.join(ROLES)}", param=f"{place}.role")
    clean: Message = {
        "role": role,
        "content": _text(message.get("content"), role, place),
    }
    if message.get("name"):
        clean["name"] = message["name"]
    if role == "assistant":
        _copy_reasoning(message, clean)
        if message.get("tool_calls"):
            clean["tool_calls"] = _tool_calls(message["tool_calls"], place, names, arguments_as_text)
    elif role == "tool":
        _tool_result(message, clean, names)
    return clean


def _text(content: Any, role: str, place: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        if role in ("assistant", "tool"):  # clients send back what they got, also an answer that was reasoning only
            return ""
        raise InvalidRequest(f"{place}.content must not be null for the role {role}", param=f"{place}.content")
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{place}.content must be a text or a list of parts", param=f"{place}.content")
    return "\n".join(_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    text: Any = None
    if isinstance(part, Mapping) and kind in _TEXT_PARTS:
        text = part.get("text")
    elif isinstance(part, Mapping) and kind == "refusal":
        text = part.get("refusal")
    elif isinstance(kind, str):
        raise InvalidRequest(f"{place} has type {kind!r}, but this model reads text only", param=place)
    if not isinstance(text, str):
        raise InvalidRequest(f"{place} must be a part with a type and a text", param=place)
    return text


def _copy_reasoning(message: Mapping[str, Any], clean: Message) -> None:
    """Templates that show earlier reasoning read it under one of these two names."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        clean["reasoning_content"] = clean["thinking"] = reasoning


def _tool_calls(calls: Any, place: str, names: dict[str, str], arguments_as_text: bool) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidRequest(f"{place}.tool_calls must be a list", param=f"{place}.tool_calls")
    made = []
    for index, call in enumerate(calls):
        where = f"{place}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest(f"{where} must have a function with a name", param=where)
        convert: Callable[[Any], Any] = _arguments_text if arguments_as_text else _arguments_mapping
        identity = str(call.get("id") or "")
        names[identity] = function["name"]
        made.append(
            {
                "id": identity,
                "type": "function",
                "function": {"name": function["name"], "arguments": convert(function.get("arguments"))},
            }
        )
    return made


def _arguments_mapping(arguments: Any) -> Any:
    """A mapping wherever the text is one; a model's broken JSON stays as it was, for the template to show."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def _arguments_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments or "{}"
    return json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def _tool_result(message: Mapping[str, Any], clean: Message, names: Mapping[str, str]) -> None:
    """Some templates name the tool in its result, which OpenAI's format leaves to the call's id."""
    identity = message.get("tool_call_id")
    if isinstance(identity, str):
        clean["tool_call_id"] = identity
        if "name" not in clean and names.get(identity):
            clean["name"] = names[identity]


def _shorten_ids(message: Message) -> None:
    """The same id for the same call, whatever the client's ids look like."""
    for call in message.get("tool_calls", ()):
        call["id"] = _short_id(call["id"])
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])


def _short_id(identity: str) -> str:
    if _SHORT_ID.fullmatch(identity):
        return identity
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _merge_leading_system(messages: list[Message]) -> list[Message]:
    count = 0
    while count < len(messages) and messages[count]["role"] in ("system", "developer"):
        count += 1
    if count < 2:
        return messages
    text = "\n\n".join(message["content"] for message in messages[:count])
    return [messages[0] | {"content": text}, *messages[count:]]
