"""How a token's experts are chosen out of many (Shazeer et al. 2017), in the ways that families have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Router:
    """From a token's logits, one an expert, to `top_k` experts and their weights.

    Scores are softmax(logits) over all experts, or sigmoid(logits) of each. Those with the largest scores are chosen,
    or with the largest score + bias where there is a bias (Wang et al. 2024); of equal ones the first. Weights are the
    scores of those chosen.

    top_k        how many are chosen
    sigmoid      scores are sigmoids
    renormalise  weights are divided by their sum: of softmax, what softmax over the chosen logits alone gives
    least        which is taken to be at least that
    scale        weights are multiplied by it at last
    groups       experts lie in so many groups of equal size, next to each other
    top_groups   and only experts of so many groups may be chosen: those with the largest sum of what
    group_best   so many of their experts are chosen by (DeepSeek-AI 2024: 1, 2024b: 2)

    Raises ValueError for groups out of which nothing can be chosen.
    """

    top_k: int
    sigmoid: bool = False
    renormalise: bool = False
    least: float = 1e-20
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_best: int = 1

    def __post_init__(self) -> None:
        if self.top_k < 1 or not 1 <= self.top_groups <= self.groups or self.group_best < 1:
            raise ValueError(
                f"a router cannot choose {self.top_k} experts from {self.top_groups} of {self.groups} groups"
            )
