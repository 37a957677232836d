"""A model loaded once for each file, and seeds of each test's own."""

from __future__ import annotations

import pytest

from quickbrown import LLM
from quickbrown.generation import seeds
from tiny_llm import BLOCK_BYTES, model, rests


@pytest.fixture(autouse=True)
def _own_seeds(monkeypatch):
    monkeypatch.setattr(seeds, "_seeds", seeds.Seeds())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(path):
    llm = LLM(path, threads=2)
    yield llm
    llm.close()


@pytest.fixture
def llm(loaded):
    """Shared by the tests; each must leave it idle."""
    yield loaded
    assert rests(loaded)


@pytest.fixture(scope="module")
def narrow(path):
    """Memory for 12 blocks: few texts fit in it together."""
    llm = LLM(path, threads=1, memory=12 * BLOCK_BYTES)
    yield llm
    assert rests(llm)
    llm.close()
