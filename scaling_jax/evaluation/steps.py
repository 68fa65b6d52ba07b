"""A model opened for decoding inside a compiled program: prompts read, then one token at a time."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling_jax.models import cache as caches
from scaling_jax.models.cache import KeysValues
from scaling_jax.models.cached import CachedModel, cached_model_of, for_steps, separated
from scaling_jax.training import mesh as meshes
from scaling_jax.training.program import Program


class Ids(NamedTuple):
    """Token ids with a meaning; a sequence ends at any of `eos`."""

    pad: int
    eos: tuple[int, ...]
    start: int

    def ends(self, tokens: jax.Array) -> jax.Array:
        """Where a sequence ends: bool, of the shape of `tokens`."""
        return functools.reduce(jnp.logical_or, (tokens == one for one in self.eos))


class Found(NamedTuple):
    """What a search gives, one row per prompt.

    Attributes:
        tokens: int32 [rows, max_new_tokens].
        counts: int32 [rows], how many of them there are before EOS.
        scores: float32 [rows].
        finished: bool [rows], whether EOS was written.
    """

    tokens: jax.Array
    counts: jax.Array
    scores: jax.Array
    finished: jax.Array


@dataclasses.dataclass(frozen=True)
class Steps:
    """A model with its variables and the prompts to read.

    Attributes:
        model: the module.
        variables: its collections, layers side by side.
        step_variables: the same as a step best reads them; made here, once, not in every step of a loop.
        prompt: arguments of the module's `begin`.
    """

    model: CachedModel
    variables: Any
    step_variables: Any
    prompt: Mapping[str, jax.Array]

    def begin(self) -> tuple[jax.Array, caches.Cache]:
        """Scores of the first new token, float32 [examples, vocabulary], and what was read."""
        return self.model.apply(self.variables, **self.prompt, method="begin")

    def room(self, rows: int, tokens: int) -> tuple[KeysValues, ...]:
        """Where `rows` sequences write so many tokens."""
        return caches.empty(self.model.config, rows, tokens)

    def step(
        self, tokens: jax.Array, column: jax.Array, cache: caches.Cache, new: tuple[KeysValues, ...]
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Scores of the next token, float32 [rows, vocabulary], after the `column`-th new token [rows]."""
        return self.model.apply(self.step_variables, tokens, column, cache, new, method="step")


@contextlib.contextmanager
def steps_of(program: Program, tuned: Any, base: Any, prompt: Mapping[str, jax.Array]) -> Iterator[Steps]:
    """The model of a program, traced on its mesh."""
    model = cached_model_of(program.model, program.method)
    with meshes.constrained(program.mesh, program.layout.rules):
        variables = separated(program.model, program.method.variables(tuned, base))
        yield Steps(model, variables, for_steps(program.model, variables), prompt)
