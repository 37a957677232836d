"""Any bytes give a value or the reader's own error: what the search began with, and what it found."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from targets import SAID, TARGETS, seeds

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
MUTATIONS = 40
SECONDS = 10.0  # of the processor, for one file


def run(target: str, data: bytes, folder: Path) -> None:
    folder.mkdir()
    start = time.process_time()
    TARGETS[target](data, folder)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_before(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QB_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(path.parent.name, path.read_bytes(), tmp_path / "folder")


@pytest.mark.parametrize("target", TARGETS)
def test_good_files_and_damaged_ones(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes changed, cut out and put in, from a fixed seed."""
    monkeypatch.setenv("QB_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dice = random.Random(target)
    for number, good in enumerate(seeds(target, tmp_path)):
        SAID.clear()
        run(target, good, tmp_path / f"good{number}")
        assert SAID == []
        for change in range(MUTATIONS):
            data = bytearray(good)
            for _ in range(dice.choice((1, 1, 3, 9))):
                at = dice.randrange(min(len(data), 4096) or 1)  # descriptions come first
                match dice.randrange(4):
                    case 0:
                        data[at : at + 1] = bytes([dice.randrange(256)])
                    case 1:
                        data[at : at + 8] = dice.choice((b"\xff" * 8, bytes(8), b"\x7f" + bytes(7), b"9" * 8))
                    case 2:
                        del data[at : at + dice.randrange(64)]
                    case 3:
                        data[at:at] = data[at : at + dice.randrange(64)]
            run(target, bytes(data), tmp_path / f"{number}-{change}")
