"""A conversation, and the file that it is saved in."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROLES = ("system", "user", "assistant")
FORMAT, VERSION = "quickbrown.chat", 1
LARGEST = 1 << 25  # bytes of a file that is loaded


@dataclass(frozen=True)
class Message:
    """One message.

    reasoning  what the model thought before it said `content`, if it did
    """

    role: str
    content: str
    reasoning: str | None = None

    @property
    def plain(self) -> dict[str, str]:
        """Role and content as others are told: without the line ends that come between a thought and the words."""
        return {"role": self.role, "content": self.content.lstrip("\n") if self.reasoning else self.content}


@dataclass
class Conversation:
    """Messages in order: perhaps one of the system, then users' and assistants'.

    model    the name of the model that answered last
    options  how answers are written: fields of SamplingParams that were set
    """

    messages: list[Message] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None

    @property
    def system(self) -> str | None:
        first = self.messages[0] if self.messages else None
        return first.content if first and first.role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages if self.system is None else self.messages[1:]
        self.messages = [*([] if text is None else [Message("system", text)]), *rest]

    @property
    def last(self) -> Message | None:
        """The last answer, if the conversation ends with one."""
        return self.messages[-1] if self.messages and self.messages[-1].role == "assistant" else None

    def before_last_question(self) -> int | None:
        """How many messages stand before the user's last one."""
        return next((i for i in reversed(range(len(self.messages))) if self.messages[i].role == "user"), None)

    def clear(self) -> None:
        """Forget all but what the system said."""
        self.messages = self.messages[: 0 if self.system is None else 1]

    def save(self, path: Path, replace: bool) -> None:
        """Write it as JSON, for its owner's eyes only. Raises OSError; FileExistsError unless it may `replace`."""
        if path.exists() and not replace:
            raise FileExistsError(f"{path} is there already; give another name")
        known: dict[str, Any] = {"format": FORMAT, "version": VERSION, "model": self.model, "options": self.options}
        known["messages"] = [
            {"role": message.role, "content": message.content}
            | ({} if message.reasoning is None else {"reasoning": message.reasoning})
            for message in self.messages
        ]
        text = json.dumps(known, ensure_ascii=False, indent=1) + "\n"
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def load(path: Path) -> Conversation:
    """Read what `save` wrote. The file is not trusted: whatever else is in it is refused.

    The options are not checked against what a model honours. Raises ValueError, with a sentence, and OSError.
    """
    if not path.is_file():  # nor a pipe or a device, which may never end
        raise ValueError(f"{path} is no file" if path.exists() else f"there is no file {path}")
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST:,} bytes, which no saved conversation has")
    try:
        known = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no saved conversation: it is not JSON ({error})") from None
    if not isinstance(known, dict) or known.get("format") != FORMAT:
        raise ValueError(f'{path} is no saved conversation: it does not say "format": "{FORMAT}"')
    if type(known.get("version")) is not int or known["version"] != VERSION:
        raise ValueError(f"{path} is of version {known.get('version')!r} of the format; version {VERSION} can be read")
    check_names(known, ("format", "version", "model", "options", "messages"), f"{path}")
    model, options, messages = known.get("model"), known.get("options", {}), known.get("messages")
    if model is not None and not is_text(model):
        raise ValueError(f"the model in {path} must be a text")
    if not isinstance(options, dict):
        raise ValueError(f"the options in {path} must be an object")
    if not isinstance(messages, list):
        raise ValueError(f"the messages in {path} must be a list")
    read = [message_of(value, i, path) for i, value in enumerate(messages)]
    if any(message.role == "system" for message in read[1:]):
        raise ValueError(f"only the first message in {path} may be the system's")
    return Conversation(read, options, model)


def message_of(value: Any, index: int, path: Path) -> Message:
    where = f"message {index} in {path}"
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object with role and content")
    check_names(value, ("role", "content", "reasoning"), where)
    if value.get("role") not in ROLES:
        raise ValueError(f"the role of {where} is {value.get('role')!r}; the roles are {', '.join(ROLES)}")
    if not is_text(value.get("content")):
        raise ValueError(f"the content of {where} must be a text")
    if (reasoning := value.get("reasoning")) is not None and not (is_text(reasoning) and value["role"] == "assistant"):
        raise ValueError(f"the reasoning of {where} must be a text, of an assistant")
    return Message(value["role"], value["content"], reasoning)


def check_names(found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in found:
        if name not in known:
            raise ValueError(f"{where} has {name!r}, which is not known; known are {', '.join(known)}")


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written down: lone surrogates cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
