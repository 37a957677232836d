"""Makes templates.json: run `PYTHONPATH=src:tests python tests/golden/transformers/make_templates.py` where
transformers 5.23 is, after make_tokenizers.py.

What transformers makes of conversations with templates in the manner of well-known ones, and of functions as tools.
"""

from __future__ import annotations

import enum
import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("templates.json")
TOKENIZERS = FILE.with_name("tokenizers.json")

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + "
    "message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ ' [INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = """{%- for message in messages %}
{{- '<|im_start|>' ~ message.role ~ '\\n' }}
{%- if message.role == 'assistant' %}
{% generation %}{{ message.content ~ '<|im_end|>' }}{% endgeneration %}
{%- else %}
{{- message.content ~ '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(last_user=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set ns.last_user = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}
    {%- elif message.content is iterable and message.content is not mapping %}
        {%- set content = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') %}
    {%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role in ('user', 'system') %}
        {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.reasoning_content is defined and loop.index0 > ns.last_user %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function if call.function else call %}
            {{- '\\n<tool_call>\\n' ~ {"name": call.name, "arguments": call.arguments} | tojson ~ '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
RAG = (
    "{% for document in documents %}[{{ loop.index0 }}] {{ document['title'] }}: {{ document.text }}\n{% endfor %}"
    "{{ messages | tojson(indent=2, sort_keys=true) }}{{ tools | tojson(ensure_ascii=true, separators=(',', ':')) }}"
    "{{ mood | default('calm') }} {{ sep_token is defined }} {{ pad_token }} {{ 'é' | tojson(ensure_ascii=true) }}"
)

SYSTEM = {"role": "system", "content": "You are a pirate."}
USER = {"role": "user", "content": " How many helicopters? "}
REPLY = {"role": "assistant", "content": "None, you thug. "}
MORE = {"role": "user", "content": "And <|im_end|> then </s>é🙂?"}
CALL = {
    "role": "assistant", "content": None, "reasoning": "\nIt wants the weather.\n",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}],
}  # fmt: skip
RESULT = {"role": "tool", "name": "weather", "content": '{"sky": "grey"}'}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "See"}, {"type": "image"}, {"type": "text", "text": "this."}],
}
DOCUMENTS = [{"title": "Helicopters", "text": "They fly."}, {"title": "Food", "text": 'It does "not".'}]
SCHEMA = {"type": "function", "function": {"name": "now", "description": "The time <now>.", "parameters": {}}}


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


def weather(city: str, days: int = 1, unit: Unit = Unit.CELSIUS) -> dict[str, Any]:
    """
    The weather of the next days.
    It may be wrong.

    Args:
        city: The name of the city,
            with its country.
        days: How many days
        unit: Of temperatures

    Returns:
        The weather, by day: a dict
    """
    return {}


def drink(kind: str, size: int | None = None, hot: bool | str = True, *, sugar: float | list[int] = 0.5) -> None:
    """Makes a drink.

    Args:
        kind: What to make (choices: ["tea", "coffee", "water "])
        size: How large, in ml: at most 500
        hot: Whether to heat it
        sugar: How much of it

    Raises:
        ValueError: without water
    """


def draw(mode: Literal["a", "b", 3], points: list[tuple[int, float]], extra: dict[str, list[str]], rest: Any, d: dict):
    """Draws something
    Args:
        mode: How
        points: Where
        extra: What else

        rest: Anything
        d: A dict
    Returns: A picture
    """


class Clock:
    def time(self, zone: str = "UTC") -> str:
        """Tells the time.

        Args:
            zone: Where
        """
        return zone


FUNCTIONS: dict[str, Callable[..., Any]] = {"weather": weather, "drink": drink, "draw": draw, "time": Clock().time}
TEMPLATES: dict[str, Any] = {
    "llama2": LLAMA2, "zephyr": ZEPHYR, "mistral": MISTRAL, "chatml": CHATML, "marked": MARKED, "tools": TOOLS,
    "rag": RAG, "named": {"default": CHATML, "tool_use": TOOLS, "rag": RAG},
}  # fmt: skip


