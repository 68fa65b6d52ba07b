"""`model_type` "t5": T5 1.0 and 1.1, FLAN-T5."""

from collections.abc import Mapping
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.interop.names import Entry, Family, cannot_be, projections
from scaling_jax.interop.settings import number, one_of, truth, whole_number
from scaling_jax.interop.tensor_files import StoredTensor
from scaling_jax.models.config import ModelConfig

ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
FEED_FORWARD = {
    "gated": {"gate": "wi_0", "up": "wi_1", "down": "wo"},
    "plain": {"up": "wi", "down": "wo"},
}
# Their "gated-gelu" is the tanh form, their "gelu" the exact one, which we do not have.
FEED_FORWARDS = {
    "gated-gelu": ("gated", "gelu"),
    "gated-gelu_new": ("gated", "gelu"),
    "gated-silu": ("gated", "silu"),
    "relu": ("plain", "relu"),
    "gelu_new": ("plain", "gelu"),
}


def read_config(theirs: Mapping[str, Any], tensors: Mapping[str, StoredTensor], name: str) -> ModelConfig:
    """
    Raises:
        InputError: a value of another type, or a feed-forward that we do not have.
    """
    feed_forward, activation = _feed_forward(theirs)
    layers, heads = whole_number(theirs, "num_layers"), whole_number(theirs, "num_heads")
    return ModelConfig(
        name=name,
        layers=whole_number(theirs, "num_decoder_layers", layers),
        encoder_layers=layers,
        heads=heads,
        key_value_heads=heads,
        head_dim=whole_number(theirs, "d_kv"),
        model_dim=whole_number(theirs, "d_model"),
        feed_forward_dim=whole_number(theirs, "d_ff"),
        vocabulary_size=whole_number(theirs, "vocab_size"),
        feed_forward=feed_forward,
        activation=activation,
        positions="relative",
        relative_buckets=whole_number(theirs, "relative_attention_num_buckets", 32),
        relative_distance=whole_number(theirs, "relative_attention_max_distance", 128),
        norm_epsilon=number(theirs, "layer_norm_epsilon", 1e-6, above=0),
        attention_scale="none",
        embedding_scale="none",
        output=_output(theirs, tensors),
    )


def _feed_forward(theirs: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, activation) by `feed_forward_proj`, which newer files say again in two fields of their own."""
    given = one_of(theirs, "feed_forward_proj", FEED_FORWARDS, "relu")
    feed_forward, activation = FEED_FORWARDS[given]
    again = {
        "is_gated_act": feed_forward == "gated",
        "dense_act_fn": "gelu_new" if given == "gated-gelu" else given.split("-")[-1],
    }
    other = {field: theirs[field] for field, value in again.items() if theirs.get(field, value) != value}
    if other:
        raise InputError(f"feed_forward_proj {given!r} and {other} are not the same")
    return feed_forward, activation


def _output(theirs: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str:
    # 1.0 ties and scales, 1.1 does neither. transformers 5 writes tie_word_embeddings true whatever the
    # model, and in a field of its own whether outputs are scaled: then the tensors say what is tied.
    if "scale_decoder_outputs" not in theirs:
        return "tied_scaled" if truth(theirs, "tie_word_embeddings", True) else "untied"
    if truth(theirs, "scale_decoder_outputs", False):
        return "tied_scaled"
    return "untied" if "lm_head.weight" in tensors else "tied"


def write_config(config: ModelConfig) -> dict[str, Any]:
    """
    Raises:
        InputError: an encoder-decoder that no T5 can express.
    """
    wanted = {"positions": "relative", "attention_scale": "none", "embedding_scale": "none"}
    wrong = {field: value for field, value in wanted.items() if getattr(config, field) != value}
    if config.biases:
        wrong["biases"] = "none"
    if config.key_value_heads != config.heads:
        wrong["key_value_heads"] = f"{config.heads} (as heads)"
    kinds = {ours: name for name, ours in reversed(FEED_FORWARDS.items())}
    if (config.feed_forward, config.activation) not in kinds:
        with_it = [activation for kind, activation in kinds if kind == config.feed_forward]
        wrong["activation"] = f"{' or '.join(with_it)} (in a {config.feed_forward} feed-forward)"
    if wrong:
        raise cannot_be(config, "T5", wrong)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocabulary_size,
        "d_model": config.model_dim,
        "d_kv": config.head_dim,
        "d_ff": config.feed_forward_dim,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "feed_forward_proj": kinds[config.feed_forward, config.activation],
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.output != "untied",
        "scale_decoder_outputs": config.output == "tied_scaled",
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def entries(config: ModelConfig) -> list[Entry]:
    """Their blocks number their parts: self-attention, attention to the encoder (decoder), feed-forward."""
    found = [Entry("embedding/table", "shared.weight", (0, 1))]
    parts = {
        "encoder": {"attention": "SelfAttention"},
        "decoder": {"attention": "SelfAttention", "cross_attention": "EncDecAttention"},
    }
    for stack, attentions in parts.items():
        ours, block = f"{stack}/layers/layer", f"{stack}.block.{{layer}}.layer"
        for place, (part, name) in enumerate(attentions.items()):
            found += projections(f"{ours}/{part}", f"{block}.{place}.{name}", ATTENTION, ())
            found.append(Entry(f"{ours}/{part}_norm/scale", f"{block}.{place}.layer_norm.weight"))
        last, names = f"{block}.{len(attentions)}", FEED_FORWARD[config.feed_forward]
        found += projections(f"{ours}/feed_forward", f"{last}.DenseReluDense", names, ())
        found += [
            Entry(f"{ours}/feed_forward_norm/scale", f"{last}.layer_norm.weight"),
            Entry(f"{stack}/final_norm/scale", f"{stack}.final_layer_norm.weight"),
            # All layers share the bias; the first one keeps it.
            Entry(
                f"{stack}/relative_bias/table",
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                (0, 1),
            ),
        ]
    if config.output == "untied":
        found.append(Entry("output/table", "lm_head.weight", (0, 1)))
    return found


def duplicates(config: ModelConfig) -> dict[str, str]:
    """Names that may be there and then hold another's values again."""
    tied = {} if config.output == "untied" else {"lm_head.weight": "shared.weight"}
    return tied | {f"{stack}.embed_tokens.weight": "shared.weight" for stack in ("encoder", "decoder")}


def start_id(theirs: Mapping[str, Any]) -> int | None:
    """The token that the decoder begins with: the pad."""
    return theirs.get("decoder_start_token_id", theirs.get("pad_token_id", 0))


# Some old files hold a bias of the decoder's attention to the encoder, which nothing reads.
FAMILY = Family(
    "t5",
    read_config,
    write_config,
    entries,
    start_id,
    duplicates,
    (".EncDecAttention.relative_attention_bias.weight",),
)
