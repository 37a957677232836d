"""Writes tiny checkpoints as Hugging Face publishes them: config, weights, tokenizer and template in one folder."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickbrown.quant.quantize import quantize
from quickbrown.weights.tiny import TinySource

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 512  # tokens, of both kinds of tokenizer, where `vocab_size` is not given
VERSION = "5.23.0"

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_DTYPES = {"f32": ("F32", "float32"), "f16": ("F16", "float16"), "bf16": ("BF16", "bfloat16")}
_SIZES = {  # of config.json, where not given
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
_SHAPES = (*_SIZES, "vocab_size", "attention_bias", "mlp_bias")  # fields that the weights depend on

_TEXT = """\
A list of colors: red, blue, green, yellow, orange, black and white. The quick brown fox jumps over the lazy dog.
The secret to baking a really good cake is patience, and the best ingredients that you can find in the kitchen.
Hello, my name is Ada and I like to read books about the sea, the stars and the people who sail by them.
User: What is the capital of France? Assistant: The capital of France is Paris. It lies on the river Seine.
system user assistant: You are a helpful assistant. Answer the questions of the user in one sentence.
Numbers: 0 1 2 3 4 5 6 7 8 9 10 12 24 100 2024; (brackets) [and] {braces}; "quotes" 'more'; a + b = c, 1 * 2 / 3 - 4!
def main(): return [x for x in range(10)]  # code_with_names & signs @ $ % ^ < > | ~ ` \\ ?
Once upon a time there was a king who had three daughters, and the youngest of them was the most beautiful of all.
"""


def write_checkpoint(
    folder: Path,
    *,
    model_type: str = "mistral",
    dtype: str = "f32",
    shards: int = 1,
    seed: int = 0,
    tokenizer: str | None = "sentencepiece",
    chat_template: str | None = None,
    generation_config: Mapping[str, Any] | None = {},
    legacy: bool = False,
    **config: Any,
) -> Path:
    """A checkpoint of the weights of `TinySource(model_type=..., seed=...)`, in a new folder.

    dtype              of every tensor: f32, f16, bf16
    shards             1: model.safetensors; more: so many files and an index
    tokenizer          "sentencepiece" (as Llama 2 and Mistral), "bytelevel" (as Qwen), None: no files
    chat_template      its text
    generation_config  fields of generation_config.json besides the special tokens; None: no file
    legacy             spell config.json and tokenizer_config.json as before transformers 5: torch_dtype, rope_theta and
                       rope_scaling, the chat template inside
    config             fields of config.json; None leaves a field out
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = _SIZES | {"vocab_size": VOCABULARY if tokenizer else 320} | config
    ends = _write_tokenizer(folder, tokenizer, fields["vocab_size"], chat_template, legacy) if tokenizer else (1, 2)
    special = {"bos_token_id": ends[0], "eos_token_id": ends[1]}
    _write_config(folder, model_type, dtype, special | fields, legacy)
    if generation_config is not None:
        _write_json(
            folder / "generation_config.json", special | {"transformers_version": VERSION} | dict(generation_config)
        )
    shape = {name: fields[name] for name in _SHAPES if fields.get(name) is not None}
    source = TinySource(model_type=model_type, seed=seed, **shape)
    tensors = {}
    for name in source.names():
        weight = quantize(source.get(name).decode(), dtype)
        tensors[name] = (_DTYPES[dtype][0], weight.shape, weight.data.tobytes())
    write_tensors(folder, tensors, shards)
    return folder


def write_tensors(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], shards: int = 1) -> None:
    """Tensors (dtype, shape, bytes) by name as model.safetensors, or as so many shards and their index."""
    names = sorted(tensors)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        places |= dict.fromkeys(part, file)
    total = sum(len(data) for _, _, data in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """One file: the length of its header (u64), the header (JSON, padded to 8), the tensors end to end."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data for _, _, data in tensors.values()))
    return path


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _write_config(folder: Path, model_type: str, dtype: str, fields: dict[str, Any], legacy: bool) -> None:
    fixed = {"architectures": [_ARCHITECTURES[model_type]], "model_type": model_type, "hidden_act": "silu"}
    own: dict[str, Any] = {"mistral": {"sliding_window": None}, "qwen2": {"use_sliding_window": False}}.get(
        model_type, {}
    )
    rope = fields.pop("rope_parameters", None) or {"rope_type": "default", "rope_theta": 10000.0}
    if legacy:
        rope = dict(rope)
        theta, kind = rope.pop("rope_theta", 10000.0), rope.get("rope_type", "default")
        spelled = {"rope_theta": theta, "torch_dtype": _DTYPES[dtype][1], "transformers_version": "4.40.0"}
        spelled["rope_scaling"] = None if kind == "default" else rope
    else:
        spelled = {"rope_parameters": rope, "dtype": _DTYPES[dtype][1], "transformers_version": VERSION}
    fields = fixed | own | spelled | fields
    # A null is published where it means something.
    keep = ("sliding_window", "rope_scaling")
    _write_json(folder / "config.json", {k: v for k, v in fields.items() if v is not None or k in keep})


@functools.cache
def tokenizer_json(kind: str, size: int = VOCABULARY) -> str:
    """The text of tokenizer.json: a vocabulary of `size` tokens learned from a few lines."""
    return _sentencepiece(size) if kind == "sentencepiece" else _bytelevel(size)


def _learned(raw: Any, size: int, **more: Any) -> dict[str, Any]:
    from tokenizers.trainers import BpeTrainer

    raw.train_from_iterator(_TEXT.splitlines(), BpeTrainer(vocab_size=size, show_progress=False, **more))
    found: dict[str, Any] = json.loads(raw.to_str())["model"]
    return found


def _sentencepiece(size: int) -> str:
    """<unk> <s> </s>, the 256 bytes that unknown characters fall back to, then pieces in which a blank is ▁."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learned = _learned(learner, size - 259)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)},
        [tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    raw = Tokenizer(model)
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces[:3]])
    return str(raw.to_str(pretty=True))


_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _bytelevel(size: int) -> str:
    """The 256 bytes and what is made of them, then <|endoftext|> <|im_start|> <|im_end|>."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    _learned(raw, size - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    raw.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    raw.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return str(raw.to_str(pretty=True))


def _write_tokenizer(
    folder: Path, kind: str, size: int, chat_template: str | None, legacy: bool
) -> tuple[int | None, int]:
    """Writes the tokenizer's files; its ids of bos, if it has one, and eos."""
    text = tokenizer_json(kind, size)
    (folder / "tokenizer.json").write_text(text, "utf-8")
    added = json.loads(text)["added_tokens"]
    if kind == "sentencepiece":
        config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
        config |= {"add_eos_token": False, "legacy": True, "tokenizer_class": "LlamaTokenizer"}
        ends: tuple[int | None, int] = (1, 2)
    else:
        config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None}
        config |= {"add_prefix_space": False, "errors": "replace", "tokenizer_class": "Qwen2Tokenizer"}
        ends = (None, added[2]["id"])
    config |= {"clean_up_tokenization_spaces": False, "model_max_length": 256}
    if legacy:
        config["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        }
        if chat_template is not None:
            config["chat_template"] = chat_template
    elif chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, "utf-8")
    _write_json(folder / "tokenizer_config.json", config)
    return ends
