"""The two places where a tuning method may reach into a model.

A model holds one hook and calls it at every projection and once after each stack's token embedding;
it names no method. The hook is a frozen dataclass, so that jit's cache sees which one it is.

`module.path` says where: projections are `.../attention/query` (also key, value, out; self-attention),
`.../cross_attention/query` and so on, `.../feed_forward/gate` (also up, down). A decoder's layers
begin with `layers`, those of an encoder-decoder with `encoder` or `decoder`. Inside layers a hook may
ask for the random stream `dropout`, which differs from layer to layer.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax


@dataclasses.dataclass(frozen=True)
class Hook:
    """Changes nothing. Tuning methods override what they need."""

    def project(
        self, module: nn.Module, inputs: jax.Array, project: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """The output [..., out] of a projection of inputs [..., in]; `project` applies the base matrix.

        `module` has `name` (query, key, value, out, gate, up, down), `features` and `axes`.
        """
        return project(inputs)

    def embed(self, module: nn.Module, embeddings: jax.Array, table: jax.Array) -> jax.Array:
        """Embeddings [batch, length + prefix, model_dim] from [batch, length, model_dim].

        `table` [vocabulary, model_dim] is on the scale of the embeddings. `module.path[0]` is
        "embedding" in a decoder, "encoder" or "decoder" in an encoder-decoder. The model cuts the
        prefix off again before the loss; a prefix of the encoder is read by the decoder.
        """
        return embeddings


def tuned_variable(
    module: nn.Module, name: str, initializer: Callable, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> jax.Array:
    """A float32 array of the `tuned` collection, created by `initializer(key, shape)` when it is missing.

    Inside scanned layers it gets a leading `layers` axis like the parameter beside it.
    """
    make = nn.with_logical_partitioning(initializer, axes)
    return module.variable("tuned", name, lambda: make(module.make_rng("params"), shape)).value
