"""T5X checkpoints of T5 1.0, 1.1 and FLAN-T5, read without T5X.

A checkpoint is a folder `checkpoint_STEP`, in one of three forms. T5X's own: its file `checkpoint` is
a msgpack tree, and large arrays lie beside it as zarr folders of which the tree holds a TensorStore
spec, or, by older Orbax, a placeholder. By newer Orbax: all arrays are in one OCDBT store under
`state`. And models that were small or old enough are one msgpack file that holds all arrays. What is
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
OCDBT = "manifest.ocdbt"
# What describes an array, and TensorStore's driver for it.
DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
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
    """An array that TensorStore reads; `store` is the spec of its key-value store, `driver` that of zarr 2
    or 3."""

    name: str
    store: dict[str, str]
    driver: str = "zarr"

    @property
    def shape(self) -> tuple[int, ...]:
        """
        Raises:
            InputError: it is missing or damaged.
        """
        return tuple(self._open().shape)

    def read(self) -> np.ndarray:
        """The array.

        Raises:
            InputError: its files are missing or damaged.
        """
        opened = self._open()
        try:
            return opened.read().result()
        except ValueError as error:
            raise InputError(f"array {self.name} cannot be read: {_short(error)}") from error

    def _open(self) -> tensorstore.TensorStore:
        # Otherwise a chunk whose file is missing would read as zeros.
        spec = {"driver": self.driver, "kvstore": self.store, "fill_missing_data_reads": False}
        try:
            return tensorstore.open(spec, read=True, open=True).result()
        except ValueError as error:
            raise InputError(f"array {self.name} cannot be read: {_short(error)}") from error


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
    """Whether a path looks like a T5X checkpoint of any form."""
    held = path.is_file() and "checkpoint" in path.name
    return held or (path / "checkpoint").is_file() or (path / "state" / OCDBT).is_file()


def open_checkpoint(path: Path, name: str | None = None) -> Source:
    """Opens and checks a T5X checkpoint; reads no array that is stored apart.

    Args:
        path: `checkpoint_STEP`.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: no such checkpoint, a damaged one, one of another network than T5's; missing, extra or
            misshapen arrays, all named.
    """
    if (path / "state" / OCDBT).is_file():
        tensors = _of_one_store(path / "state")
    else:
        tensors = _of_tree(path, _target(path / "checkpoint" if path.is_dir() else path), ())
    model = _config(path, tensors, name or path.resolve().name)
    return check(Source(path, model, entries(model), tensors, start_id=0))


def _of_one_store(folder: Path) -> dict[str, ZarrTensor]:
    base = f"file://{folder.absolute()}/"
    try:
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        keys = [key.decode() for key in store.list().result()]
    except ValueError as error:
        raise InputError(f"{folder} cannot be read: {_short(error)}") from error
    found = {}
    for key in keys:
        name, _, file = key.rpartition("/")
        if file in DRIVERS and name.startswith("target."):
            spec = {"driver": "ocdbt", "base": base, "path": name}
            found[name.removeprefix("target.")] = ZarrTensor(name, spec, DRIVERS[file])
    return found


def _target(file: Path) -> Mapping[str, Any]:
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # msgpack raises its own kinds for damaged bytes
        raise InputError(f"{file}: not a T5X checkpoint, or truncated ({_short(error)})") from error
    held = tree if isinstance(tree, dict) else {}
    older = held.get("optimizer")
    target = held.get("target", older.get("target") if isinstance(older, dict) else None)
    if not target or not isinstance(target, dict):
        raise InputError(f"{file} holds no trained parameters (no target)")
    return target


def _of_tree(path: Path, tree: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in tree.items():
        name = ".".join((*above, key))
        if isinstance(part, np.ndarray):
            found[name] = HeldTensor(part)
        elif isinstance(part, str) and part.startswith(PLACEHOLDER):
            found[name] = _beside(path, name, part.removeprefix(PLACEHOLDER))
        elif isinstance(part, Mapping) and part.get("driver") == "zarr":
            # The first as TensorStore wrote it before 0.1.14.
            found[name] = _beside(path, name, part.get("path") or part["kvstore"]["path"])
        elif isinstance(part, Mapping):
            found |= _of_tree(path, part, (*above, key))
        else:
            raise InputError(f"{path}: {name} is neither an array nor says where one is")
    return found


def _beside(path: Path, name: str, place: str) -> ZarrTensor:
    return ZarrTensor(name, {"driver": "file", "path": str((path / place.strip("/")).absolute())})


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
