"""llama-cpp-python's speed in one process, as driver.py says: its low-level interface, all else as it has it.

Runs in a Python that has llama_cpp and numpy.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path

import llama_cpp
import numpy as np

from driver import Stamps, drive

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
        settings.n_seq_max, settings.n_batch = a.batch, CHUNK  # each text has a share of n_ctx
        settings.n_ctx = (a.longest + 16) * a.batch
        settings.n_threads = settings.n_threads_batch = a.threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {settings.n_ctx} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)
        self.held: list[list[int]] = []  # texts that are in memory
        self.kept = a.kept and a.kept / f"{Path(a.model).name}.{a.depth}.state"

    def read(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Reads (token, position, text, whether its next is wanted); the likeliest next ones."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, position, text, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, position, 1, wanted
            b.seq_id[i][0] = text
        if code := llama_cpp.llama_decode(self.context, b):
            raise SystemExit(f"llama_decode returned {code}")
        logits = [llama_cpp.llama_get_logits_ith(self.context, i) for i, row in enumerate(rows) if row[3]]
        return [int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax()) for row in logits]

    def settle(self) -> None:
        pass  # nothing goes on after the first token

    def generate(self, texts: list[list[int]], new: int, *, known: bool) -> Stamps:
        start = time.perf_counter()
        begin = self.recall(texts) if known else self.forget()
        rows = [
            (token, i, text, i == len(tokens) - 1)
            for text, tokens in enumerate(texts)
            for i, token in enumerate(tokens)
            if i >= begin
        ]
        following: list[int] = []
        for i in range(0, len(rows), CHUNK):
            following += self.read(rows[i : i + CHUNK])
        moments = [time.perf_counter() - start]
        self.held = texts
        if known and not begin:
            self.keep()
        for k in range(new - 1):
            following = self.read([(token, len(texts[i]) + k, i, True) for i, token in enumerate(following)])
            moments.append(time.perf_counter() - start)
        return [moments for _ in texts]

    def forget(self) -> int:
        llama_cpp.llama_memory_clear(self.memory, False)
        return 0

    def recall(self, texts: list[list[int]]) -> int:
        """How many tokens of each text are in memory: none, or all but the last, which is to be read again."""
        if self.held != texts:
            self.forget()
            if not self.kept or not self.kept.exists():
                return 0
            [text] = texts
            room = (llama_cpp.llama_token * len(text))()
            count = ctypes.c_size_t()
            path = str(self.kept).encode()
            if not llama_cpp.llama_state_seq_load_file(self.context, path, 0, room, len(text), ctypes.byref(count)):
                raise SystemExit(f"llama.cpp cannot read {self.kept}; delete it")
            if list(room) != text:
                raise SystemExit(f"{self.kept} is of another text; delete it")
        for i, text in enumerate(texts):
            llama_cpp.llama_memory_seq_rm(self.memory, i, len(text) - 1, -1)
        return len(texts[0]) - 1

    def keep(self) -> None:
        if self.kept:
            [text] = self.held
            tokens = (llama_cpp.llama_token * len(text))(*text)
            if not llama_cpp.llama_state_seq_save_file(self.context, str(self.kept).encode(), 0, tokens, len(text)):
                raise SystemExit(f"llama.cpp cannot write {self.kept}")


if __name__ == "__main__":
    drive("llama-cpp-python", Llama)
