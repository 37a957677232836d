"""Makes generation_config.json: run this file where transformers 5.23 and torch are.

What transformers writes to files for some configs, reads from older models' config.json, calls modes of decoding, and
takes for the fields of a call of generate() that gets some from its keywords, a config, and the model's own.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).with_name("generation_config.json")

CONFIGS = [
    {},
    {"max_new_tokens": 7, "do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
    {"eos_token_id": [151645, 151643], "pad_token_id": 151643, "bos_token_id": 151643, "repetition_penalty": 1.1},
    {"stop_strings": ["\n\n", "é"], "bad_words_ids": [[5, 6], [7]], "suppress_tokens": [1]},
    {"sequence_bias": {(1, 2): -4.0, (3,): 1.5}},
    {"exponential_decay_length_penalty": (5, 1.2), "begin_suppress_tokens": [1, 2]},
    {"chat_format": "chatml", "max_window_size": 6144, "nothing": None},
    {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2, "length_penalty": 0.8},
    {"return_dict_in_generate": True, "output_scores": True, "use_cache": False},
    {"transformers_version": "4.40.0", "_commit_hash": "abc", "max_length": 4096},
]
MODELS = [
    {"model_type": "llama", "hidden_size": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None},
    {"model_type": "llama", "max_length": 40, "temperature": 0.9, "do_sample": True, "transformers_version": "4.30.0"},
    {"model_type": "x", "eos_token_id": 5, "text_config": {"eos_token_id": 6, "bos_token_id": 7, "top_k": 3}},
    {"model_type": "llama", "output_hidden_states": True, "use_cache": True},
]
MODES = [
    {},
    {"do_sample": True},
    {"num_beams": 3},
    {"num_beams": 3, "do_sample": True},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"num_beams": 4, "num_beam_groups": 2},
    {"force_words_ids": [[1]]},
    {"prompt_lookup_num_tokens": 3},
    {"prompt_lookup_num_tokens": 3, "do_sample": True},
    {"use_mtp": True},
    {"dola_layers": "low"},
]
WRONG = [
    {"max_new_tokens": 0},
    {"max_new_tokens": -1},
    {"early_stopping": "soon"},
    {"cache_implementation": "big"},
    {"assistant_ensemble_weight": 1.0},
    {"num_return_sequences": 2},
    {"num_return_sequences": 4, "num_beams": 3},
    {"suppress_tokens": [3, 4], "forced_eos_token_id": [3]},
    {"suppress_tokens": [3, 4], "forced_bos_token_id": 4},
    {"streamer": 1},
    {"logits_processor": []},
    {"assistant_model": 1},
]
UNSAVED = [  # refused by save_pretrained
    {"temperature": 0.5},
    {"top_p": 0.5, "do_sample": False},
    {"top_k": 4},
    {"min_p": 0.1},
    {"typical_p": 0.5},
    {"epsilon_cutoff": 0.1},
    {"length_penalty": 2.0},
    {"early_stopping": True},
    {"output_scores": True},
    {"output_attentions": True},
    {"pad_token_id": -1},
]
CALLS = [  # keywords, config, the model's own
    ({}, None, {}),
    ({"top_k": 0}, None, {"do_sample": True, "top_k": 20, "temperature": 0.6}),
    ({"do_sample": False}, None, {"do_sample": True, "top_k": 20, "temperature": 0.6}),
    ({}, {"top_k": None, "max_new_tokens": 5}, {"do_sample": True, "top_k": 20, "eos_token_id": 3}),
    ({"temperature": 0.9}, {"temperature": 0.7, "do_sample": True}, {"temperature": 0.5, "top_p": 0.8}),
    ({"eos_token_id": None}, None, {"eos_token_id": [3, 4], "pad_token_id": 3}),
    ({"max_new_tokens": 4}, None, {"max_length": 100}),
    ({"max_length": 30}, {"max_length": 40}, {"repetition_penalty": 1.2}),
]


def main() -> None:
    import transformers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    transformers.logging.set_verbosity_error()

    def written(fields: dict) -> dict:
        config = GenerationConfig(**fields)
        items = [[list(k), v] for k, v in fields.get("sequence_bias", {}).items()]
        plain = {**fields, "sequence_bias": {"items": items}} if items else fields
        entries = json.loads(config.to_json_string(use_diff=False, ignore_metadata=True))
        return {"fields": plain, "all": entries, "file": config.to_json_string()}

    def read(entries: dict) -> dict:
        config = GenerationConfig.from_model_config(dict(entries))
        return {"config": entries, "file": config.to_json_string()}

    small = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(small)

    def merged(call: dict, config: dict | None, own: dict) -> dict:
        model.generation_config = GenerationConfig(**own)
        given = None if config is None else GenerationConfig(**config)
        found, _ = model._prepare_generation_config(given, **call)
        entries = json.loads(found.to_json_string(ignore_metadata=True))
        return {"call": call, "config": config, "model": own, "found": entries}

    for fields in WRONG:
        try:
            GenerationConfig(**fields)
        except ValueError:
            continue
        raise AssertionError(f"transformers accepts {fields}")
    for fields in UNSAVED:
        try:
            GenerationConfig(**fields).save_pretrained("/nowhere")
        except ValueError:
            continue
        raise AssertionError(f"transformers saves {fields}")
    golden = {
        "made_by": "tests/golden/transformers/make_generation_config.py",
        "transformers": transformers.__version__,
        "written": [written(fields) for fields in CONFIGS],
        "read": [read(entries) for entries in MODELS],
        "modes": [[fields, GenerationConfig(**fields).get_generation_mode().value] for fields in MODES],
        "wrong": WRONG,
        "unsaved": UNSAVED,
        "merged": [merged(*call) for call in CALLS],
        "fields": sorted(set(GenerationConfig().to_dict()) - {"_from_model_config", "transformers_version"}),
        "defaults": GenerationConfig._get_default_generation_params(),
    }
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
