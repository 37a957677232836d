"""OpenVINO GenAI's speed in one process, as driver.py says.

--model is a GGUF file, of the kinds that it reads, or a folder of OpenVINO's own format: `optimum-cli export openvino
--task text-generation-with-past --weight-format int4 -m HF_FOLDER FOLDER` makes one of a folder with safetensors. Runs
in a Python that has openvino_genai and numpy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from driver import drive


class OpenVino:
    build = ""

    def __init__(self, a: argparse.Namespace) -> None:
        import openvino
        import openvino_genai as genai  # after the variables for threads are set

        self.tensor, self.genai = openvino.Tensor, genai
        self.version = genai.__version__.split("-")[0]
        self.pipeline = genai.LLMPipeline(a.model, "CPU", INFERENCE_NUM_THREADS=a.threads)

    def settle(self) -> None:
        pass  # nothing goes on after the first token

    def generate(self, prompt: list[int], new: int) -> tuple[float, float]:
        stamps: list[float] = []
        base: Any = self.genai.StreamerBase
        going_on = self.genai.StreamingStatus.RUNNING

        class Clock(base):  # type: ignore[misc]
            def write(self, tokens: int | list[int]) -> Any:
                stamps.extend([time.perf_counter()] * (len(tokens) if isinstance(tokens, list) else 1))
                return going_on

            def end(self) -> None:
                pass

        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        tokens = np.array([prompt], np.int64)
        inputs = self.genai.TokenizedInputs(self.tensor(tokens), self.tensor(np.ones_like(tokens)))
        start = time.perf_counter()
        self.pipeline.generate(inputs, config, Clock())
        if len(stamps) != new:
            raise SystemExit(f"openvino_genai wrote {len(stamps)} tokens where {new} were asked for")
        return stamps[0] - start, stamps[-1] - stamps[0]


if __name__ == "__main__":
    drive("openvino-genai", OpenVino)
