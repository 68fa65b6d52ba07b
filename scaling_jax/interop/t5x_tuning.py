"""Our models and tuning methods as model classes of T5X, for its own `train.py`, `eval.py`, `infer.py`.

T5X is no dependency: gin files of its users import this module, nothing of ours does.

What a method trains is T5X's `params`, so that its optimizer, its learning rates and the `target` of
its checkpoints are of that tree alone. The frozen base is the collection `base` of T5X's
`flax_mutables`: carried from step to step, saved and restored with the rest, without gradient and
without optimizer state.

    MODEL = @t5x_tuning.DecoderModel()
    t5x_tuning.DecoderModel.method = @lora.LoRA()
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import gin
import jax
import jax.numpy as jnp
from flax.core import freeze, unfreeze
from flax.linen import partitioning
from jax.sharding import NamedSharding, PartitionSpec

from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.models.families import named_model
from scaling_jax.models.model import model_of, smallest_batch
from scaling_jax.training import bases, checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.tuning.method import TuningMethod, restored_method

try:
    from t5x import decoding, models, train_state, utils
except ImportError as error:
    raise InputError(
        f"the model classes for T5X need T5X itself, installed as its own pages say ({error})"
    ) from error

BASE = "base"
# Our names of logical axes that T5X's standard rules (partitioning, Adafactor's factors) do not know.
# An axis without a name, such as the rank of LoRA, gets one that T5X neither splits nor factors.
T5X_AXES = {"vocabulary": "vocab", "heads": "joined_kv", "key_value_heads": "kv", None: "relpos_buckets"}


class Tuned:
    """What both classes share: variables from a config and a method, and collections for every call.

    Attributes:
        config: of the model.
        method: of tuning.
        checkpoint: folder of ours that `FromCheckpoint` starts from; None for random parameters.
    """

    config: ModelConfig
    method: TuningMethod
    checkpoint: str | None
    _start_id: int | None = None
    _restores = False

    def set_up(
        self, size: str | None, checkpoint: str | None, method: TuningMethod, vocabulary_size: int
    ) -> nn.Module:
        """Sets the attributes and returns the module.

        Raises:
            InputError: neither or both of size and checkpoint, a checkpoint that no run starts from, a
                vocabulary that the model's is too small for, a method that does not fit.
        """
        if (size is None) == (checkpoint is None):
            raise InputError("a model for T5X is given by size (a name in gin) or by checkpoint: bind one")
        self.checkpoint, self.method = checkpoint, method
        if checkpoint is None:
            # gin builds a model inside the scope of T5X's macro MODEL, where no size is bound.
            with gin.config_scope(None):
                self.config = named_model(size, vocabulary_size)
        else:
            self.config, self._start_id = _read_about(checkpoint, vocabulary_size)
        method.check(counts.abstract_parameters(self.config))
        return model_of(self.config, method)

    def get_initial_variables(self, rng: jax.Array, input_shapes: Any, input_types: Any = None) -> Any:
        """Random parameters as T5X's collections: params, base, and the logical axes of both.

        The shapes of the batch do not matter to them.
        """
        params = self.module.init(rng, **self._smallest_batch())["params"]
        return self.start(nn.unbox(params), rng)

    def start(self, params: Any, rng: jax.Array) -> Any:
        """T5X's collections at step 0 of tuning these parameters."""

        def create(base: Any) -> Any:
            added = self.module.apply(
                {"params": base}, **self._smallest_batch(), mutable=["tuned"], rngs={"params": rng}
            )[1]
            return self.method.kept(nn.unbox(added["tuned"]))

        tuned, base = self.method.start(params, create)
        tuned_axes, base_axes = self._axes()
        found = {"params": tuned, "params_axes": _recorded(tuned_axes)}
        if base:
            found |= {BASE: base, f"{BASE}_axes": _recorded(base_axes)}
        return freeze(found)

    def parameter_axes(self) -> Any:
        """T5X's names of the axes of every base parameter, as PartitionSpecs."""
        return _t5x_names(counts.abstract_variables(self.config, self.method)["params"])

    def loss_fn(
        self, params: Any, batch: Mapping[str, jax.Array], dropout_rng: Any, flax_mutables: Any = None
    ) -> Any:
        """T5X's own loss and metrics; with a frozen base, that is handed back as it came.

        Raises:
            InputError: T5X began with random parameters instead of those of the checkpoint.
        """
        if self.checkpoint and not self._restores:
            raise InputError(
                f"T5X did not start from {self.checkpoint}: bind "
                "train.train_state_initializer_cls = @t5x_tuning.FromCheckpoint"
            )
        loss, metrics = super().loss_fn(self.collections(params, flax_mutables), batch, dropout_rng)
        return loss, (metrics, flax_mutables) if flax_mutables else metrics

    def eval_fn(self, params: Any, batch: Mapping[str, jax.Array], flax_mutables: Any = None) -> Any:
        """T5X's own loss and metrics without dropout."""
        return super().loss_fn(self.collections(params, flax_mutables), batch, None)

    def predict_batch(self, params: Any, batch: Any, rng: Any = None, flax_mutables: Any = None) -> Any:
        """Token ids by T5X's decoding function, [batch, length]."""
        return self.predict_batch_with_aux(params, batch, rng, flax_mutables=flax_mutables)[0]

    def score_batch(
        self, params: Any, batch: Any, return_intermediates: bool = False, flax_mutables: Any = None
    ) -> Any:
        """Log-likelihoods of the weighted target tokens, float32 [batch]."""
        return super().score_batch(self.collections(params, flax_mutables), batch, return_intermediates)

    def collections(self, params: Any, flax_mutables: Any) -> dict[str, Any]:
        """What the module is applied with."""
        frozen = unfreeze(flax_mutables)[BASE] if flax_mutables else {}
        return self.method.variables(unfreeze(params), frozen)

    def _compute_logits(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        dropout_rng: Any = None,
        mutable: Any = False,
        other_variables: Any = None,
    ) -> Any:
        """Float32 [batch, length, vocabulary]; `params` are whole collections."""
        packed = sorted(name for name in batch if name.endswith(("_segment_ids", "_positions")))
        if packed:
            raise InputError(
                f"packed batches are not supported (they have {', '.join(packed)}): "
                "bind utils.DatasetConfig.pack = False"
            )
        inputs = batch["decoder_input_tokens"]
        if self._start_id is not None:
            inputs = jnp.asarray(inputs).at[:, 0].set(self._start_id)
        arguments = {"inputs": inputs}
        if self.config.encoder_layers:
            read = batch["encoder_input_tokens"]
            arguments |= {"encoder_inputs": read, "encoder_mask": read != 0}
        draws = dropout_rng is not None and self.method.draws
        random = {"dropout": dropout_rng} if draws else None
        logits = self.module.apply(params, **arguments, rngs=random, method="logits")
        return (logits, {}) if mutable else logits

    def _compute_logits_from_slice(
        self, decoding_state: Any, params: Any, max_decode_length: int | None = None
    ) -> tuple[jax.Array, Any]:
        """Logits [batch, vocabulary] of the token after the current one.

        The models keep no keys and values: what stands in for T5X's cache is the text so far, which
        every step reads again.
        """
        cache = dict(decoding_state.cache)
        position, rows = cache["position"], jnp.arange(cache["position"].shape[0])
        tokens = cache["decoder_input_tokens"].at[rows, position].set(decoding_state.cur_token[:, 0])
        cache |= {"decoder_input_tokens": tokens, "position": position + 1}
        batch = {name: array for name, array in cache.items() if name != "position"}
        return self._compute_logits(params, batch)[rows, position], cache

    def _smallest_batch(self) -> dict[str, jax.Array]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), smallest_batch(self.config))

    def _axes(self) -> tuple[Any, Any]:
        variables = counts.abstract_variables(self.config, self.method)
        added = _t5x_names(variables.get("tuned", {}))
        return self.method.start(self.parameter_axes(), lambda _: added)


