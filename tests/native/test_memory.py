"""How much memory there is: a control group's limit counts, pages of files that nobody uses do not."""

from __future__ import annotations

import pytest

from quickbrown.backends.native import memory

NEW = {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 100\ninactive_file 250\n"}
OLD = {
    "memory/memory.limit_in_bytes": "1000",
    "memory/memory.usage_in_bytes": "700",
    "memory/memory.stat": "cache 300\ntotal_inactive_file 250\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (NEW, 550),
        (OLD, 550),
        (NEW | {"memory.max": "max"}, 1 << 62),
        (NEW | {"memory.current": "1300"}, 0),
        (NEW | {"memory.stat": ""}, 300),
        ({}, 1 << 62),
    ],
)
def test_a_control_group(files, free, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(memory, "Path", lambda root, name: tmp_path / name)
    assert memory._group() == free
