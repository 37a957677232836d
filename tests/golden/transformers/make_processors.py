"""Makes processors.json: run this file where transformers 5.23 and torch are.

What transformers makes of fixed rows of logits, by each processor and by whole chains.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation import logits_process

V = 24
INF = float("inf")


def rows(seed: int, scale: float = 2.0, step: float = 0.0) -> list[list[float]]:
    """(2, V) logits that float32 holds exactly; rounded to multiples of `step`, many are equal."""
    x = np.random.default_rng(seed).normal(size=(2, V)).astype(np.float32) * np.float32(scale)
    if step:
        x = np.round(x / step) * step
    return np.round(x, 4).astype(np.float32).astype(float).tolist()


SCORES = {
    "wide": rows(1, 4.0),
    "flat": rows(2, 0.3),
    "ties": rows(3, 1.0, 0.5),
    "holes": [[-INF if i % 3 == 0 else v for i, v in enumerate(row)] for row in rows(4)],
    "broken": [[INF, -INF, float("nan"), *row[3:]] for row in rows(5)],
    "even": [[0.0] * V, [float(np.float32(np.log(p))) for p in [0.3, 0.1, 0.1, 0.5]] + [-INF] * (V - 4)],
}
IDS = {
    "text": [[5, 7, 9, 5, 7, 11, 5, 7], [3, 3, 3, 3, 8, 1, 3, 3]],
    "short": [[4], [6]],
}
PROMPT = [[5, 7, 9, 5], [3, 3, 3, 3]]

CASES = [
    *(("TemperatureLogitsWarper", {"temperature": t}, s) for t in (0.5, 1.7) for s in ("wide", "holes")),
    *(("TopKLogitsWarper", {"top_k": k}, s) for k in (1, 5, 20, 400) for s in ("wide", "ties", "holes")),
    ("TopKLogitsWarper", {"top_k": 2, "min_tokens_to_keep": 4, "filter_value": -5.0}, "wide"),
    *(
        ("TopPLogitsWarper", {"top_p": p}, s)
        for p in (0.0, 0.3, 0.8, 0.95, 1.0)
        for s in ("wide", "flat", "ties", "holes", "even")
    ),
    ("TopPLogitsWarper", {"top_p": 0.1, "min_tokens_to_keep": 6}, "ties"),
    *(("MinPLogitsWarper", {"min_p": p}, s) for p in (0.0, 0.05, 0.5, 1.0) for s in ("wide", "flat", "ties", "holes")),
    ("MinPLogitsWarper", {"min_p": 0.9, "min_tokens_to_keep": 5}, "wide"),
    *(("TopHLogitsWarper", {"top_h": h}, s) for h in (0.1, 0.5, 0.9) for s in ("wide", "flat", "holes")),
    *(("TypicalLogitsWarper", {"mass": m}, s) for m in (0.2, 0.9) for s in ("wide", "flat", "holes")),
    ("TypicalLogitsWarper", {"mass": 0.1, "min_tokens_to_keep": 7}, "wide"),
    *(("EpsilonLogitsWarper", {"epsilon": e}, s) for e in (0.001, 0.02, 0.9) for s in ("wide", "flat", "holes")),
    *(("EtaLogitsWarper", {"epsilon": e}, s) for e in (0.001, 0.02, 0.9) for s in ("wide", "flat", "holes")),
    ("EtaLogitsWarper", {"epsilon": 0.5, "min_tokens_to_keep": 3}, "flat"),
    *(("RepetitionPenaltyLogitsProcessor", {"penalty": p}, s) for p in (1.3, 0.6) for s in ("wide", "holes")),
    ("RepetitionPenaltyLogitsProcessor", {"penalty": 1.3, "prompt_ignore_length": 5}, "wide"),
    ("EncoderRepetitionPenaltyLogitsProcessor", {"penalty": 1.3, "encoder_input_ids": PROMPT}, "wide"),
    *(("NoRepeatNGramLogitsProcessor", {"ngram_size": n}, "wide") for n in (1, 2, 3, 9)),
    *(
        ("EncoderNoRepeatNGramLogitsProcessor", {"encoder_ngram_size": n, "encoder_input_ids": PROMPT}, "wide")
        for n in (1, 2, 3)
    ),
    ("SequenceBiasLogitsProcessor", {"sequence_bias": [[[5], 2.5], [[5, 7, 9], -4.0], [[3, 9], 1.0]]}, "wide"),
    ("SequenceBiasLogitsProcessor", {"sequence_bias": [[[5], 2.5], [[1, 3, 3, 5], 1.0]]}, "holes"),
    ("NoBadWordsLogitsProcessor", {"bad_words_ids": [[5], [7, 9], [2], [3, 3, 3, 4]], "eos_token_id": 2}, "wide"),
    *(("MinLengthLogitsProcessor", {"min_length": n, "eos_token_id": [2, 3]}, "wide") for n in (8, 9)),
    *(
        (
            "MinNewTokensLengthLogitsProcessor",
            {"prompt_length_to_skip": 4, "min_new_tokens": n, "eos_token_id": 2},
            "wide",
        )
        for n in (4, 5)
    ),
    *(("ForcedEOSTokenLogitsProcessor", {"max_length": n, "eos_token_id": [2, 3]}, "wide") for n in (9, 10)),
    ("ForcedBOSTokenLogitsProcessor", {"bos_token_id": 1}, "wide"),
    ("ForcedBOSTokenLogitsProcessor", {"bos_token_id": 1}, "wide", "short"),
    ("InfNanRemoveLogitsProcessor", {}, "broken"),
    *(
        (
            "ExponentialDecayLengthPenalty",
            {
                "exponential_decay_length_penalty": [start, 1.4],
                "eos_token_id": [2, 3],
                "input_ids_seq_length": 4,
            },
            scores,
        )
        for start in (1, 4)
        for scores in ("wide", "holes")
    ),
    ("SuppressTokensLogitsProcessor", {"suppress_tokens": [1, 5, 23]}, "wide"),
    *(
        ("SuppressTokensAtBeginLogitsProcessor", {"begin_suppress_tokens": [1, 5], "begin_index": n}, "wide")
        for n in (8, 7)
    ),
    ("LogitNormalization", {}, "wide"),
    ("LogitNormalization", {}, "holes"),
]

# Chains: fields of a config, with eos_token_id [2, 3], one row, and so many tokens of `text` as the prompt.
CHANGES = {
    "sequence_bias": [[[5], 2.5]],
    "encoder_repetition_penalty": 1.2,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 2,
    "bad_words_ids": [[8]],
    "min_new_tokens": 6,
    "forced_eos_token_id": 2,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": [2, 1.4],
    "suppress_tokens": [1, 6],
    "begin_suppress_tokens": [12],
}
FILTERS = {
    "temperature": 0.7,
    "top_k": 18,
    "top_p": 0.9,
    "min_p": 0.01,
    "typical_p": 0.95,
    "epsilon_cutoff": 0.001,
    "eta_cutoff": 0.002,
    "renormalize_logits": True,
}
CHAINS = [
    {"max_new_tokens": 20},
    {"max_new_tokens": 20, "do_sample": True},
    {"max_new_tokens": 20, "do_sample": True, **FILTERS},
    {"max_new_tokens": 20, "do_sample": True, "top_h": 0.8, "temperature": 1.5, "top_k": 0},
    {"max_new_tokens": 20, **CHANGES},
    {"max_new_tokens": 20, "do_sample": True, **CHANGES, **FILTERS},
    {"max_new_tokens": 5, **CHANGES},  # the text has 4 new tokens already: the next is the last
    {"max_length": 9, "min_length": 12, "forced_eos_token_id": 7},
    {"max_new_tokens": 20, "min_length": 12},
]


def case(name: str, arguments: dict, scores: str, ids: str = "text") -> dict:
    tensors = {k: torch.tensor(v) if k == "encoder_input_ids" else v for k, v in arguments.items()}
    processor = getattr(logits_process, name)(**tensors)
    out = processor(torch.tensor(IDS[ids]), torch.tensor(SCORES[scores]))
    return {"class": name, "arguments": arguments, "scores": scores, "ids": ids, "out": shortened(out)}


def chain(fields: dict, prompt: int = 4) -> dict:
    config = LlamaConfig(vocab_size=V, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    ids = torch.tensor(IDS["text"][:1])
    resolved, _ = model._prepare_generation_config(GenerationConfig(eos_token_id=[2, 3], pad_token_id=0, **fields))
    model._prepare_special_tokens(resolved, True, device="cpu")
    if resolved.max_new_tokens is not None:
        resolved.max_length = prompt + resolved.max_new_tokens
    processors = model._get_logits_processor(
        resolved,
        input_ids_seq_length=prompt,
        encoder_input_ids=ids[:, :prompt],
        device="cpu",
        model_kwargs={"attention_mask": torch.ones(1, prompt)},
    )
    names = [type(p).__name__ for p in processors]
    out = processors(ids, torch.tensor(SCORES["wide"][:1]))
    return {"fields": fields, "prompt": prompt, "names": names, "out": shortened(out)}


def shortened(out: torch.Tensor) -> list[list[float]]:
    return [[float(f"{v:.6g}") for v in row] for row in out.tolist()]


def main() -> None:
    golden = {
        "made_by": "tests/golden/transformers/make_processors.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "scores": SCORES,
        "ids": IDS,
        "cases": [case(*c) for c in CASES],
        "chains": [chain(c) for c in CHAINS],
    }
    rows = (
        json.dumps(golden, separators=(",", ":")).replace('{"class"', '\n{"class"').replace('{"fields"', '\n{"fields"')
    )
    Path(__file__).with_name("processors.json").write_text(rows + "\n")


if __name__ == "__main__":
    main()
