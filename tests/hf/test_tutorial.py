"""The tutorial "Generation with LLMs", without torch: return_tensors="np" in the place of "pt"."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hf.tutorial_checks import *  # noqa: F403
from hf.tutorial_checks import MODELS, Tutorial, carried_out


@pytest.fixture(scope="module", params=MODELS)
def tutorial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tutorial]:
    with carried_out(request.param, "np", tmp_path_factory.mktemp("tutorial")) as run:
        yield run
