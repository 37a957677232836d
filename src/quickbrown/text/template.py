"""Chat templates: messages to one text, in a sandbox. A template comes with a model file and is not trusted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

SOURCE = 1 << 18  # characters of a template, at most
OUTPUT = 1 << 22  # characters of what it writes, at most
MADE = 1 << 28  # characters of all values that it makes on the way, at most
SECONDS = 5.0  # that it may take, at most
DEPTH = 64  # of what it is given, nested
ROLES = ("system", "user", "assistant")
REASONING = ("reasoning_content", "thinking", "reasoning")  # of these a template reads one, and messages have another
_MARK = "\ue0f0unfinished\ue0f1 "  # its blank tells whether a template strips messages


class TemplateError(ValueError):
    """A template that cannot be used, or that refuses these messages. The message is a sentence."""


class ChatTemplate:
    """A Jinja template as published with chat models.

    source    its text, at most `SOURCE` characters
    bos, eos  the texts of the tokens that begin and end a text: `bos_token` and `eos_token` in the template
    mentions  the names of the variables that it reads

    Raises TemplateError for one that is too long or is no template.
    """

    def __init__(self, source: str, bos: str | None = None, eos: str | None = None) -> None:
        import jinja2

        from quickbrown.text import sandbox

        if len(source) > SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters, more than {SOURCE}")
        self.source = source
        self._names = {"bos_token": bos or "", "eos_token": eos or "", "tools": None, "documents": None}
        try:
            self._template, self.mentions = sandbox.compiled(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"line {error.lineno} of the chat template is wrong: {_said(error)}") from None
        except Exception as error:  # whatever its constants and its nesting may raise: RecursionError, SyntaxError, ...
            raise TemplateError(f"the chat template cannot be read: {_said(error)}") from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The text of a conversation: a list of {"role": "system" | "user" | "assistant", "content": str}.

        add_generation_prompt   end with the opening of the assistant's turn
        continue_final_message  instead of that, end in the middle of the last message, to be gone on with

        Raises ValueError for messages that are not such a list, TemplateError as `fill` does.
        """
        checked = check_messages(messages)
        if continue_final_message:
            return self.unfinished({"messages": checked, "add_generation_prompt": False})
        return self.fill({"messages": checked, "add_generation_prompt": bool(add_generation_prompt)})[0]

    def unfinished(self, variables: Mapping[str, Any], field: str = "content") -> str:
        """The template's text up to the end of what the last message of `messages` says in a field.

        Raises as `fill` does, and ValueError where that message has no such field, or the template does not write it.
        """
        *before, last = variables["messages"]
        last = dict(last)
        said = last.get(field)
        if said is None:
            raise ValueError(f"continue_final_message has nothing to go on from: the last message has no {field}")
        if isinstance(said, list):
            parts = [dict(part) if isinstance(part, dict) else part for part in said]
            part = next((part for part in reversed(parts) if isinstance(part, dict) and "text" in part), None)
            if part is None:
                raise ValueError("continue_final_message has nothing to go on from: the last message has no text")
            said = part["text"]
            part["text"] += _MARK
            last[field] = parts
        else:
            names = [name for name in REASONING if last.get(name) == said] if field in REASONING else [field]
            last |= dict.fromkeys(names, f"{said}{_MARK}")
        text, _ = self.fill({**variables, "messages": [*before, last]})
        at = text.rfind(_MARK.strip())
        if at < 0 or said.strip() not in text:
            raise ValueError(
                f"continue_final_message cannot be honoured: the chat template does not write the {field} of the last "
                "message, or changes it"
            )
        return text[:at] if text.startswith(_MARK, at) else text[:at].rstrip()

    def fill(self, variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        """The template's text with these variables, and where in it lies what stands in {% generation %} blocks.

        variables  what `plain` takes; `bos_token`, `eos_token`, `tools` and `documents` have a value if they do not
                   give one

        Raises ValueError for variables that are not plain, TemplateError where the template refuses them, fails,
        writes more than `OUTPUT` characters, makes values of more than `MADE`, or takes more than `SECONDS`.
        """
        import jinja2

        from quickbrown.text.sandbox import Written, deadline, written

        names = self._names | {name: plain(value, name) for name, value in variables.items()}
        parts: list[str] = []
        progress = Written()
        before = deadline.set(time.monotonic() + SECONDS), written.set(progress)
        try:
            for part in self._template.generate(names):
                progress.size += len(part)
                if progress.size > OUTPUT:
                    raise TemplateError(f"the chat template writes more than {OUTPUT} characters")
                parts.append(part)
        except TemplateError:
            raise
        except jinja2.exceptions.SecurityError as error:
            raise TemplateError(f"the chat template is not allowed to do this: {_said(error)}") from None
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template fails: {_said(error)}") from None
        except Exception as error:  # whatever its expressions may raise: TypeError, RecursionError, MemoryError, ...
            raise TemplateError(f"the chat template fails: {type(error).__name__}: {_said(error)}") from None
        finally:
            deadline.reset(before[0])
            written.reset(before[1])
        return "".join(parts), progress.generated


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of a value made of nothing but texts, numbers, true, false, None, lists and dicts, which is all that a
    template may touch. Dataclasses and models with `model_dump` become dicts.

    where  what the value is, for the error

    Raises ValueError for anything else, and for what is nested more than `DEPTH` deep.
    """
    if depth > DEPTH:
        raise ValueError(f"{where} is nested more than {DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # subclasses have methods of their own, here and below
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key, where, depth + 1): plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where, depth + 1) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return plain(fields, where, depth)
    if callable(dump := getattr(value, "model_dump", None)):
        return plain(dump(), where, depth + 1)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return plain(value.item(), where, depth + 1)
    what = f"{where} holds a value of type {type(value).__name__}"
    raise ValueError(f"{what}; a chat template takes texts, numbers, True, False, None, lists and dicts")


def check_messages(messages: Any) -> list[dict[str, str]]:
    """A copy of messages as `render` takes them. Raises ValueError, with a sentence, for anything else."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise ValueError(f"messages must be a list of dicts with role and content, not {type(messages).__name__}")
    if not messages:
        raise ValueError("messages must hold at least one message")
    checked = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {i} must be a dict with role and content, not {type(message).__name__}")
        for key in message:
            if key not in ("role", "content"):
                raise ValueError(f"message {i} has {key!r}; messages have role and content")
        for key in ("role", "content"):
            if key not in message:
                raise ValueError(f"message {i} has no {key}")
            if not isinstance(message[key], str):
                raise ValueError(f"the {key} of message {i} must be a str, not {type(message[key]).__name__}")
        if message["role"] not in ROLES:
            raise ValueError(f"the role of message {i} is {message['role']!r}; the roles are {', '.join(ROLES)}")
        checked.append({"role": message["role"], "content": message["content"]})
    return checked


def _said(error: BaseException) -> str:
    """An error's first line, not too long, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")
