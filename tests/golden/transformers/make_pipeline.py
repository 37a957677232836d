"""Makes pipeline.json: run `python tests/golden/transformers/make_pipeline.py` where transformers 5.23 and torch are.

The records that transformers gives in float32 for the calls of tests/hf/pipeline_cases.py, on a tiny random checkpoint.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "hf")]
FILE = Path(__file__).with_name("pipeline.json")
MARGIN = 2e-4  # a choice nearer than this could be made either way in float32


def main() -> None:
    import torch
    import transformers

    from checkpoints import write_checkpoint
    from pipeline_cases import CASES, CHECKPOINT, GREEDY

    transformers.logging.set_verbosity_error()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), **CHECKPOINT)
        pipe = transformers.pipeline("text-generation", model=folder, dtype=torch.float32)
    for name, (inputs, options) in CASES.items():
        options = {key: value for key, value in {**GREEDY, **options}.items() if value is not None}
        records = pipe(inputs, **options)
        options.pop("return_tensors", None)  # with which there are no scores
        whole = pipe(inputs, **options, return_dict_in_generate=True, output_scores=True)
        for record in [r for row in whole for r in (row if isinstance(row, list) else [row])]:
            best = torch.tensor(record["scores"]).topk(2, -1).values
            if (best[:, 0] - best[:, 1]).min() < MARGIN:
                raise SystemExit(f"{name}: a step is decided by less than {MARGIN}; change the case")
        found[name] = records
    golden = {
        "made_by": "tests/golden/transformers/make_pipeline.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "cases": found,
    }
    FILE.write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
