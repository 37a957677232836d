"""Makes logits.json: run `python tests/golden/transformers/make_logits.py` where transformers 5.23 and torch are.

For tiny random checkpoints of every family, whose weights `TinySource` makes of a seed: transformers' logits in float32
at a few positions of a text, and the 16 tokens that it writes after the text by taking the likeliest one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

FILE = Path(__file__).with_name("logits.json")
BASE: dict[str, Any] = {"vocab_size": 48, "max_position_embeddings": 512, "tie_word_embeddings": False}
MIXED = ("sliding_attention", "full_attention")
SHORT = [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0]
LONG = [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0]
TOKENS = 16


def rotated(rope_type: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0} | parameters}


YARN = {"factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {"short_factor": SHORT, "long_factor": LONG}

# name: family, fields, length of the text
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "llama": ("llama", {}, 24),
    "llama, tied": ("llama", {"tie_word_embeddings": True}, 24),
    "llama, all biases": ("llama", {"attention_bias": True, "mlp_bias": True}, 24),
    "llama, linear": ("llama", rotated("linear", factor=4.0), 24),
    "llama, dynamic, short": ("llama", rotated("dynamic", factor=2.0) | {"max_position_embeddings": 40}, 24),
    "llama, dynamic, long": ("llama", rotated("dynamic", factor=2.0) | {"max_position_embeddings": 16}, 40),
    "llama, yarn": ("llama", rotated("yarn", **YARN), 24),
    "llama, yarn with everything": (
        "llama",
        rotated("yarn", **YARN, beta_fast=8, beta_slow=2, mscale=0.7, mscale_all_dim=0.4, truncate=False),
        24,
    ),
    "llama, longrope, short": ("llama", rotated("longrope", **LONGROPE, original_max_position_embeddings=64), 24),
    "llama, longrope, long": ("llama", rotated("longrope", **LONGROPE, original_max_position_embeddings=16), 24),
    "llama, llama3": ("llama", rotated("llama3", **LLAMA3), 24),
    "mistral": ("mistral", {"head_dim": 32}, 24),
    "mistral, window": ("mistral", {"sliding_window": 7}, 24),
    "mistral, window, long": ("mistral", {"sliding_window": 20}, 300),
    "qwen2": ("qwen2", {"num_key_value_heads": 1}, 24),
    "qwen2, window": ("qwen2", {"sliding_window": 7, "layer_types": MIXED}, 24),
    "qwen3": ("qwen3", {"head_dim": 32}, 24),
    "qwen3, bias and window": ("qwen3", {"attention_bias": True, "sliding_window": 9, "layer_types": MIXED}, 24),
}


def written(made: Any, tokens: list[int]) -> list[int]:
    """The likeliest tokens, one after another. Empty where a choice is so close that rounding might turn it over."""
    import theirs

    text = list(tokens)
    for _ in range(TOKENS):
        row = theirs.logits(made, text)[-1]
        second, first = np.sort(row)[-2:]
        if first - second < 1e-2:
            return []
        text.append(int(row.argmax()))
    return text[len(tokens) :]


def case(family: str, fields: dict[str, Any], length: int) -> dict[str, Any]:
    """Of the checkpoint, among those of 16 seeds, whose text repeats itself least: there a fault would show soonest."""
    import theirs
    import tiny
    from quickbrown.weights.tiny import TinySource

    tokens = tiny.text(length, 0, BASE["vocab_size"]).tolist()
    sources = [TinySource(model_type=family, seed=seed, **BASE | fields) for seed in range(16)]
    models = [theirs.model(source) for source in sources]
    # Dynamic angles follow the length of the text as it grows; ours are from the start those of the length it may have.
    config = sources[0].config
    dynamic = config["rope_parameters"]["rope_type"] == "dynamic"
    grows = dynamic and length + TOKENS > config["max_position_embeddings"]
    texts = [[] if grows else written(made, tokens) for made in models]
    seed = max(range(16), key=lambda seed: len(set(texts[seed])))
    positions = sorted({1, length // 2, length - 1})
    return {
        "seed": seed,
        "config": config,
        "tokens": tokens,
        "positions": positions,
        "logits": [[round(float(x), 6) for x in row] for row in theirs.logits(models[seed], tokens)[positions]],
        "written": texts[seed],
    }


def main() -> None:
    import torch
    import transformers

    assert transformers.__version__ == "5.23.0", f"transformers is {transformers.__version__}"
    golden = {
        "made_by": "tests/golden/transformers/make_logits.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    cases = [f"{json.dumps(name)}: {json.dumps(case(*of))}" for name, of in CASES.items()]
    head = json.dumps(golden, indent=1).removesuffix("\n}")
    FILE.write_text(head + ',\n "cases": {\n  ' + ",\n  ".join(cases) + "\n }\n}\n", "utf-8")
    print(f"{FILE.name}: {len(CASES)} models, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
