"""Vocabulary and chat templates from a folder as Hugging Face publishes them. Files are not trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickbrown.text.sentencepiece import sentence_tokenizer
from quickbrown.text.template import SOURCE, ChatTemplate, TemplateError
from quickbrown.text.tiktoken import PATTERNS, is_tiktoken, read_tekken, read_tiktoken
from quickbrown.text.tokenizer import Tokenizer, of_library
from quickbrown.text.tokenizer_json import read_tokenizer_json
from quickbrown.weights.source import bad_file, read_json

if TYPE_CHECKING:
    import tokenizers

    from quickbrown.text.lists import Lists

TOKENIZER_BYTES = 128 << 20  # of tokenizer.json, at most; the largest known has 34 MB
SETTINGS_BYTES = 16 << 20  # of any other JSON file, at most
MOST_TOKENS = 1 << 24  # ids are below this
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_SENTENCES = ("tokenizer.model", "spiece.model")  # files of SentencePiece, or (the first) of tiktoken
_OTHER_KINDS = ("vocab.json", "vocab.txt", "encoder.json")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def tokenizer_from_folder(folder: str | Path, *, lazy: bool = False) -> Tokenizer:
    """The tokenizer of a folder that holds tokenizer.json, or else a file of SentencePiece or tiktoken.

    lazy  where tokenizer.json allows it, check the vocabulary now, and build it when somebody asks (`Tokenizer.raw`)

    Its ends are those of generation_config.json, or else of config.json, and the tokenizer's own; whether a text begins
    with a token is found by asking what tokenizer.json puts before one.

    Raises BadFile, with one sentence, for files that are missing, damaged or of a kind that is not supported.
    """
    folder = Path(folder)
    settings = tokenizer_settings(folder)
    return tokenizer_of(folder, settings, lazy=lazy)


def template_from_folder(folder: str | Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The folder's chat template, of several the one named default, if there is one. Raises BadFile for a bad one."""
    folder = Path(folder)
    settings = tokenizer_settings(folder)
    source = templates_from_folder(folder, settings).get("default")
    if source is None:
        return None
    bos = None if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
    try:
        return ChatTemplate(source, content(settings.get("bos_token")) or bos, content(settings.get("eos_token")))
    except TemplateError as error:
        raise bad_file(folder, f"its chat template cannot be used: {str(error).rstrip('.')}") from None


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says, completed by special_tokens_map.json. Raises BadFile.

    Special tokens are texts, or dicts with `content` and how they are matched.
    """
    settings = _object(folder / "tokenizer_config.json")
    marked = {} if "added_tokens_decoder" in settings else _object(folder / "special_tokens_map.json")
    settings |= {name: value for name, value in marked.items() if value is not None}
    older = settings.pop("additional_special_tokens", None)
    extra = settings.pop("extra_special_tokens", None) or older or []
    if isinstance(extra, dict):  # with names of their own
        settings |= {name: token for name, token in extra.items() if name.endswith("_token")}
        extra = []
    if not isinstance(extra, list):
        raise bad_file(folder / "tokenizer_config.json", "the setting 'extra_special_tokens' must be a list of tokens")
    for name, value in [*((name, settings.get(name)) for name in NAMED), *(("extra_special_tokens", t) for t in extra)]:
        if value is not None and content(value) is None:
            raise bad_file(folder / "tokenizer_config.json", f"the setting {name!r} must be a token's text")
    return settings | {"extra_special_tokens": extra}


def named_tokens(settings: dict[str, Any]) -> dict[str, Any]:
    """The special tokens that have a name, the usual ones first; a model may have some of its own."""
    own = sorted(name for name in settings if name.endswith("_token") and name not in NAMED)
    return {name: settings[name] for name in (*NAMED, *own) if content(settings.get(name)) is not None}


def tokenizer_of(folder: Path, settings: dict[str, Any], *, lazy: bool = False) -> Tokenizer:
    """The tokenizer of a folder with these settings, of which how it pads becomes one, where they do not say. The
    tokenizer itself neither pads nor truncates. Raises BadFile.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return _core(_other_kind(folder, settings), settings, folder)
    data = _data(path)
    if lazy and (listed := read_tokenizer_json(data)):
        lists = listed.lists(_prepared(listed.shell, settings, folder))
        if lists is not None:
            return _core(lists.bytes, settings, folder, lists)
    import tokenizers

    try:
        raw = tokenizers.Tokenizer.from_buffer(data)
    except BaseException as error:
        if not of_library(error):
            raise
        raise bad_file(path, f"is no vocabulary that can be read: {str(error).rstrip('.')}") from None
    raw.add_tokens(_prepared(raw, settings, folder))
    return _core(raw, settings, folder)