class DecoderModel(Tuned, models.DecoderOnlyModel):
    """A decoder (ours, LLaMA) with a tuning method, which reads inputs and targets as one sequence."""

    def __init__(
        self,
        method: TuningMethod,
        vocabulary: Any,
        optimizer_def: Any,
        size: str | None = None,
        checkpoint: str | None = None,
        decode_fn: Any = decoding.temperature_sample,
        feature_converter_cls: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: Any = None,
    ):
        """
        Args:
            method: of tuning, say `@lora.LoRA()`.
            vocabulary: seqio's, that of the task.
            optimizer_def: T5X's.
            size: name of a model in gin (`gin_configs/models`).
            checkpoint: instead of it, a checkpoint of ours: pretrained, made by `convert`, or tuned before,
                which is merged into its base.
            decode_fn, feature_converter_cls, label_smoothing, z_loss, loss_normalizing_factor: as T5X's.

        Raises:
            InputError: see `Tuned.set_up`; or the model has an encoder.
        """
        module = self.set_up(size, checkpoint, method, vocabulary.vocab_size)
        if self.config.encoder_layers:
            raise InputError(f"model {self.config.name!r} has an encoder: use t5x_tuning.EncoderDecoderModel")
        super().__init__(
            module,
            vocabulary,
            optimizer_def,
            decode_fn=decode_fn,
            feature_converter_cls=feature_converter_cls,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
        )

    def predict_batch_with_aux(
        self, params: Any, batch: Any, rng: Any = None, *, flax_mutables: Any = None, **options: Any
    ) -> Any:
        """(token ids after the inputs [batch, length], {scores}); options of T5X's DecoderOnlyModel."""
        return super().predict_batch_with_aux(self.collections(params, flax_mutables), batch, rng, **options)

    def _compute_kv_cache(self, params: Any, inputs: jax.Array, causal_attention_mask: Any) -> Any:
        # The position of the inputs' last token: the start token before them is at 0.
        last = jnp.sum(inputs[:, 1:] != 0, axis=-1)
        return {"decoder_input_tokens": inputs, "position": last}, last


