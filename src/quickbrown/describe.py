"""What a model's file or folder is, said without loading it: what `qb info` shows, of models too that cannot run here.

Nothing of the weights is read, only what describes them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quickbrown import _native
from quickbrown.llm import configured, open_source, state_bytes
from quickbrown.quant.formats import FORMATS
from quickbrown.text.files import (
    content,
    named_tokens,
    templates_from_folder,
    tokenizer_from_folder,
    tokenizer_settings,
    vocabulary_in,
)
from quickbrown.text.gguf_vocab import templates_from_gguf, tokenizer_from_gguf
from quickbrown.weights.config import raw_config
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.gguf_file import GgufFile
from quickbrown.weights.safetensors import SafetensorsSource, stored
from quickbrown.weights.source import BadFile
from quickbrown.weights.strings import Strings

_VOCABULARIES = {
    "gpt2": "byte-level BPE", "llama": "SentencePiece BPE", "t5": "SentencePiece unigrams", "bert": "WordPiece",
    "rwkv": "RWKV", "plamo2": "PLaMo-2", "none": "none",
}  # fmt: skip
_KV_BYTES = 2  # of a key's or a value's number: bfloat16
_FIELDS = {  # that every family has, however its config.json calls them
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "context": "max_position_embeddings",
    "kv_heads": "num_key_value_heads",
    "key": "head_dim",
    "value": "head_dim",
}
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+ -]{1,80})", re.MULTILINE | re.ASCII)

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> format, or the type of one that cannot be read; shape


def describe(path: Path, context: int | None = None) -> dict[str, Any]:
    """Facts about the model in a GGUF file (any part of one) or a folder.

    context  tokens that the memory for keys and values is said for; the model's own context unless given

    Raises BadFile for what is damaged or no model's file; a model that is whole and cannot run is described, and `why`
    says what is in its way. ValueError for a context that is no positive number.
    """
    if context is not None and context < 1:
        raise ValueError(f"context must be a positive number of tokens, not {context}")
    facts, sizes, tensors, unreadable = _folder(path) if path.is_dir() else _gguf(path)
    source, why = _opened(path)
    found = {"file": str(path), **facts, "runs": why is None}
    if why is not None:
        found["why"] = why
    if isinstance(source, SafetensorsSource):  # several tensors may be one weight, and some are of no use for texts
        if source.quantization:
            found["quantization"] = source.quantization
        tensors = {name: (weight.format, weight.shape) for name in source.names() if (weight := source.get(name))}
        sizes |= {size: source.config[field] for size, field in _FIELDS.items()}
    if source is not None:
        config = configured(source)
        sizes["kept"] = sum(heads * (key + value) for heads, key, value in config.kv_layers)
        sizes["state"] = state_bytes(config)
    found |= {name: value for name, value in sizes.items() if name in ("layers", "hidden_size", "context") and value}
    found["parameters"] = sum(math.prod(shape) for _, shape in tensors.values())
    found["formats"] = _formats(tensors)
    if unreadable:
        found["unreadable"] = {name: f"{count} tensors" for name, count in sorted(unreadable.items())}
    found["memory"] = _memory(tensors, sizes, context)
    return found


def _gguf(path: Path) -> tuple[dict[str, Any], dict[str, int | None], Tensors, Counter[str]]:
    file = GgufFile(path)
    said = file.metadata
    family = _text(said.get("general.architecture"))

    def number(key: str) -> int | None:
        value = said.get(f"{family}.{key}")
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value):  # one for each layer
            value = round(float(value.mean()))
        return value if type(value) is int and 0 < value < 1 << 31 else None

    heads, hidden = number("attention.head_count"), number("embedding_length")
    each = number("attention.key_length") or (hidden // heads if hidden and heads else None)
    sizes = {
        "layers": number("block_count"),
        "hidden_size": hidden,
        "context": number("context_length"),
        "kv_heads": number("attention.head_count_kv") or heads,
        "key": each,
        "value": number("attention.value_length") or each,
    }
    try:
        templates: bool | str = bool(templates_from_gguf(said, path))
    except BadFile as error:
        templates = _reason(error, path)
    facts = {
        "container": "GGUF" + (f" in {len(file.paths)} parts" if len(file.paths) > 1 else ""),
        "file_bytes": sum(part.stat().st_size for part in file.paths),
        "name": _text(said.get("general.name")),
        "license": _text(said.get("general.license")),
        "family": family,
        "vocabulary": _gguf_vocabulary(said),
        "chat_template": templates,
    }
    tensors = {name: (tensor.format, tensor.shape) for name, tensor in file.tensors.items()}
    return facts, sizes, tensors, Counter(file.unreadable.values())


def _gguf_vocabulary(said: Mapping[str, Any]) -> dict[str, Any] | None:
    at = "tokenizer.ggml."
    kind, pre, tokens = (said.get(at + key) for key in ("model", "pre", "tokens"))
    if not isinstance(kind, str):
        return None
    found: dict[str, Any] = {"kind": _VOCABULARIES.get(kind, _text(kind))}
    if isinstance(pre, str):
        found["words"] = f"cut as by {_text(pre)!r}"
    if isinstance(tokens, Strings):
        found["size"] = len(tokens)
        for key, value in said.items():
            if key.startswith(at) and key.endswith("_token_id") and type(value) is int and 0 <= value < len(tokens):
                found[key[len(at) : -len("_token_id")]] = f"{value} {tokens[value]!r}"
    return found


def _folder(path: Path) -> tuple[dict[str, Any], dict[str, int | None], Tensors, Counter[str]]:
    config = raw_config(path)
    inner = config.get("text_config")  # of a model that sees or hears as well
    said = config | inner if isinstance(inner, dict) else config

    def number(key: str) -> int | None:
        value = said.get(key)
        return value if type(value) is int and 0 < value < 1 << 31 else None

    heads, hidden = number("num_attention_heads"), number("hidden_size")
    each = number("head_dim") or (hidden // heads if hidden and heads else None)
    sizes = {
        "layers": number("num_hidden_layers"),
        "hidden_size": hidden,
        "context": number("max_position_embeddings"),
        "kv_heads": number("num_key_value_heads") or heads,
        "key": each,
        "value": each,
    }
    files = sorted(path.glob("*.safetensors"))
    file = vocabulary_in(path)
    vocabulary: dict[str, Any] = {"kind": file.name if file else "no file of one that is read"}
    if listed := number("vocab_size"):
        vocabulary["size"] = listed
    templates: bool | str = False
    try:
        settings = tokenizer_settings(path)
        vocabulary |= {n.removesuffix("_token"): repr(content(token)) for n, token in named_tokens(settings).items()}
        templates = bool(templates_from_folder(path, settings))
    except BadFile as error:
        templates = _reason(error, path)
    facts = {
        "container": f"safetensors in {len(files)} files" if len(files) > 1 else "safetensors",
        "file_bytes": sum(file.stat().st_size for file in files),
        "license": _license(path / "README.md"),
        "family": _text(config.get("model_type")),
        "vocabulary": vocabulary,
        "chat_template": templates,
    }
    tensors = stored(path)
    unreadable = Counter(kind for kind, _ in tensors.values() if kind not in FORMATS)
    return facts, sizes, {name: at for name, at in tensors.items() if at[0] in FORMATS}, unreadable


def _license(readme: Path) -> str | None:
    """What the card of a repository says: YAML between two lines of dashes."""
    try:
        with open(readme, encoding="utf-8", errors="replace") as file:
            card = file.read(1 << 16)
    except OSError:
        return None
    match = _LICENSE.search(card.partition("\n---")[0]) if card.startswith("---") else None
    return match[1].strip() if match else None


def _opened(path: Path) -> tuple[GgufSource | SafetensorsSource | None, str | None]:
    """The source of the model's weights, and why it cannot be loaded here, if it cannot."""
    source = None
    try:
        source = open_source(path)
        if isinstance(source, GgufSource):
            tokenizer_from_gguf(source.metadata, path, lazy=True)
        elif vocabulary_in(path):
            tokenizer_from_folder(path, lazy=True)
    except ValueError as error:  # BadFile among them
        return source, _reason(error, path)
    return source, None


