"""quickbrown: text generation with language models on the machine people have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickbrown.async_llm import AsyncLLM
    from quickbrown.generation.seeds import set_seed
    from quickbrown.hf.auto_config import AutoConfig
    from quickbrown.hf.auto_model import AutoModelForCausalLM
    from quickbrown.hf.backend import get_backend
    from quickbrown.hf.batch_encoding import BatchEncoding
    from quickbrown.hf.generation_config import GenerationConfig
    from quickbrown.hf.logits_process import (
        EncoderNoRepeatNGramLogitsProcessor,
        EncoderRepetitionPenaltyLogitsProcessor,
        EpsilonLogitsWarper,
        EtaLogitsWarper,
        ExponentialDecayLengthPenalty,
        ForcedBOSTokenLogitsProcessor,
        ForcedEOSTokenLogitsProcessor,
        InfNanRemoveLogitsProcessor,
        LogitNormalization,
        LogitsProcessor,
        LogitsProcessorList,
        MinLengthLogitsProcessor,
        MinNewTokensLengthLogitsProcessor,
        MinPLogitsWarper,
        NoBadWordsLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
        PrefixConstrainedLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
        SuppressTokensAtBeginLogitsProcessor,
        SuppressTokensLogitsProcessor,
        TemperatureLogitsWarper,
        TopHLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )
    from quickbrown.hf.model import PreTrainedModel, PromptHint
    from quickbrown.hf.pipelines import pipeline
    from quickbrown.hf.pretrained_tokenizer import PreTrainedTokenizer
    from quickbrown.hf.quantization import BitsAndBytesConfig
    from quickbrown.hf.stopping_criteria import (
        ConfidenceCriteria,
        EosTokenCriteria,
        MaxLengthCriteria,
        MaxTimeCriteria,
        StoppingCriteria,
        StoppingCriteriaList,
        StopStringCriteria,
    )
    from quickbrown.hf.streamers import AsyncTextIteratorStreamer, BaseStreamer, TextIteratorStreamer, TextStreamer
    from quickbrown.hf.text_generation import TextGenerationPipeline
    from quickbrown.hf.tokenizer import AutoTokenizer
    from quickbrown.llm import LLM
    from quickbrown.streams import AsyncBatchStream, AsyncStream, BatchStream, GenerationError, Stream
    from quickbrown.types import (
        Completion,
        Finish,
        FinishReason,
        SamplingParams,
        Score,
        TokenScore,
        TooLong,
        UnknownOption,
    )

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncBatchStream",
    "AsyncLLM",
    "AsyncStream",
    "AsyncTextIteratorStreamer",
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BaseStreamer",
    "BatchEncoding",
    "BatchStream",
    "BitsAndBytesConfig",
    "Completion",
    "ConfidenceCriteria",
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EosTokenCriteria",
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "Finish",
    "FinishReason",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "GenerationConfig",
    "GenerationError",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "PrefixConstrainedLogitsProcessor",
    "PromptHint",
    "RepetitionPenaltyLogitsProcessor",
    "SamplingParams",
    "Score",
    "SequenceBiasLogitsProcessor",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "Stream",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "TemperatureLogitsWarper",
    "TextGenerationPipeline",
    "TextIteratorStreamer",
    "TextStreamer",
    "TokenScore",
    "TooLong",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "UnknownOption",
    "get_backend",
    "pipeline",
    "set_seed",
]

# Loaded when first asked for: importing the package alone costs next to nothing.
_HOME = {
    "LLM": "llm",
    "AsyncBatchStream": "streams",
    "AsyncLLM": "async_llm",
    "AsyncStream": "streams",
    "AsyncTextIteratorStreamer": "hf.streamers",
    "AutoConfig": "hf.auto_config",
    "AutoModelForCausalLM": "hf.auto_model",
    "AutoTokenizer": "hf.tokenizer",
    "BaseStreamer": "hf.streamers",
    "BatchEncoding": "hf.batch_encoding",
    "BatchStream": "streams",
    "BitsAndBytesConfig": "hf.quantization",
    "Completion": "types",
    "ConfidenceCriteria": "hf.stopping_criteria",
    "EncoderNoRepeatNGramLogitsProcessor": "hf.logits_process",
    "EncoderRepetitionPenaltyLogitsProcessor": "hf.logits_process",
    "EosTokenCriteria": "hf.stopping_criteria",
    "EpsilonLogitsWarper": "hf.logits_process",
    "EtaLogitsWarper": "hf.logits_process",
    "ExponentialDecayLengthPenalty": "hf.logits_process",
    "Finish": "types",
    "FinishReason": "types",
    "ForcedBOSTokenLogitsProcessor": "hf.logits_process",
    "ForcedEOSTokenLogitsProcessor": "hf.logits_process",
    "GenerationConfig": "hf.generation_config",
    "GenerationError": "streams",
    "InfNanRemoveLogitsProcessor": "hf.logits_process",
    "LogitNormalization": "hf.logits_process",
    "LogitsProcessor": "hf.logits_process",
    "LogitsProcessorList": "hf.logits_process",
    "MaxLengthCriteria": "hf.stopping_criteria",
    "MaxTimeCriteria": "hf.stopping_criteria",
    "MinLengthLogitsProcessor": "hf.logits_process",
    "MinNewTokensLengthLogitsProcessor": "hf.logits_process",
    "MinPLogitsWarper": "hf.logits_process",
    "NoBadWordsLogitsProcessor": "hf.logits_process",
    "NoRepeatNGramLogitsProcessor": "hf.logits_process",
    "PreTrainedModel": "hf.model",
    "PreTrainedTokenizer": "hf.pretrained_tokenizer",
    "PrefixConstrainedLogitsProcessor": "hf.logits_process",
    "PromptHint": "hf.model",
    "RepetitionPenaltyLogitsProcessor": "hf.logits_process",
    "SamplingParams": "types",
    "Score": "types",
    "SequenceBiasLogitsProcessor": "hf.logits_process",
    "StopStringCriteria": "hf.stopping_criteria",
    "StoppingCriteria": "hf.stopping_criteria",
    "StoppingCriteriaList": "hf.stopping_criteria",
    "Stream": "streams",
    "SuppressTokensAtBeginLogitsProcessor": "hf.logits_process",
    "SuppressTokensLogitsProcessor": "hf.logits_process",
    "TemperatureLogitsWarper": "hf.logits_process",
    "TextGenerationPipeline": "hf.text_generation",
    "TextIteratorStreamer": "hf.streamers",
    "TextStreamer": "hf.streamers",
    "TokenScore": "types",
    "TooLong": "types",
    "TopHLogitsWarper": "hf.logits_process",
    "TopKLogitsWarper": "hf.logits_process",
    "TopPLogitsWarper": "hf.logits_process",
    "TypicalLogitsWarper": "hf.logits_process",
    "UnknownOption": "types",
    "get_backend": "hf.backend",
    "pipeline": "hf.pipelines",
    "set_seed": "generation.seeds",
}

_SEQ2SEQ = "reads and writes with decoder-only models; use AutoModelForCausalLM and a chat model with an instruction"
_NOT_HERE = {
    "AutoModel": "gives texts and logits, not hidden states; use AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM": _SEQ2SEQ,
    "EncoderDecoderModel": _SEQ2SEQ,
    "T5ForConditionalGeneration": _SEQ2SEQ,
    "BartForConditionalGeneration": _SEQ2SEQ,
}


def __getattr__(name: str) -> Any:
    if name in _NOT_HERE:
        raise ImportError(
            f"quickbrown has no {name}: it {_NOT_HERE[name]}"
        )  # an AttributeError would lose the sentence
    if name not in _HOME:
        raise AttributeError(f"module 'quickbrown' has no attribute {name!r}")
    return getattr(importlib.import_module(f"quickbrown.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
