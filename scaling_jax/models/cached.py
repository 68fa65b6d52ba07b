"""A model that reads one token at a time and remembers what it read before, for decoding.

The modules derive from those that train, so that parameters, their names and a tuning method's hook
are the same; only what attention reads differs (`cache.py`).

Layers lie side by side here, not stacked (`separated`): a loop over steps would otherwise copy each
layer's matrices and keys out of the stack, and back, in every step.
"""

from typing import Any, ClassVar

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from scaling_jax.models import loss, placement
from scaling_jax.models.cache import UNREAD, Cache, KeysValues, Place, key_value_axis, read_parts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.decoder import output
from scaling_jax.models.encoder_decoder import HookedStack, extended_mask
from scaling_jax.models.hooks import Hook
from scaling_jax.models.layers import TURNED, Attention, RMSNorm, few_rows_product
from scaling_jax.models.positions import RelativeBias
from scaling_jax.models.stack import Context, Layer, OutputTable, TokenEmbedding


class CachedAttention(Attention):
    """Attention of one token to what was read before."""

    def begin(self, inputs: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, KeysValues]:
        """As in training, [batch, length, model_dim], and the keys and values to remember."""
        positions = jnp.arange(inputs.shape[1], dtype=jnp.float32)
        query, (key, value) = self.queries(inputs), self.keys_values(inputs)
        query, key = self.placed(query, positions), self.placed(key, positions)
        return self.attended(query, key, value, bias=bias), self._kept(key, value)

    def remember(self, memory: jax.Array) -> KeysValues:
        """Keys and values of an encoder's output [batch, memory length, model_dim]."""
        return self._kept(*self.keys_values(memory))

    def step(
        self, inputs: jax.Array, prompt: KeysValues, new: KeysValues, place: Place
    ) -> tuple[jax.Array, KeysValues]:
        """The output [rows, model_dim] of one token's inputs [rows, model_dim]; and `new` with it."""
        query, (key, value) = self.queries(inputs[:, None]), self.keys_values(inputs[:, None])
        query, key = self.placed(query, place.positions), self.placed(key, place.positions)
        key, value = self._kept(key, value)
        new = KeysValues(
            jax.lax.dynamic_update_slice_in_dim(new.keys, key, place.column, axis=2),
            jax.lax.dynamic_update_slice_in_dim(new.values, value, place.column, axis=2),
        )
        parts = ((prompt, place.prompt_bias), (new, place.new_bias))
        return self.out(read_parts(query[:, 0], parts, self.scale)), new

    def recall(self, inputs: jax.Array, memory: KeysValues, bias: jax.Array) -> jax.Array:
        """The output [rows, model_dim] of one token's inputs that read the memory."""
        return self.out(read_parts(self.queries(inputs), ((memory, bias),), self.scale))

    def _kept(self, key: jax.Array, value: jax.Array) -> KeysValues:
        axes = ("batch", key_value_axis(self.config), None, None)
        by_head = (nn.with_logical_constraint(array.swapaxes(1, 2), axes) for array in (key, value))
        return KeysValues(*by_head)


class CachedLayer(Layer):
    """One layer, of a prompt or of one more token."""

    attention_type: ClassVar[type[Attention]] = CachedAttention

    def begin(self, hidden: jax.Array, context: Context) -> tuple[jax.Array, KeysValues, KeysValues | None]:
        """Hidden states as in training; keys and values of them, and of the memory if there is one."""
        attended, own = self.attention.begin(self.attention_norm(hidden), context.bias)
        hidden, memory = hidden + attended, None
        if context.memory is not None:
            normed = self.cross_attention_norm(hidden)
            hidden = hidden + self.cross_attention(normed, context.memory, context.memory_mask)
            memory = self.cross_attention.remember(context.memory)
        return self.fed(hidden), own, memory

    def step(
        self, hidden: jax.Array, layer: int, cache: Cache, new: KeysValues, place: Place
    ) -> tuple[jax.Array, KeysValues]:
        """Hidden states [rows, model_dim] of one token; and `new` with it."""
        attended, new = self.attention.step(self.attention_norm(hidden), cache.prompt[layer], new, place)
        hidden = hidden + attended
        if cache.memory:
            normed = self.cross_attention_norm(hidden)
            hidden = hidden + self.cross_attention.recall(normed, cache.memory[layer], cache.memory_bias)
        return self.fed(hidden[:, None])[:, 0], new


class _At(nn.Module):
    """Names a layer as a scanned one is named."""

    config: ModelConfig
    hook: Hook

    def setup(self):
        self.layer = CachedLayer(self.config, self.hook, causal=True)


