"""transformers' speed in one process, as driver.py says: bfloat16 on torch's CPU. --model is a folder of safetensors.

Runs in a Python that has torch and transformers.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from driver import drive


class Transformers:
    build = ""

    def __init__(self, a: argparse.Namespace) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch  # after the variables for threads are set
        import transformers

        transformers.logging.set_verbosity_error()
        torch.set_num_threads(a.threads)
        self.torch = torch
        self.version = f"{transformers.__version__} on torch {torch.__version__}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16).eval()
        self.model.generation_config.eos_token_id = None

    def settle(self) -> None:
        pass  # nothing goes on after the first token

    def generate(self, prompt: list[int], new: int) -> tuple[float, float]:
        stamps: list[float] = []

        class Clock:  # a streamer is told of the prompt, then of every token
            def put(self, tokens: Any) -> None:
                stamps.append(time.perf_counter())

            def end(self) -> None:
                pass

        ids = self.torch.tensor([prompt])
        options = {"do_sample": False, "pad_token_id": 0, "attention_mask": self.torch.ones_like(ids)}
        with self.torch.inference_mode():
            start = time.perf_counter()
            self.model.generate(ids, max_new_tokens=new, min_new_tokens=new, streamer=Clock(), **options)
        return stamps[1] - start, stamps[-1] - stamps[1]


if __name__ == "__main__":
    drive("transformers", Transformers)
