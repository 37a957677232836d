"""The table of tiny models: every test of families, and every golden of theirs, draws from it.

A row is the `model_type` and the fields that differ from `quickbrown.weights.tiny.TINY`. A family has a row that is
named after it, and one for each option that changes its mathematics. No two rows may give the same logits for the same
seed.
"""

from __future__ import annotations

from typing import Any

THETA = {"rope_theta": 10000.0}


def rotated(rope_type: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type} | THETA | parameters}


TRAINED = {"original_max_position_embeddings": 16}
BOTH = {"short_factor": [1 + i / 8 for i in range(8)], "long_factor": [1.0 + i for i in range(8)]}
MIXED = {
    "use_sliding_window": True, "sliding_window": 7, "layer_types": ("sliding_attention", "full_attention"),
}  # fmt: skip

TURNS = {
    "full_attention": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
}  # fmt: skip
WINDOWS = {"sliding_window": 7, "layer_types": ("full_attention", "sliding_attention")}
MANY = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
GLOBAL = {
    "sliding_window": 7, "global_head_dim": 32,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 20000.0, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 64, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
}  # fmt: skip

SPACES = {
    "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_d_conv": 4,
}  # fmt: skip
DELTA = {
    "linear_key_head_dim": 16, "linear_value_head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ("linear_attention", "full_attention"),
}  # fmt: skip

