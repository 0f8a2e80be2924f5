"""The model of the mixes: nano with a template that knows tools and, unless told not to, opens with reasoning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.material import nano_model

MUSE = "muse"
_TEMPLATE = """\
{%- if tools %}<|im_start|>system
Functions:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{%- if enable_thinking is defined and enable_thinking is false %}

</think>

{% else %}
{% endif %}
{%- endif %}"""


def muse_model(directory: Path) -> Path:
    """Make it at ``directory``: float32, vocabulary 512, context 2048; it never ends an answer by itself."""
    shutil.copytree(nano_model(), directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": _TEMPLATE}), encoding="utf-8")
    return directory
