"""Text from a model: greedy, by beams or drawn; batched, over the mesh, compiled once per shape.

Prompts are taken shortest first, `batch_size` at a time, and padded on the right to the smallest of the
lengths 8, 12, 16, 24, 32, 48, ... that holds them; a batch ends when all its rows have. What is
generated depends on neither, but for rounding.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gin
import jax
import numpy as np

from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation import beam, one_by_one
from scaling_jax.evaluation.steps import Found, Ids, steps_of
from scaling_jax.training import mesh as meshes
from scaling_jax.training.program import Program

STRATEGIES = {"greedy": one_by_one.greedy, "beam": beam.search, "sample": one_by_one.sample}


@gin.configurable(module="evaluation")
@dataclasses.dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        strategy: "greedy", "beam" or "sample".
        max_new_tokens: at which every sequence ends, EOS included.
        beams: sequences kept per prompt, of "beam".
        length_penalty: alpha of ((5 + tokens) / 6)^alpha, by which "beam" divides the log-probability of a
            sequence (Wu et al. 2016, eq. 14); 0 compares sums, more favours long ones.
        temperature, top_k, top_p: of "sample": scores are divided by the temperature, then only the `top_k`
            best tokens (0: all) may be drawn, and of these the fewest whose probability is at least
            `top_p` (Holtzman et al. 2020).
        batch_size: prompts at a time.
        seed: of "sample"; what is drawn for a prompt depends on the seed and its place among the prompts.
    """

    strategy: str = "greedy"
    max_new_tokens: int = 128
    beams: int = 4
    length_penalty: float = 0.6
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.strategy not in STRATEGIES:
            raise InputError(
                f"Decoding.strategy = {self.strategy!r}{did_you_mean(self.strategy, STRATEGIES)}: "
                f"one of {', '.join(STRATEGIES)}"
            )
        for field, least in (
            ("max_new_tokens", 1),
            ("beams", 1),
            ("batch_size", 1),
            ("top_k", 0),
            ("seed", 0),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise InputError(f"Decoding.{field} = {value!r}: an integer, at least {least}")
        if not self.temperature > 0:
            raise InputError(f"Decoding.temperature = {self.temperature!r}: above 0; for 0 take 'greedy'")
        if not 0 < self.top_p <= 1:
            raise InputError(f"Decoding.top_p = {self.top_p!r}: a share, above 0 and at most 1")
        if not self.length_penalty >= 0:
            raise InputError(f"Decoding.length_penalty = {self.length_penalty!r}: at least 0")


class Generated(NamedTuple):
    """What a prompt gave.

    Attributes:
        tokens: int32 [tokens], without EOS.
        score: log-probability in nats of the tokens and EOS under the model; of "beam" divided by the
            length penalty.
        finished: whether it ended in EOS, not at `max_new_tokens`.
    """

    tokens: np.ndarray
    score: float
    finished: bool


def generate(
    program: Program,
    tuned: Any,
    base: Any,
    prompts: Sequence[np.ndarray],
    decoding: Decoding,
    vocabulary: VocabularyFile,
    start_id: int,
) -> list[Generated]:
    """What the model writes after each prompt, in the order of the prompts.

    Args:
        program: model, method and mesh.
        tuned: what was trained.
        base: the frozen parameters.
        prompts: token ids as an example's `inputs` are; an encoder-decoder's encoder reads them, a decoder
            goes on from them.
        decoding: how tokens are chosen.
        vocabulary: that of the tokens, for the ids of pad and EOS.
        start_id: begins what a decoder reads, as in training.

    Raises:
        InputError: a prompt that is no list of the vocabulary's ids, or an empty one for an encoder.
    """
    found: dict[int, Generated] = {}
    for batch in generated_batches(program, tuned, base, prompts, decoding, vocabulary, start_id):
        found |= batch
    return [found[index] for index in range(len(prompts))]


def generated_batches(
    program: Program,
    tuned: Any,
    base: Any,
    prompts: Sequence[np.ndarray],
    decoding: Decoding,
    vocabulary: VocabularyFile,
    start_id: int,
    first: int = 0,
) -> Iterator[dict[int, Generated]]:
    """As `generate`, {place of the prompt: what it gave} of one batch after the other.

    `first` is the place of the first prompt among all, for prompts that come in parts.
    """
    prompts = [np.asarray(prompt, np.int32) for prompt in prompts]
    _check(prompts, program.model.vocabulary_size, program.model.encoder_layers, first)
    lengths = np.array([len(prompt) for prompt in prompts])
    order = np.argsort(lengths, kind="stable")
    parts = meshes.parts(program.mesh)
    rows = math.ceil(min(decoding.batch_size, max(len(prompts), 1)) / parts) * parts
    arrange = _two_sequences if program.model.encoder_layers else _one_sequence
    ids = Ids(vocabulary.pad_id, (vocabulary.eos_id, *vocabulary.other_ends), start_id)
    # One program for all seeds and batch sizes of the same shape.
    how = dataclasses.replace(decoding, seed=0, batch_size=1)
    build = functools.partial(_compiled, decoding=how, ids=ids)
    for begin in range(0, len(prompts), rows):
        chosen = order[begin : begin + rows]
        places = np.full(rows, -1, np.int32)  # rows that fill up the batch have no place
        places[: len(chosen)] = chosen + first
        batch = arrange([prompts[index] for index in chosen], rows, ids) | {"places": places}
        own = list(meshes.own_rows(program.mesh, rows))
        placed = program.place({name: array[own] for name, array in batch.items()}, leading=0)
        found = program.call(f"decode {how} {ids}", build, tuned, base, placed, np.uint32(decoding.seed))
        yield dict(zip(chosen.tolist(), _read(found), strict=False))


def lower(program: Program, base: Any, decoding: Decoding, tokens: int) -> jax.stages.Lowered:
    """What decodes a batch of prompts of so many tokens, of abstract arrays; see `Program.lower_train`."""
    parts = program.mesh.shape["data"] * program.mesh.shape["fsdp"]
    rows = math.ceil(decoding.batch_size / parts) * parts
    ids = Ids(0, (1,), 0)
    arrange = _two_sequences if program.model.encoder_layers else _one_sequence
    batch = arrange([np.zeros(tokens, np.int32)], rows, ids) | {"places": np.zeros(rows, np.int32)}
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch.items()}
    how = dataclasses.replace(decoding, seed=0, batch_size=1)
    return _compiled(program, how, ids).lower(
        program.abstract_tuned(),
        program.abstract_frozen(base),
        program.abstract_batches(shapes, leading=0),
        jax.ShapeDtypeStruct((), np.uint32),
    )


