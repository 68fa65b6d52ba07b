"""Parts of a Transformer, each with logical axis names: embed, heads, mlp, vocabulary, layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from scaling_jax.models import attention
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.positions import rotary_frequencies, rotate

# Collection in which a projection finds its matrix as [features, in], to be read for few rows at a time.
TURNED = "turned"

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


class Projection(nn.Module):
    """A matrix [in, features] applied to the last axis, a bias [features] where the config has one; the
    tuning hook's place.

    Initialised normal with variance `variance` / in (truncated at two deviations), the bias zero.
    """

    features: int
    axes: tuple[str, str]
    config: ModelConfig
    hook: Hook
    variance: float = 1.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        initializer = nn.initializers.variance_scaling(self.variance, "fan_in", "truncated_normal")
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.with_logical_partitioning(initializer, self.axes), shape)
        bias = None
        if self.name in self.config.biases:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            bias = self.param("bias", zeros, shape[1:])

        def project(values: jax.Array) -> jax.Array:
            if self.has_variable(TURNED, "kernel"):
                product = few_rows_product(values, self.get_variable(TURNED, "kernel"))
            else:
                product = jnp.dot(values, kernel.astype(dtype))
            return product if bias is None else product + bias.astype(dtype)

        # Gradients sum over rows: of batch and length as two axes XLA on CPU makes transposed copies first.
        rows = inputs.reshape(-1, inputs.shape[-1])
        return self.hook.project(self, rows, project).reshape(*inputs.shape[:-1], self.features)


def few_rows_product(rows: jax.Array, matrix: jax.Array, dtype: jax.typing.DTypeLike = None) -> jax.Array:
    """Few rows [rows, in] times a matrix that lies as [out, in]: [rows, out], of `dtype` or their own.

    The matrix is the left side of the product: XLA on CPU rearranges both sides before it multiplies, the
    left one faster, and of few rows that is most of the work. The barrier keeps XLA from multiplying the
    other way round, which would save the transposition and cost more.
    """
    product = jnp.einsum("oi,ri->or", matrix, rows, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(product).T


class RMSNorm(nn.Module):
    """x / rms(x) * scale, computed in float32 (Zhang and Sennrich 2019)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        scale = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones, ("embed",)), (inputs.shape[-1],)
        )
        values = inputs.astype(jnp.float32)
        mean_square = jnp.mean(values**2, axis=-1, keepdims=True)
        values = values * jax.lax.rsqrt(mean_square + self.config.norm_epsilon)
        return (values * scale).astype(jnp.dtype(self.config.dtype))


class Attention(nn.Module):
    """Attention with shared key and value heads (Shazeer 2019; Ainslie et al. 2023).

    To itself: causal or masked, with rotated queries and keys or a bias by distance. To a memory:
    neither, only masked.
    """

    config: ModelConfig
    hook: Hook
    causal: bool

    def setup(self):
        config, hook = self.config, self.hook
        shared = "heads" if config.key_value_heads == config.heads else "key_value_heads"

        def heads(count: int, axis: str, variance: float = 1.0) -> Projection:
            return Projection(count * config.head_dim, ("embed", axis), config, hook, variance)

        # T5 leaves scores undivided and begins with queries that are smaller by the same factor.
        smaller = 1 / config.head_dim if config.attention_scale == "none" else 1.0
        self.query = heads(config.heads, "heads", smaller)
        self.key = heads(config.key_value_heads, shared)
        self.value = heads(config.key_value_heads, shared)
        self.out = Projection(config.model_dim, ("heads", "embed"), config, hook)

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return 1.0 if self.config.attention_scale == "none" else self.config.head_dim**-0.5

    def __call__(
        self,
        inputs: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """
        Args:
            inputs: [batch, length, model_dim].
            memory: what is read [batch, memory length, model_dim]; None reads `inputs`.
            mask: which positions of it are read, bool [batch, memory length], false on the right alone;
                None is all.
            bias: added to the scores, [1, heads, length, length].
        """
        query = self.queries(inputs)
        key, value = self.keys_values(inputs if memory is None else memory)
        if memory is None:
            positions = jnp.arange(inputs.shape[1], dtype=jnp.float32)
            query, key = self.placed(query, positions), self.placed(key, positions)
        return self.attended(query, key, value, mask, bias)

    def queries(self, inputs: jax.Array) -> jax.Array:
        """[..., heads, head_dim] of inputs [..., model_dim]."""
        return self._by_head(self.query(inputs))

    def keys_values(self, read: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two of [..., key-value heads, head_dim] of what is read [..., model_dim]."""
        return self._by_head(self.key(read)), self._by_head(self.value(read))

    def placed(self, values: jax.Array, positions: jax.Array) -> jax.Array:
        """Queries or keys [..., length, heads, head_dim] turned by their positions, if those are rotary."""
        if self.config.positions != "rotary":
            return values
        return rotate(values, rotary_frequencies(self.config), positions)

    def attended(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """The output [batch, length, model_dim] of three [batch, length, heads, head_dim]; see `__call__`."""
        query, key, value = (
            checkpoint_name(array, name) for array, name in ((query, "query"), (key, "key"), (value, "value"))
        )
        inputs = attention.Inputs(query, key, value, self.scale, self.causal, mask, bias)
        attended = attention.attend(self.config.attention, inputs)
        return self.out(attended.reshape(*attended.shape[:-2], -1))

    def _by_head(self, values: jax.Array) -> jax.Array:
        return values.reshape(*values.shape[:-1], -1, self.config.head_dim)


class FeedForward(nn.Module):
    """Gated: down(activation(gate(x)) * up(x)) (Shazeer 2020). Plain: down(activation(up(x)))."""

    config: ModelConfig
    hook: Hook

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        config = self.config
        activation = ACTIVATIONS[config.activation]

        def widened(name: str) -> jax.Array:
            return Projection(config.feed_forward_dim, ("embed", "mlp"), config, self.hook, name=name)(inputs)

        if config.feed_forward == "gated":
            hidden = activation(widened("gate")) * widened("up")
        else:
            hidden = activation(widened("up"))
        return Projection(inputs.shape[-1], ("mlp", "embed"), config, self.hook, name="down")(hidden)
