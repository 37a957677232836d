"""Rotation frequencies: plain maths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def frequencies(head_dim: int, theta: float) -> npt.NDArray[np.float64]:
    """theta ** (-2i / head_dim) for i < head_dim / 2, radians a position (Su et al. 2021)."""
    return np.asarray(theta ** (-2.0 * np.arange(head_dim // 2) / head_dim), np.float64)
