"""T5X checkpoints of T5 1.0, 1.1 and FLAN-T5, read without T5X.

A checkpoint is a folder `checkpoint_STEP` whose file `checkpoint` is a msgpack tree; its large arrays
lie beside it as zarr folders, of which the tree holds a TensorStore spec (T5X's own format) or a
placeholder (Orbax's). Checkpoints of very small models are one file that holds all arrays. What is
read are the trained parameters (`target`), never the optimizer's state.

T5X keeps no config with them: the shapes say all but two things, the activation ("gelu" where the
feed-forward is gated, else "relu") and the distance from which positions are one (128), which are
those of every T5 that was published.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from scaling_jax.errors import InputError
from scaling_jax.interop.names import Entry
from scaling_jax.interop.reading import Source, check
from scaling_jax.models.config import ModelConfig

PLACEHOLDER = "PLACEHOLDER://"
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


@dataclasses.dataclass(frozen=True)
class ZarrTensor:
    """An array in a folder of its own."""

    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """
        Raises:
            InputError: the folder is missing or damaged.
        """
        return tuple(self._open().shape)

    def read(self) -> np.ndarray:
        """The array.

        Raises:
            InputError: its files are missing or damaged.
        """
        try:
            return self._open().read().result()
        except ValueError as error:
            raise InputError(f"{self.folder} cannot be read: {_short(error)}") from error

    def _open(self) -> tensorstore.TensorStore:
        # A chunk that is missing would read as zeros.
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(self.folder.absolute())},
            "fill_missing_data_reads": False,
        }
        try:
            return tensorstore.open(spec, read=True, open=True).result()
        except ValueError as error:
            raise InputError(f"{self.folder} cannot be read: {_short(error)}") from error


@dataclasses.dataclass(frozen=True)
class HeldTensor:
    """An array that the tree itself holds."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    def read(self) -> np.ndarray:
        """The array."""
        return self.array


def is_checkpoint(path: Path) -> bool:
    """Whether a path looks like a T5X checkpoint: a folder with its tree, or a tree that holds all arrays."""
    return (path / "checkpoint").is_file() or (path.is_file() and "checkpoint" in path.name)


def open_checkpoint(path: Path, name: str | None = None) -> Source:
    """Opens and checks a T5X checkpoint; reads no array that has a folder of its own.

    Args:
        path: `checkpoint_STEP`.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: no such checkpoint, a damaged one, one of another network than T5's; missing, extra or
            misshapen arrays, all named.
    """
    file = path / "checkpoint" if path.is_dir() else path
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # msgpack raises its own kinds for damaged bytes
        raise InputError(f"{file}: not a T5X checkpoint, or truncated ({_short(error)})") from error
    target = tree.get("target", tree.get("optimizer", {}).get("target")) if isinstance(tree, dict) else None
    if not target:
        raise InputError(f"{file} holds no trained parameters (no target)")
    tensors = _tensors(path, target, ())
    model = _config(path, tensors, name or path.resolve().name)
    return check(Source(path, model, entries(model), tensors, start_id=0))


def _tensors(path: Path, tree: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in tree.items():
        here = (*above, name)
        if isinstance(part, np.ndarray):
            found[".".join(here)] = HeldTensor(part)
        elif isinstance(part, str) and part.startswith(PLACEHOLDER):
            found[".".join(here)] = ZarrTensor(path / part.removeprefix(PLACEHOLDER))
        elif isinstance(part, Mapping) and part.get("driver") == "zarr":
            place = part.get("path") or part["kvstore"]["path"]  # first as old TensorStores wrote it
            found[".".join(here)] = ZarrTensor(path / str(place).strip("/"))
        elif isinstance(part, Mapping):
            found |= _tensors(path, part, here)
        else:
            raise InputError(f"{path}: {'.'.join(here)} is neither an array nor says where one is")
    return found


def _config(path: Path, tensors: Mapping[str, Any], name: str) -> ModelConfig:
    def shape(of: str) -> tuple[int, ...]:
        if of not in tensors:
            raise InputError(f"{path} is not of T5X's T5 network without scanned layers: it has no {of}")
        return tuple(tensors[of].shape)

    def layers(stack: str) -> int:
        numbers = {key.split(".")[1] for key in tensors if key.startswith(f"{stack}.layers_")}
        return len(numbers)

    heads, buckets = shape("encoder.relpos_bias.rel_embedding")
    vocabulary, model_dim = shape("token_embedder.embedding")
    gated = "encoder.layers_0.mlp.wi_0.kernel" in tensors
    return ModelConfig(
        name=name,
        layers=layers("decoder"),
        encoder_layers=layers("encoder"),
        heads=heads,
        key_value_heads=heads,
        head_dim=shape("encoder.layers_0.attention.query.kernel")[1] // heads,
        model_dim=model_dim,
        feed_forward_dim=shape("encoder.layers_0.mlp.wo.kernel")[0],
        vocabulary_size=vocabulary,
        feed_forward="gated" if gated else "plain",
        activation="gelu" if gated else "relu",
        positions="relative",
        relative_buckets=buckets,
        attention_scale="none",
        embedding_scale="none",
        output="untied" if "decoder.logits_dense.kernel" in tensors else "tied_scaled",
    )


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


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
