"""AutoTokenizer: the tokenizer of a model, from wherever its files are."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from quickbrown.hf.pretrained_tokenizer import PreTrainedTokenizer
from quickbrown.text import files
from quickbrown.text.files import NAMED
from quickbrown.types import UnknownOption
from quickbrown.weights.source import bad_file

__all__ = ["AutoTokenizer", "PreTrainedTokenizer"]

_PLAIN = (
    "padding_side",
    "truncation_side",
    "model_max_length",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "chat_template",
)
OPTIONS = (*_PLAIN, "add_bos_token", "add_eos_token", *NAMED, "extra_special_tokens")
_WHERE = (
    "revision",
    "token",
    "cache_dir",
    "local_files_only",
    "force_download",
    "subfolder",
    "gguf_file",
    "use_fast",
    "trust_remote_code",
)


class AutoTokenizer:
    """Makes the tokenizer of a model: `AutoTokenizer.from_pretrained(name_or_path)`."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not made; AutoTokenizer.from_pretrained(name_or_path) makes a tokenizer")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        gguf_file: str | None = None,
        use_fast: bool = True,
        trust_remote_code: bool | None = False,
        **options: Any,
    ) -> PreTrainedTokenizer:
        """The tokenizer of a model.

        pretrained_model_name_or_path  a name that `qb list` knows, a GGUF file, a folder with tokenizer.json, or a
                                       repository of the Hugging Face hub
        revision, token, cache_dir, local_files_only, force_download, subfolder, gguf_file  where to find its files
        trust_remote_code              a permission that is not used: a model's own code is never run
        options                        padding_side, truncation_side, model_max_length, model_input_names,
                                       clean_up_tokenization_spaces, chat_template, add_bos_token, add_eos_token, and
                                       special tokens: bos_token, eos_token, pad_token, ..., extra_special_tokens

        Raises HubError for a tokenizer that cannot be had, BadFile for damaged or unsupported files, UnknownOption, and
        ValueError for options out of range. Code that comes with a model is never run.
        """
        from quickbrown.weights.hub import locate

        if not use_fast:
            raise ValueError("use_fast=False asks for a tokenizer written in Python; there is only the fast one")
        for name in options:
            if name not in OPTIONS:
                raise UnknownOption(name, [*OPTIONS, *_WHERE])
        where = locate(
            pretrained_model_name_or_path,
            files="tokenizer",
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
            gguf_file=gguf_file,
        )
        tokenizer = _load(where, os.fspath(pretrained_model_name_or_path), options)
        special = {name: options[name] for name in (*NAMED, "extra_special_tokens") if options.get(name) is not None}
        if special:
            tokenizer.add_special_tokens(special)
        for name in NAMED:
            if name in options and options[name] is None:
                setattr(tokenizer, name, None)
        for name in ("add_bos_token", "add_eos_token"):
            if options.get(name) is not None:
                setattr(tokenizer, name, options[name])
        return tokenizer


def _load(path: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizer:
    """The tokenizer in a folder or a GGUF file; `options` go before what is said there."""
    make = _from_folder if path.is_dir() else _from_gguf
    return make(path, name, {option: options[option] for option in _PLAIN if options.get(option) is not None})


def _from_folder(folder: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizer:
    settings = files.tokenizer_settings(folder)
    core = files.tokenizer_of(folder, settings)
    special = {key: files.content(token) or "" for key, token in files.named_tokens(settings).items()}
    extra = [files.content(token) or "" for token in settings["extra_special_tokens"]]
    given = {key: settings[key] for key in _PLAIN if settings.get(key) is not None}
    given["chat_template"] = _templates(files.templates_from_folder(folder, settings))
    made = functools.partial(
        PreTrainedTokenizer,
        core,
        name_or_path=name,
        special_tokens=special,
        extra_special_tokens=extra,
        init_kwargs=settings,
    )
    try:
        tokenizer = made(**given)
    except (TypeError, ValueError) as error:
        raise bad_file(folder / "tokenizer_config.json", str(error)) from None
    return made(**given | options) if options else tokenizer


def _from_gguf(path: Path, name: str, options: dict[str, Any]) -> PreTrainedTokenizer:
    from quickbrown.text.gguf_vocab import named_from_gguf, templates_from_gguf, tokenizer_from_gguf
    from quickbrown.weights.gguf import GgufSource

    source = GgufSource(path)
    core = tokenizer_from_gguf(source.metadata, path)
    given = {
        "chat_template": _templates(templates_from_gguf(source.metadata, path)),
        "model_max_length": source.config["max_position_embeddings"],
    }
    special = named_from_gguf(source.metadata, core, path)
    tokenizer = PreTrainedTokenizer(core, name_or_path=name, special_tokens=special, **given | options)
    if core.add_bos:
        tokenizer.add_bos_token = True
    return tokenizer


def _templates(found: dict[str, str]) -> str | dict[str, str] | None:
    """The source of the only template, several by name, or None."""
    return found["default"] if found.keys() == {"default"} else found or None
