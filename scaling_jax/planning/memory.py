"""Memory of a step on one device, by what it is for: from shardings, from the compiler, by formula."""

import dataclasses
import math
from typing import Any

import jax

from scaling_jax.models import attention, loss, placement
from scaling_jax.models.config import ModelConfig
from scaling_jax.planning.topologies import Hardware
from scaling_jax.planning.workload import Workload, abstract_base, abstract_batches, parts
from scaling_jax.training.program import Program

FORMULA = (
    "parameters, optimizer state and batch from their shapes and shardings; activations and temporaries as "
    "the compiler counts them, gradients among them"
)
ESTIMATE = (
    "gradients; inputs of recomputed layers (remat 'full'), else the output of every matrix, of one "
    "microbatch; one layer's gathered matrices and working set; one chunk of float32 logits"
)
_WIDTH = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        trained: parameters that are trained.
        frozen: parameters that are not.
        optimizer: its state, with step and seed.
        batch: what a call is given beside these.
        temporaries: activations, gradients and what else lives while the step runs.
        outputs: of the step, where they take memory of their own.
        code: the program.
        total: all of it together; above the sum where the compiler pads arrays.
    """

    trained: int
    frozen: int
    optimizer: int
    batch: int
    temporaries: int
    outputs: int = 0
    code: int = 0
    total: int = 0

    @property
    def kept(self) -> int:
        """What lies there between steps."""
        return self.trained + self.frozen + self.optimizer


def held(workload: Workload, program: Program, batches: Any) -> Memory:
    """What a training step is given, by kind, from shapes and shardings."""
    state = program.abstract_state()
    trained, frozen = on_device(state.tuned), on_device(program.abstract_frozen(abstract_base(workload)))
    optimizer = on_device((state.optimizer, state.step, state.seed))
    return Memory(trained, frozen, optimizer, on_device(program.abstract_batches(batches)), 0)


def on_device(tree: Any) -> int:
    """Bytes of (abstract) arrays with shardings on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def estimated(workload: Workload, hardware: Hardware) -> Memory:
    """Memory of a training step without compiling it, temporaries by the formula `ESTIMATE`.

    Raises:
        InputError: the mesh does not divide the devices or the model.
    """
    program = workload.on(hardware)
    given = held(workload, program, abstract_batches(workload, workload.steps_per_call, workload.rows))
    split, tensor = parts(workload, hardware), workload.layout.tensor
    lengths, model = workload.lengths, workload.model
    length = lengths.inputs + lengths.targets if model.encoder_layers else lengths.both
    rows = workload.rows / split / workload.microbatches
    temporaries = given.trained * (2 if workload.microbatches > 1 else 1)
    temporaries += activation_bytes(model, rows * length, tensor, rows * model.logits_chunk)
    temporaries += _gathered_layer(model, tensor)
    temporaries += _working_set(model, rows, length, tensor, hardware.devices[0].platform)
    return dataclasses.replace(
        given,
        temporaries=int(temporaries),
        total=int(given.kept + given.batch + temporaries),
    )


def activation_bytes(model: ModelConfig, tokens: float, tensor: int = 1, chunk: float = 0) -> float:
    """What the forward pass keeps of so many tokens for the backward pass, and logits of a chunk.

    Args:
        model, tokens: what reads them.
        tensor: into how many parts its matrices are split.
        chunk: tokens whose logits exist at one time; at 0 what `loss.chunk_length` takes.
    """
    width = _WIDTH[model.dtype]
    layers = model.layers + model.encoder_layers
    heads = (model.heads + 2 * model.key_value_heads) * model.head_dim
    if model.remat == "full":
        per_layer = model.model_dim
    elif model.remat == "attention":
        per_layer = model.model_dim + (heads + model.heads * model.head_dim) / tensor
    else:
        per_layer = 4 * model.model_dim + (heads + 3 * model.feed_forward_dim) / tensor
    vocabulary = model.vocabulary_size / tensor
    chunk = chunk or max(loss.LOGITS_AT_ONCE / vocabulary, loss.ROWS_AT_LEAST)
    return tokens * layers * per_layer * width + 4 * min(tokens, chunk) * vocabulary


def _working_set(model: ModelConfig, rows: float, length: int, tensor: int, platform: str) -> float:
    """Of one layer while it is computed again and differentiated: scores, and both ends of its matrices."""
    width = _WIDTH[model.dtype]
    scores = rows * model.heads / tensor * length**2 * (2 * width + 4)
    if _flash(model, length, platform):
        scores = 0.0
    wide = (
        rows * length * (3 * model.feed_forward_dim + 3 * model.heads * model.head_dim) / tensor * width * 2
    )
    return max(scores, wide) + rows * length * model.model_dim * 8


def _flash(model: ModelConfig, length: int, platform: str) -> bool:
    """Whether a kernel attends that keeps no scores, as `models.attention` chooses it."""
    automatic = attention.AUTOMATIC.get(placement.kind(platform), "xla")
    kernel = automatic if model.attention == "auto" else model.attention
    return kernel != "xla" and model.positions != "relative" and length >= attention.LEAST_LENGTH


def _gathered_layer(model: ModelConfig, tensor: int) -> float:
    heads = (2 * model.heads + 2 * model.key_value_heads) * model.head_dim
    matrices = 3 if model.feed_forward == "gated" else 2
    layer = model.model_dim * (heads + matrices * model.feed_forward_dim)
    table = model.vocabulary_size * model.model_dim
    # Twice: while one is used the next is fetched; the output table and its gradient.
    return 2 * (layer + table) * _WIDTH[model.dtype] / tensor
