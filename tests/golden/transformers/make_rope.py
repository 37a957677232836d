"""Makes rope.json: run `python tests/golden/transformers/make_rope.py` where transformers 5.23 and torch are.

Transformers' inverse frequencies, in float32, and its factor on cos and sin, for texts of several lengths: of published
parameters, and of some at the borders of what each type distinguishes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

FILE = Path(__file__).with_name("rope.json")
SHORT = [1.0 + 0.05 * i for i in range(16)]
LONG = [1.0 + 0.25 * i * i for i in range(16)]
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
}
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": SHORT, "long_factor": LONG}

# parameters, head_dim, max_position_embeddings
CASES: list[tuple[dict[str, Any], int, int]] = [
    ({"rope_type": "default", "rope_theta": 1e4}, 128, 4096),
    ({"rope_type": "default", "rope_theta": 5e5}, 80, 8192),
    ({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, 128, 16384),
    ({"rope_type": "linear", "rope_theta": 1e6, "factor": 1.5}, 16, 512),
    ({"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}, 512, 131072),
    ({"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.4, "factor": 8.0}, 80, 4096),
    ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, 64, 2048),
    ({"rope_type": "dynamic", "rope_theta": 5e5, "factor": 1.0}, 128, 4096),
    (YARN, 128, 131072),
    (YARN | {"truncate": False}, 128, 131072),
    (YARN | {"beta_fast": 16, "beta_slow": 2.5}, 64, 131072),
    (YARN | {"attention_factor": 0.8}, 64, 131072),
    (
        YARN | {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
        64,
        163840,
    ),
    (YARN | {"mscale": 0.707}, 64, 131072),
    (YARN | {"mscale": 0.707, "mscale_all_dim": 0.0}, 64, 131072),
    (YARN | {"factor": None}, 64, 65536),
    (YARN | {"factor": 0.5}, 64, 65536),
    (YARN | {"original_max_position_embeddings": 4}, 32, 64),
    (YARN | {"rope_theta": 2.0, "original_max_position_embeddings": 1 << 20}, 32, 1 << 22),
    (LLAMA3 | {"rope_theta": 5e5, "factor": 8.0}, 128, 131072),
    (LLAMA3 | {"rope_theta": 5e5, "factor": 32.0}, 64, 131072),
    (LLAMA3 | {"rope_theta": 1e4, "factor": 3, "low_freq_factor": 2, "high_freq_factor": 2.5}, 96, 131072),
    (LONGROPE | {"original_max_position_embeddings": 4096}, 32, 131072),
    (LONGROPE | {"original_max_position_embeddings": 4096, "factor": 8.0}, 32, 131072),
    (LONGROPE | {"original_max_position_embeddings": 4096, "attention_factor": 1.25}, 32, 131072),
    (LONGROPE | {"original_max_position_embeddings": 4096}, 32, 4096),
]


def case(parameters: dict[str, Any], head_dim: int, longest: int) -> dict[str, Any]:
    import theirs

    edge = parameters.get("original_max_position_embeddings", longest)
    lengths = [max(1, edge // 2), edge, edge + 1, 3 * edge + 7]
    found = [theirs.rotation(parameters, head_dim, longest, length) for length in lengths]
    return {
        "rope_parameters": parameters,
        "head_dim": head_dim,
        "max_position_embeddings": longest,
        "texts": [
            {"length": length, "frequencies": frequencies.tolist(), "factor": factor}
            for length, (frequencies, factor) in zip(lengths, found, strict=True)
            if parameters["rope_type"] in ("dynamic", "longrope") or length == lengths[0]
        ],
    }


def main() -> None:
    import transformers

    assert transformers.__version__ == "5.23.0", f"transformers is {transformers.__version__}"
    golden = {"made_by": "tests/golden/transformers/make_rope.py", "transformers": transformers.__version__}
    cases = [json.dumps(case(*of)) for of in CASES]
    head = json.dumps(golden, indent=1).removesuffix("\n}")
    FILE.write_text(head + ',\n "cases": [\n  ' + ",\n  ".join(cases) + "\n ]\n}\n", "utf-8")
    print(f"{FILE.name}: {len(CASES)} rotations, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
