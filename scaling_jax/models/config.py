"""The shape of a model and how it is executed: one config for all architectures.

Sizes are gin files (`gin_configs/models/`), each binding one family's function under a scope that is
the size's name, so that one study can hold many: `decoder_1b/decoder_config.layers = 16`. A family
(`families.py`) is nothing but defaults for the fields of `ModelConfig`.
"""

import dataclasses
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.models import attention

PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")
CHOICES = {
    "activation": ("gelu", "silu", "relu"),
    "feed_forward": ("gated", "plain"),
    "positions": ("rotary", "relative"),
    "attention_scale": ("head_dim", "none"),
    "embedding_scale": ("width", "none"),
    "output": ("tied", "tied_scaled", "untied"),
    "attention": attention.NAMES,
    "remat": ("none", "full", "dots", "attention"),
    "dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A Transformer with RMSNorm before each block; by default the decoder of Zhang et al. 2024, Table 3.

    Attributes:
        name: of the size.
        layers: of the decoder.
        heads, key_value_heads: 1 key-value head is multi-query attention, `heads` of them multi-head.
        head_dim, model_dim, feed_forward_dim, vocabulary_size: widths.
        encoder_layers: 0 for a decoder alone; above, an encoder-decoder whose encoder has so many.
        activation: "gelu" (its tanh form), "silu" or "relu".
        feed_forward: "gated" is down(activation(gate) * up) (Shazeer 2020), "plain" down(activation(up)).
        positions: "rotary" (Su et al. 2021) or "relative" (Raffel et al. 2020: a bias of the attention's
            scores by distance, the same in all layers of a stack).
        rotary_base: of the wave lengths.
        rotary_factor, rotary_low_frequency, rotary_high_frequency, rotary_original_length: LLaMA 3's
            stretching of long waves; a factor of 1 stretches nothing.
        relative_buckets, relative_distance: number of distances told apart, and the one from which on
            all are the same.
        norm_epsilon: added to the mean square.
        attention_scale: "head_dim" divides scores by its root, "none" leaves them (T5).
        embedding_scale: "width" multiplies token embeddings by sqrt(model_dim), "none" leaves them.
        output: "tied" takes the token embedding as output matrix, "tied_scaled" after dividing hidden
            states by sqrt(model_dim) (T5 1.0), "untied" has its own.
        biases: projections that have a bias.
        dtype: of activations and products; parameters are float32.
        attention: the code that computes it, of `attention.NAMES`; "auto" is that of the devices.
        remat: what the backward pass computes again: "none", "full", "dots" (all but matrix products), or
            "attention" (all but queries, keys, values and what they read).
        unroll: layers in one iteration of the layer scan (`layers` = no scan); it changes no result's
            meaning and no parameter's layout.
        logits_chunk: greatest number of positions whose float32 logits exist at one time; 0 picks it
            from the vocabulary's size.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    model_dim: int
    feed_forward_dim: int
    vocabulary_size: int
    key_value_heads: int = 1
    encoder_layers: int = 0
    activation: str = "gelu"
    feed_forward: str = "gated"
    positions: str = "rotary"
    rotary_base: float = 10_000.0
    rotary_factor: float = 1.0
    rotary_low_frequency: float = 1.0
    rotary_high_frequency: float = 4.0
    rotary_original_length: int = 8192
    relative_buckets: int = 32
    relative_distance: int = 128
    norm_epsilon: float = 1e-6
    attention_scale: str = "head_dim"
    embedding_scale: str = "width"
    output: str = "tied"
    biases: tuple[str, ...] = ()
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 1
    logits_chunk: int = 0

    def __post_init__(self):
        object.__setattr__(self, "biases", tuple(self.biases))  # gin and JSON give lists
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise self._wrong(field, f"one of {known}")
        if unknown := set(self.biases) - set(PROJECTIONS):
            raise self._wrong("biases", f"{sorted(unknown)} is no projection; those are {PROJECTIONS}")
        if self.heads % self.key_value_heads:
            raise self._wrong("heads", f"no multiple of key_value_heads {self.key_value_heads}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise self._wrong("head_dim", "rotary positions need it even")
        self._check_unroll()

    def _check_unroll(self) -> None:
        for field in ("layers", "encoder_layers"):
            count = getattr(self, field)
            if count and (not 1 <= self.unroll <= count or count % self.unroll):
                raise self._wrong("unroll", f"a divisor of {field} = {count}")

    def _wrong(self, field: str, what: str) -> InputError:
        return InputError(f"model {self.name!r}: {field} = {getattr(self, field)!r}: {what}")


def from_record(fields: dict[str, Any]) -> ModelConfig:
    """The config that a checkpoint or record wrote as JSON.

    Raises:
        InputError: fields that this version does not know, or some that are missing.
    """
    if not isinstance(fields, dict):
        raise InputError(f"a model is recorded as {fields!r}, not by its fields")
    known = dataclasses.fields(ModelConfig)
    if unknown := sorted(fields.keys() - {field.name for field in known}):
        raise InputError(f"model {fields.get('name')!r} has fields that are not known: {unknown}")
    needed = [field.name for field in known if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in fields]:
        raise InputError(f"model {fields.get('name')!r} lacks the fields {missing}")
    return ModelConfig(**fields)
