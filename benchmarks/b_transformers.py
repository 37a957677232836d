"""transformers' speed in one process, as driver.py says: bfloat16 on torch's CPU. --model is a folder of safetensors.

Runs in a Python that has torch and transformers.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from driver import Stamps, drive


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

    def generate(self, texts: list[list[int]], new: int, *, known: bool) -> Stamps:
        """The texts are as long as each other; known ones are read again."""
        moments: list[float] = []
        going_on = self.torch.zeros(len(texts), dtype=self.torch.bool)

        def stamp(tokens: Any, scores: Any, **_: Any) -> Any:  # asked behind every token whether a text ends
            moments.append(time.perf_counter())
            return going_on

        ids = self.torch.tensor(texts)
        options = {"do_sample": False, "pad_token_id": 0, "attention_mask": self.torch.ones_like(ids)}
        with self.torch.inference_mode():
            start = time.perf_counter()
            self.model.generate(ids, max_new_tokens=new, min_new_tokens=new, stopping_criteria=[stamp], **options)
        return [[moment - start for moment in moments] for _ in texts]


if __name__ == "__main__":
    drive("transformers", Transformers)