class _Layers(nn.Module):
    config: ModelConfig
    hook: Hook

    def setup(self):
        self.at = [_At(self.config, self.hook) for _ in range(self.config.layers)]


class CachedStack(nn.Module):
    """The layers of a decoder side by side, between embeddings and scores."""

    config: ModelConfig
    hook: Hook

    def setup(self):
        self.layers = _Layers(self.config, self.hook)
        self.final_norm = RMSNorm(self.config)
        if self.config.positions == "relative":
            self.relative_bias = RelativeBias(self.config, causal=True)

    @nn.compact
    def embed(self, embeddings: jax.Array, table: jax.Array) -> jax.Array:
        """Embeddings as the hook leaves them, where it is shown those of this stack."""
        return self.hook.embed(self, embeddings, table)

    def begin(
        self, embeddings: jax.Array, lengths: jax.Array, table: jax.Array, context: Context
    ) -> tuple[jax.Array, Cache]:
        """Scores of the first new token, float32 [examples, vocabulary], and what was read.

        Args:
            embeddings: [examples, prefix + length, model_dim], padded on the right.
            lengths: int32 [examples], without padding.
            table: output table.
            context: memory and its mask, if there is one.
        """
        hidden = embeddings.astype(jnp.dtype(self.config.dtype))
        if self.config.positions == "relative":
            context = context._replace(bias=self.relative_bias(hidden.shape[1]))
        prompt, memory = [], []
        for at in self.layers.at:
            hidden, own, of_memory = at.layer.begin(hidden, context)
            prompt.append(own)
            memory += [] if of_memory is None else [of_memory]
        last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
        last, table = output(self.config, self.final_norm(last), table)
        bias = None
        if context.memory_mask is not None:
            bias = jnp.where(context.memory_mask, 0.0, UNREAD)[:, None, None, :]
        return loss.logits(last, table), Cache(tuple(prompt), tuple(memory), lengths, bias, table)

    def step(
        self, embeddings: jax.Array, column: jax.Array, cache: Cache, new: tuple[KeysValues, ...]
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Scores of the next token, float32 [rows, vocabulary], after one token's embeddings [rows,
        model_dim], the `column`-th that is new."""
        hidden = embeddings.astype(jnp.dtype(self.config.dtype))
        rows = hidden.shape[0]
        place = self._place(column, rows, cache, new[0].keys.shape[2])
        written = []
        for layer, at in enumerate(self.layers.at):
            hidden, own = at.layer.step(hidden, layer, cache, new[layer], place)
            written.append(own)
        hidden, table = output(self.config, self.final_norm(hidden), cache.table)
        return few_rows_product(hidden, table, jnp.float32), tuple(written)

    def _place(self, column: jax.Array, rows: int, cache: Cache, columns: int) -> Place:
        of_prompt = jnp.arange(cache.prompt[0].keys.shape[2])
        of_new = jnp.arange(columns)
        positions = cache.lengths + column
        per_example = rows // positions.shape[0]
        unread = jnp.where(of_prompt < cache.lengths[:, None], 0.0, UNREAD)[:, None, None, :]
        unwritten = jnp.where(of_new <= column, 0.0, UNREAD)[None, None, None, :]
        if self.config.positions == "relative":
            length = len(of_prompt) + columns
            # Padded columns may be asked for a distance of the wrong sign; it is not read.
            unread += self._by_head(jnp.minimum(of_prompt - positions[:, None], 0), length)
            unwritten += self._by_head(jnp.minimum(of_new - column, 0)[None], length)
        positions = jnp.repeat(positions.astype(jnp.float32), per_example)[:, None]
        return Place(column, positions, unread, unwritten)

    def _by_head(self, distances: jax.Array, length: int) -> jax.Array:
        """The distance bias [examples, key-value heads, queries of a head, columns]."""
        bias = self.relative_bias.between(distances, length)
        return bias.swapaxes(1, 2).reshape(len(bias), self.config.key_value_heads, -1, bias.shape[1])


class CachedDecoder(nn.Module):
    """A decoder alone; parameters as in `Decoder`, its layers `separated`."""

    config: ModelConfig
    hook: Hook

    def setup(self):
        config = self.config
        self.embedding = TokenEmbedding(config, self.hook)
        self.stack = CachedStack(config, self.hook)
        nn.share_scope(self, self.stack)
        if config.output == "untied":
            self.output = OutputTable(config)

    def begin(self, inputs: jax.Array, lengths: jax.Array) -> tuple[jax.Array, Cache]:
        """Scores of the first new token, float32 [examples, vocabulary], and what was read.

        Args:
            inputs: start token and prompt, padded on the right, int32 [examples, length].
            lengths: int32 [examples], without padding.
        """
        embeddings, table = self.embedding(inputs)
        lengths = lengths + embeddings.shape[1] - inputs.shape[1]
        return self.stack.begin(embeddings, lengths, _table(self, table), Context())

    def step(
        self, tokens: jax.Array, column: jax.Array, cache: Cache, new: tuple[KeysValues, ...]
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Scores of the next token, float32 [rows, vocabulary], after tokens int32 [rows]."""
        embeddings, _ = self.embedding(tokens[:, None])
        return self.stack.step(embeddings[:, -1], column, cache, new)  # the last: without a prefix


