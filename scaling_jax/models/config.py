"""The shape of a decoder and how it is executed.

Sizes are gin files (`gin_configs/models/`), each binding `decoder_config` under a scope that is
the size's name, so that one study can hold many: `decoder_1b/decoder_config.layers = 16`.
"""

import dataclasses

import gin

from scaling_jax.errors import InputError, did_you_mean


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only Transformer as in Zhang et al. 2024, Table 3.

    Multi-query attention (`key_value_heads` 1), rotary positions, gated feed-forward, RMSNorm
    before each block, input and output embedding tied.

    `dtype` is that of activations and products; parameters are float32. `remat` is what the
    backward pass recomputes: "none", "full", or "dots" (all but matrix products). `unroll` is how
    many layers one iteration of the layer scan holds (`layers` = no scan); it changes no result's
    meaning and no parameter's layout. `logits_chunk` is the greatest number of positions whose
    float32 logits exist at one time; 0 picks it from the vocabulary's size.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    model_dim: int
    feed_forward_dim: int
    vocabulary_size: int
    key_value_heads: int = 1
    activation: str = "gelu"
    rotary_base: float = 10_000.0
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = 1
    logits_chunk: int = 0

    def __post_init__(self):
        for field, known in (("activation", ("gelu", "silu")), ("remat", ("none", "full", "dots"))):
            if getattr(self, field) not in known:
                raise InputError(
                    f"{self.name}/decoder_config.{field} = {getattr(self, field)!r}: one of {known}"
                )
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"{self.name}/decoder_config.dtype = {self.dtype!r}: 'float32' or 'bfloat16'")
        if self.heads % self.key_value_heads:
            raise InputError(
                f"{self.name}/decoder_config.heads = {self.heads} is no multiple of "
                f"key_value_heads {self.key_value_heads}"
            )
        if self.head_dim % 2:
            raise InputError(
                f"{self.name}/decoder_config.head_dim = {self.head_dim}: rotary positions need it even"
            )
        if not 1 <= self.unroll <= self.layers or self.layers % self.unroll:
            raise InputError(
                f"{self.name}/decoder_config.unroll = {self.unroll}: a divisor of layers = {self.layers}"
            )


@gin.configurable(module="models")
def decoder_config(
    layers: int,
    heads: int,
    head_dim: int,
    model_dim: int,
    feed_forward_dim: int,
    vocabulary_size: int | None = None,
    key_value_heads: int = 1,
    activation: str = "gelu",
    rotary_base: float = 10_000.0,
    dtype: str = "float32",
    remat: str = "none",
    unroll: int = 1,
    logits_chunk: int = 0,
) -> dict:
    """The fields of a `DecoderConfig` from gin; a vocabulary size of None is taken from the data."""
    return dict(locals())


def named_decoder(name: str, data_vocabulary_size: int) -> DecoderConfig:
    """The decoder that gin calls `name`, for data of the given vocabulary.

    Raises:
        InputError: no such model in the gin files, a missing field, or a vocabulary smaller than the data's.
    """
    known = {scope for scope, selector in gin.config._CONFIG if selector.endswith("decoder_config") and scope}
    if name not in known:
        raise InputError(
            f"no model {name!r} in the gin files{did_you_mean(name, known)} "
            "(a model is bindings such as NAME/decoder_config.layers, see gin_configs/models)"
        )
    with gin.config_scope(name):
        try:
            fields = decoder_config()
        except TypeError as error:
            raise InputError(f"model {name!r}: {' '.join(str(error).split())}") from error
    size = fields["vocabulary_size"] or data_vocabulary_size
    if size < data_vocabulary_size:
        raise InputError(
            f"{name}/decoder_config.vocabulary_size = {size}, but the data has {data_vocabulary_size} tokens"
        )
    return DecoderConfig(name=name, **(fields | {"vocabulary_size": size}))
