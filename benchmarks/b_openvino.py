"""OpenVINO GenAI's speed in one process, as driver.py says.

--model is a GGUF file, of the kinds that it reads, or a folder of OpenVINO's own format: `optimum-cli export openvino
--task text-generation-with-past --weight-format int4 -m HF_FOLDER FOLDER` makes one of a folder with safetensors. One
text is written by its LLMPipeline, several by its ContinuousBatchingPipeline, which says when each token of each was
there. Runs in a Python that has openvino_genai and numpy.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from driver import Stamps, drive


class OpenVino:
    build = ""

    def __init__(self, a: argparse.Namespace) -> None:
        import openvino
        import openvino_genai as genai  # after the variables for threads are set

        self.tensor, self.genai = openvino.Tensor, genai
        self.version = genai.__version__.split("-")[0]
        options = {"INFERENCE_NUM_THREADS": a.threads}
        if a.batch > 1:
            scheduling = genai.SchedulerConfig()
            scheduling.enable_prefix_caching = True
            self.batches = genai.ContinuousBatchingPipeline(a.model, scheduling, "CPU", options)
        else:
            self.pipeline = genai.LLMPipeline(a.model, "CPU", **options)
        self.asked = 0

    def settle(self) -> None:
        pass  # nothing goes on after the first token

    def generate(self, texts: list[list[int]], new: int, *, known: bool) -> Stamps:
        """Its cache of prefixes, which is on unless switched off, knows known texts."""
        found = self.write(texts, new) if hasattr(self, "batches") else [self.stream(texts[0], new)]
        if any(len(times) != new for times in found):
            raise SystemExit(f"openvino_genai wrote {list(map(len, found))} tokens where {new} were asked for")
        return found

    def write(self, texts: list[list[int]], new: int) -> Stamps:
        start = time.perf_counter()
        handles = []
        for text in texts:
            tokens = self.tensor(np.array([text], np.int64))
            handles.append(self.batches.add_request(self.asked, tokens, self.config(new)))
            self.asked += 1
        found: Stamps = [[] for _ in texts]
        while self.batches.has_non_finished_requests():
            self.batches.step()
            moment = time.perf_counter() - start
            for handle, times in zip(handles, found, strict=True):
                while handle.can_read():
                    times += [moment for output in handle.read().values() for _ in output.generated_ids]
        return found

    def stream(self, text: list[int], new: int) -> list[float]:
        times: list[float] = []
        base: Any = self.genai.StreamerBase
        going_on = self.genai.StreamingStatus.RUNNING

        class Clock(base):  # type: ignore[misc]
            def write(self, tokens: int | list[int]) -> Any:
                times.extend([time.perf_counter() - start] * (len(tokens) if isinstance(tokens, list) else 1))
                return going_on

            def end(self) -> None:
                pass

        tokens = np.array([text], np.int64)
        inputs = self.genai.TokenizedInputs(self.tensor(tokens), self.tensor(np.ones_like(tokens)))
        start = time.perf_counter()
        self.pipeline.generate(inputs, self.config(new), Clock())
        return times

    def config(self, new: int) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        return config


if __name__ == "__main__":
    drive("openvino-genai", OpenVino)
