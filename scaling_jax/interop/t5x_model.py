"""Our models and tuning methods under T5X's own interface, so that T5X's `train.py` drives them from gin.

The only module of the package that imports T5X (and with it seqio and TensorFlow); nothing imports
it but a gin file of T5X's. T5X trains `params` = {base, tuned}; where a method leaves the base alone
no gradient is taken of it, its updates are zero, and T5X's checkpoints hold both.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import seqio
from flax import core, traverse_util
from flax.linen import partitioning as flax_partitioning
from t5x import models as t5x_models
from t5x import optimizers as t5x_optimizers

from scaling_jax.errors import InputError
from scaling_jax.models import counts, loss
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.models.model import model_of, smallest_batch
from scaling_jax.training import checkpoints
from scaling_jax.tuning.method import TuningMethod, method_names, restored_method

method_names()  # registers them, which gin allows only before its files are read

# Our logical axes by T5X's names, as its partitioning rules and its Adafactor know them. What has no
# name of ours (ranks, prompts) gets the one that neither splits nor factors.
AXES = {
    "vocabulary": "vocab",
    "embed": "embed",
    "heads": "joined_kv",
    "key_value_heads": "kv",
    "mlp": "mlp",
    "layers": "layers",
    None: "relpos_buckets",
}


class T5XModel(t5x_models.BaseTransformerModel):
    """A decoder or encoder-decoder of ours with a tuning method.

    Args:
        vocabulary: of inputs and targets.
        optimizer_def: T5X's.
        base: folder of one of our checkpoints (`scaling-jax convert` makes them of others'); its model
            and its weights are where training starts.
        model: fields of `ModelConfig` for a model from scratch, where there is no `base`.
        method: name of a tuning method.
        settings: of the method.
        label_smoothing, z_loss, loss_normalizing_factor: see T5X.

    Raises:
        InputError: neither or both of `base` and `model`, no such method, or settings that do not fit.
    """

    def __init__(
        self,
        vocabulary: seqio.Vocabulary,
        optimizer_def: t5x_optimizers.OptimizerDefType,
        base: str | None = None,
        model: Mapping[str, Any] | None = None,
        method: str = "full",
        settings: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: Any = None,
    ):
        if (base is None) == (model is None):
            raise InputError("T5XModel: bind either base, a checkpoint, or model, the fields of a new one")
        about = {} if base is None else checkpoints.about(base)
        self.config = from_record(about["model"]) if base else ModelConfig(name="t5x", **model)
        self.base = base
        self.start_id = about.get("start_id") or 0
        self.method: TuningMethod = restored_method({"name": method, **(settings or {})})
        self.method.check(counts.abstract_parameters(self.config))
        # T5X makes batches with what it finds here.
        self.FEATURE_CONVERTER_CLS = (
            seqio.EncDecFeatureConverter if self.config.encoder_layers else seqio.DecoderFeatureConverter
        )
        super().__init__(
            module=model_of(self.config, self.method),
            input_vocabulary=vocabulary,
            output_vocabulary=vocabulary,
            optimizer_def=optimizer_def,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
        )

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, jnp.dtype] | None = None,
    ) -> core.FrozenDict:
        """Variables {params, params_axes}; the shapes of batches say nothing about them."""
        batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), smallest_batch(self.config))
        boxed = counts.abstract_variables(self.config, self.method)
        if self.base is None:
            base = nn.unbox(model_of(self.config, TuningMethod()).init(rng, **batch)["params"])
        else:
            base = _weights(self.base, nn.unbox(boxed["params"]))
        params, axes = {"base": base}, {"base": _axes(boxed["params"])}
        if not self.method.trains_base:
            made = self.module.apply({"params": base}, **batch, mutable=["tuned"], rngs={"params": rng})
            params["tuned"] = self.method.kept(nn.unbox(made[1]["tuned"]))
            axes["tuned"] = _axes(boxed["tuned"])
        return core.freeze({"params": params, "params_axes": axes})

    def _compute_logits(
        self, params: Any, batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        draws = dropout_rng is not None and self.method.draws
        rngs = {"dropout": dropout_rng} if draws else None
        apply = functools.partial(self.module.apply, self._variables(params), rngs=rngs, method="logits")
        return apply(**self._inputs(batch))

    def _variables(self, params: Any) -> dict[str, Any]:
        params = core.unfreeze(params)
        if self.method.trains_base:
            return {"params": params["base"]}
        return self.method.variables(params["tuned"], jax.lax.stop_gradient(params["base"]))

    def _inputs(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        if any(name.endswith("_segment_ids") for name in batch):
            raise InputError("T5XModel reads no packed examples: bind DatasetConfig.pack = False")
        found = {"inputs": batch["decoder_input_tokens"].at[:, 0].set(self.start_id)}
        if self.config.encoder_layers:
            tokens = batch["encoder_input_tokens"]
            found |= {"encoder_inputs": tokens, "encoder_mask": tokens > 0}
        return found

    def score_batch(
        self, params: Any, batch: Mapping[str, jax.Array], return_intermediates: bool = False
    ) -> jax.Array:
        """Log-likelihood of the targets of each example in nats: float32 [batch]."""
        hidden, table = self.module.apply(self._variables(params), **self._inputs(batch), method="hidden")
        targets = batch["decoder_target_tokens"]
        weights = batch.get("decoder_loss_weights", (targets > 0).astype(jnp.float32))
        chunk = loss.chunk_length(targets.shape, self.config.vocabulary_size, self.config.logits_chunk)
        return -jnp.sum(loss.next_token_loss(hidden, table, targets, chunk) * weights, axis=-1)

    def predict_batch_with_aux(
        self, params: Any, batch: Mapping[str, jax.Array], rng: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Greedy continuations int32 [batch, length] and their scores. Every token costs a whole forward
        pass: for the small evaluations of T5X's `train.py`, not for serving."""
        variables, inputs = self._variables(params), self._inputs(batch)
        rows, length = inputs["inputs"].shape
        # In a decoder the inputs are given; T5X marks them, and the first target, as seen by all.
        given = batch.get("decoder_causal_attention", jnp.zeros((rows, length), jnp.int32))
        known = jnp.maximum(jnp.sum(given, axis=-1) - 1, 0)

        def extend(place: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            tokens, scores = carry
            logits = self.module.apply(variables, **inputs | {"inputs": tokens}, method="logits")[:, place]
            chosen = jnp.argmax(logits, axis=-1).astype(tokens.dtype)
            free = place >= known
            scores += jnp.where(free, jax.nn.log_softmax(logits).max(-1), 0.0)
            after = jnp.minimum(place + 1, length - 1)
            kept = jnp.where(free & (place + 1 < length), chosen, tokens[:, after])
            return tokens.at[:, after].set(kept), scores

        tokens, scores = jax.lax.fori_loop(0, length - 1, extend, (inputs["inputs"], jnp.zeros(rows)))
        places = jnp.minimum(jnp.arange(length)[None] + known[:, None] + 1, length - 1)
        found = jnp.take_along_axis(tokens, places, axis=1)
        left = jnp.arange(length)[None] < length - 1 - known[:, None]
        return jnp.where(left, found, 0), {"scores": scores}


def _axes(boxed: Any) -> dict[str, Any]:
    """Their names of our axes, beside each parameter under its name and `_axes`."""
    names = jax.tree.map(
        lambda leaf: flax_partitioning.AxisMetadata(names=tuple(AXES[axis] for axis in leaf.names)),
        core.unfreeze(boxed),
        is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned),
    )
    flat = traverse_util.flatten_dict(names)
    return traverse_util.unflatten_dict(
        {(*path[:-1], f"{path[-1]}_axes"): leaf for path, leaf in flat.items()}
    )


def _weights(checkpoint: str, abstract: Any) -> Any:
    """The parameters of a checkpoint, read when the program runs, so that they are no part of it."""

    def read() -> Any:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), abstract)
        return jax.tree.map(np.asarray, checkpoints.restore(Path(checkpoint), like))

    return jax.pure_callback(read, abstract)
