"""The tutorial "Generation with LLMs", with torch: only its imports are changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it")

from hf.tutorial_checks import *  # noqa: F403
from hf.tutorial_checks import MODELS, Tutorial, carried_out


@pytest.fixture(scope="module", params=MODELS)
def tutorial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tutorial]:
    with carried_out(request.param, "pt", tmp_path_factory.mktemp("tutorial")) as run:
        yield run
