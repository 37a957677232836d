"""Makes generate.json: run `python tests/golden/transformers/make_generate.py` where transformers 5.23 and torch are.

The tokens that transformers writes in float32 for the calls of tests/hf/generate_cases.py, on a tiny random checkpoint;
for the first of them also the log-probability of each chosen token, and its scores' largest entries.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "hf")]
FILE = Path(__file__).with_name("generate.json")
MARGIN = 2e-4  # a choice nearer than this could be made either way in float32


def main() -> None:
    import torch
    import transformers

    from checkpoints import write_checkpoint
    from generate_cases import CASES, CHECKPOINT

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), **CHECKPOINT)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = tokenizer.eos_token
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for name, (prompts, side, keywords) in CASES.items():
        tokenizer.padding_side = side
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        out = model.generate(**inputs, **keywords, return_dict_in_generate=True, output_scores=True, output_logits=True)
        for at, scores in enumerate(out.scores):
            best = scores.topk(2).values
            new = out.sequences[:, inputs.input_ids.shape[1] + at]
            close = (best[:, 0] - best[:, 1] < MARGIN) & (new == scores.argmax(-1))
            if close.any():
                raise SystemExit(f"{name}: step {at} is decided by less than {MARGIN}; change the case")
        new = out.sequences[:, inputs.input_ids.shape[1] :]
        logprobs = torch.stack([step.log_softmax(-1) for step in out.logits], 1).gather(2, new[..., None])[..., 0]
        found[name] = {"sequences": out.sequences.tolist()}
        if name == "default":
            found[name]["logprobs"] = [[round(x, 5) for x in row] for row in logprobs.tolist()]
        if name == "repetition_penalty":
            found[name]["scores"] = [
                [[round(x, 4) for x in row] for row in step[:, ::37].tolist()] for step in out.scores[:6]
            ]
    golden = {
        "made_by": "tests/golden/transformers/make_generate.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "cases": found,
    }
    FILE.write_text(json.dumps(golden, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