def _prepared(raw: tokenizers.Tokenizer, settings: dict[str, Any], folder: Path) -> list[tokenizers.AddedToken]:
    """Have it neither pad nor truncate; the tokens that it does not add to its model's and the settings do. Raises
    BadFile."""
    _sound(raw, folder / "tokenizer.json")
    if raw.padding is not None:
        settings.setdefault("pad_token", raw.padding["pad_token"])
        settings.setdefault("padding_side", raw.padding["direction"])
    raw.no_truncation()
    raw.no_padding()
    return _more(raw, settings, folder)


def _sound(raw: tokenizers.Tokenizer, path: Path) -> None:
    """Raise BadFile for parts at which the library would panic later: it writes that on stderr before it is caught."""
    for part in _parts(raw.normalizer):
        if part.get("type") == "Replace" and part["pattern"].get("String") == "":
            raise bad_file(path, "its normalizer puts a text in the place of none")
    for part in _parts(raw.post_processor):
        if part.get("type") == "TemplateProcessing":
            used = {p["SpecialToken"]["id"] for p in part["single"] + part["pair"] if "SpecialToken" in p}
            if unknown := used - part["special_tokens"].keys():
                raise bad_file(path, f"its post_processor has a special token that it does not list: {min(unknown)!r}")


def _parts(whole: Any) -> Iterator[dict[str, Any]]:
    """What a normalizer or a post-processor is, piece by piece."""
    stack = [json.loads(whole.__getstate__())] if whole is not None else []
    while stack:
        part = stack.pop()
        yield part
        stack += part.get("normalizers", part.get("processors", []))


