"""Mamba-2's state spaces, as families share them (Dao & Gu 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Linear, RMSNorm, Weights, split
from quickbrown.models.ops import Ops, X

NO_LIMITS = ([0.0, math.inf], (0.0, math.inf), None)  # time_step_limit that changes nothing


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a state space.

    heads, head  how many heads there are, and how many values each has, a multiple of 16
    groups       of heads, that share B and C, of `state` numbers each
    length       how many values the convolution sees, the own included
    """

    heads: int
    head: int
    groups: int
    state: int
    length: int

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that do not go together."""
        if self.heads % self.groups:
            raise ValueError(f"its {self.heads} state space heads do not divide into {self.groups} groups")
        if self.head % 16:
            raise ValueError(f"its state space heads have {self.head} values; a multiple of 16 is supported")
        if self.length < 2:
            raise ValueError("its convolutions see one value only, and 2 or more are supported")

    @property
    def inner(self) -> int:
        """Values of all heads."""
        return self.heads * self.head

    @property
    def shared(self) -> int:
        """Numbers of B, or of C, of all groups."""
        return self.groups * self.state

    @property
    def states(self) -> tuple[int, int]:
        """How many numbers its two states have."""
        return (self.length - 1) * (self.inner + 2 * self.shared), self.state * self.inner


class StateSpace:
    """x, B and C are what a convolution makes of them; a head forgets and takes in as its time step says, which depends
    on the token; the result goes through a gate and is normalised, group by group.

    norm         None: it is not; and whether that comes before the gate
    multipliers  of what the linear before the convolution gives: the gate, x, B, C and the time step
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        index: int,
        hidden: int,
        sizes: Sizes,
        *,
        conv_bias: bool,
        eps: float | None,
        norm_first: bool = False,
        out_bias: bool = False,
        multipliers: Sequence[float] = (),
    ) -> None:
        s = self.sizes = sizes
        self.index, self.multipliers, self.norm_first = index, multipliers, norm_first
        channels = s.inner + 2 * s.shared
        if multipliers:
            parts = s.inner, s.inner, s.shared, s.shared, s.heads
            self.gate, *self.mixed, time = split(weights, name + ".in_proj", parts, hidden)
        else:
            self.gate, *self.mixed, time = split(weights, name + ".in_proj", (s.inner, channels, s.heads), hidden)
        self.time = Linear.of(time.weight, weights.take(name + ".dt_bias", s.heads))
        self.filter = weights.take(name + ".conv1d.weight", channels, 1, s.length)
        self.bias = weights.take(name + ".conv1d.bias", channels) if conv_bias else None
        self.log_rate = weights.take(name + ".A_log", s.heads)
        self.skip = weights.take(name + ".D", s.heads)
        self.norm = None if eps is None else RMSNorm(weights, name + ".norm", s.inner, eps, s.groups)
        self.out = Linear(weights, name + ".out_proj", hidden, s.inner, out_bias)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        s = self.sizes
        gate, h, time = self._projected(ops, x)
        h = ops.activate(ops.short_conv(self.index, h, self.filter, self.bias, batch), "silu")
        b = ops.part(h, 1, s.inner, s.inner + s.shared)
        c = ops.part(h, 1, s.inner + s.shared, s.inner + 2 * s.shared)
        time, h = ops.softplus(time), ops.part(h, 1, 0, s.inner)
        decay = ops.decay(time, self.log_rate)
        h = ops.recurrence(self.index, c, b, h, time, decay, batch, s.heads, s.groups, skip=self.skip)
        if self.norm is not None and self.norm_first:
            h = self.norm(ops, h)
        h = ops.gated(gate, h, "silu")
        if self.norm is not None and not self.norm_first:
            h = self.norm(ops, h)
        return self.out(ops, h)

    def _projected(self, ops: Ops[X], x: X) -> tuple[X, X, X]:
        """The gate, [x | B | C] and the time step."""
        if not self.multipliers:
            [mixed] = self.mixed
            return self.gate(ops, x), mixed(ops, x), self.time(ops, x)
        of_gate, *rest, of_time = self.multipliers
        h, b, c = (ops.scale(linear(ops, x), factor) for linear, factor in zip(self.mixed, rest, strict=True))
        # scaled before, for the bias of the time step is not
        time = self.time(ops, ops.scale(x, of_time))
        return ops.scale(self.gate(ops, x), of_gate), ops.join(ops.join(h, b, 1), c, 1), time
