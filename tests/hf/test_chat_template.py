"""Conversations: what transformers writes, and what only this tokenizer promises."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from golden.transformers.make_templates import FUNCTIONS, TEMPLATES, answer
from quickbrown.hf.chat_schema import SchemaError, get_json_schema
from quickbrown.hf.tokenizer import AutoTokenizer, PreTrainedTokenizer
from quickbrown.text.template import TemplateError
from quickbrown.types import UnknownOption

HERE = Path(__file__).parents[1] / "golden" / "transformers"
GOLDEN = json.loads((HERE / "templates.json").read_text("utf-8"))
VOCABULARIES = json.loads((HERE / "tokenizers.json").read_text("utf-8"))["kinds"]
KINDS = ("sentencepiece", "bytelevel")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizer]:
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        for name, content in VOCABULARIES[kind]["files"].items():
            (folder / name).write_text(json.dumps(content), "utf-8")
        made[kind] = AutoTokenizer.from_pretrained(folder)
    return made


@pytest.mark.parametrize(("kind", "name"), sorted({(case[0], case[1]) for case in GOLDEN["cases"]}))
def test_what_is_written_is_what_transformers_writes(kind, name, tokenizers):
    for conversation, options, expected in (case[2:] for case in GOLDEN["cases"] if case[:2] == [kind, name]):
        before = json.dumps(conversation)
        found = json.loads(json.dumps(answer(tokenizers[kind], TEMPLATES[name], conversation, options)))
        assert found == expected, (conversation, options)
        assert json.dumps(conversation) == before


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_are_tools(name):
    assert json.dumps(get_json_schema(FUNCTIONS[name])) == json.dumps(GOLDEN["schemas"][name])


USER = {"role": "user", "content": "Hi"}
CHATML = TEMPLATES["chatml"]


@pytest.fixture
def tokenizer(tokenizers: dict[str, PreTrainedTokenizer]) -> PreTrainedTokenizer:
    tokenizers["sentencepiece"].chat_template = CHATML
    return tokenizers["sentencepiece"]


def test_a_conversation_goes_into_generate_by_position(tokenizer):
    """As people write it: `.shape` of what apply_chat_template returns, though that is a dict of names."""
    out = tokenizer.apply_chat_template([USER], add_generation_prompt=True, return_tensors="np")
    assert out.shape == out["input_ids"].shape == (1, out["attention_mask"].shape[1])
    assert isinstance(out["input_ids"], np.ndarray)
    assert out["input_ids"].dtype == np.int64


def test_the_beginning_is_not_doubled(tokenizer):
    """A template that writes <s>, and a vocabulary that begins texts with it: there is one."""
    tokenizer.chat_template = TEMPLATES["mistral"]
    ids = tokenizer.apply_chat_template([USER], return_dict=False)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_messages_may_be_other_things_than_dicts(tokenizer):
    @dataclasses.dataclass
    class Message:
        role: str
        content: str

    class Model:
        def __init__(self, **fields):
            self.fields = fields

        def model_dump(self):
            return self.fields

    class Conversation:
        messages = [USER]  # noqa: RUF012

    text = tokenizer.apply_chat_template([USER], tokenize=False)
    for messages in ([Message(**USER)], [Model(**USER)], (USER,), Conversation()):
        assert tokenizer.apply_chat_template(messages, tokenize=False) == text
    assert tokenizer.apply_chat_template([[USER], (USER,), Conversation()], tokenize=False) == [text] * 3


def test_assistant_masks_take_whole_characters(tokenizers):
    """A character of several byte tokens at the end of a marked part: all of them are marked."""
    tokenizer = tokenizers["bytelevel"]
    tokenizer.chat_template = "{% for m in messages %}A:{% generation %}{{ m.content }}{% endgeneration %}.{% endfor %}"
    out = tokenizer.apply_chat_template(
        [{"role": "assistant", "content": "x\U0001f642"}], return_assistant_tokens_mask=True
    )
    marked = [i for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(marked) == "x\U0001f642"


def test_single_messages(tokenizer):
    history = [USER, {"role": "assistant", "content": "Yes."}]
    parts = [tokenizer.encode_message_with_chat_template(message, history[:i]) for i, message in enumerate(history)]
    assert [*parts[0], *parts[1]] == tokenizer.apply_chat_template(history, return_dict=False)


def test_variables_of_a_template_are_anybodys(tokenizer):
    for name in ("enable_thinking", "date_string", "reasoning_effort"):
        assert tokenizer.apply_chat_template([USER], **{name: False})["input_ids"]
    tokenizer.chat_template = "{{ padding_sides }}"
    assert tokenizer.apply_chat_template([USER], tokenize=False, padding_sides="x") == "x"


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"add_generation_promt": True}, UnknownOption, "did you mean 'add_generation_prompt'"),
        ({"add_special_tokens": True}, ValueError, "pass tokenizer_kwargs={'add_special_tokens'"),
        ({"tokenizer_kwargs": {"padding": True}}, ValueError, "padding cannot be in tokenizer_kwargs"),
        ({"messages": []}, ValueError, "the first argument"),
        ({"sanitize_control_tokens": True}, ValueError, "sanitize_control_tokens is not honoured"),
        ({"continue_final_message": True, "add_generation_prompt": True}, ValueError, "add_generation_prompt"),
        ({"continue_final_message": "thoughts"}, ValueError, "the last message has no thoughts"),
        ({"continue_final_message": "name"}, ValueError, "does not write the name"),
        ({"return_assistant_tokens_mask": True}, ValueError, "does not mark what the assistant says"),
        ({"return_assistant_tokens_mask": True, "return_dict": False}, ValueError, "return_dict=True"),
        ({"tools": [5]}, ValueError, "tool 0 must be a function or a JSON schema"),
        ({"tools": {"name": "x"}}, ValueError, "tools must be a list"),
        ({"documents": ["x"]}, TypeError, "documents must be a list of dicts"),
        ({"mood": object()}, ValueError, "mood holds a value of type object"),
        ({"chat_template": "{{ raise_exception('no') }}"}, TemplateError, "refuses these messages: no"),
        ({"chat_template": 5}, TypeError, "chat_template must be the text or the name of a template, not int"),
        ({"chat_template": "{% if %}"}, TemplateError, "line 1"),
        ({"chat_template": "{{ messages.append(1) }}"}, TemplateError, "not allowed"),
        ({"return_tensors": "tf"}, ValueError, 'must be "np", "pt" or None'),
        ({"padding": True, "max_length": 5}, UserWarning, "max_length changes nothing here"),
    ],
)
def test_refusals(options, kind, sentence, tokenizer):
    with pytest.raises(kind, match=re.escape(sentence)):
        tokenizer.apply_chat_template([{**USER, "name": "Ada"}], **options)


@pytest.mark.parametrize(
    ("conversation", "sentence"),
    [
        ([], "at least one message"),
        ("hi", "must be a list of messages, not str"),
        (USER, "must be a list of messages, not dict"),
        (["hi"], "message 0 must be a dict with a role"),
        ([{"content": "x"}], "message 0 must be a dict with a role"),
        ([[USER], []], "at least one"),
        ([{**USER, "image": object()}], "the conversation holds a value of type object"),
    ],
)
def test_what_is_no_conversation(conversation, sentence, tokenizer):
    with pytest.raises(ValueError, match=sentence):
        tokenizer.apply_chat_template(conversation)


def test_no_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"has no chat template: .*pass chat_template="):
        tokenizer.apply_chat_template([USER])
    tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(ValueError, match="no chat template is the default; give the name of one"):
        tokenizer.get_chat_template()
    assert tokenizer.get_chat_template(tools=[]) == CHATML


def _typed(x: object) -> None:
    """Does.

    Args:
        x: It
    """


def _untyped(x):
    """Does.

    Args:
        x: It
    """


def _choosy(x: str) -> None:
    """Does.

    Args:
        x: It (choices: tea)
    """


def _undescribed(x: str) -> None:
    """Does."""


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_typed, "has the type <class 'object'>, which no JSON schema is known for"),
        (_untyped, "has no type"),
        (_choosy, "must be a JSON list, not tea"),
        (_undescribed, "does not describe its argument 'x'"),
        (lambda x: x, "has no docstring"),
    ],
)
def test_functions_that_are_no_tools(function, sentence):
    with pytest.raises(SchemaError, match=re.escape(sentence)):
        get_json_schema(function)


def test_arguments_with_types_in_the_docstring():
    def tool(x: int, y: str = "") -> None:
        """Does: that.

        Args:
            x (int): One: two
            y (str, optional): Three
                x: four
        """

    parameters = get_json_schema(tool)["function"]["parameters"]
    assert {name: schema["description"] for name, schema in parameters["properties"].items()} == {
        "x": "One: two",
        "y": "Three x: four",
    }
    assert parameters["required"] == ["x"]