class EncoderDecoderModel(Tuned, models.EncoderDecoderModel):
    """T5 1.0, 1.1 or FLAN-T5 with a tuning method."""

    def __init__(
        self,
        method: TuningMethod,
        input_vocabulary: Any,
        output_vocabulary: Any,
        optimizer_def: Any,
        size: str | None = None,
        checkpoint: str | None = None,
        decode_fn: Any = decoding.beam_search,
        feature_converter_cls: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: Any = None,
    ):
        """Arguments and errors as those of `DecoderModel`."""
        module = self.set_up(size, checkpoint, method, output_vocabulary.vocab_size)
        if not self.config.encoder_layers:
            raise InputError(f"model {self.config.name!r} has no encoder: use t5x_tuning.DecoderModel")
        super().__init__(
            module,
            input_vocabulary,
            output_vocabulary,
            optimizer_def,
            decode_fn=decode_fn,
            feature_converter_cls=feature_converter_cls,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
        )

    def predict_batch_with_aux(
        self,
        params: Any,
        batch: Any,
        rng: Any = None,
        decoder_params: Mapping[str, Any] | None = None,
        return_all_decodes: bool = False,
        num_decodes: int = 1,
        flax_mutables: Any = None,
    ) -> Any:
        """(token ids [batch, length], {scores}), or of all decodes [batch, decodes, length], worst first."""
        variables = self.collections(params, flax_mutables)
        read, begun = batch["encoder_input_tokens"], jnp.zeros_like(batch["decoder_input_tokens"])
        position = jnp.zeros(begun.shape[0], jnp.int32)
        options = {"eos_id": self.output_vocabulary.eos_id or 1, **(decoder_params or {})}
        if rng is not None:
            options["decode_rng"] = rng
        decodes, scores = self._decode_fn(
            inputs=begun,
            cache={"encoder_input_tokens": read, "decoder_input_tokens": begun, "position": position},
            tokens_to_logits=lambda state: self._compute_logits_from_slice(state, variables),
            num_decodes=num_decodes,
            cache_offset=0,
            **options,
        )
        if return_all_decodes:
            return decodes, {"scores": scores}
        return decodes[:, -1], {"scores": scores[:, -1]}


