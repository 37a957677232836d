"""Makes words.json: run it where llama-cpp-python 0.3.36, gguf and tokenizers are.

What llama.cpp makes of the hard texts in each way that it knows to cut them into words, with one byte-level vocabulary
that was trained on them uncut: its tokens reach over every place where a text may be cut, so that each cut is seen.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

KINDS = [
    "default", "gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "jais", "trillion", "granite-docling",
    "mpt", "olmo", "smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2", "command-r",
    "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx", "smaug-bpe",
    "glm4", "chatglm-bpe", "qwen2", "deepseek-r1-qwen", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open",
    "grok-2", "qwen35", "ufakzeka", "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4", "deepseek-llm",
    "deepseek-coder", "spark2_5", "youtu", "falcon", "bloom", "poro-chat", "gpt3-finnish", "viking", "tekken",
    "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "tiny_aya", "cohere2moe", "kimi-k2", "superbpe",
    "bailingmoe", "bailingmoe2", "llada-moe", "seed-coder", "minicpm5", "laguna", "exaone-moe", "jais-2",
    "chameleon",
]  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def vocabulary(texts: list[str]) -> tuple[list[str], list[str]]:
    """Tokens and merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts * 3,
        trainers.BpeTrainer(
            vocab_size=1200, initial_alphabet=letters, special_tokens=SPECIAL, show_progress=False, max_token_length=12
        ),
    )
    made = json.loads(raw.to_str())["model"]
    return sorted(made["vocab"], key=made["vocab"].get), [" ".join(pair) for pair in made["merges"]]


def write(path: Path, kind: str, tokens: list[str], merges: list[str]) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(64)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    import llama_cpp

    from hard_texts import TEXTS

    tokens, merges = vocabulary(TEXTS)
    groups: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder, f"{kind}.gguf")
            write(path, kind, tokens, merges)
            model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
            ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS]
            packed = [base64.b64encode(np.array(i, "<u2").tobytes()).decode() for i in ids]
            groups.setdefault(json.dumps(packed), {"kinds": [], "ids": packed})["kinds"].append(kind)
    made = {"llama_cpp": llama_cpp.__version__, "tokens": tokens, "merges": merges, "groups": list(groups.values())}
    (HERE / "words.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
