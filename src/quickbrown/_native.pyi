"""
The native half of quickbrown: kernels, packed weights, paged keys and values, recorded plans, sampling, long lists in JSON.
"""

from collections.abc import Sequence
from typing import Annotated, overload

import numpy
from numpy.typing import NDArray


def variant() -> str:
    """
    Name of the kernel variant in use; RuntimeError when QB_ISA asks for the impossible.
    """

def variant_reason() -> str:
    """Why that variant."""

def available_variants() -> str:
    """Variants this CPU can run, best last."""

class Pool:
    """A persistent team of threads; the caller of a run is one of them."""

    def __init__(self, threads: int) -> None: ...

    @property
    def threads(self) -> int: ...

    @property
    def active(self) -> int:
        """
        Of the last run: those whose cores are shared are left out for a while.
        """

    def read_bandwidth(self, bytes: int = 536870912, passes: int = 5) -> float:
        """Bytes a second read from memory by all threads together."""

    def peak(self, kind: str, passes: int = 50) -> float:
        """
        Operations a second that this variant's multiply-adds can do, two to each, by all threads together: u8 with s8 into int32 (kind 'int8'), bf16 into float32 ('bf16') or float32 ('f32').
        """

def activation(format: str, wide: bool = False) -> str:
    """
    What the input of a linear with weights of this format is rounded to: 'f32', 'bf16' or 'int8', or if wide 'bf16_groups' in the place of that.
    """

def packed_size(format: str, rows: int, inputs: int) -> int:
    """Bytes of one packed weight."""

def quantize(format: str, rows: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], pool: Pool) -> NDArray[numpy.uint8]:
    """
    Encode rows (float32, (rows, inputs)) in a format: (rows, row bytes) uint8, as quant.quantize does it, q4_1 with a search. ValueError for values that are not finite or do not fit.
    """

def vector_size(length: int) -> int:
    """Bytes of one packed vector."""

