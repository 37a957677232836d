"""How a text longer than the context is divided into passes, and rows that are hard to judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickbrown.generation.score import judge, windows


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 80))
def test_each_token_but_the_first_is_judged_once_with_enough_before_it(length: int, context: int, stride: int) -> None:
    stride = min(stride, context)
    judged = []
    for begin, end, first in windows(length, context, stride):
        assert 0 <= begin < end <= length
        assert end - begin <= context
        assert begin % stride == 0
        for at in range(first, end):
            before = at - begin
            assert before == at or before >= context - stride
            judged.append(at)
    if context > 1:
        assert judged == list(range(1, length))


def test_rows_with_infinities() -> None:
    row = np.array([0.0, -np.inf, 0.0, -np.inf], np.float32)
    found = judge(row, 2, 4)
    assert (found.logprob, found.entropy, found.rank) == (-math.log(2), math.log(2), 0)
    assert [token for token, _ in found.alternatives] == [0, 2, 1, 3]
    assert judge(row, 1, 0).logprob == -math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_says_nothing(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or an infinity"):
        judge(np.array([0.0, bad], np.float32), 0, 0)
