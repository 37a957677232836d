"""Makes configs.json: run `python tests/golden/transformers/make_configs.py` where transformers 5.23 and this are.

What transformers takes config.json files to mean: those of well-known models as they were published, and files in which
fields are missing.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("configs.json")

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": 128}
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
QWEN = {
    "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-06,
    "torch_dtype": "bfloat16", "use_cache": True, "eos_token_id": 151645, "bos_token_id": 151643,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "llama 2": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000,
        "hidden_act": "silu", "pretraining_tp": 1, "torch_dtype": "float16", "use_cache": True,
    },
    "llama 3.1": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "rope_scaling": LLAMA3, "tie_word_embeddings": False, "vocab_size": 128256,
        "attention_bias": False, "mlp_bias": False, "eos_token_id": [128001, 128008, 128009],
    },
    "mistral v0.1": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "mistral v0.3": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768,
    },
    "qwen2.5": QWEN | {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
        "num_hidden_layers": 24, "num_key_value_heads": 2, "max_position_embeddings": 32768, "max_window_layers": 21,
        "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": False, "tie_word_embeddings": True,
        "use_mrope": False, "vocab_size": 151936,
    },
    "qwen2.5 stretched": QWEN | SMALL | {
        "model_type": "qwen2", "num_key_value_heads": 2, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 16384, "type": "yarn"},
    },
    "qwen3": QWEN | {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
        "max_window_layers": 28, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "use_sliding_window": False, "tie_word_embeddings": True, "attention_bias": False, "vocab_size": 151936,
    },
    "gemma": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "hidden_act": "gelu", "attention_bias": False,
        "vocab_size": 256000,
    },
    "gemma 2": {
        "model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "num_attention_heads": 32,
        "num_hidden_layers": 46, "num_key_value_heads": 16, "head_dim": 128, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "hidden_activation": "gelu_pytorch_tanh", "vocab_size": 256000,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 144,
        "sliding_window": 4096, "hidden_act": "gelu_pytorch_tanh",
    },
    "gemma 3, text and pictures": {
        "model_type": "gemma3", "image_token_index": 262144, "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
    },
    "gemma 3": {
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_attention_heads": 4,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000, "rope_local_base_freq": 10000, "rope_scaling": None,
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 512,
        "sliding_window_pattern": 6, "vocab_size": 262144, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "attention_bias": False,
    },
    "granite 3": {
        "model_type": "granite", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_hidden_layers": 40, "num_key_value_heads": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": True, "vocab_size": 49155,
        "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "logits_scaling": 8.0,
        "residual_multiplier": 0.22, "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
    },
    "phi 3.5": SMALL | {
        "model_type": "phi3", "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "sliding_window": 262144, "rope_theta": 10000.0,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
    },
    "a pattern of windows": SMALL | {"model_type": "cohere2", "sliding_window_pattern": 2, "use_qk_norm": False},
    "nothing but a size, cohere": SMALL | {"model_type": "cohere"},
    "nothing but a size, cohere2": SMALL | {"model_type": "cohere2"},
    "nothing but a size, gemma": SMALL | {"model_type": "gemma", "num_attention_heads": 16},
    "nothing but a size, gemma2": SMALL | {"model_type": "gemma2"},
    "nothing but a size, gemma3": SMALL | {"model_type": "gemma3_text"},
    "nothing but a size, glm4": SMALL | {"model_type": "glm4"},
    "nothing but a size, granite": SMALL | {"model_type": "granite"},
    "nothing but a size, olmo2": SMALL | {"model_type": "olmo2"},
    "nothing but a size, olmo3": SMALL | {"model_type": "olmo3"},
    "nothing but a size, phi": SMALL | {"model_type": "phi"},
    "nothing but a size, phi3": SMALL | {"model_type": "phi3"},
    "nothing but a size, llama": SMALL | {"model_type": "llama"},
    "nothing but a size, mistral": SMALL | {"model_type": "mistral", "num_attention_heads": 8},
    "nothing but a size, qwen2": SMALL | {"model_type": "qwen2", "num_attention_heads": 32},
    "nothing but a size, qwen3": SMALL | {"model_type": "qwen3", "num_attention_heads": 32},
    "nulls": SMALL | {"model_type": "llama", "num_key_value_heads": None, "head_dim": None, "rope_parameters": None},
    "new spelling": SMALL | {
        "model_type": "llama", "head_dim": 32, "dtype": "bfloat16", "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0},
    },
    "both spellings": SMALL | {
        "model_type": "llama", "rope_theta": 7.0, "rope_scaling": {"rope_type": "dynamic", "factor": 8.0},
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5.0, "factor": 2.0},
    },
    "two names of a type": SMALL | {
        "model_type": "llama", "rope_scaling": {"type": "default", "rope_type": "linear", "factor": 3.0},
    },
    "llama3 without the trained length": SMALL | {
        "model_type": "llama", "max_position_embeddings": 4096, "original_max_position_embeddings": 99,
        "rope_scaling": {key: LLAMA3[key] for key in LLAMA3 if key[0] != "o"},
    },
    "longrope": SMALL | {
        "model_type": "llama",
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 4.0},
    },
    "windows from a layer on": SMALL | {
        "model_type": "qwen2", "num_key_value_heads": 4, "use_sliding_window": True, "sliding_window": 16,
        "max_window_layers": 1,
    },
    "windows listed": SMALL | {
        "model_type": "qwen3", "num_key_value_heads": 4, "use_sliding_window": True, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "attention_bias": True,
    },
    "a window that is not used": SMALL | {"model_type": "qwen3", "num_key_value_heads": 4, "sliding_window": 16},
    "smollm3": {
        "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
        "num_hidden_layers": 36, "num_key_value_heads": 4, "max_position_embeddings": 65536, "rms_norm_eps": 1e-06,
        "rope_theta": 5000000.0, "rope_scaling": None, "no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4,
        "layer_types": ["full_attention"] * 36, "use_sliding_window": False, "sliding_window": None,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "vocab_size": 128256,
    },
    "nothing but a size, smollm3": SMALL | {"model_type": "smollm3", "num_hidden_layers": 5},
    "smollm3 with windows": SMALL | {
        "model_type": "smollm3", "use_sliding_window": True, "sliding_window": 16, "no_rope_layer_interval": 2,
    },
    "nothing but a size, seed_oss": SMALL | {"model_type": "seed_oss", "num_attention_heads": 8},
    "starcoder2 3b": {
        "model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288, "num_attention_heads": 24,
        "num_hidden_layers": 30, "num_key_value_heads": 2, "max_position_embeddings": 16384, "norm_epsilon": 1e-05,
        "rope_theta": 999999.4420358813, "sliding_window": 4096, "use_bias": True, "vocab_size": 49152,
        "hidden_act": "gelu_pytorch_tanh", "norm_type": "layer_norm", "mlp_type": "default",
    },
    "nothing but a size, starcoder2": SMALL | {"model_type": "starcoder2", "num_key_value_heads": 4},
    "stablelm 2": {
        "model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32,
        "num_hidden_layers": 24, "num_key_value_heads": 32, "max_position_embeddings": 4096, "layer_norm_eps": 1e-05,
        "partial_rotary_factor": 0.25, "rope_theta": 10000, "use_qkv_bias": True, "vocab_size": 100352,
        "tie_word_embeddings": False, "hidden_act": "silu",
    },
    "nothing but a size, stablelm": SMALL | {"model_type": "stablelm", "num_attention_heads": 32},
    "exaone4": {
        "model_type": "exaone4", "hidden_size": 5120, "intermediate_size": 27392, "num_attention_heads": 40,
        "num_hidden_layers": 64, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000, "sliding_window": 4096, "vocab_size": 102400,
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 16, "tie_word_embeddings": False,
        "rope_scaling": LLAMA3 | {"factor": 16.0}, "hidden_act": "silu",
    },
    "nothing but a size, exaone4": SMALL | {"model_type": "exaone4", "num_attention_heads": 32},
    "ernie4_5": {
        "model_type": "ernie4_5", "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
        "num_hidden_layers": 18, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "use_bias": False, "vocab_size": 103424,
        "tie_word_embeddings": True, "hidden_act": "silu",
    },
    "nothing but a size, ernie4_5": SMALL | {"model_type": "ernie4_5"},
    "ernie 4.5 of experts": {
        "model_type": "ernie4_5_moe", "hidden_size": 2560, "intermediate_size": 12288, "num_attention_heads": 20,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "use_bias": False, "moe_num_experts": 64, "moe_num_shared_experts": 2, "moe_k": 6,
        "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1, "moe_intermediate_size": 1536,
        "vocab_size": 103424, "tie_word_embeddings": True, "hidden_act": "silu",
    },
    "nothing but a size, ernie4_5_moe": SMALL | {"model_type": "ernie4_5_moe"},
    "nemotron": {
        "model_type": "nemotron", "hidden_size": 3072, "intermediate_size": 9216, "num_attention_heads": 24,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096,
        "norm_eps": 1e-05, "rope_theta": 10000, "partial_rotary_factor": 0.5, "vocab_size": 256000,
        "hidden_act": "relu2", "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    },
    "pythia": {
        "model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
        "num_hidden_layers": 6, "max_position_embeddings": 2048, "layer_norm_eps": 1e-05, "rotary_emb_base": 10000,
        "rotary_pct": 0.25, "use_parallel_residual": True, "vocab_size": 50304, "tie_word_embeddings": False,
        "hidden_act": "gelu",
    },
    "gpt_neox by older names": SMALL | {"model_type": "gpt_neox", "rotary_emb_base": 500, "rotary_pct": 0.5},
    "lfm2": {
        "model_type": "lfm2", "hidden_size": 1024, "block_dim": 1024, "block_ff_dim": 6656, "num_attention_heads": 16,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-05,
        "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256,
        "block_norm_eps": 1e-05, "block_use_swiglu": True, "conv_L_cache": 3, "conv_bias": False, "conv_dim": 1024,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14], "rope_theta": 1000000.0, "tie_embedding": True, "vocab_size": 65536,
    },
    "nothing but a size, lfm2": SMALL | {"model_type": "lfm2", "num_key_value_heads": 4},
    "qwen3.5": {
        "model_type": "qwen3_5", "tie_word_embeddings": True, "image_token_id": 248056,
        "vision_config": {"model_type": "qwen3_5", "depth": 12, "hidden_size": 768},
        "text_config": {
            "model_type": "qwen3_5_text", "hidden_size": 1024, "intermediate_size": 3584, "num_attention_heads": 8,
            "num_hidden_layers": 24, "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-06, "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
            "linear_value_head_dim": 128, "attention_bias": False, "hidden_act": "silu", "vocab_size": 248320,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
                "rope_theta": 10000000, "rope_type": "default",
            },
        },
    },
    "nothing but a size, qwen3_5": SMALL | {"model_type": "qwen3_5_text"},
    "qwen3 next": {
        "model_type": "qwen3_next", "hidden_size": 2048, "intermediate_size": 5120, "num_attention_heads": 16,
        "num_hidden_layers": 48, "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-06, "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128, "num_experts": 512,
        "num_experts_per_tok": 10, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True, "partial_rotary_factor": 0.25, "rope_theta": 10000000, "rope_scaling": None,
        "mlp_only_layers": [], "decoder_sparse_step": 1, "hidden_act": "silu", "vocab_size": 151936,
    },
    "falcon h1": {
        "model_type": "falcon_h1", "hidden_size": 1024, "intermediate_size": 2048, "num_attention_heads": 8,
        "num_hidden_layers": 36, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-05, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_ssm": 1536, "mamba_d_state": 128,
        "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 24, "mamba_conv_bias": True, "mamba_proj_bias": False,
        "mamba_norm_before_gate": False, "mamba_rms_norm": False, "projectors_bias": False, "vocab_size": 32784,
        "embedding_multiplier": 5.656854249492381, "lm_head_multiplier": 0.0390625, "key_multiplier": 0.390625,
        "attention_in_multiplier": 1.0, "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25,
        "ssm_out_multiplier": 0.23570226039551587, "mlp_multipliers": [0.8838834764831844, 0.5859375],
        "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
        "rope_theta": 100000000000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "hidden_act": "silu", "tie_word_embeddings": True,
    },
    "granite 4 hybrid": {
        "model_type": "granitemoehybrid", "hidden_size": 1536, "intermediate_size": 512, "num_attention_heads": 12,
        "num_hidden_layers": 4, "num_key_value_heads": 4, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "layer_types": ["mamba", "mamba", "attention", "mamba"], "num_local_experts": 64, "num_experts_per_tok": 6,
        "shared_intermediate_size": 1024, "position_embedding_type": "nope", "mamba_n_heads": 48, "mamba_d_head": 64,
        "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True,
        "mamba_proj_bias": False, "embedding_multiplier": 12, "attention_multiplier": 0.0078125,
        "residual_multiplier": 0.22, "logits_scaling": 6, "rope_theta": 10000, "hidden_act": "silu",
        "tie_word_embeddings": True, "vocab_size": 100352, "attention_bias": False,
    },
    "heads of their own size": SMALL | {"model_type": "qwen2", "num_key_value_heads": 4, "head_dim": 8},
}  # fmt: skip


def main() -> None:
    import transformers

    from quickbrown.models.families import of_model_type

    transformers.logging.set_verbosity_error()
    cases = []
    for name, given in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(given))
            config = transformers.AutoConfig.from_pretrained(folder)
        family = of_model_type(config.model_type)
        means = {"model_type": config.model_type}
        config = config.get_text_config()
        for field in dataclasses.fields(family.Config):
            heads = config.num_attention_heads
            usual = {"head_dim": config.hidden_size // heads, "num_key_value_heads": heads}.get(field.name)
            means[field.name] = getattr(config, field.name, usual)
        same = ("type", "mrope_section", "mrope_interleaved")  # for texts
        means["rope_parameters"] = {k: v for k, v in config.rope_parameters.items() if k not in same}
        cases.append({"name": name, "given": given, "means": means})
    golden = {
        "made_by": "tests/golden/transformers/make_configs.py",
        "transformers": transformers.__version__,
        "cases": cases,
    }
    FILE.write_text(json.dumps(golden, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