class FromCheckpoint(utils.TrainStateInitializer):
    """Starts a run of T5X from the model's `checkpoint`; a run that T5X has saved itself goes on as always.

    Bind it as `train.train_state_initializer_cls`. Arrays are read onto the shards that T5X's
    partitioner gives them.
    """

    def __init__(self, optimizer_def: Any, init_fn: Any, input_shapes: Any, partitioner: Any, **types: Any):
        """
        Raises:
            InputError: the model has no checkpoint.
        """
        self._model, self._optimizer_def = init_fn.__self__, optimizer_def
        if not getattr(self._model, "checkpoint", None):
            raise InputError(
                "FromCheckpoint needs a model with a checkpoint: bind t5x_tuning.DecoderModel.checkpoint"
            )
        self._model._restores = True
        super().__init__(optimizer_def, init_fn, input_shapes, partitioner, **types)

    def from_scratch(self, init_rng: jax.Array) -> Any:
        """The state at step 0 of tuning the checkpoint's parameters.

        Raises:
            InputError: arrays that are missing, extra, misshapen or cannot be read.
        """
        model, partitioner = self._model, self._partitioner
        specs = jax.tree.map(
            lambda axes: partitioning.logical_to_mesh_axes(axes, partitioner.logical_axis_rules),
            model.parameter_axes(),
            is_leaf=_is_spec,
        )
        shardings = jax.tree.map(lambda spec: NamedSharding(partitioner.mesh, spec), specs, is_leaf=_is_spec)
        params = _read_parameters(model, shardings)

        def begin(params: Any, rng: jax.Array) -> Any:
            variables = model.start(params, rng)
            if self._optimizer_def is None:
                return train_state.InferenceState.create(variables)
            return train_state.FlaxOptimTrainState.create(self._optimizer_def, variables)

        placed = partitioner.partition(
            begin,
            in_axis_resources=(specs, None),
            out_axis_resources=self.train_state_axes,
            donate_argnums=0,
        )
        return placed(params, init_rng)


def _read_parameters(model: Tuned, shardings: Any) -> Any:
    """The parameters of the model's checkpoint, merged if it was tuned."""
    if checkpoints.about(model.checkpoint)["kind"] == "tuned":
        # Base and merged model lie whole on every device, until they are split as T5X splits them.
        return jax.device_put(bases.load_base(model.checkpoint, Layout())[1], shardings)
    abstract = counts.abstract_parameters(model.config)
    return checkpoints.restore(model.checkpoint, checkpoints.like(abstract, shardings))


def _read_about(checkpoint: str, vocabulary_size: int) -> tuple[ModelConfig, int | None]:
    """(model, id of its first token) of a checkpoint, merged if it was tuned."""
    about = checkpoints.about(checkpoint)
    kind = about.get("kind", "resume")
    if kind not in ("pretrained", "tuned"):
        raise InputError(f"{checkpoint} is a {kind} checkpoint, a pretrained or tuned one is needed")
    config = from_record(about["model"])
    if kind == "tuned":
        config = restored_method(about["method"]).merged_model(config)
    if config.vocabulary_size < vocabulary_size:
        raise InputError(
            f"{checkpoint} has {config.vocabulary_size} tokens, but the vocabulary has {vocabulary_size}"
        )
    return config, about.get("start_id")


def _t5x_names(boxed: Any) -> Any:
    """PartitionSpecs of T5X's axis names, of (abstract) arrays boxed with ours."""
    ours = nn.get_partition_spec(boxed)
    return jax.tree.map(
        lambda spec: PartitionSpec(*(T5X_AXES.get(name, name) for name in spec)), ours, is_leaf=_is_spec
    )


def _recorded(axes: Any) -> Any:
    """Axis names as T5X reads them beside a collection: leaves of the same name with `_axes` after it."""
    if _is_spec(axes):
        return partitioning.AxisMetadata(tuple(axes))
    return {
        f"{name}_axes" if _is_spec(part) else name: _recorded(part) for name, part in unfreeze(axes).items()
    }


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, PartitionSpec)