def _reason(error: Exception, path: Path) -> str:
    """What an error says, without the file's name in front."""
    return re.sub(rf"^{re.escape(str(path))}(/[\w.-]+)?: ", "", " ".join(str(error).split()))


def _formats(tensors: Tensors) -> dict[str, str]:
    """Of each format of matrices: how many, in how many bits a weight, and as what they are held."""
    found = {}
    for name, count in Counter(format for format, _ in tensors.values()).most_common():
        form = FORMATS[name]
        how = "held in" if form.exact else "rounded to"
        as_what = "" if form.held is None else f", {how} {form.held}: {FORMATS[form.held].bits:g} bits"
        found[name] = f"{count} tensors, {form.bits:g} bits a weight{as_what}"
    return found


def _memory(tensors: Tensors, sizes: Mapping[str, int | None], context: int | None) -> dict[str, Any]:
    """Bytes of the weights as they are held, and of keys and values of a text."""
    weights = 0
    for format, shape in tensors.values():
        rows, width = math.prod(shape[:-1]), shape[-1] if shape else 1
        held = FORMATS[format].held or format
        weights += _native.packed_size(held, rows, width) if len(shape) > 1 else _native.vector_size(width)
    found: dict[str, Any] = {"weights_bytes": weights}
    layers, kv_heads, key, value = (sizes[name] for name in ("layers", "kv_heads", "key", "value"))
    kept = sizes.get("kept")  # numbers a token, where the family is known
    if kept is None and layers and kv_heads and key and value:
        kept = layers * kv_heads * (key + value)
    tokens = context or sizes["context"]
    if kept:
        each = kept * _KV_BYTES
        found["kv_bytes_per_token"] = each
        if tokens:
            found["context"] = tokens
            found["kv_bytes"] = each * tokens
            found["bytes_together"] = weights + each * tokens
    if state := sizes.get("state"):
        found["state_bytes_per_text"] = state
    return found


def _text(value: Any) -> str | None:
    """A text of a file as one line of moderate length."""
    return " ".join(value.split())[:200] if isinstance(value, str) else None
