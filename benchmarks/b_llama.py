"""llama-cpp-python's speed and memory in one process, as the JSON line that b_quickbrown.py prints.

    PYTHON benchmarks/b_llama.py --model FILE.gguf [--prompt 512] [--new 64] [--depth 16] [--threads 2] [--reps 3]

Runs in a Python that has llama_cpp and numpy, and needs nothing of quickbrown. One text at a time, through the
library's low-level interface: greedy, an end of text not heeded, everything else as the library has it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import llama_cpp
import numpy as np

CHUNK = 2048  # tokens of a call at most


def process_age() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def ids(n: int, seed: int = 1, vocab: int = 30000) -> list[int]:
    """The token ids of b_quickbrown.py."""
    x, out = seed * 7919 + 17, []
    for _ in range(n):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(100 + x % (vocab - 100))
    return out


def peak_mb() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(fields["VmHWM"].split()[0]) / 1024)


class Model:
    def __init__(self, path: str, context: int, threads: int) -> None:
        self.log = llama_cpp.llama_log_callback(lambda level, text, data: None)  # held: C keeps its address only
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), options)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot read {path}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch = context, CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {context} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)

    def read(self, tokens: list[int], first: int) -> int:
        """Reads tokens, the first at position `first`; the likeliest next one."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, first + i, 1, i == len(tokens) - 1
            b.seq_id[i][0] = 0
        if code := llama_cpp.llama_decode(self.context, b):
            raise SystemExit(f"llama_decode returned {code}")
        row = llama_cpp.llama_get_logits_ith(self.context, len(tokens) - 1)
        return int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax())

    def generate(self, prompt: list[int], new: int) -> tuple[float, float]:
        """Seconds until the first token, and seconds for the other new - 1."""
        llama_cpp.llama_memory_clear(self.memory, False)
        start = time.perf_counter()
        for i in range(0, len(prompt), CHUNK):
            token = self.read(prompt[i : i + CHUNK], i)
        first = time.perf_counter()
        for k in range(new - 1):
            token = self.read([token], len(prompt) + k)
        return first - start, time.perf_counter() - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    for name, value in (("prompt", 512), ("new", 64), ("depth", 16), ("threads", 2), ("reps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    model = Model(a.model, max(a.prompt, a.depth + a.new, 32) + 16, a.threads)
    model.generate(ids(16), 1)
    result = {
        "rival": "llama-cpp-python",
        "version": llama_cpp.__version__,
        "build": llama_cpp.llama_print_system_info().decode().strip(),
        "load_s": round(process_age(), 3),
    }
    prompts = [a.prompt / model.generate(ids(a.prompt, i + 2), 1)[0] for i in range(a.reps)]
    model.generate(ids(a.depth, 50), 3)  # warm-up
    decodes = [(a.new - 1) / model.generate(ids(a.depth, 100 + i), a.new)[1] for i in range(a.reps)]
    result |= {
        "pp_tps": round(statistics.median(prompts), 2),
        "pp_all": [round(x, 1) for x in prompts],
        "tg_tps": round(statistics.median(decodes), 2),
        "tg_all": [round(x, 2) for x in decodes],
        "threads": a.threads,
        "end_peak_rss_mb": peak_mb(),
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # what was made in C is not torn down in an order that is anyone's


if __name__ == "__main__":
    main()
