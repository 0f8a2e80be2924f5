"""Writes calls as each family's models do, for the tests of the machines that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

Calls = list[tuple[str, dict[str, Any]]]


class Spelling(NamedTuple):
    """``parser`` reads what ``write`` writes. ``oracle`` says that vllm-mlx reads all of it too."""

    parser: str
    form: str
    write: Callable[[Calls], str]
    json_inside: bool = True
    oracle: bool = True


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(name: str, arguments: dict[str, Any], key: str = "arguments") -> str:
    return _json({"name": name, key: arguments})


def _each(template: str, between: str = "\n") -> Callable[[Calls], str]:
    """``template`` has NAME, JSON and OBJECT for what stands there."""

    def write(calls: Calls) -> str:
        return between.join(
            template.replace("OBJECT", _object(name, arguments)).replace("NAME", name).replace("JSON", _json(arguments))
            for name, arguments in calls
        )

    return write


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _parameters(call: str, parameter: str, block: str = "CALLS") -> Callable[[Calls], str]:
    """``call`` has NAME and ALL for the parameters, each written as ``parameter`` with KEY and VALUE."""

    def one(name: str, arguments: dict[str, Any]) -> str:
        written = [
            parameter.replace("KIND", "true" if isinstance(value, str) else "false")
            .replace("KEY", key)
            .replace("VALUE", _text(value))
            for key, value in arguments.items()
        ]
        return call.replace("NAME", name).replace("ALL", "".join(written))

    return lambda calls: block.replace("CALLS", "\n".join(one(*call) for call in calls))


def _list(start: str, key: str = "arguments") -> Callable[[Calls], str]:
    return lambda calls: start + "[" + ", ".join(_object(*call, key) for call in calls) + "]"


def _separated(start: str, separator: str) -> Callable[[Calls], str]:
    return lambda calls: start + separator.join(_object(*call, "parameters") for call in calls)


def _numbered(calls: Calls) -> str:
    inner = "".join(
        f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{_json(arguments)}<|tool_call_end|>"
        for index, (name, arguments) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def _deepseek(call: str) -> Callable[[Calls], str]:
    return lambda calls: (
        "<｜tool▁calls▁begin｜>"
        + "\n".join(
            f"<｜tool▁call▁begin｜>{call.replace('NAME', name).replace('JSON', _json(arguments))}<｜tool▁call▁end｜>"
            for name, arguments in calls
        )
        + "<｜tool▁calls▁end｜>"
    )


_TAG = _each("<tool_call>\nOBJECT\n</tool_call>")
_LINES = _parameters(
    "<tool_call>\n<function=NAME>\nALL</function>\n</tool_call>", "<parameter=KEY>\nVALUE\n</parameter>\n"
)
_CLOSE = _parameters("<tool_call><function=NAME>ALL</function></tool_call>", "<parameter=KEY>VALUE</parameter>")
_UNWRAPPED = _parameters("<function=NAME>\nALL</function>", "<parameter=KEY>\nVALUE\n</parameter>\n")
_KEYS = _parameters("<tool_call>NAME\nALL</tool_call>", "<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n")
_FUNCTION = _each("<function=NAME>JSON</function>")
_MINIMAX = _parameters(
    '<invoke name="NAME">\nALL</invoke>',
    '<parameter name="KEY">VALUE</parameter>\n',
    "<minimax:tool_call>\nCALLS\n</minimax:tool_call>",
)
_DSML = _parameters(
    '<｜DSML｜invoke name="NAME">\nALL</｜DSML｜invoke>',
    '<｜DSML｜parameter name="KEY" string="KIND">VALUE</｜DSML｜parameter>\n',
    "<｜DSML｜tool_calls>\nCALLS\n</｜DSML｜tool_calls>",
)

SPELLINGS = [
    Spelling("hermes", "tag", _TAG),
    Spelling("hermes", "function", _CLOSE, json_inside=False),
    Spelling("qwen", "tag", _TAG),
    Spelling("qwen", "bracket", _each("[Calling tool: NAME(JSON)]")),
    Spelling("qwen", "function", _LINES, json_inside=False),
    Spelling("qwen", "unwrapped", _UNWRAPPED, json_inside=False),
    Spelling("qwen", "function with JSON", _each("<tool_call>\n<function=NAME>\nJSON\n</function>\n</tool_call>")),
    Spelling("qwen3_xml", "function", _LINES, json_inside=False),
    Spelling("qwen3_xml", "unwrapped", _UNWRAPPED, json_inside=False),
    Spelling("nemotron", "function", _CLOSE, json_inside=False),
    Spelling("nemotron", "function with JSON", _each("<tool_call><function=NAME>JSON</function></tool_call>")),
    Spelling("step3p5", "function", _LINES, json_inside=False),
    Spelling("glm47", "keys", _KEYS, json_inside=False),
    Spelling("poolside_v1", "keys", _KEYS, json_inside=False),
    Spelling("mistral", "list", _list("[TOOL_CALLS] ")),
    Spelling("mistral", "name", _each("[TOOL_CALLS]NAMEJSON", "")),
    Spelling("mistral", "args", _each("[TOOL_CALLS]NAME[ARGS]JSON", "")),
    Spelling("mistral", "call id", _each("[TOOL_CALLS]NAME[CALL_ID]a1b2c3d4e[ARGS]JSON", ""), oracle=False),
    Spelling("llama", "tag", _separated("<|python_tag|>", "; ")),
    Spelling("llama", "bare", _separated("", "; ")),
    Spelling("llama", "function", _FUNCTION),
    Spelling("deepseek", "V3", _deepseek("function<｜tool▁sep｜>NAME\n```json\nJSON\n```")),
    Spelling("deepseek", "plain", _deepseek("NAME\n```json\nJSON\n```")),
    Spelling("deepseek", "V3.1", _deepseek("NAME<｜tool▁sep｜>JSON"), oracle=False),
    Spelling("deepseek_v4", "invoke", _DSML, json_inside=False),
    Spelling("kimi", "section", _numbered),
    Spelling("granite", "list", _list("<|tool_call|>")),
    Spelling("granite", "3.1", _list("<tool_call>")),
    Spelling("minimax", "invoke", _MINIMAX, json_inside=False),
    Spelling("functionary", "recipient", _each("<|from|>assistant\n<|recipient|>NAME\n<|content|>JSON", "\n")),
    Spelling("functionary", "function", _FUNCTION),
    Spelling("xlam", "bare", _list("")),
    Spelling("xlam", "fence", lambda calls: _list("```json\n")(calls) + "\n```"),
    Spelling("xlam", "marker", _list("[TOOL_CALLS]")),
    Spelling("auto", "tag", _TAG),
    Spelling("auto", "keys", _KEYS, json_inside=False),
    Spelling("auto", "function", _CLOSE, json_inside=False, oracle=False),
    Spelling("auto", "list", _list("[TOOL_CALLS]")),
    Spelling("auto", "bracket", _each("[Calling tool: NAME(JSON)]")),
    Spelling("auto", "invoke", _DSML, json_inside=False),
]


def name_of(spelling: Spelling) -> str:
    return f"{spelling.parser} {spelling.form}"
