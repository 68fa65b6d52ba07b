"""Searches that keep one sequence per prompt: the best token each time, or one drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling_jax.evaluation.steps import Found, Ids, Steps
from scaling_jax.models.cache import KeysValues

# Token ids [rows] from scores [rows, vocabulary] and the number of tokens before them.
Choose = Callable[[jax.Array, jax.Array], jax.Array]


def greedy(steps: Steps, places: jax.Array, seed: jax.Array, decoding: Any, ids: Ids) -> Found:
    """The likeliest token each time; of equals the first.

    Args:
        steps: model and prompts.
        places: int32 [rows], of the prompt among all; negative rows hold none.
        seed: is not used.
        decoding: a `Decoding`.
        ids: of the vocabulary.
    """
    return _search(steps, places, decoding, ids, lambda scores, count: first_greatest(scores))


def sample(steps: Steps, places: jax.Array, seed: jax.Array, decoding: Any, ids: Ids) -> Found:
    """A token drawn each time, from a stream of random numbers of (seed, place, count); see `greedy`."""
    streams = jax.vmap(lambda place: jax.random.fold_in(jax.random.key(seed), place))(places)

    def choose(scores: jax.Array, count: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda stream: jax.random.fold_in(stream, count))(streams)
        return drawn(scores, keys, decoding)

    return _search(steps, places, decoding, ids, choose)


def first_greatest(scores: jax.Array) -> jax.Array:
    """Index [rows] of the greatest of scores [rows, vocabulary].

    As `argmax`, by two reductions that a processor does many numbers at a time.
    """
    places = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    greatest = scores == jnp.max(scores, axis=-1, keepdims=True)
    found = jnp.min(jnp.where(greatest, places, scores.shape[-1]), axis=-1)
    return jnp.minimum(found, scores.shape[-1] - 1)  # scores that are no numbers equal nothing


def drawn(scores: jax.Array, keys: jax.Array, decoding: Any) -> jax.Array:
    """Token ids [rows] drawn from scores [rows, vocabulary] with a key per row.

    Of (temperature, top_k, top_p) in this order. Adding Gumbel noise and taking the greatest draws from
    the softmax.
    """
    scores = scores / decoding.temperature
    size = scores.shape[-1]
    kept = min(decoding.top_k or size, size)
    if kept == size and decoding.top_p == 1.0:
        return first_greatest(scores + _noise(keys, size))
    best, tokens = jax.lax.top_k(scores, kept)
    probability = jax.nn.softmax(best, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability  # of all that are likelier
    best = jnp.where(before < decoding.top_p, best, -jnp.inf)
    place = first_greatest(best + _noise(keys, kept))
    return jnp.take_along_axis(tokens, place[:, None], axis=-1)[:, 0]


def _noise(keys: jax.Array, size: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.gumbel(key, (size,), jnp.float32))(keys)


class _State(NamedTuple):
    """After `count` tokens: the last one is written, but not read yet."""

    count: jax.Array
    tokens: jax.Array
    last: jax.Array
    scores: jax.Array
    finished: jax.Array
    new: tuple[KeysValues, ...]


def _search(steps: Steps, places: jax.Array, decoding: Any, ids: Ids, choose: Choose) -> Found:
    rows, length = places.shape[0], decoding.max_new_tokens

    def write(state: _State, scores: jax.Array) -> _State:
        chosen = jnp.where(state.finished, ids.pad, choose(scores, state.count))
        gained = jnp.take_along_axis(scores, chosen[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(
            scores, axis=-1
        )
        return state._replace(
            count=state.count + 1,
            tokens=jax.lax.dynamic_update_slice_in_dim(state.tokens, chosen[:, None], state.count, axis=1),
            last=chosen,
            scores=state.scores + jnp.where(state.finished, 0.0, gained),
            finished=state.finished | ids.ends(chosen),
        )

    def advance(state: _State) -> _State:
        scores, new = steps.step(state.last, state.count - 1, cache, state.new)
        return write(state._replace(new=new), scores)

    def goes_on(state: _State) -> jax.Array:
        return (state.count < length) & ~jnp.all(state.finished)

    scores, cache = steps.begin()
    state = _State(
        count=jnp.zeros((), jnp.int32),
        tokens=jnp.full((rows, length), ids.pad, jnp.int32),
        last=jnp.zeros(rows, jnp.int32),
        scores=jnp.zeros(rows, jnp.float32),
        finished=places < 0,
        new=steps.room(rows, length),
    )
    state = jax.lax.while_loop(goes_on, advance, write(state, scores))
    ended = jnp.cumsum(ids.ends(state.tokens), axis=1) > 0
    written = jnp.arange(length) < state.count
    return Found(state.tokens, jnp.sum(~ended & written, axis=1), state.scores, ended[:, -1])
