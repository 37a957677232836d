"""qb bench: its arithmetic, what it refuses, and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quickbrown.cli import main

pytest.importorskip("quickbrown._native", reason="needs the native extension: make")

from checkpoints import write_checkpoint
from quickbrown import LLM
from quickbrown.bench.measure import Task, ids, peak_bytes, rate, spread, texts
from quickbrown.bench.profile import grouped, profile, profile_prompts


def test_a_spread_says_median_least_and_most() -> None:
    assert spread([30.0, 60.0, 15.0]) == {"median": 30.0, "least": 15.0, "most": 60.0}


def test_a_rate_is_of_the_time_in_which_all_texts_are_written() -> None:
    """Texts that had begun while others were still being read were once counted as if they had begun with the last."""
    assert rate([[1.0, 2.0, 3.0]]) == 1.0
    early, late = [0.0, 5.0, 6.0, 7.0, 8.0], [5.001, 6.001, 7.001, 8.001, 8.5]
    assert rate([early, late]) == pytest.approx(2 * 3 / 3.0)  # from 5.001 to 8.001; the second ends alone
    with pytest.raises(ValueError, match="2 texts are not all being written before the first ends; give a larger new"):
        rate([[0.0, 1.0], [2.0, 3.0]])


def test_ids_repeat_with_their_seed_and_differ_with_another() -> None:
    assert ids(50, 3, 100) == ids(50, 3, 100) != ids(50, 4, 100)
    assert all(0 <= token < 100 for token in ids(500, 3, 100))


def test_the_peak_is_read_or_unknown(tmp_path: Path) -> None:
    status = tmp_path / "status"
    assert peak_bytes(status) is None
    status.write_text("Name:\tqb\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_bytes(status) == 2048 * 1024
    status.write_text("Name:\tqb\n")
    assert peak_bytes(status) is None


@pytest.mark.parametrize(
    ("name", "value", "least"), [("prompt", 0, 1), ("new", 1, 2), ("depth", 0, 1), ("batch", -1, 1), ("repeat", 0, 1)]
)
def test_counts_without_a_rate_are_refused(
    name: str, value: int, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.call(["bench", f"--{name}", str(value), "-m", "no such model"]) == 1
    said = f"qb: {name} must be a whole number of at least {least}, not {value}\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--depth", "16;32", "give whole numbers with commas between them, like 1,4,16, not '16;32'"),
        ("--batch", "1,", "give whole numbers with commas between them, like 1,4,16, not '1,'"),
        ("--batch", "", "give whole numbers with commas between them, like 1,4,16, not ''"),
        ("--plot", "bench.pdf", "the file's name must end in .png or .svg, not 'bench.pdf'"),
    ],
)
def test_bad_lists_and_files_are_refused(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.call(["bench", option, value])
    assert capsys.readouterr().err == f"qb bench: argument {option}: {said} (see qb bench --help)\n"


def test_a_list_without_a_rate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["bench", "--depth", "16,0", "-m", "no such model"]) == 1
    assert capsys.readouterr().err == "qb: depth must be a whole number of at least 1, not 0\n"
    assert main.call(["bench", "--batch", "4,1,4", "-m", "no such model"]) == 1
    assert capsys.readouterr().err == "qb: batch has a number twice: 4, 1, 4\n"


def test_texts_must_fit_the_context_and_memory(tiny: Path) -> None:
    llm = LLM(tiny, threads=1, memory="96kB")  # of a context of 256 tokens
    room = llm.runner.room() * llm.runner.block_size
    assert 64 <= room < 512
    Task(prompt=255, depth=(36,), new=16).fit(llm)
    with pytest.raises(ValueError, match=r"prompt \+ 1 is 257 tokens, more than the model's context of 256"):
        Task(prompt=256).fit(llm)
    with pytest.raises(ValueError, match=r"depth \+ new is 257 tokens"):
        Task(prompt=1, depth=(1, 193), new=64).fit(llm)
    with pytest.raises(ValueError, match=f"memory holds {room} tokens, too few for 100 texts of 30 . 4 together"):
        Task(prompt=1, depth=(30,), new=4, batch=(1, 100)).fit(llm)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    write_checkpoint(folder)
    return folder


def bench(tiny: Path, *more: str) -> int:
    counts = ["--prompt", "8", "--new", "4", "--depth", "3", "--batch", "2", "--repeat", "3", "--threads", "1"]
    return main.call(["bench", "-m", str(tiny), *counts, *more])


def test_one_line_of_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny, "--json") == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    figures = json.loads(shown)
    assert figures.keys() == {
        "model", "task", "threads", "load_seconds", "warm_up_seconds", "first_token_seconds",
        "prompt_tokens_per_second", "decode", "peak_bytes", "kernels", "versions",
    }  # fmt: skip
    assert figures["task"] == {"prompt": 8, "new": 4, "depth": [3], "batch": [2], "repeat": 3}
    assert figures["threads"] == 1
    [decode] = figures["decode"]
    assert decode.keys() == {"depth", "batch", "tokens_per_second"}
    assert (decode["depth"], decode["batch"]) == (3, 2)
    names = ("first_token_seconds", "prompt_tokens_per_second")
    for found in (decode["tokens_per_second"], *(figures[name] for name in names)):
        assert 0 < found["least"] <= found["median"] <= found["most"]
    assert figures["prompt_tokens_per_second"]["most"] == pytest.approx(8 / figures["first_token_seconds"]["least"])


def test_a_table_for_people(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny) == 0
    shown = capsys.readouterr().out
    assert "\n  2 x 4 tokens after 3  " in shown
    assert "after a prompt of 8 tokens\n" in shown
    assert "warm-up" in shown


def test_a_model_with_too_short_a_context_says_so(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["bench", "-m", str(tiny), "--prompt", "256", "--repeat", "1"]) == 1
    assert capsys.readouterr().err == "qb: prompt + 1 is 257 tokens, more than the model's context of 256\n"


def test_each_depth_is_measured_with_each_batch(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny, "--depth", "3,70", "--batch", "2,1", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert [(one["depth"], one["batch"]) for one in figures["decode"]] == [(3, 2), (3, 1), (70, 2), (70, 1)]
    assert bench(tiny, "--depth", "3,70") == 0
    shown = capsys.readouterr().out
    assert "2 x 4 tokens after 3 " in shown
    assert "2 x 4 tokens after 70 " in shown


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_accounts_for_all_of_a_step(tiny: Path, threads: int) -> None:
    llm = LLM(tiny, threads=threads)
    draws = llm.runner.draws
    found = profile(llm, texts(70, 2, 100), 20)
    assert llm.runner.draws is draws
    assert llm.runner.plan.stages() == []  # it is not profiled any more
    assert found.steps == 10
    assert 1 <= found.threads <= threads
    assert sum(stage.seconds for stage in found.stages) == pytest.approx(found.seconds, rel=1e-9)
    assert all(stage.seconds > 0 for stage in found.stages)
    assert all(0 <= stage.waiting <= found.seconds for stage in found.stages)
    assert all(stage.imbalance >= 0 for stage in found.stages)
    around = ["preparing, waking threads", "drawing, lists to and from", "Python between steps"]
    assert [stage.name for stage in found.stages][-3:] == around
    assert sum(stage.count for stage in found.stages) == len(llm.runner.verbs) + 3
    if threads == 1:
        assert all(stage.imbalance == 0 for stage in found.stages)
    read = sum(stage.bytes for stage in found.stages if stage.name != "attention")
    assert llm.runner.weights.arena.bytes / 2 < read <= llm.runner.weights.arena.bytes  # once a step


def test_a_profile_says_what_attention_reads(tiny: Path) -> None:
    llm = LLM(tiny, threads=1)
    short, long = (
        next(stage.bytes for stage in profile(llm, texts(depth, 2, 100), 20).stages if stage.name == "attention")
        for depth in (10, 100)
    )
    c = llm.config
    window = llm.runner.verbs[[verb.name for verb in llm.runner.verbs].index("attention")].window
    slot = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 2  # keys and values in bfloat16
    # The first token is read with the prompt; of the next ones, two pass before ten are counted.
    lengths = [[min(depth + 3 + i, window or 1000) for i in range(10)] for depth in (10, 100)]
    assert (short, long) == tuple(2 * slot * sum(some) / 10 for some in lengths)


def test_a_profile_of_prompts_accounts_for_all_of_them(tiny: Path) -> None:
    llm = LLM(tiny, threads=1)
    draws = llm.runner.draws
    prompts = texts(200, 3, 100)
    found = profile_prompts(llm, prompts)
    assert llm.runner.draws is draws
    assert llm.runner.plan.stages() == []
    assert found.steps == 3
    assert sum(stage.seconds for stage in found.stages) == pytest.approx(found.seconds, rel=1e-9)
    assert [stage.name for stage in found.stages][-1] == "Python around them"
    read = sum(stage.bytes for stage in found.stages if stage.name != "attention")
    assert llm.runner.weights.arena.bytes / 2 < read <= llm.runner.weights.arena.bytes  # a prompt is one step


@pytest.mark.parametrize(
    ("options", "peak"),
    [
        ({}, 8),
        ({"kv_cache_dtype": "float32"}, 4),
        ({"kv_cache_dtype": "int8"}, 16),  # 16 bits with 8: two multiply-adds
        ({"kv_cache_dtype": "bfloat16", "dtype": "float32"}, 8),
    ],
)
def test_a_profile_says_what_multiply_adds_take_at_the_peak(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], peak: int
) -> None:
    import quickbrown.bench.profile as module

    llm = LLM(tiny, threads=1, **options)
    rates = {"int8": 32.0, "bf16": 8.0, "f32": 4.0}  # operations a second
    monkeypatch.setattr(module, "peaks", lambda llm: rates)
    c = llm.config
    assert not any(verb.window for verb in llm.runner.verbs)
    found = {stage.name: stage.peak for stage in profile_prompts(llm, texts(200, 3, 100)).stages}
    attention = 4 * c.num_attention_heads * c.head_dim * (200 * 201 / 2) * c.num_hidden_layers
    assert found["attention"] == pytest.approx(attention / peak, rel=1e-12)
    mlp = 3 * c.hidden_size * c.intermediate_size
    qkvo = 2 * c.hidden_size * (c.num_attention_heads + c.num_key_value_heads) * c.head_dim
    layers = 2 * 200 * c.num_hidden_layers * (mlp + qkvo)
    head = 2 * c.hidden_size * c.vocab_size  # of the last token alone
    linears = sum(seconds for name, seconds in found.items() if name != "attention")
    assert linears == pytest.approx((layers + head) / rates["f32"], rel=1e-12)


def test_too_few_tokens_are_not_profiled(tiny: Path) -> None:
    llm = LLM(tiny, threads=1)
    with pytest.raises(ValueError, match="4 tokens are too few to profile 1 texts; give a larger new"):
        profile(llm, texts(3, 1, 100), 4)
    assert profile(llm, texts(3, 1, 100), 8).steps == 4


def test_stages_add_up_instructions_of_a_kind() -> None:
    import numpy as np

    work = np.array([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [2.0, 2.0, 0.0]])
    wait = np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.5, 0.5, 0.0]])  # the third thread was left out
    one, other = grouped(["a", "a", "b"], work, wait, [10, 20, 40], [0.5, 0.25, 0.0])
    assert (one.name, one.count, one.seconds, one.waiting, one.bytes) == ("a", 2, 6.0, 2.0, 30)
    assert one.imbalance == pytest.approx(0.5)
    assert (one.peak, other.peak) == (0.75, 0.0)
    assert (other.name, other.count, other.seconds, other.waiting, other.imbalance) == ("b", 1, 2.5, 0.5, 0.0)


def test_a_profile_is_shown(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny, "--new", "20", "--depth", "3,9", "--profile") == 0
    shown = capsys.readouterr().out
    for depth in (3, 9):
        assert f"\na step of 2 texts after {depth} tokens, the mean of 10" in shown
    assert shown.count("\na step  ") == 2
    assert "\na prompt of 8 tokens, the mean of 3" in shown
    assert bench(tiny, "--new", "20", "--profile", "--json") == 0
    [decode] = json.loads(capsys.readouterr().out)["decode"]
    found = decode["profile"]
    assert sum(stage["seconds"] for stage in found["stages"]) == pytest.approx(found["seconds"], rel=1e-9)


def test_a_plot_without_matplotlib_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quickbrown.bench.plot.find_spec", lambda name: None)
    assert main.call(["bench", "-m", "no such model", "--plot", "bench.svg"]) == 1
    assert capsys.readouterr().err == "qb: plots need matplotlib: pip install 'quickbrown[plot]'\n"


@pytest.mark.parametrize("counts", [("3", "2"), ("3,9", "2,1"), ("3", "2,1")])
def test_a_plot_is_drawn(tiny: Path, tmp_path: Path, counts: tuple[str, str]) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'quickbrown[plot]'")
    for name in ("bench.png", "bench.svg"):
        assert bench(tiny, "--depth", counts[0], "--batch", counts[1], "--plot", str(tmp_path / name)) == 0
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "bench.svg").read_text("utf-8")