def cases() -> list[tuple[str, Any, dict[str, Any]]]:
    """Which template, the conversation, and the arguments; a tool that is a name is that function."""
    short, chat, long = [USER], [SYSTEM, USER], [SYSTEM, USER, REPLY, MORE]
    found: list[tuple[str, Any, dict[str, Any]]] = []
    for name in ("llama2", "zephyr", "chatml", "marked", "tools"):
        found += [(name, each, {"add_generation_prompt": True}) for each in (short, chat, long)]
        found += [(name, [*long, REPLY], {}), (name, [short, [USER, REPLY, MORE]], {"padding": True})]
        found += [(name, [*long, REPLY], {"continue_final_message": True})]
    found += [("mistral", [USER, REPLY, MORE], {}), ("mistral", [USER, REPLY], {"continue_final_message": True})]
    found += [("marked", [USER, REPLY, MORE, REPLY], {"return_assistant_tokens_mask": True})]
    both = [[USER, REPLY], [USER, REPLY, MORE, REPLY]]
    found += [("marked", both, {"return_assistant_tokens_mask": True, "padding": True})]
    found += [("marked", both[1], {"return_assistant_tokens_mask": True, "truncation": True, "max_length": 40})]
    tools = {"tools": ["weather", "drink", SCHEMA], "add_generation_prompt": True}
    turns = [SYSTEM, USER, CALL, RESULT, RESULT, REPLY, MORE, CALL]
    for name in ("tools", "named"):
        found += [(name, turns, tools), (name, [USER], tools), (name, [USER], {"tools": []})]
        found += [(name, [USER], {"enable_thinking": False, "add_generation_prompt": True})]
    found += [("tools", turns, {}), ("tools", [PARTS], {"add_generation_prompt": True})]
    found += [("tools", [USER, {**REPLY, "thinking": "Hm."}], {"continue_final_message": True})]
    parts = {"role": "assistant", "content": [{"type": "text", "text": "So "}, {"type": "text", "text": "it is"}]}
    found += [("tools", [USER, parts], {"continue_final_message": True})]
    found += [("tools", [USER, {**CALL, "tool_calls": None}], {"continue_final_message": "reasoning_content"})]
    found += [("rag", [USER], {"documents": DOCUMENTS, "tools": [SCHEMA], "mood": "bright"})]
    found += [("rag", [MORE], {"documents": []}), ("named", [USER], {"chat_template": "rag", "documents": DOCUMENTS})]
    found += [("chatml", [USER], {"chat_template": "{{ bos_token }}{{ messages[0].content | upper }}"})]
    found += [("chatml", [USER], {"truncation": True, "max_length": 9}), ("chatml", [USER], {"return_dict": False})]
    found += [("chatml", [USER], {"tokenizer_kwargs": {"return_offsets_mapping": True}})]
    found += [("chatml", [USER], {"padding": "max_length", "max_length": 64})]
    return found


def answer(tokenizer: Any, templates: Any, conversation: Any, options: dict[str, Any]) -> Any:
    """The text, and what it is tokenized to."""
    tokenizer.chat_template = templates
    if options.get("tools"):
        tools = [FUNCTIONS[tool] if isinstance(tool, str) else tool for tool in options["tools"]]
        options = {**options, "tools": tools}
    marked = {**options, "return_assistant_tokens_mask": False}
    text = tokenizer.apply_chat_template(conversation, tokenize=False, **marked)
    tokens = tokenizer.apply_chat_template(conversation, **options)
    return [text, tokens if isinstance(tokens, list) else dict(tokens)]


def main() -> None:
    from transformers import AutoTokenizer
    from transformers.utils import get_json_schema

    found = []
    for kind in ("sentencepiece", "bytelevel"):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in json.loads(TOKENIZERS.read_text("utf-8"))["kinds"][kind]["files"].items():
                Path(folder, name).write_text(json.dumps(content), "utf-8")
            tokenizer = AutoTokenizer.from_pretrained(folder)
        for name, conversation, options in cases():
            try:
                said = answer(tokenizer, TEMPLATES[name], conversation, options)
            except Exception as error:
                print(f"left out: {name} {str(conversation)[:60]} {options}: {type(error).__name__}: {error}")
                continue
            found.append([kind, name, conversation, options, said])
    golden = {
        "made_by": "tests/golden/transformers/make_templates.py",
        "transformers": version("transformers"),
        "jinja2": version("jinja2"),
        "cases": found,
        "schemas": {name: get_json_schema(function) for name, function in FUNCTIONS.items()},
    }
    FILE.write_text(json.dumps(golden, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
