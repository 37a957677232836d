"""Makes GGUF files of Llama's shape with random weights, so that anybody can measure models of some size.

    PYTHON benchmarks/models.py FOLDER [--shapes tiny1b mistral1b] [--formats Q4_0 Q4_K_M] [--vocabulary FILE.gguf]
                                [--checkpoint]

writes FOLDER/SHAPE.FORMAT.gguf, and with --checkpoint FOLDER/SHAPE, a folder of bfloat16 weights that transformers
reads. PYTHON is one that has gguf, numpy and llama-cpp-python, whose quantizer encodes the weights. How fast a model is
does not depend on their values. The tokenizer is that of another GGUF file, the default model's unless given (`qb pull
smollm2-135m` fetches it), cut to the shape's vocabulary or padded.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

VOCABULARY = Path("~/.cache/quickbrown/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf")
CONTEXT = 32768
PUBLISHED = {  # names in a checkpoint of what GGUF calls otherwise
    "token_embd": "model.embed_tokens",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "output_norm": "model.norm",
    "output": "lm_head",
}
NOISE = (1 << 24) + 1009  # values that all tensors are cut from: no row of usual widths is like its neighbours


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and (rows, inputs) of each weight, (inputs,) of a norm."""
        kv = self.hidden // self.heads * self.kv_heads
        yield "token_embd", (self.vocabulary, self.hidden)
        for i in range(self.layers):
            yield f"blk.{i}.attn_norm", (self.hidden,)
            yield f"blk.{i}.attn_q", (self.hidden, self.hidden)
            yield f"blk.{i}.attn_k", (kv, self.hidden)
            yield f"blk.{i}.attn_v", (kv, self.hidden)
            yield f"blk.{i}.attn_output", (self.hidden, self.hidden)
            yield f"blk.{i}.ffn_norm", (self.hidden,)
            yield f"blk.{i}.ffn_gate", (self.inner, self.hidden)
            yield f"blk.{i}.ffn_up", (self.inner, self.hidden)
            yield f"blk.{i}.ffn_down", (self.hidden, self.inner)
        yield "output_norm", (self.hidden,)
        yield "output", (self.vocabulary, self.hidden)


SHAPES = {
    "tiny1b": Shape(2048, 22, 32, 4, 5632, 32000),  # TinyLlama 1.1B
    "mistral7b": Shape(4096, 32, 32, 8, 14336, 32000),  # Mistral 7B
    "mistral1b": Shape(4096, 4, 32, 8, 14336, 32000),  # 4 of its 32 layers: heads of 128, in groups of 4
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny1b", "mistral7b"])
    parser.add_argument("--formats", nargs="+", default=["Q4_0", "Q4_K_M"], help="as llama.cpp names them; also F16")
    parser.add_argument("--vocabulary", type=Path, default=VOCABULARY)
    parser.add_argument("--checkpoint", action="store_true")
    a = parser.parse_args()
    unknown = [name for name in a.formats if not hasattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")]
    if unknown:
        parser.error(f"llama.cpp has no format {unknown[0]}")
    vocabulary = gguf.GGUFReader(a.vocabulary.expanduser())
    a.folder.mkdir(parents=True, exist_ok=True)
    for name in a.shapes:
        plain = a.folder / f"{name}.F16.gguf"
        write(plain, SHAPES[name], vocabulary)
        for encoding in a.formats:
            if encoding != "F16":
                quantize(plain, a.folder / f"{name}.{encoding}.gguf", encoding)
        if "F16" not in a.formats:
            plain.unlink()
        if a.checkpoint:
            write_checkpoint(a.folder / name, SHAPES[name])


def write(path: Path, shape: Shape, vocabulary: gguf.GGUFReader) -> None:
    """A file of float16 weights and float32 norms of 1."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocabulary)
    add_tokenizer(writer, vocabulary, shape.vocabulary)
    noise = (np.random.default_rng(0).standard_normal(NOISE, np.float32) * 0.02).astype(np.float16)
    tensors = list(shape.tensors())
    for name, size in tensors:
        kind: np.dtype[Any] = np.dtype(np.float16 if len(size) == 2 else np.float32)
        writer.add_tensor_info(f"{name}.weight", size, kind, int(np.prod(size)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, size in tensors:
        writer.write_tensor_data(np.resize(noise, size) if len(size) == 2 else np.ones(size, np.float32))
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: gguf.GGUFReader, size: int) -> None:
    """The first `size` tokens of a byte-level tokenizer, as many as there are, and the merges that make them."""

    def field(name: str) -> Any:
        return vocabulary.fields[f"tokenizer.ggml.{name}"].contents()

    tokens, kinds = field("tokens")[:size], field("token_type")[:size]
    missing = range(len(tokens), size)
    known = set(tokens)
    merges = [merge for merge in field("merges") if known.issuperset([*merge.split(" "), merge.replace(" ", "")])]
    writer.add_tokenizer_model(field("model"))
    writer.add_tokenizer_pre(field("pre"))
    writer.add_token_list([*tokens, *(f"<unused {i}>" for i in missing)])
    writer.add_token_types([*kinds, *(gguf.TokenType.UNUSED for _ in missing)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(field("bos_token_id"))
    writer.add_eos_token_id(field("eos_token_id"))


def write_checkpoint(folder: Path, shape: Shape) -> None:
    """config.json and model.safetensors of bfloat16 weights and norms of 1."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    noise = np.random.default_rng(0).standard_normal(NOISE, np.float32) * np.float32(0.02)
    bits = (noise.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16, rounded to zero
    ones = np.full(shape.hidden, 0x3F80, np.uint16)
    header, at = {}, 0
    tensors = [(published(name), size) for name, size in shape.tensors()]
    for name, size in tensors:
        end = at + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, size in tensors:
            file.write(np.resize(bits, size) if len(size) == 2 else ones)


def published(name: str) -> str:
    layer, found, kind = name.removeprefix("blk.").partition(".")
    return f"model.layers.{layer}.{PUBLISHED[kind]}.weight" if found else f"{PUBLISHED[name]}.weight"


def quantize(source: Path, target: Path, encoding: str) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{encoding}")
    if code := llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options):
        raise SystemExit(f"llama.cpp could not make {target.name}: {code}")


if __name__ == "__main__":
    main()
