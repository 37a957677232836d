"""quickbrown's speed and memory in one process, as one JSON line.

    python benchmarks/b_quickbrown.py --model FILE.gguf [--prompt 512] [--new 64] [--depth 16] [--batch 1] [--threads 2]

load_s  process start to the first token of a 16-token prompt: cold import, load and warm-up included
pp_tps  prompt tokens a second of a --prompt token prompt, up to its first token (median of --reps)
tg_tps  decoded tokens a second, all --batch sequences together, with --depth tokens each already read
Generation is greedy and ignores the end-of-text token; picking the token and making its text are included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

import quickbrown
from quickbrown import LLM
from quickbrown.weights.kept import finish


def process_age() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def ids(n: int, seed: int = 1, vocab: int = 30000) -> tuple[int, ...]:
    """n reproducible token ids."""
    x, out = seed * 7919 + 17, []
    for _ in range(n):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(100 + x % (vocab - 100))
    return tuple(out)


def memory() -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    megabytes = {
        name: round(int(fields[key].split()[0]) / 1024)
        for name, key in (("peak_rss_mb", "VmHWM"), ("anon_mb", "RssAnon"), ("file_mb", "RssFile"))
    }
    return megabytes | {"maxrss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def generate(llm: LLM, prompts: list[tuple[int, ...]], new: int) -> tuple[float, float]:
    """Seconds until every sequence has its first token, and seconds for the other new - 1 tokens."""
    stream = llm.stream_batch(prompts, max_new_tokens=new, ignore_eos=True)
    stream.read()
    first = max(text.first_token_seconds for text in stream.texts)
    return first, stream.seconds - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tag", default="")
    for name, value in (("prompt", 512), ("new", 64), ("depth", 16), ("batch", 1), ("threads", 2), ("reps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()

    start = time.time()
    llm = LLM(a.model, threads=a.threads)
    opened = time.time() - start
    generate(llm, [ids(16)], 1)
    result = {
        "rival": "quickbrown" + (":" + a.tag if a.tag else ""),
        "model": os.path.basename(a.model.rstrip("/")),
        "version": quickbrown.__version__,
        "load_s": round(process_age(), 3),
        "open_s": round(opened, 3),
        **memory(),
    }
    finish()  # keeping packed weights would be measured too
    prompt_rates, decode_rates = [], []
    for i in range(a.reps if a.prompt else 0):
        seconds, _ = generate(llm, [ids(a.prompt, i + 2)], 1)
        prompt_rates.append(a.prompt / seconds)
    if a.new > 1:
        if a.depth <= 1024:
            generate(llm, [ids(a.depth, 50 + j) for j in range(a.batch)], 3)  # warm-up
        for i in range(a.reps):
            _, seconds = generate(llm, [ids(a.depth, 100 + i * a.batch + j) for j in range(a.batch)], a.new)
            decode_rates.append(a.batch * (a.new - 1) / seconds)

    def median(values: list[float]) -> float | None:
        return round(statistics.median(values), 2) if values else None

    result |= {
        "prompt": a.prompt,
        "pp_tps": median(prompt_rates),
        "pp_all": [round(x, 1) for x in prompt_rates],
        "batch": a.batch,
        "depth": a.depth,
        "new": a.new,
        "tg_tps": median(decode_rates),
        "tg_all": [round(x, 2) for x in decode_rates],
        "threads": a.threads,
        **{"end_" + key: value for key, value in memory().items()},
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