class CachedEncoderDecoder(nn.Module):
    """An encoder-decoder; parameters as in `EncoderDecoder`, the decoder's layers `separated`."""

    config: ModelConfig
    hook: Hook

    def setup(self):
        config = self.config
        self.embedding = TokenEmbedding(config, Hook())
        self.encoder = HookedStack(config, self.hook, config.encoder_layers, causal=False)
        self.decoder = CachedStack(config, self.hook)
        if config.output == "untied":
            self.output = OutputTable(config)

    def begin(
        self, inputs: jax.Array, lengths: jax.Array, encoder_inputs: jax.Array, encoder_mask: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """As `CachedDecoder.begin`; `encoder_inputs` and `encoder_mask` as in training."""
        embeddings, table = self.embedding(encoder_inputs)
        memory = self.encoder(embeddings, table, Context(mask=encoder_mask))
        memory_mask = extended_mask(encoder_mask, memory.shape[1] - encoder_inputs.shape[1])
        embeddings, table = self.embedding(inputs)
        embeddings = self.decoder.embed(embeddings, table)
        lengths = lengths + embeddings.shape[1] - inputs.shape[1]
        context = Context(memory=memory, memory_mask=memory_mask)
        return self.decoder.begin(embeddings, lengths, _table(self, table), context)

    def step(
        self, tokens: jax.Array, column: jax.Array, cache: Cache, new: tuple[KeysValues, ...]
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """As `CachedDecoder.step`."""
        embeddings, table = self.embedding(tokens[:, None])
        return self.decoder.step(self.decoder.embed(embeddings, table)[:, -1], column, cache, new)


CachedModel = CachedDecoder | CachedEncoderDecoder


def _table(module: CachedModel, embedding: jax.Array) -> jax.Array:
    return module.output() if module.config.output == "untied" else embedding


def cached_model_of(config: ModelConfig, hook: Hook) -> CachedModel:
    """The model of a config, for decoding, with a tuning method's hook in it."""
    return CachedEncoderDecoder(config, hook) if config.encoder_layers else CachedDecoder(config, hook)


def separated(config: ModelConfig, variables: Any) -> Any:
    """A model's variables with the decoder's layers side by side, matrices in the dtype of products."""
    if not config.encoder_layers:
        return {name: _separated(config, tree) for name, tree in variables.items()}
    return {
        name: tree | {"decoder": _separated(config, tree["decoder"])} if "decoder" in tree else tree
        for name, tree in variables.items()
    }


def _separated(config: ModelConfig, tree: Any) -> Any:
    if "layers" not in tree:
        return tree

    def row(layer: int, path: Any, leaf: jax.Array) -> jax.Array:
        # Cast once, not in every step, to what the projection casts it to.
        return leaf[layer].astype(config.dtype) if path[-1].key == "kernel" else leaf[layer]

    layers = {
        f"at_{layer}": jax.tree_util.tree_map_with_path(
            lambda path, leaf, layer=layer: row(layer, path, leaf), tree["layers"]
        )
        for layer in range(config.layers)
    }
    return tree | {"layers": layers}


def for_steps(config: ModelConfig, variables: Any) -> Any:
    """`separated` variables as a step best reads them: on a processor there is a collection more, with the
    matrices of the decoder's layers as `few_rows_product` wants them."""
    if placement.platform() != "cpu":
        return variables
    if not config.encoder_layers:
        return {**variables, TURNED: _turned(variables["params"])}
    return {**variables, TURNED: {"decoder": _turned(variables["params"]["decoder"])}}


def _turned(tree: Any) -> Any:
    """The matrices [in, out] of separated layers as [out, in]."""
    flat = flax.traverse_util.flatten_dict(tree["layers"])
    kernels = {("layers", *path): leaf.T for path, leaf in flat.items() if path[-1] == "kernel"}
    return flax.traverse_util.unflatten_dict(kernels)
