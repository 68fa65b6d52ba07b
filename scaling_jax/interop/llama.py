"""`model_type` "llama": LLaMA 1 to 3, and our own decoder in a form that serves as one."""

from collections.abc import Mapping
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.interop.names import Entry, Family, cannot_be, projections
from scaling_jax.interop.settings import number, one_of, truth, whole_number
from scaling_jax.interop.tensor_files import StoredTensor
from scaling_jax.models.config import ModelConfig

ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
# Several of their names are the tanh form of GELU; their "gelu" is the exact one, which we do not have.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "relu": "relu",
}


def read_config(theirs: Mapping[str, Any], tensors: Mapping[str, StoredTensor], name: str) -> ModelConfig:
    """
    Raises:
        InputError: a value of another type, an activation or a scaling of positions that we do not have.
    """
    attention = tuple(ATTENTION) if truth(theirs, "attention_bias", False) else ()
    feed_forward = tuple(FEED_FORWARD) if truth(theirs, "mlp_bias", False) else ()
    heads, model_dim = whole_number(theirs, "num_attention_heads"), whole_number(theirs, "hidden_size")
    return ModelConfig(
        name=name,
        layers=whole_number(theirs, "num_hidden_layers"),
        heads=heads,
        head_dim=whole_number(theirs, "head_dim", model_dim // heads),
        model_dim=model_dim,
        feed_forward_dim=whole_number(theirs, "intermediate_size"),
        vocabulary_size=whole_number(theirs, "vocab_size"),
        key_value_heads=whole_number(theirs, "num_key_value_heads", heads),
        activation=ACTIVATIONS[one_of(theirs, "hidden_act", ACTIVATIONS, "silu")],
        norm_epsilon=number(theirs, "rms_norm_eps", 1e-6, above=0),
        embedding_scale="none",
        output="tied" if truth(theirs, "tie_word_embeddings", False) else "untied",
        biases=attention + feed_forward,
        **_rotary(theirs),
    )


def _rotary(theirs: Mapping[str, Any]) -> dict[str, Any]:
    # transformers 5 has all in rope_parameters, earlier versions rope_theta beside rope_scaling; it reads
    # the latter where both are there.
    given = theirs.get("rope_scaling") or theirs.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or any(isinstance(part, Mapping) for part in given.values()):
        raise InputError(f"rotary positions {given!r}: known are those that all layers share")
    rotated = given.get("partial_rotary_factor", theirs.get("partial_rotary_factor"))
    if rotated not in (None, 1, 1.0):
        raise InputError(f"partial_rotary_factor {rotated!r}: known are positions that rotate whole heads")
    said = given if given.get("rope_theta") is not None else theirs
    base = 10_000.0 if said.get("rope_theta") is None else number(said, "rope_theta", above=0)
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind == "default":
        return {"rotary_base": base}
    if kind != "llama3":
        raise InputError(f"rotary positions of type {kind!r}: known are 'default' and 'llama3'")
    low, high = (number(given, f"{part}_freq_factor", above=0) for part in ("low", "high"))
    if low >= high:
        raise InputError(f"low_freq_factor = {low}: a number below high_freq_factor, which is {high}")
    return {
        "rotary_base": base,
        "rotary_factor": number(given, "factor", above=0),
        "rotary_low_frequency": low,
        "rotary_high_frequency": high,
        "rotary_original_length": whole_number(given, "original_max_position_embeddings"),
    }


def write_config(config: ModelConfig) -> dict[str, Any]:
    """
    Raises:
        InputError: a decoder that no LLaMA can express.
    """
    wanted = {
        "encoder_layers": 0,
        "positions": "rotary",
        "feed_forward": "gated",
        "attention_scale": "head_dim",
    }
    wrong = {field: str(value) for field, value in wanted.items() if getattr(config, field) != value}
    if config.output == "tied_scaled":
        wrong["output"] = "tied or untied"
    if wrong:
        raise cannot_be(config, "LLaMA", wrong)
    biases = _biases(config)
    activation = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    scaling = {
        "rope_type": "llama3",
        "factor": config.rotary_factor,
        "low_freq_factor": config.rotary_low_frequency,
        "high_freq_factor": config.rotary_high_frequency,
        "original_max_position_embeddings": config.rotary_original_length,
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.model_dim,
        "intermediate_size": config.feed_forward_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": activation,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rotary_base,
        "rope_scaling": None if config.rotary_factor == 1.0 else scaling,
        "attention_bias": not biases.isdisjoint(ATTENTION),
        "mlp_bias": not biases.isdisjoint(FEED_FORWARD),
        "tie_word_embeddings": config.output == "tied" and config.embedding_scale == "none",
    }


def _biases(config: ModelConfig) -> set[str]:
    """Projections that have a bias there: all of a block or none, so that some of ours are zeros there."""
    blocks = (set(ATTENTION), set(FEED_FORWARD))
    return set().union(*(block for block in blocks if not block.isdisjoint(config.biases)))


def entries(config: ModelConfig) -> list[Entry]:
    """A LLaMA scales no embedding: ours are scaled in the file, and a tied output is then written apart."""
    scale = config.model_dim**0.5 if config.embedding_scale == "width" else 1.0
    ours, theirs = "layers/layer", "model.layers.{layer}"
    biases = _biases(config)
    found = [
        Entry("embedding/table", "model.embed_tokens.weight", (0, 1), scale),
        *projections(f"{ours}/attention", f"{theirs}.self_attn", ATTENTION, biases),
        *projections(f"{ours}/feed_forward", f"{theirs}.mlp", FEED_FORWARD, biases),
        Entry(f"{ours}/attention_norm/scale", f"{theirs}.input_layernorm.weight"),
        Entry(f"{ours}/feed_forward_norm/scale", f"{theirs}.post_attention_layernorm.weight"),
        Entry("final_norm/scale", "model.norm.weight"),
    ]
    if config.output == "untied":
        found.append(Entry("output/table", "lm_head.weight", (0, 1)))
    elif scale != 1.0:
        found.append(Entry("embedding/table", "lm_head.weight", (0, 1)))
    return found


def duplicates(config: ModelConfig) -> dict[str, str]:
    """Names that may be there and then hold another's values again."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if config.output == "tied" else {}


def start_id(theirs: Mapping[str, Any]) -> int | None:
    """The token that every text begins with."""
    return theirs.get("bos_token_id", 1)


FAMILY = Family("llama", read_config, write_config, entries, start_id, duplicates, (".rotary_emb.inv_freq",))
