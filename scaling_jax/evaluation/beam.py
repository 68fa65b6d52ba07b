"""Beam search with GNMT's length penalty (Wu et al. 2016).

Every step extends the live sequences of a prompt by one token and looks at the 2 x beams best
extensions. Those among the `beams` best that end in EOS are done and compete by log-probability /
((5 + tokens) / 6)^alpha, EOS counted; of the others the `beams` best live on. At `max_new_tokens` the
live ones are done as they are. A prompt is finished when its worst done sequence, of as many as there
are beams, is at least as good as the best that any live one could become: its log-probability as it is,
divided by the penalty of the full length.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling_jax.evaluation.steps import Found, Ids, Steps
from scaling_jax.models.cache import KeysValues


class _State(NamedTuple):
    """After `count` tokens; arrays are [prompts, beams, ...], best first."""

    count: jax.Array
    live: jax.Array
    live_scores: jax.Array
    done: jax.Array
    done_scores: jax.Array
    new: tuple[KeysValues, ...]


def penalty(tokens: jax.Array | float, alpha: float) -> jax.Array | float:
    """((5 + tokens) / 6)^alpha (Wu et al. 2016, eq. 14)."""
    return ((5 + tokens) / 6) ** alpha


def search(steps: Steps, places: jax.Array, seed: jax.Array, decoding: Any, ids: Ids) -> Found:
    """The best sequence that was found for each prompt.

    Args:
        steps: model and prompts.
        places: int32 [prompts], of the prompt among all; negative rows hold none.
        seed: is not used.
        decoding: a `Decoding`.
        ids: of the vocabulary.
    """
    prompts, beams, length = places.shape[0], decoding.beams, decoding.max_new_tokens
    alpha = decoding.length_penalty

    def write(state: _State, scores: jax.Array) -> _State:
        """Extends the live sequences by the scores [prompts * beams, vocabulary] of their next token."""
        size = scores.shape[-1]
        gained = jax.nn.log_softmax(scores, axis=-1).reshape(prompts, beams, size)
        totals = (state.live_scores[..., None] + gained).reshape(prompts, beams * size)
        totals, places = jax.lax.top_k(totals, 2 * beams)
        parents, tokens = places // size, (places % size).astype(jnp.int32)
        extended = jax.lax.dynamic_update_slice_in_dim(
            _of_beams(state.live, parents), tokens[..., None], state.count, axis=2
        )
        is_eos = ids.ends(tokens)
        ends = (is_eos | (state.count + 1 == length)) & (jnp.arange(2 * beams) < beams)
        normed = jnp.where(ends, totals / penalty(state.count + 1, alpha), -jnp.inf)
        # What was done before comes first, so that it wins among equals.
        all_done = jnp.concatenate([state.done_scores, normed], axis=1)
        done_scores, kept = jax.lax.top_k(all_done, beams)
        live_scores, living = jax.lax.top_k(jnp.where(is_eos, -jnp.inf, totals), beams)
        parents = jnp.take_along_axis(parents, living, axis=1)
        rows = (parents + beams * jnp.arange(prompts)[:, None]).reshape(-1)
        return _State(
            count=state.count + 1,
            live=_of_beams(extended, living),
            live_scores=live_scores,
            done=_of_beams(jnp.concatenate([state.done, extended], axis=1), kept),
            done_scores=done_scores,
            new=jax.tree.map(lambda array: array[rows], state.new),
        )

    def advance(state: _State) -> _State:
        last = jax.lax.dynamic_index_in_dim(state.live, state.count - 1, axis=2, keepdims=False)
        scores, new = steps.step(last.reshape(-1), state.count - 1, cache, state.new)
        return write(state._replace(new=new), scores)

    def goes_on(state: _State) -> jax.Array:
        reachable = state.live_scores[:, 0] / penalty(length, alpha)
        return (state.count < length) & jnp.any(reachable > state.done_scores[:, -1])

    scores, cache = steps.begin()
    # All beams of a prompt begin alike: only one of them counts.
    one_of_them = jnp.where((jnp.arange(beams) == 0) & (places[:, None] >= 0), 0.0, -jnp.inf)
    state = _State(
        count=jnp.zeros((), jnp.int32),
        live=jnp.full((prompts, beams, length), ids.pad, jnp.int32),
        live_scores=one_of_them.astype(jnp.float32),
        done=jnp.full((prompts, beams, length), ids.pad, jnp.int32),
        done_scores=jnp.full((prompts, beams), -jnp.inf, jnp.float32),
        new=steps.room(prompts * beams, length),
    )
    state = jax.lax.while_loop(goes_on, advance, write(state, jnp.repeat(scores, beams, axis=0)))
    return _best(state, ids)


def _best(state: _State, ids: Ids) -> Found:
    tokens, scores = state.done[:, 0], state.done_scores[:, 0]
    ended = jnp.cumsum(ids.ends(tokens), axis=1) > 0
    # A sequence without EOS is one of full length.
    return Found(tokens, jnp.sum(~ended, axis=1), scores, ended[:, -1])


def _of_beams(sequences: jax.Array, chosen: jax.Array) -> jax.Array:
    """Rows [prompts, chosen, length] of sequences [prompts, beams, length]."""
    return jnp.take_along_axis(sequences, chosen[..., None], axis=1)