ROWS: dict[str, dict[str, Any]] = {
    "bloom": {"model_type": "bloom"},
    "bloom, six heads": {"model_type": "bloom", "hidden_size": 96, "num_attention_heads": 6},
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
    "cohere, biases": {"model_type": "cohere", "attention_bias": True, "tie_word_embeddings": False},
    "cohere, norms of heads": {"model_type": "cohere", "use_qk_norm": True, "logit_scale": 0.25},
    "cohere2": {"model_type": "cohere2", "num_hidden_layers": 4, "sliding_window": 7, "logit_scale": 0.25},
    "cohere2, all": {"model_type": "cohere2", "attention_bias": True, "tie_word_embeddings": False} | WINDOWS,
    "deepseek_v2": {"model_type": "deepseek_v2", "first_k_dense_replace": 1, "q_lora_rank": None} | LATENT,
    "deepseek_v2, groups": {
        "model_type": "deepseek_v2", "topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2,
        "routed_scaling_factor": 2.5, "q_lora_rank": 64, "attention_bias": True, "mlp_bias": True,
    } | LATENT | rotated("yarn", factor=4.0, mscale=0.7, mscale_all_dim=0.4, **TRAINED),
    "deepseek_v3": {
        "model_type": "deepseek_v3", "topk_method": "noaux_tc", "n_group": 2, "topk_group": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "q_lora_rank": 64, "first_k_dense_replace": 1,
    } | LATENT | rotated("yarn", factor=4.0, mscale=1.0, mscale_all_dim=1.0, **TRAINED),
    "deepseek_v3, in halves": {
        "model_type": "deepseek_v3", "topk_method": "noaux_tc", "q_lora_rank": None, "rope_interleave": False,
        "attention_bias": True, "n_group": 1, "topk_group": 1,
    } | LATENT,
    "ernie4_5": {"model_type": "ernie4_5", "head_dim": 32},
    "ernie4_5, biases": {"model_type": "ernie4_5", "use_bias": True},
    "ernie4_5_moe": {
        "model_type": "ernie4_5_moe", "moe_k": 2, "moe_num_experts": 6, "moe_intermediate_size": 64,
    },
    "ernie4_5_moe, all": {
        "model_type": "ernie4_5_moe", "num_hidden_layers": 4, "moe_layer_start_index": 0, "moe_layer_end_index": 2,
        "moe_layer_interval": 2, "use_bias": True, "moe_num_shared_experts": 0, "tie_word_embeddings": False,
        "moe_k": 2, "moe_num_experts": 6, "moe_intermediate_size": 64,
    },
    "exaone4": {
        "model_type": "exaone4", "sliding_window": 9, "layer_types": ("sliding_attention", "full_attention"),
        "num_key_value_heads": 4,
    },
    "exaone4, every fourth": {"model_type": "exaone4", "num_hidden_layers": 4, "sliding_window": 7},
    "exaone4, no windows": {"model_type": "exaone4"} | rotated("linear", factor=4.0),
    "exaone4, listed": {
        "model_type": "exaone4", "sliding_window": 9, "layer_types": ("full_attention", "sliding_attention"),
    },
    "falcon": {"model_type": "falcon"},
    "falcon, new": {"model_type": "falcon", "new_decoder_architecture": True, "num_key_value_heads": 2, "bias": True},
    "falcon, new, no biases": {
        "model_type": "falcon", "new_decoder_architecture": True, "num_key_value_heads": 2,
    },
    "falcon, new, one norm": {
        "model_type": "falcon", "new_decoder_architecture": True, "num_key_value_heads": 2,
        "num_ln_in_parallel_attn": 1,
    },
    "falcon, alibi": {
        "model_type": "falcon", "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True,
    },
    "falcon_h1": {"model_type": "falcon_h1", "mamba_d_ssm": 128} | SPACES,
    "falcon_h1, all": {
        "model_type": "falcon_h1", "mamba_d_ssm": 64, "attention_bias": True, "mlp_bias": True, "projectors_bias": True,
        "mamba_conv_bias": False, "mamba_rms_norm": True, "mamba_norm_before_gate": False, "lm_head_multiplier": 0.5,
        "embedding_multiplier": 2.0, "key_multiplier": 0.75, "attention_in_multiplier": 1.25,
        "attention_out_multiplier": 0.5, "ssm_in_multiplier": 1.5, "ssm_out_multiplier": 0.75,
        "mlp_multipliers": (0.5, 2.0), "ssm_multipliers": (0.5, 1.5, 0.75, 1.25, 2.0), "tie_word_embeddings": False,
    } | SPACES | {"mamba_d_head": 16},
    "falcon_h1, norm first": {
        "model_type": "falcon_h1", "mamba_d_ssm": 128, "mamba_rms_norm": True,
    } | SPACES,
    "gemma": {"model_type": "gemma", "head_dim": 32},
    "gemma, biases": {"model_type": "gemma", "attention_bias": True, "tie_word_embeddings": False},
    "gemma2": {"model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 7},
    "gemma2, low caps": {
        "model_type": "gemma2", "query_pre_attn_scalar": 4, "attention_bias": True, "tie_word_embeddings": False,
        "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0,
    } | WINDOWS,
    "gemma2, no caps": {
        "model_type": "gemma2", "query_pre_attn_scalar": 16, "sliding_window": 7, "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    },
    "gemma3": {  # those that see
        "model_type": "gemma3", "query_pre_attn_scalar": 16, "sliding_window": 5, "num_hidden_layers": 6,
        "rope_parameters": TURNS, "tie_word_embeddings": False,
    },
    "gemma3_text": {
        "model_type": "gemma3_text", "query_pre_attn_scalar": 16, "sliding_window": 7,
        "num_hidden_layers": 6, "rope_parameters": TURNS,
    },
    "gemma3_text, all": {
        "model_type": "gemma3_text", "query_pre_attn_scalar": 4, "attention_bias": True, "tie_word_embeddings": False,
        "final_logit_softcapping": 2.0, "rope_parameters": TURNS,
    } | WINDOWS,
    "gemma4": {
        "model_type": "gemma4", "hidden_size_per_layer_input": 0, "final_logit_softcapping": 3.0,
    } | GLOBAL,
    "gemma4_text": {
        "model_type": "gemma4_text", "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 320,
    } | GLOBAL,
    "gemma4_text, shared": {  # as the small ones
        "model_type": "gemma4_text", "num_hidden_layers": 6, "num_kv_shared_layers": 3, "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 320, "final_logit_softcapping": 2.0,
        "layer_types": ("sliding_attention", "full_attention") * 3,
    } | GLOBAL,
    "gemma4_text, keys as values": {  # as the large ones
        "model_type": "gemma4_text", "attention_k_eq_v": True, "num_global_key_value_heads": 1,
        "hidden_size_per_layer_input": 0, "attention_bias": True, "tie_word_embeddings": False,
    } | GLOBAL,
    "gemma4_text, experts": {
        "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 6,
        "top_k_experts": 2, "moe_intermediate_size": 64,
    } | GLOBAL,
    "glm4": {"model_type": "glm4"} | rotated("default", partial_rotary_factor=0.5),
    "glm4, without biases": {"model_type": "glm4", "attention_bias": False, "head_dim": 32}
    | rotated("default", partial_rotary_factor=0.25),
    "gpt2": {"model_type": "gpt2"},
    "gpt2, untied, narrow": {"model_type": "gpt2", "n_inner": 96, "tie_word_embeddings": False},
    "gpt_neox": {"model_type": "gpt_neox", "tie_word_embeddings": False},
    "gpt_neox, not in parallel": {
        "model_type": "gpt_neox", "use_parallel_residual": False, "attention_bias": False,
    } | rotated("default", partial_rotary_factor=0.5),
    "gptj": {"model_type": "gptj", "rotary_dim": 8, "tie_word_embeddings": False},
    "gptj, whole heads": {"model_type": "gptj", "rotary_dim": 16, "n_inner": 96},
    "granite": {
        "model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.125,
        "residual_multiplier": 0.5, "logits_scaling": 0.5,
    },
    "granite, all biases": {"model_type": "granite", "attention_bias": True, "mlp_bias": True, "logits_scaling": 2.0},
    "lfm2": {"model_type": "lfm2", "layer_types": ("conv", "full_attention"), "block_multiple_of": 64},
    "lfm2, width as said": {
        "model_type": "lfm2", "num_hidden_layers": 3, "layer_types": ("conv", "full_attention", "conv"),
        "block_auto_adjust_ff_dim": False,
    },
    "lfm2, all": {
        "model_type": "lfm2", "num_hidden_layers": 3, "full_attn_idxs": (1,), "conv_bias": True, "conv_L_cache": 4,
        "block_auto_adjust_ff_dim": False, "tie_word_embeddings": False, "norm_eps": 1e-3,
    },
    "llama": {},
    "llama, untied": {"tie_word_embeddings": False},
    "llama, one query head a key head": {"num_key_value_heads": 4},
    "llama, one key head": {"num_key_value_heads": 1},
    "llama, wide heads": {"head_dim": 32},
    "llama, narrow heads": {"hidden_size": 192, "head_dim": 16, "num_attention_heads": 6, "num_key_value_heads": 3},
    "llama, another rope and eps": rotated("default", rope_theta=500.0)
    | {"rms_norm_eps": 1e-2, "num_hidden_layers": 3},
    "llama, attention biases": {"attention_bias": True},
    "llama, all biases": {"attention_bias": True, "mlp_bias": True},
    "llama, linear": rotated("linear", factor=4.0),
    "llama, dynamic, short": rotated("dynamic", factor=2.0) | {"max_position_embeddings": 30},
    "llama, dynamic, long": rotated("dynamic", factor=2.0) | {"max_position_embeddings": 16},
    "llama, yarn": rotated("yarn", factor=4.0, beta_fast=2.0, beta_slow=0.5, **TRAINED),
    "llama, yarn with everything": rotated(
        "yarn", factor=4.0, beta_fast=4, beta_slow=1, mscale=0.7, mscale_all_dim=0.4, truncate=False, **TRAINED
    ),
    "llama, longrope, short": rotated("longrope", factor=4.0, original_max_position_embeddings=48, **BOTH),
    "llama, longrope, long": rotated("longrope", factor=4.0, **TRAINED, **BOTH),
    "llama, llama3": rotated("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **TRAINED),
    "mamba2": {"model_type": "mamba2", "head_dim": 32, "n_groups": 2, "state_size": 16},
    "mamba2, all": {
        "model_type": "mamba2", "num_attention_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 24,
        "use_conv_bias": False, "conv_kernel": 2, "tie_word_embeddings": False,
    },
    "glm4_moe": {
        "model_type": "glm4_moe", "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
        "routed_scaling_factor": 1.5,
    } | rotated("default", partial_rotary_factor=0.5),
    "glm4_moe, all": {
        "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 64,
        "n_group": 4, "topk_group": 2, "norm_topk_prob": False, "n_shared_experts": 2, "first_k_dense_replace": 0,
        "use_qk_norm": True, "attention_bias": True,
    } | rotated("default", partial_rotary_factor=0.5),
    "gpt_oss": {
        "model_type": "gpt_oss", "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 64,
        "sliding_window": 7, "swiglu_limit": 1.0,
    } | rotated("yarn", factor=4.0, truncate=False, **TRAINED),
    "gpt_oss, without biases": {
        "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64,
        "sliding_window": 7, "attention_bias": False,
    },
    "granitemoe": {
        "model_type": "granitemoe", "num_local_experts": 5, "intermediate_size": 64, "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2, "residual_multiplier": 0.6, "logits_scaling": 0.5,
    },
    "granitemoehybrid": {
        "model_type": "granitemoehybrid", "layer_types": ("linear_attention", "full_attention"),
        "num_local_experts": 4, "intermediate_size": 64, "shared_intermediate_size": 128,
        "attention_multiplier": 0.25, "logits_scaling": 0.5, "residual_multiplier": 0.75, "embedding_multiplier": 2.0,
    } | SPACES,
    "granitemoehybrid, all": {
        "model_type": "granitemoehybrid", "num_hidden_layers": 3, "num_local_experts": 0, "num_experts_per_tok": 0,
        "layer_types": ("full_attention", "linear_attention", "linear_attention"), "shared_intermediate_size": 128,
        "position_embedding_type": "rope", "mamba_conv_bias": False, "attention_bias": True,
        "tie_word_embeddings": False,
    } | SPACES | {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_conv": 2},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "mistral, narrow window": {"model_type": "mistral", "sliding_window": 1},
    "mistral, wider window": {"model_type": "mistral", "sliding_window": 30, "num_key_value_heads": 1},
    "mpt": {"model_type": "mpt", "hidden_size": 192, "num_attention_heads": 6},
    "nemotron": {"model_type": "nemotron", "tie_word_embeddings": False},
    "nemotron, biases": {
        "model_type": "nemotron", "head_dim": 32, "attention_bias": True, "mlp_bias": True,
    } | rotated("default", partial_rotary_factor=0.25),
    "nemotron_h": {
        "model_type": "nemotron_h", "num_hidden_layers": 3,
        "layer_types": ("linear_attention", "mlp", "full_attention"),
        "mamba_num_heads": 4, "mamba_head_dim": 32, "n_groups": 2, "ssm_state_size": 16, "tie_word_embeddings": False,
    },
    "nemotron_h, all": {
        "model_type": "nemotron_h", "num_hidden_layers": 4,
        "layer_types": ("full_attention", "linear_attention", "linear_attention", "mlp"), "mlp_bias": True,
        "mamba_num_heads": 2, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 24, "use_conv_bias": False,
        "conv_kernel": 3, "tie_word_embeddings": False,
    },
    "olmo2": {"model_type": "olmo2"},
    "olmo2, biases": {"model_type": "olmo2", "attention_bias": True, "num_key_value_heads": 1},
    "olmo3": {"model_type": "olmo3", "num_hidden_layers": 4, "sliding_window": 7, "rope_parameters": TURNS},
    "olmo3, one theta": {"model_type": "olmo3", "num_hidden_layers": 4, "sliding_window": 9},
    "olmo3, yarn": {
        "model_type": "olmo3", "attention_bias": True,
        "rope_parameters": {
            "full_attention": rotated("yarn", factor=4.0, **TRAINED)["rope_parameters"],
            "sliding_attention": rotated("default")["rope_parameters"],
        },
    } | WINDOWS,
    "opt": {"model_type": "opt", "ffn_dim": 128},
    "opt, norms behind": {
        "model_type": "opt", "ffn_dim": 96, "do_layer_norm_before": False, "word_embed_proj_dim": 32,
        "enable_bias": False,
    },
    "phi": {"model_type": "phi"} | rotated("default", partial_rotary_factor=0.5),
    "phi, norms of heads": {"model_type": "phi", "qk_layernorm": True, "tie_word_embeddings": False}
    | rotated("default", partial_rotary_factor=0.25),
    "phi3": {"model_type": "phi3"} | rotated("default", partial_rotary_factor=1.0),
    "phi3, window": {"model_type": "phi3", "sliding_window": 7, "tie_word_embeddings": False}
    | rotated("default", partial_rotary_factor=0.75),
    "phi3, longrope": {"model_type": "phi3", "original_max_position_embeddings": 16}
    | rotated("longrope", partial_rotary_factor=1.0, **TRAINED, **BOTH),
    "mixtral": {"model_type": "mixtral", "num_local_experts": 5},
    "mixtral, window, one expert": {
        "model_type": "mixtral", "sliding_window": 7, "num_local_experts": 3, "num_experts_per_tok": 1,
    },
    "olmoe": {"model_type": "olmoe", "num_experts": 7, "num_experts_per_tok": 3, "intermediate_size": 64},
    "olmoe, all": {
        "model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 4, "norm_topk_prob": True,
        "attention_bias": True,
    },
    "qwen2": {"model_type": "qwen2"},
    "qwen2, window": {"model_type": "qwen2"} | MIXED,
    "qwen2_moe": {"model_type": "qwen2_moe"} | MANY | {"shared_expert_intermediate_size": 128},
    "qwen2_moe, all": {
        "model_type": "qwen2_moe", "norm_topk_prob": True, "qkv_bias": False, "decoder_sparse_step": 2,
        "use_sliding_window": True, "sliding_window": 7, "shared_expert_intermediate_size": 64,
    } | MANY,
    "qwen3": {"model_type": "qwen3"},
    "qwen3, wide heads": {"model_type": "qwen3", "head_dim": 80, "num_key_value_heads": 1},
    "qwen3, all": {"model_type": "qwen3", "attention_bias": True} | MIXED | rotated("yarn", factor=4.0, **TRAINED),
    "qwen3_5": {"model_type": "qwen3_5", "tie_word_embeddings": False} | DELTA | rotated(
        "default", partial_rotary_factor=0.5
    ),
    "qwen3_5_moe": {"model_type": "qwen3_5_moe", "shared_expert_intermediate_size": 128} | DELTA | MANY
    | rotated("default", partial_rotary_factor=0.5),
    "qwen3_5_text": {"model_type": "qwen3_5_text"} | DELTA | rotated("default", partial_rotary_factor=0.25),
    "qwen3_5_text, all": {
        "model_type": "qwen3_5_text", "num_hidden_layers": 3, "attention_bias": True, "linear_conv_kernel_dim": 3,
        "tie_word_embeddings": False,
    } | DELTA | {"layer_types": ("linear_attention", "full_attention", "linear_attention")}
    | rotated("default", partial_rotary_factor=0.5),
    "qwen3_5_moe_text": {"model_type": "qwen3_5_moe_text", "shared_expert_intermediate_size": 64} | DELTA | MANY
    | rotated("default", partial_rotary_factor=0.25),
    "qwen3_moe": {"model_type": "qwen3_moe", "norm_topk_prob": True} | MANY,
    "qwen3_moe, all": {
        "model_type": "qwen3_moe", "attention_bias": True, "mlp_only_layers": (0,), "head_dim": 32,
        "use_sliding_window": True, "sliding_window": 7,
    } | MANY,
    "qwen3_next": {"model_type": "qwen3_next", "shared_expert_intermediate_size": 64} | DELTA | MANY
    | rotated("default", partial_rotary_factor=0.25),
    "qwen3_next, all": {
        "model_type": "qwen3_next", "norm_topk_prob": False, "mlp_only_layers": (1,), "attention_bias": True,
        "shared_expert_intermediate_size": 128,
    } | DELTA | {"linear_num_key_heads": 4, "linear_key_head_dim": 24} | MANY
    | rotated("default", partial_rotary_factor=0.5),
    "seed_oss": {"model_type": "seed_oss", "head_dim": 32},
    "seed_oss, other biases": {
        "model_type": "seed_oss", "attention_bias": False, "attention_out_bias": True, "mlp_bias": True,
    },
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4},
    "smollm3, all": {
        "model_type": "smollm3", "no_rope_layers": (0, 1), "use_sliding_window": True, "sliding_window": 7,
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
    },
    "stablelm": {"model_type": "stablelm", "tie_word_embeddings": False},
    "stablelm, all": {
        "model_type": "stablelm", "use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True,
    } | rotated("default", partial_rotary_factor=0.5),
    "starcoder2": {"model_type": "starcoder2"},
    "starcoder2, without biases, window": {"model_type": "starcoder2", "use_bias": False, "sliding_window": 7},
}  # fmt: skip
LENGTHS = {"mistral, wider window": 300, "llama, dynamic, long": 40}  # of a golden's text, where it is not 24


def family(name: str) -> str:
    return str(ROWS[name].get("model_type", "llama"))
