"""Mixtures of experts, as families share them: many networks, of which each token takes a few (Shazeer et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quickbrown.models.blocks import Linear, SwiGLU, Weights
from quickbrown.models.ops import Ops, Router, W, X

EXPERT_SETTINGS = {  # of GGUF files (models/gguf.py), beside SETTINGS
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
EXPERT_TENSORS = {  # beside TENSORS
    "blk.{}.ffn_gate_inp": "model.layers.{}.mlp.gate",
    "blk.{}.ffn_gate_exps": "model.layers.{}.mlp.experts.{}.gate_proj",
    "blk.{}.ffn_up_exps": "model.layers.{}.mlp.experts.{}.up_proj",
    "blk.{}.ffn_down_exps": "model.layers.{}.mlp.experts.{}.down_proj",
}

CHOSEN_SETTINGS = {  # the same where experts are chosen by sigmoids and a bias, beside a network of all
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_norm": "norm_topk_prob",
    "expert_weights_scale": "routed_scaling_factor",
    "leading_dense_block_count": "first_k_dense_replace",
}
CHOSEN_TENSORS = {
    "blk.{}.exp_probs_b.bias": "model.layers.{}.mlp.gate.e_score_correction_bias",
    "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_experts.gate_proj",
    "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_experts.up_proj",
    "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_experts.down_proj",
}


def check_experts(experts: int, chosen: int) -> None:
    """Raises ValueError where there are not so many."""
    if chosen > experts:
        raise ValueError(f"a token is to take {chosen} experts and there are {experts}")


def check_groups(experts: int, groups: int, chosen: int, top_k: int, best: int = 2) -> None:
    """Raises ValueError for groups out of which experts cannot be chosen by the best so many of each."""
    if experts % groups or chosen > groups or (groups > 1 and experts // groups < best):
        raise ValueError(f"{experts} experts cannot be chosen from in {chosen} of {groups} groups")
    if top_k > chosen * (experts // groups):
        raise ValueError(f"{chosen} of {groups} groups of {experts} experts do not hold {top_k}")


@dataclass(frozen=True)
class Networks:
    """Experts, each down(act(gate(x)) * up(x)): one of each weight a network, gate and up (F, H), down (H, F).

    biases       of gates (F,), of ups (F,) and of downs (H,)
    kind, limit  what `ops.gated` takes
    """

    gate: Sequence[W]
    up: Sequence[W]
    down: Sequence[W]
    biases: tuple[Sequence[W], Sequence[W], Sequence[W]] | None = None
    kind: str = "silu"
    limit: float = 0.0


def separate(
    weights: Weights,
    name: str,
    hidden: int,
    inner: int,
    count: int,
    parts: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> Networks:
    """Experts that are published one by one."""
    shapes = ((inner, hidden), (inner, hidden), (hidden, inner))
    gate, up, down = (
        [weights.take(f"{name}.{e}.{part}.weight", *shape) for e in range(count)]
        for part, shape in zip(parts, shapes, strict=True)
    )
    return Networks(gate, up, down)


class Mixture:
    """The sum of what a token's experts make of it, by the weights of its routing.

    gate    a logit of each expert
    bias    on the scores, while experts are chosen
    scales  times the weights, of each expert
    """

    def __init__(
        self, gate: Linear, networks: Networks, router: Router, bias: W | None = None, scales: W | None = None
    ) -> None:
        self.gate, self.networks, self.router, self.bias, self.scales = gate, networks, router, bias, scales

    def __call__(self, ops: Ops[X], x: X, asked: X | None = None) -> X:
        """asked: what the gate reads in the place of x."""
        n = self.networks
        logits = self.gate(ops, x if asked is None else asked)
        routing = ops.route(logits, self.router, self.bias, self.scales)
        return ops.experts(x, routing, n.gate, n.up, n.down, n.biases, n.kind, n.limit)


class Shared:
    """mixture(x) + network(x): every token takes the network too (DeepSeek-AI 2024)."""

    def __init__(self, mixture: Mixture, network: SwiGLU) -> None:
        self.mixture, self.network = mixture, network

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.add(self.mixture(ops, x), self.network(ops, x))