def prompt_length(tokens: int) -> int:
    """The padded length of a batch whose longest prompt has so many tokens."""
    power = 8 << max(0, math.ceil(math.log2(max(tokens, 1) / 8)))
    return power * 3 // 4 if power > 8 and tokens <= power * 3 // 4 else power


def _compiled(program: Program, decoding: Decoding, ids: Ids) -> Callable[..., Found]:
    search = STRATEGIES[decoding.strategy]

    def decode(tuned: Any, base: Any, batch: dict[str, jax.Array], seed: jax.Array) -> Found:
        prompt = {name: array for name, array in batch.items() if name != "places"}
        with steps_of(program, tuned, base, prompt) as steps:
            return search(steps, batch["places"], seed, decoding, ids)

    # Every process has all of what was generated.
    return jax.jit(decode, out_shardings=meshes.replicated(program.mesh))


def _one_sequence(prompts: Sequence[np.ndarray], rows: int, ids: Ids) -> dict[str, np.ndarray]:
    longest = prompt_length(max(map(len, prompts)))
    inputs = np.full((rows, 1 + longest), ids.pad, np.int32)
    inputs[:, 0] = ids.start
    lengths = np.ones(rows, np.int32)
    for row, prompt in enumerate(prompts):
        inputs[row, 1 : 1 + len(prompt)] = prompt
        lengths[row] = 1 + len(prompt)
    return {"inputs": inputs, "lengths": lengths}


def _two_sequences(prompts: Sequence[np.ndarray], rows: int, ids: Ids) -> dict[str, np.ndarray]:
    longest = prompt_length(max(map(len, prompts)))
    read = np.full((rows, longest), ids.pad, np.int32)
    mask = np.zeros(read.shape, bool)
    mask[:, 0] = True
    for row, prompt in enumerate(prompts):
        read[row, : len(prompt)], mask[row, : len(prompt)] = prompt, True
    return {
        "inputs": np.full((rows, 1), ids.start, np.int32),
        "lengths": np.ones(rows, np.int32),
        "encoder_inputs": read,
        "encoder_mask": mask,
    }


def _read(found: Found) -> list[Generated]:
    tokens, counts, scores, finished = (np.asarray(array) for array in found)
    return [
        Generated(tokens[row, : counts[row]].copy(), float(scores[row]), bool(finished[row]))
        for row in range(len(tokens))
    ]


def _check(prompts: Sequence[np.ndarray], size: int, encoder_layers: int, first: int) -> None:
    for index, prompt in enumerate(prompts, first):
        if prompt.ndim != 1 or (len(prompt) and not 0 <= prompt.min() <= prompt.max() < size):
            raise InputError(f"prompt {index}: token ids of one sequence are needed, from 0 to {size - 1}")
        if not len(prompt) and encoder_layers:
            raise InputError(f"prompt {index} is empty: an encoder needs at least one token")