class Weights:
    """Packed weights in one arena, in the order added."""

    @overload
    def __init__(self, capacity: int, pool: Pool) -> None: ...

    @overload
    def __init__(self, packed: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], pool: Pool) -> None:
        """
        On what `packed` of others was, at a multiple of 64: the same calls of reserve, and nothing can be filled.
        """

    def add(self, format: str, inputs: int, sources: Sequence[Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)]]) -> int:
        """
        Pack encoded rows (uint8, (rows, row bytes)); panels of several sources alternate. Index of the first.
        """

    def reserve(self, format: str, rows: int, inputs: int, parts: int) -> int:
        """
        Room for weights of one shape whose panels alternate. Index of the first.
        """

    def fill(self, index: int, first_row: int, rows: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> None:
        """
        Pack encoded rows (uint8, (rows, row bytes)), whole panels of 16, from first_row on.
        """

    def reserve_vector(self, length: int) -> int:
        """Room for a vector. Its index."""

    def fill_vector(self, index: int, values: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None: ...

    def add_vector(self, values: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> int: ...

    @property
    def bytes(self) -> int: ...

    def packed(self) -> Annotated[NDArray[numpy.uint8], dict(writable=False)]:
        """
        All that was packed, (bytes,) uint8: a view, which later weights are not in.
        """

class KvMemory:
    """
    Paged keys and values: blocks of 64 tokens, taken from the system when touched.
    """

    def __init__(self, type: str, blocks: int, layers: Sequence[tuple[int, int, int]]) -> None:
        """layers are (kv_heads, head_dim, value_dim)."""

    @property
    def blocks(self) -> int: ...

    @property
    def block_bytes(self) -> int: ...

    def copy(self, source: int, target: int) -> None: ...

BLOCK: int = 64

class StateMemory:
    """
    Places for the states of texts, of so many floats each, taken from the system when touched.
    """

    def __init__(self, places: int, floats: int) -> None: ...

    @property
    def places(self) -> int: ...

    @property
    def floats(self) -> int: ...

class Plan:
    """A recorded list of verbs, replayed in one call a step."""

    def __init__(self, pool: Pool, weights: Weights, kv: KvMemory, wide: bool = False, states: StateMemory | None = None) -> None: ...

    def buffer(self, width: int, rows: bool = False) -> int: ...

    def embed(self, weight: int, out: int) -> None: ...

    def linear(self, x: int, outputs: Sequence[tuple[int, int, int]], norm: int = -1, residual: int = -1) -> None:
        """Outputs are (weight, buffer, bias), a bias of -1 is none."""

    def positions(self, weight: int, offset: int, out: int) -> None: ...

    def norm(self, weight: int, bias: int = -1, eps: float = 0.0, centred: bool = False) -> int:
        """A norm, by its number."""

    def gated_linear(self, x: int, gate: int, up: int, out: int, kind: str = 'silu', limit: float = 0.0, norm: int = -1, gate_bias: int = -1, up_bias: int = -1) -> None: ...

    def normalise(self, x: int, norm: int, out: int, heads: int = 1) -> None: ...

    def rotation(self, frequencies: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], factors: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], start: int = 0, interleaved: bool = False) -> int:
        """
        A rotation, by its number: frequencies (variants, dims / 2), radians a position, and a factor on cos and sin of each variant. dims values of a head turn, from `start` on; pairs are adjacent if interleaved, or in two halves. All rotations of a plan have as many variants.
        """

    def turn(self, rotation: int, frequencies: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], factors: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Other variants of a rotation, from the next step on."""

    def rope(self, x: int, rotation: int, heads: int, out: int) -> None: ...

    def attention(self, layer: int, q: int, k: int, v: int, out: int, heads: int, scale: float, rotation: int = -1, window: int = 0, q_norm: int = -1, k_norm: int = -1, softcap: float = 0.0, sinks: int = -1, slopes: Sequence[float] = []) -> None: ...

    def add(self, a: int, b: int, out: int) -> None: ...

    def multiply(self, a: int, b: int, out: int) -> None: ...

    def scale(self, x: int, factor: float, out: int) -> None: ...

    def softcap(self, x: int, cap: float, out: int) -> None: ...

    def activate(self, x: int, kind: str, out: int) -> None: ...

    def gated(self, gate: int, up: int, kind: str, limit: float, out: int) -> None: ...

    def part(self, x: int, heads: int, begin: int, end: int, out: int) -> None: ...

    def join(self, a: int, b: int, heads: int, out: int) -> None: ...

    def columns(self, x: int, order: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], out: int) -> None:
        """out[:, i] = x[:, order[i]]"""

    def rows(self, x: int, out: int) -> None: ...

    def route(self, logits: int, top_k: int, sigmoid: bool, renormalise: bool, scale: float, least: float, groups: int, top_groups: int, group_best: int, bias: int, scales: int, out: int) -> None: ...

    def experts(self, x: int, routing: int, parts: Sequence[tuple[int, int]], kind: str, limit: float, out: int) -> None:
        """
        parts are (weight, bias), a bias of -1 is none: gate, up and down of each expert.
        """

    def gate_rows(self, x: int, gate: int, out: int) -> None: ...

    def short_conv(self, x: int, filter: int, bias: int, state: int, out: int) -> None: ...

    def recurrence(self, q: int, k: int, v: int, beta: int, decay: int, out: int, heads: int, key_heads: int, delta: bool, skip: int, state: int) -> None: ...

    def decay(self, x: int, log_rate: int, out: int) -> None: ...

    def softplus(self, x: int, out: int) -> None: ...

    def result(self, buffer: int) -> None: ...

    def run(self, tokens: Sequence[int], positions: Sequence[int], starts: Sequence[int], blocks: Sequence[int], block_starts: Sequence[int], logit_rows: Sequence[int], fresh: Sequence[int], turns: Sequence[int] = [], reads: Sequence[int] = [], writes: Sequence[int] = []) -> None:
        """
        One step, as engine.batch.Batch describes it. turns: which variant of its rotations each sequence uses; empty: all the first.
        """

    def logits(self) -> Annotated[NDArray[numpy.float32], dict(writable=False)]:
        """
        The logits of the last step, (rows, width) float32: a view, valid until the next run.
        """

    def contents(self, buffer: int, stride: int) -> NDArray[numpy.float32]:
        """A buffer of the last step, (length, padded width) float32: for tests."""

    def profile(self, on: bool) -> None:
        """
        From the next step on, time every instruction on every thread, or stop it.
        """

    def stages(self) -> list[tuple[int, list[float], list[float]]]:
        """
        Of each instruction: bytes of weights that a step reads; seconds of each thread in it, and then waiting, in all steps since profile(True).
        """

    @property
    def profiled_seconds(self) -> float:
        """Of all steps since profile(True), in `run`."""

    @property
    def instructions(self) -> int: ...

    @property
    def growths(self) -> int:
        """How often scratch memory grew: constant after warm-up."""

class Draws:
    """Draws tokens from the logits a plan left behind."""

    def __init__(self, plan: Plan) -> None: ...

    def sample(self, rows: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], seeds: Annotated[NDArray[numpy.uint64], dict(shape=(None,), order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], temperatures: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], top_k: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], top_p: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], min_p: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], logprobs: bool, edits: Sequence[tuple[int, tuple[int, Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]]]] = []) -> list[tuple[int, float]]:
        """
        Draw from rows of the last step; arrays as engine.batch.Draws describes them. A list of (token, log-probability or nan).
        """

    def run(self, tokens: Sequence[int], positions: Sequence[int], starts: Sequence[int], blocks: Sequence[int], block_starts: Sequence[int], logit_rows: Sequence[int], fresh: Sequence[int], rows: Sequence[int], seeds: Sequence[int], draw_positions: Sequence[int], temperatures: Sequence[float], top_k: Sequence[int], top_p: Sequence[float], min_p: Sequence[float], logprobs: bool, turns: Sequence[int] = [], edits: Sequence[tuple[int, tuple[int, Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]]]] = [], reads: Sequence[int] = [], writes: Sequence[int] = []) -> list[tuple[int, float]]:
        """A step of the plan and its draws, as `Plan.run` and `sample`."""

    def redraw(self, rows: Sequence[int], seeds: Sequence[int], positions: Sequence[int], temperatures: Sequence[float], top_k: Sequence[int], top_p: Sequence[float], min_p: Sequence[float], logprobs: bool, processed: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> list[tuple[int, float]]:
        """
        Draw i takes its token from processed[i], (draws, width) float32, and its log-probability from rows[i] of the last step.
        """

def edited(row: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], edits: Sequence[tuple[int, Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]]]) -> list[float]:
    """A row, (V,) float32, as edits make it, as a list: for tests."""

def uniform(seed: int, position: int) -> float:
    """The noise of a draw, in [0, 1)."""

def read_tokens(json: bytes, at: int) -> tuple[bytes, NDArray[numpy.int64], NDArray[numpy.int32], int]:
    """
    The object of texts and their ids, each an int32, at a place in JSON: the texts end to end and 8 zeros, the bytes of each, the ids, and the place behind. ValueError for anything else.
    """

def read_merges(json: bytes, at: int) -> tuple[bytes, NDArray[numpy.int64], NDArray[numpy.int32], int]:
    """
    The array of pairs of texts, or of texts with a blank in the middle, at a place in JSON: as of read_tokens, two texts for each, and no ids. ValueError for anything else.
    """
