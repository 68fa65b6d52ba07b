"""T5X checkpoints of T5 1.0, 1.1 and FLAN-T5 as our models, read without T5X.

What is read are the trained parameters (`target`), never the optimizer's state; `t5x_arrays.py` finds
them. T5X keeps no config with them: the shapes say all but two things, the activation ("gelu" where the
feed-forward is gated, else "relu") and the distance from which positions are one (128), which are
those of every T5 that was published. Most arrays share a width with others, and the most frequent one
is the model's, so that an array that is odd is named and not those that are right.
"""

import collections
import re
from collections.abc import Mapping
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.interop.names import Entry
from scaling_jax.interop.reading import Source, check
from scaling_jax.interop.t5x_arrays import Arrays, open_arrays
from scaling_jax.models.config import ModelConfig

ATTENTIONS = {
    "encoder": {"attention": ("attention", "pre_attention_layer_norm")},
    "decoder": {
        "attention": ("self_attention", "pre_self_attention_layer_norm"),
        "cross_attention": ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
    },
}
FEED_FORWARD = {
    "gated": {"gate": "wi_0", "up": "wi_1", "down": "wo"},
    "plain": {"up": "wi", "down": "wo"},
}
# What the dimensions of arrays with such names are; `joined` are heads x head_dim.
DIMENSIONS = {
    r"token_embedder\.embedding": ("vocabulary", "model"),
    r"(encoder|decoder)\.relpos_bias\.rel_embedding": ("heads", "buckets"),
    r"decoder\.logits_dense\.kernel": ("model", "vocabulary"),
    r".*attention\.(query|key|value)\.kernel": ("model", "joined"),
    r".*attention\.out\.kernel": ("joined", "model"),
    r".*\.mlp\.wi(_0|_1)?\.kernel": ("model", "feed_forward"),
    r".*\.mlp\.wo\.kernel": ("feed_forward", "model"),
    r".*norm\.scale": ("model",),
}
# Of a model without any array that would tell, to name what is missing.
UNKNOWN = {"vocabulary": 32_128, "model": 1, "heads": 1, "buckets": 32, "joined": 1, "feed_forward": 1}


def open_checkpoint(path: Any, name: str | None = None) -> Source:
    """Opens and checks a T5X checkpoint; reads no array that is stored apart.

    Args:
        path: `checkpoint_STEP`, of this machine or of a bucket.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: no such checkpoint, a damaged one, one of another network than T5's; missing, extra or
            misshapen arrays, all named.
    """
    arrays = open_arrays(path)
    model = _config(path, arrays, name or (path if files.is_remote(path) else path.resolve()).name)
    source = Source(path, model, entries(model), arrays.tensors, start_id=0)
    return check(source, arrays.absent, arrays.unreadable)


def _config(path: Any, arrays: Arrays, name: str) -> ModelConfig:
    layers = {stack: _layers(path, arrays, stack) for stack in ATTENTIONS}
    width = _widths(arrays.tensors)
    if width["joined"] % width["heads"]:
        raise InputError(
            f"{path}: the query kernels are {width['joined']} wide, which its {width['heads']} heads (by "
            "encoder.relpos_bias.rel_embedding) do not divide"
        )
    plain = sum(".mlp.wi." in known for known in arrays.names)
    gated = sum(".mlp.wi_" in known for known in arrays.names) >= plain
    return ModelConfig(
        name=name,
        layers=layers["decoder"],
        encoder_layers=layers["encoder"],
        heads=width["heads"],
        key_value_heads=width["heads"],
        head_dim=width["joined"] // width["heads"],
        model_dim=width["model"],
        feed_forward_dim=width["feed_forward"],
        vocabulary_size=width["vocabulary"],
        feed_forward="gated" if gated else "plain",
        activation="gelu" if gated else "relu",
        positions="relative",
        relative_buckets=width["buckets"],
        attention_scale="none",
        embedding_scale="none",
        output="untied" if "decoder.logits_dense.kernel" in arrays.names else "tied_scaled",
    )


def _layers(path: Any, arrays: Arrays, stack: str) -> int:
    if any(name.startswith(f"{stack}.{stack}.") for name in arrays.names):
        raise InputError(
            f"{path}: its layers are scanned ({stack}.{stack}, T5X's scalable_t5, such as umT5): there every "
            "layer has relative positions of its own, our models share one table among a stack's layers"
        )
    found = {re.match(rf"{stack}\.layers_(\d{{1,4}})\.", name) for name in arrays.names}
    numbers = {int(match[1]) for match in found if match}
    if not numbers:
        held = ", ".join(sorted({".".join(name.split(".")[:2]) for name in arrays.names})[:8])
        raise InputError(f"{path} is not of T5X's T5 network: it has no {stack}.layers_0 (it holds {held})")
    return max(numbers) + 1


def _widths(tensors: Mapping[str, Any]) -> dict[str, int]:
    """The size of every dimension: what most arrays say; those of other ranks if no others do."""
    whole: dict[str, collections.Counter] = {name: collections.Counter() for name in UNKNOWN}
    short: dict[str, collections.Counter] = {name: collections.Counter() for name in UNKNOWN}
    for name, tensor in tensors.items():
        for pattern, dimensions in DIMENSIONS.items():
            if re.fullmatch(pattern, name):
                votes = whole if len(tensor.shape) == len(dimensions) else short
                for dimension, size in zip(dimensions, tensor.shape, strict=False):
                    if size:
                        votes[dimension][size] += 1
    joined = _most(whole["joined"] or short["joined"], UNKNOWN["joined"])
    # Two tables alone say how many heads there are: of two that differ, the one that fits the kernels.
    fitting = collections.Counter({h: n for h, n in whole["heads"].items() if joined % h == 0})
    heads = _most(fitting or whole["heads"] or short["heads"], UNKNOWN["heads"])
    found = {name: _most(whole[name] or short[name], UNKNOWN[name]) for name in UNKNOWN}
    return found | {"heads": heads}


def _most(votes: collections.Counter, otherwise: int) -> int:
    return votes.most_common(1)[0][0] if votes else otherwise


def entries(config: ModelConfig) -> list[Entry]:
    """T5X holds matrices as [in, out], as we do; the distance bias and the output table are turned."""
    as_is, turned = (0, 1), (1, 0)
    found = [Entry("embedding/table", "token_embedder.embedding", as_is)]
    for stack, attentions in ATTENTIONS.items():
        ours, theirs = f"{stack}/layers/layer", f"{stack}.layers_{{layer}}"
        for part, (name, norm) in attentions.items():
            found += [
                Entry(f"{ours}/{part}/{projection}/kernel", f"{theirs}.{name}.{projection}.kernel", as_is)
                for projection in ("query", "key", "value", "out")
            ]
            found.append(Entry(f"{ours}/{part}_norm/scale", f"{theirs}.{norm}.scale"))
        found += [
            Entry(f"{ours}/feed_forward/{projection}/kernel", f"{theirs}.mlp.{name}.kernel", as_is)
            for projection, name in FEED_FORWARD[config.feed_forward].items()
        ]
        found += [
            Entry(f"{ours}/feed_forward_norm/scale", f"{theirs}.pre_mlp_layer_norm.scale"),
            Entry(f"{stack}/final_norm/scale", f"{stack}.{stack}_norm.scale"),
            Entry(f"{stack}/relative_bias/table", f"{stack}.relpos_bias.rel_embedding", turned),
        ]
    if config.output == "untied":
        found.append(Entry("output/table", "decoder.logits_dense.kernel", turned))
    return found
