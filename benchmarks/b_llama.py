"""llama-cpp-python's speed in one process, as driver.py says: its low-level interface, all else as it has it.

Runs in a Python that has llama_cpp and numpy.
"""

from __future__ import annotations

import argparse
import time

import llama_cpp
import numpy as np

from driver import drive

CHUNK = 2048  # tokens of a call at most


class Llama:
    version = llama_cpp.__version__

    def __init__(self, a: argparse.Namespace) -> None:
        self.log = llama_cpp.llama_log_callback(lambda level, text, data: None)  # held: C keeps its address only
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        self.build = llama_cpp.llama_print_system_info().decode().strip()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(a.model.encode(), options)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot read {a.model}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch = a.longest + 16, CHUNK
        settings.n_threads = settings.n_threads_batch = a.threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {a.longest + 16} tokens")
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

    def settle(self) -> None:
        pass  # nothing goes on after the first token

    def generate(self, prompt: list[int], new: int) -> tuple[float, float]:
        llama_cpp.llama_memory_clear(self.memory, False)
        start = time.perf_counter()
        for i in range(0, len(prompt), CHUNK):
            token = self.read(prompt[i : i + CHUNK], i)
        first = time.perf_counter()
        for k in range(new - 1):
            token = self.read([token], len(prompt) + k)
        return first - start, time.perf_counter() - first


if __name__ == "__main__":
    drive("llama-cpp-python", Llama)
