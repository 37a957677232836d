"""Makes logits/*.json: run `python tests/golden/transformers/make_logits.py [FAMILY...]` where transformers 5.23 and
torch are; without a name, for all families.

For every row of tests/configs.py, with weights that `TinySource` makes of a seed: transformers' logits in float32 at a
few positions of a text, and the 16 tokens that it writes after the text by taking the likeliest one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

FOLDER = Path(__file__).with_name("logits")
BASE: dict[str, Any] = {"vocab_size": 48, "max_position_embeddings": 512}
TOKENS, SEEDS = 16, 8


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


def case(fields: dict[str, Any], length: int) -> dict[str, Any]:
    """Of the checkpoint, among those of a few seeds, whose text repeats itself least: there a fault shows soonest."""
    import theirs
    import tiny
    from quickbrown.weights.tiny import TinySource

    tokens = tiny.text(length, 0, BASE["vocab_size"]).tolist()
    sources = [TinySource(seed=seed, **BASE | fields) for seed in range(SEEDS)]
    models = [theirs.model(source) for source in sources]
    # Dynamic angles follow the length of the text as it grows; ours are from the start those of the length it may have.
    config = sources[0].config
    dynamic = config.get("rope_parameters", {}).get("rope_type") == "dynamic"
    grows = dynamic and length + TOKENS > config["max_position_embeddings"]
    texts = [[] if grows else written(made, tokens) for made in models]
    seed = max(range(SEEDS), key=lambda seed: len(set(texts[seed])))
    positions = sorted({1, length // 2, length - 1})
    return {
        "seed": seed,
        "config": BASE | fields,
        "tokens": tokens,
        "positions": positions,
        "logits": [[round(float(x), 6) for x in row] for row in theirs.logits(models[seed], tokens)[positions]],
        "written": texts[seed],
    }


def main(families: list[str]) -> None:
    import torch
    import transformers

    from configs import LENGTHS, ROWS, family

    transformers.utils.logging.disable_progress_bar()
    assert transformers.__version__ == "5.23.0", f"transformers is {transformers.__version__}"
    golden = {
        "made_by": "tests/golden/transformers/make_logits.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    head = json.dumps(golden, indent=1).removesuffix("\n}")
    FOLDER.mkdir(exist_ok=True)
    for of in families or sorted({family(name) for name in ROWS}):
        rows = [name for name in ROWS if family(name) == of]
        cases = [f"{json.dumps(name)}: {json.dumps(case(ROWS[name], LENGTHS.get(name, 24)))}" for name in rows]
        file = FOLDER / f"{of}.json"
        file.write_text(head + ',\n "cases": {\n  ' + ",\n  ".join(cases) + "\n }\n}\n", "utf-8")
        print(f"{file.name}: {len(rows)} models, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