def vocabulary_in(folder: Path) -> Path | None:
    """The file that holds a folder's vocabulary, of a kind that is read; None where there is none."""
    names = ("tokenizer.json", *_SENTENCES, "tekken.json", *PATTERNS)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _other_kind(folder: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    """What a vocabulary describes that is not in tokenizer.json; its named tokens go into the settings."""
    path = vocabulary_in(folder)
    if path is None:
        there = next((name for name in _OTHER_KINDS if (folder / name).is_file()), None)
        has = f"it has {there}, which is not read" if there else "it has no vocabulary"
        raise bad_file(folder, f"{has}; the file tokenizer.json is needed")
    data = _data(path)
    try:
        if path.name == "tekken.json":
            raw, named = read_tekken(data)
        elif path.name in _SENTENCES and not is_tiktoken(data):
            raw, named = sentence_tokenizer(data, once=settings.get("legacy") is False)
        else:
            raw, named = read_tiktoken(data, PATTERNS.get(path.name, "llama3"), _listed(settings, folder))
    except ValueError as error:
        raise bad_file(path, str(error)) from None
    for name, text in named.items():
        settings.setdefault(name, text)
    begins = settings.get("add_bos_token", path.name != "spiece.model")
    first = content(settings.get("bos_token"))
    bos = None if first is None else raw.token_to_id(first)
    if begins and bos is not None:
        from tokenizers.processors import TemplateProcessing

        # by a name: a text may mean something else in a template, as "$s" or "a:1" do
        begin = {"id": "bos", "ids": [bos], "tokens": [first]}
        raw.post_processor = TemplateProcessing(
            single=["bos", "$A"], pair=["bos", "$A", "bos:1", "$B:1"], special_tokens=[begin]
        )
    raw.add_tokens(_more(raw, settings, folder))
    return raw


def _core(raw: tokenizers.Tokenizer, settings: dict[str, Any], folder: Path, unbuilt: Lists | None = None) -> Tokenizer:
    """The tokenizer, with what the folder's files say of its ends. Raises BadFile."""
    config = _object(folder / "config.json")
    own = max(raw.get_vocab(with_added_tokens=True).values(), default=-1) + 1 if unbuilt is None else unbuilt.size
    if not 0 < own <= MOST_TOKENS:
        raise bad_file(folder / "tokenizer.json", f"has token ids above {MOST_TOKENS:,}" if own else "has no tokens")
    ids = max([own, *_ids(config, "vocab_size", folder / "config.json", MOST_TOKENS + 1)])
    ends = ends_from_folder(folder, ids)
    added = {token.content: i for i, token in raw.get_added_tokens_decoder().items()}
    named = {name: added.get(content(settings.get(name)) or "") for name in ("bos_token", "eos_token")}
    ends += [] if named["eos_token"] is None else [named["eos_token"]]
    first = first_token(raw, folder / "tokenizer.json")
    known = [first, named["bos_token"], *_ids(config, "bos_token_id", folder / "config.json", ids)]
    bos = next((i for i in known if i is not None), None)
    try:
        return Tokenizer(raw, eos_ids=ends, bos_id=bos, add_bos=first is not None, vocab_size=ids, unbuilt=unbuilt)
    except ValueError as error:
        raise bad_file(folder / "tokenizer.json", str(error)) from None


def ends_from_folder(folder: Path, below: int = MOST_TOKENS) -> list[int]:
    """The tokens that end a text, by generation_config.json, or else by config.json. Raises BadFile."""
    for name in ("generation_config.json", "config.json"):
        if found := _ids(_object(folder / name), "eos_token_id", folder / name, below):
            return found
    return []


def first_token(raw: tokenizers.Tokenizer, where: object) -> int | None:
    """The token that is put before every text, if one is. Raises BadFile for several."""
    try:
        asked = raw.encode("a", add_special_tokens=True)
    except BaseException as error:
        if not of_library(error):
            raise
        raise bad_file(where, f"cannot encode a text: {str(error).rstrip('.')}") from None
    before = asked.special_tokens_mask.index(0) if 0 in asked.special_tokens_mask else 0
    if before > 1:
        raise bad_file(where, f"begins every text with {before} tokens; one is supported")
    first: int | None = asked.ids[0] if before else None
    return first


def templates_from_folder(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The source of each chat template by its name; files in the folder go before the settings. Raises BadFile.

    chat_template.jinja is the default, chat_templates/NAME.jinja are others; the settings hold one, or several as a
    list of {name, template}.
    """
    found: dict[str, str] = {}
    path = folder / "chat_template.jinja"
    if path.is_file():
        found["default"] = _text(path)
    for path in sorted((folder / "chat_templates").glob("*.jinja")):
        found[path.stem] = _text(path)
    if found:
        return found
    listed = settings.get("chat_template")
    if isinstance(listed, str):
        return {"default": listed}
    try:
        found = {entry["name"]: entry["template"] for entry in listed or ()}
    except (TypeError, KeyError):
        found = {"": ""}
    if not all(isinstance(text, str) and text for entry in found.items() for text in entry):
        what = "the setting 'chat_template' must be a text, or a list of {name, template}"
        raise bad_file(folder / "tokenizer_config.json", what)
    return found


def content(token: Any) -> str | None:
    """The text of a special token as settings give it: a text, or a dict with its content. JSON can say half of a
    surrogate pair, which is no text.
    """
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
        return None
    return text or None


def _more(raw: tokenizers.Tokenizer, settings: dict[str, Any], folder: Path) -> list[tokenizers.AddedToken]:
    """The tokens to make whole in any text that tokenizer.json does not: those of the settings, in their order."""
    from tokenizers import AddedToken

    known = {token.content for token in raw.get_added_tokens_decoder().values()}
    listed = _listed(settings, folder)
    tokens = [listed[i] for i in sorted(listed)]
    special = [*named_tokens(settings).values(), *settings["extra_special_tokens"]]
    found = []
    for token in [*tokens, *special]:
        text = content(token)
        if text is None or text in known:
            continue
        known.add(text)
        flags = {name: bool(token[name]) for name in _FLAGS if name in token} if isinstance(token, dict) else {}
        is_special = token not in tokens or (isinstance(token, dict) and bool(token.get("special")))
        found.append(AddedToken(text, special=is_special, **{"normalized": not is_special, **flags}))
    return found


def _listed(settings: dict[str, Any], folder: Path) -> dict[int, Any]:
    """The added tokens of the settings by their ids. Raises BadFile."""
    listed = settings.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict) or not all(i.isdecimal() and len(i) < 9 and content(listed[i]) for i in listed):
        what = "the setting 'added_tokens_decoder' must be tokens by their ids"
        raise bad_file(folder / "tokenizer_config.json", what)
    return {int(i): token for i, token in listed.items()}


def _ids(settings: dict[str, Any], name: str, path: Path, below: int) -> list[int]:
    """A setting that is an id, several, or missing. Raises BadFile."""
    value = settings.get(name)
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and 0 <= i < below for i in found):
        raise bad_file(path, f"the setting {name!r} is {value!r}, and ids go from 0 to {below - 1}")
    return list(found)


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no such file."""
    try:
        return read_json(path, SETTINGS_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise bad_file(path, f"cannot be read: {error.strerror}") from None


def _data(path: Path) -> bytes:
    """What a vocabulary's file holds. Raises BadFile."""
    try:
        with open(path, "rb") as file:
            data = file.read(TOKENIZER_BYTES + 1)
    except OSError as error:
        raise bad_file(path, f"cannot be read: {error.strerror}") from None
    if len(data) > TOKENIZER_BYTES:
        raise bad_file(path, f"is larger than {TOKENIZER_BYTES >> 20} MiB")
    return data


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(4 * SOURCE + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise bad_file(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise bad_file(path, "is not valid UTF-8") from None
    if len(data) > 4 * SOURCE:
        raise bad_file(path, f"is larger than {4 * SOURCE >> 20} MiB")
    return text
