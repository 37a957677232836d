"""Conversations to texts and ids, as a model's chat template writes them down."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from quickbrown.hf.arrays import as_kind
from quickbrown.hf.batch_encoding import BatchEncoding
from quickbrown.hf.chat_schema import get_json_schema
from quickbrown.text.template import REASONING, ChatTemplate, plain
from quickbrown.types import UnknownOption

if TYPE_CHECKING:
    from tokenizers import Encoding

Conversation = Sequence[Mapping[str, Any]]
Tool = Mapping[str, Any] | Callable[..., Any]

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class ChatTemplates:
    """The chat templates of a tokenizer.

    chat_template  the source of the only one, several by name, or None; may be assigned
    """

    chat_template: str | dict[str, str] | None
    special_tokens_map: Any
    name_or_path: str

    def __call__(self, text: Any, **options: Any) -> BatchEncoding:
        raise NotImplementedError

    def get_chat_template(self, chat_template: str | None = None, tools: Sequence[Tool] | None = None) -> str:
        """The source of the template that `apply_chat_template` takes for these arguments.

        Of several it is the one named tool_use where there are tools, if there is one by that name, else the default.
        Raises ValueError where there is none.
        """
        known = self.chat_template
        if isinstance(known, dict):
            if chat_template is not None:
                return known.get(chat_template, chat_template)
            name = "tool_use" if tools is not None and "tool_use" in known else "default"
            if name in known:
                return known[name]
            raise ValueError(
                f"no chat template is the default; give the name of one: chat_template={sorted(known)[0]!r}"
            )
        source = known if chat_template is None else chat_template
        if source is None:
            raise ValueError(
                f"{self.name_or_path or 'this tokenizer'} has no chat template: it was not trained to chat, or its "
                "files do not say how; pass chat_template=, or write the prompt yourself"
            )
        if not isinstance(source, str):
            raise TypeError(f"chat_template must be the text or the name of a template, not {type(source).__name__}")
        return source

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        tools: Sequence[Tool] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        sanitize_control_tokens: bool = False,
        **variables: Any,
    ) -> Any:
        """A conversation, or several, as the model reads it: ids and mask by name, ready for `generate`.

        conversation            messages {"role": ..., "content": ...}, with what else the template reads; or a list of
                                such conversations
        tools                   what the model may call: JSON schemas, or functions with types and a docstring
        documents               texts to answer from, dicts
        chat_template           a template, or the name of one, in the place of the model's own
        add_generation_prompt   end with the opening of the assistant's turn
        continue_final_message  leave the last message open, to be gone on with; a name leaves that field of it open
        tokenize                False returns the text
        padding, truncation, max_length, return_tensors, tokenizer_kwargs
                                as in `tokenizer(...)`; with return_tensors the ids have shape (conversations, length)
        return_dict             False returns the ids alone
        return_assistant_tokens_mask
                                add `assistant_masks`: 1 for what the template marks as the assistant's words
        variables               anything else that the template reads

        No special tokens are added to those that the template writes. Raises ValueError, with a sentence, for what
        cannot be written down (TemplateError where the template refuses), and UnknownOption for a misspelt argument.
        """
        if sanitize_control_tokens:
            raise ValueError(
                "sanitize_control_tokens is not honoured: what spells a special token in a message is read as that; "
                "take it out of messages that are not yours"
            )
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        if continue_final_message and (add_generation_prompt or return_assistant_tokens_mask):
            other = "add_generation_prompt" if add_generation_prompt else "return_assistant_tokens_mask"
            raise ValueError(f"continue_final_message leaves the last message open; it does not go with {other}")
        template = compiled(self.get_chat_template(chat_template, tools))
        if return_assistant_tokens_mask and not _GENERATION.search(template.source):
            raise ValueError("the chat template does not mark what the assistant says ({% generation %} ...)")
        check_variables(variables, template, _names(type(self).__call__))
        conversations, several = _conversations(conversation)
        shared = {**self.special_tokens_map, **variables}
        shared |= {"tools": schemas(tools), "documents": _documents(documents)}
        shared["add_generation_prompt"] = bool(add_generation_prompt)
        written = [write(template, chat, shared, continue_final_message) for chat in conversations]
        texts = [text for text, _ in written]
        if not tokenize:
            return texts if several else texts[0]
        options = {"padding": padding, "truncation": truncation, "max_length": max_length}
        options |= {"return_tensors": return_tensors, "add_special_tokens": False}
        extra = dict(tokenizer_kwargs or {})
        if twice := sorted(options.keys() & extra.keys()):
            raise ValueError(f"{twice[0]} cannot be in tokenizer_kwargs; special tokens are the template's affair")
        out = self(texts if several else texts[0], **options, **extra)
        if return_assistant_tokens_mask:
            rows = out.encodings or []
            of = out.get("overflow_to_sample_mapping", range(len(rows)))
            masks = [_mask(row, written[int(i)][1]) for row, i in zip(rows, of, strict=True)]
            single = not several and return_tensors is None and "overflow_to_sample_mapping" not in out
            out["assistant_masks"] = masks[0] if single else masks
            if return_tensors is not None:
                out["assistant_masks"] = as_kind(np.array(masks, np.int64), return_tensors)
        return out if return_dict else out["input_ids"]

    def encode_message_with_chat_template(
        self, message: Mapping[str, Any], conversation_history: Conversation | None = None, **options: Any
    ) -> list[int]:
        """The ids that a message adds to a conversation: all from where they differ. `options` as above."""
        if "add_generation_prompt" in options:
            raise ValueError("a single message takes no add_generation_prompt; apply_chat_template does")
        options["return_dict"] = False
        history = list(conversation_history or [])
        ids: list[int] = self.apply_chat_template([*history, message], **options)
        before: list[int] = self.apply_chat_template(history, **options) if history else []
        same = next(
            (i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), min(len(ids), len(before))
        )
        return ids[same:]


@functools.lru_cache(maxsize=32)
def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source)


def check_variables(variables: Mapping[str, Any], template: ChatTemplate, others: Sequence[str]) -> None:
    """Raises for what the template does not read and was meant as something else: a misspelt argument, or one of the
    tokenizer's (`others`). Further variables are anybody's, as templates differ in what they read.
    """
    own = _names(ChatTemplates.apply_chat_template)
    for name in variables:
        if name == "messages":
            raise ValueError("messages is the conversation, the first argument")
        if name in template.mentions:
            continue
        if name in others:
            raise ValueError(f"{name} is for the tokenizer: pass tokenizer_kwargs={{{name!r}: ...}}")
        if difflib.get_close_matches(name, own, n=1, cutoff=0.8):
            raise UnknownOption(name, own)


@functools.cache
def _names(function: Callable[..., Any]) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD][1:]


def schemas(tools: Sequence[Tool] | None) -> list[Any] | None:
    """Tools as JSON schemas. Raises ValueError for what is neither that nor a function."""
    if tools is None:
        return None
    if isinstance(tools, Mapping) or not isinstance(tools, (list, tuple)):
        raise ValueError(f"tools must be a list of functions or JSON schemas, not {type(tools).__name__}")
    found: list[Any] = []
    for i, tool in enumerate(tools):
        if isinstance(tool, Mapping):
            found.append(tool)
        elif inspect.isroutine(tool):
            found.append(get_json_schema(tool))
        else:
            raise ValueError(f"tool {i} must be a function or a JSON schema (a dict), not {type(tool).__name__}")
    return found


def _documents(documents: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if documents is None:
        return None
    if not isinstance(documents, (list, tuple)) or not all(isinstance(document, Mapping) for document in documents):
        raise TypeError("documents must be a list of dicts, such as {'title': ..., 'text': ...}")
    return list(documents)


def _conversations(conversation: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """Copies of the conversations, and whether they came in a list."""
    chats = getattr(conversation, "messages", conversation)
    if isinstance(chats, (str, bytes, Mapping)) or not isinstance(chats, Sequence):
        raise ValueError(f"a conversation must be a list of messages, not {type(chats).__name__}")
    if not chats:
        raise ValueError("a conversation must hold at least one message")
    several = isinstance(chats[0], (list, tuple)) or hasattr(chats[0], "messages")
    return [_messages(chat) for chat in (chats if several else [chats])], several


def _messages(chat: Any) -> list[dict[str, Any]]:
    messages = plain(getattr(chat, "messages", chat), "the conversation")
    if not isinstance(messages, list) or not messages:
        raise ValueError("a conversation must be a list of messages, and hold at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {i} must be a dict with a role and a content")
    kept = [{name: value for name, value in message.items() if value is not None} for message in messages]
    for message in kept:
        thought = next((message[name] for name in REASONING if name in message), None)
        if thought is not None:
            message |= {"reasoning_content": thought, "thinking": message.get("thinking", thought)}
    return kept


def write(
    template: ChatTemplate, chat: list[dict[str, Any]], shared: Mapping[str, Any], unfinished: bool | str
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation's text, and where in it lies what the assistant says.

    unfinished  end in the middle of the last message, or of that field of it
    """
    variables = {**shared, "messages": chat}
    if not unfinished:
        return template.fill(variables)
    return template.unfinished(variables, unfinished if isinstance(unfinished, str) else "content"), []


def _mask(row: Encoding, spans: list[tuple[int, int]]) -> list[int]:
    """1 for each token with a character in one of these parts of the text."""
    offsets: list[tuple[int, int]] = row.offsets
    return [int(any(a < end and b > start for start, end in spans)) for a, b in offsets]
