"""Families of models for gin: what their members share, so that a size is a few bindings.

decoder_1b/decoder_config.layers = 16
llama_7b/llama_config.layers = 32
t5_xl/t5_config.layers = 24
"""

import gin

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.models.config import ModelConfig


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
    attention: str = "auto",
    remat: str = "none",
    unroll: int = 1,
    logits_chunk: int = 0,
) -> dict:
    """The decoder of Zhang et al. 2024: multi-query attention, rotary positions, tied embedding.

    A vocabulary size of None is taken from the data, here and in the other families.
    """
    return dict(locals())


@gin.configurable(module="models")
def llama_config(
    layers: int,
    heads: int,
    model_dim: int,
    feed_forward_dim: int,
    vocabulary_size: int | None = None,
    key_value_heads: int | None = None,
    head_dim: int | None = None,
    output: str = "untied",
    rotary_base: float = 10_000.0,
    rotary_factor: float = 1.0,
    rotary_low_frequency: float = 1.0,
    rotary_high_frequency: float = 4.0,
    rotary_original_length: int = 8192,
    norm_epsilon: float = 1e-5,
    biases: tuple[str, ...] = (),
    dtype: str = "float32",
    attention: str = "auto",
    remat: str = "none",
    unroll: int = 1,
    logits_chunk: int = 0,
) -> dict:
    """LLaMA 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024).

    `key_value_heads` None is as many as `heads`, `head_dim` None is model_dim / heads.
    """
    fields = dict(locals())
    fields["key_value_heads"] = key_value_heads or heads
    fields["head_dim"] = head_dim or model_dim // heads
    return fields | {"activation": "silu", "embedding_scale": "none"}


@gin.configurable(module="models")
def t5_config(
    layers: int,
    heads: int,
    model_dim: int,
    feed_forward_dim: int,
    head_dim: int = 64,
    vocabulary_size: int | None = None,
    encoder_layers: int | None = None,
    activation: str = "gelu",
    feed_forward: str = "gated",
    output: str = "untied",
    relative_buckets: int = 32,
    relative_distance: int = 128,
    dtype: str = "float32",
    attention: str = "auto",
    remat: str = "none",
    unroll: int = 1,
    logits_chunk: int = 0,
) -> dict:
    """T5 1.1 and FLAN-T5 (Raffel et al. 2020; Shazeer 2020; Chung et al. 2022).

    `encoder_layers` None is as many as `layers`. T5 1.0 is feed_forward "plain" with activation "relu"
    and output "tied_scaled".
    """
    fields = dict(locals())
    fields["encoder_layers"] = encoder_layers or layers
    fields["key_value_heads"] = heads
    return fields | {"positions": "relative", "attention_scale": "none", "embedding_scale": "none"}


FAMILIES = {"decoder_config": decoder_config, "llama_config": llama_config, "t5_config": t5_config}


def named_model(name: str, data_vocabulary_size: int) -> ModelConfig:
    """The model that gin calls `name`, for data of the given vocabulary.

    Raises:
        InputError: no such model in the gin files, or two of them; a missing field; a vocabulary
            smaller than the data's.
    """
    bound = [(scope, selector.split(".")[-1]) for scope, selector in gin.config._CONFIG if scope]
    bound = [(scope, family) for scope, family in bound if family in FAMILIES]
    families = sorted(family for scope, family in bound if scope == name)
    if not families:
        raise InputError(
            f"no model {name!r} in the gin files{did_you_mean(name, [scope for scope, _ in bound])} "
            "(a model is bindings such as NAME/decoder_config.layers, see gin_configs/models)"
        )
    if len(families) > 1:
        raise InputError(f"model {name!r} is bound as {' and as '.join(families)}: choose one")
    with gin.config_scope([name]):  # that scope alone: a recipe of pretraining may be in force
        try:
            fields = FAMILIES[families[0]]()
        except TypeError as error:
            raise InputError(f"model {name!r}: {' '.join(str(error).split())}") from error
    size = fields["vocabulary_size"] or data_vocabulary_size
    if size < data_vocabulary_size:
        raise InputError(
            f"{name}/{families[0]}.vocabulary_size = {size}, but the data has {data_vocabulary_size} tokens"
        )
    return ModelConfig(name=name, **(fields | {"vocabulary_size": size}))
