"""Writes GGUF files for tests: any settings and tensors, and complete tiny models of every family that GGUF holds."""

from __future__ import annotations

import copy
import functools
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickbrown.models import families
from quickbrown.models.gguf import Gguf
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight
from quickbrown.text.tokenizer import BYTE_OF
from quickbrown.weights.names import halves_of, kind_order, pairs, places
from quickbrown.weights.strings import Strings
from quickbrown.weights.tiny import TinySource

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Typed:
    """A setting of an explicit GGUF type (a number of the specification), where `write_gguf` would choose another."""

    kind: int
    value: Any


@dataclass(frozen=True)
class Vocabulary:
    """Tokens as a byte-level GGUF lists them; kinds are 1 normal, 3 control, 4 user-defined."""

    tokens: Sequence[str]
    merges: Sequence[str]
    kinds: Sequence[int]


def byte_vocabulary(merges: Sequence[str] = ("h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "Ġ Ġ")) -> Vocabulary:
    """Three control tokens, the 256 bytes, and what the merges make."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(BYTE_OF, key=lambda letter: BYTE_OF[letter])
    made = [merge.replace(" ", "") for merge in merges]
    return Vocabulary([*control, *letters, *made], merges, [3] * 3 + [1] * (256 + len(made)))


_SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _kind(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        return 7
    if isinstance(value, (int, np.integer)):
        return 5 if value < 0 or isinstance(value, np.int32) else 4
    if isinstance(value, (float, np.floating)):
        return 6
    if isinstance(value, (str, bytes)):
        return 8
    return 9


def _payload(kind: int, value: Any) -> bytes:
    if kind == 8:
        return _string(value)
    if kind != 9:
        return struct.pack("<" + _SCALAR[kind], value)
    inner = _kind(value[0]) if len(value) else 4
    return struct.pack("<IQ", inner, len(value)) + b"".join(_payload(inner, item) for item in value)


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Weight],
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """A file of these settings (Python values or `Typed`) and tensors (GGUF names), in their order."""
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind, value = (value.kind, value.value) if isinstance(value, Typed) else (_kind(value), value)
        head += _string(key) + struct.pack("<I", kind) + _payload(kind, value)
    body = b""
    for name, weight in tensors.items():
        sizes = weight.shape[::-1]
        head += _string(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        head += struct.pack("<IQ", FORMATS[weight.format].ggml_type, len(body))
        body += weight.data.tobytes()
        body += bytes(-len(body) % alignment)
    path = Path(path)
    path.write_bytes(head + bytes(-len(head) % alignment) + body)
    return path


def tiny_gguf(
    format: str = "q4_1", seed: int = 0, vocabulary: Vocabulary | None = None, **config: Any
) -> tuple[dict[str, Any], dict[str, Weight]]:
    """Settings and tensors of a tiny random model, as `write_gguf` takes them; `config` as `TinySource` does.

    What the model's family declares (models/gguf.py) is followed backwards.
    """
    vocabulary = vocabulary or byte_vocabulary()
    source = TinySource(format=format, seed=seed, vocab_size=len(vocabulary.tokens), **config)
    c, family = source.config, families.of_model_type(source.config["model_type"])
    gguf = family.gguf
    assert gguf is not None, f"no GGUF file holds a {family.name}"
    file = families.MODEL_TYPES[family.name]
    architecture = next(name for name, of in families.ARCHITECTURES.items() if of == file).partition(" of ")[0]
    settings = {f"{architecture}.{key}": _entry(c, field) for key, field in gguf.settings.items()}
    made = family.configure(c)
    settings |= {f"{architecture}.{key}": getattr(made, field) for key, field in gguf.equal.items()}
    if gguf.keyless is not None:
        counts = [0 if kind == gguf.keyless else c["num_key_value_heads"] for kind in c["layer_types"]]
        settings[f"{architecture}.attention.head_count_kv"] = counts
    if gguf.partial:
        dims = int(c["head_dim"] * c["rope_parameters"]["partial_rotary_factor"])
        settings[f"{architecture}.rope.dimension_count"] = dims
    metadata = {
        "general.architecture": architecture,
        "general.name": "tiny",
        **{key: value for key, value in settings.items() if value is not None},
        f"{architecture}.vocab_size": c["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": list(vocabulary.tokens),
        "tokenizer.ggml.token_type": [np.int32(kind) for kind in vocabulary.kinds],
        "tokenizer.ggml.merges": list(vocabulary.merges),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    tensors: dict[str, Weight] = {}
    for name, (tensor, part) in places(gguf, source.names()).items():
        weight = _stored(gguf, c, name, source.get(name))
        if part is not None:
            before = tensors[tensor].data if part else weight.data[:0]
            data = np.concatenate([before, weight.data])
            weight = Weight(weight.format, (part + 1, *weight.shape), data)
        tensors[tensor] = weight
    for name, pair in halves_of(gguf, source.names()).items():
        weight = source.get(name)
        rows = np.arange(weight.shape[1]).reshape(*((-1, 2) if gguf.alternate else (2, -1)))
        values = weight.data.reshape(*weight.shape[:2], -1)
        for tensor, half in zip(pair, rows.T if gguf.alternate else rows, strict=True):
            shape = (weight.shape[0], len(half), *weight.shape[2:])
            tensors[tensor] = Weight(weight.format, shape, values[:, half].reshape(math.prod(shape[:-1]), -1))
    return metadata, tensors


def _entry(config: Mapping[str, Any], field: str) -> Any:
    if field == "layer_types":
        return [kind == "sliding_attention" for kind in config[field]]
    return functools.reduce(lambda value, name: value.get(name), field.split("."), config)


def _stored(gguf: Gguf, config: Mapping[str, Any], name: str, weight: Weight) -> Weight:
    """As a GGUF file keeps a published weight."""
    stem = name.rpartition(".")[0]
    for end, heads in gguf.permuted.items():
        if stem.endswith(end):
            rows = weight.data.reshape(weight.shape[0], -1)
            weight = Weight(weight.format, weight.shape, pairs(rows, config[heads]).reshape(weight.data.shape))
    if stem.endswith(gguf.fused):
        heads = config["num_attention_heads"], config["num_key_value_heads"]
        return weight.picked(kind_order(*heads, config["head_dim"]))
    if stem.endswith(gguf.squeezed):
        return Weight(weight.format, (weight.shape[0], weight.shape[2]), weight.data)
    raised = name.endswith(".weight") and stem.endswith(gguf.raised)
    return quantize(weight.decode() + 1, "f32") if raised else weight


def holds(**config: Any) -> bool:
    """Whether a GGUF file can say all of this config, which is as `TinySource` takes it."""
    source = TinySource(**config)
    family = families.of_model_type(source.config["model_type"])
    if family.gguf is None:
        return False
    given: dict[str, Any] = copy.deepcopy(dict(family.gguf.fixed))
    given |= {name: source.config[name] for name in ("vocab_size", "tie_word_embeddings", *family.gguf.told)}
    for field in family.gguf.settings.values():
        *path, last = field.split(".")
        at = given
        for name in path:
            at = at.setdefault(name, {})
        at[last] = source.config[field] if field == "layer_types" else _entry(source.config, field)
        if path:
            at.setdefault("rope_type", "default")
    if family.gguf.keyless is not None:
        given |= {name: source.config[name] for name in ("num_key_value_heads", "layer_types")}
    if family.gguf.partial:
        given["rope_parameters"]["partial_rotary_factor"] = source.config["rope_parameters"]["partial_rotary_factor"]
    try:
        return family.configure(given) == family.configure(source.config)
    except ValueError:
        return False


def tiny_llama(format: str = "q4_1", seed: int = 0, vocabulary: Vocabulary | None = None, **config: Any) -> Any:
    """`tiny_gguf` of a Llama."""
    return tiny_gguf(format, seed, vocabulary, **config)


def as_read(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `GgufSource` gives those of a file that they were written to."""
    kinds = {str: Strings.of, int: np.array, float: np.array, np.int32: np.array}
    return {k: kinds[type(v[0])](v) if isinstance(v, list) and v else v for k, v in metadata.items()}


def write_tiny_gguf(
    path: str | os.PathLike[str],
    format: str = "q4_1",
    seed: int = 0,
    vocabulary: Vocabulary | None = None,
    version: int = 3,
    **config: Any,
) -> Path:
    """A complete file that loads: the weights of `TinySource(format=format, seed=seed, ...)`, vocabulary, template."""
    return write_gguf(path, *tiny_gguf(format, seed, vocabulary, **config), version=version)


def write_tiny_llama(path: str | os.PathLike[str], format: str = "q4_1", seed: int = 0, **more: Any) -> Path:
    """`write_tiny_gguf` of a Llama."""
    return write_tiny_gguf(path, format, seed, **more)
