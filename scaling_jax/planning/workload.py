"""What is planned: one program and the runs that use it; and its steps, lowered without any memory."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from scaling_jax.data.objectives.objective import Lengths
from scaling_jax.evaluation import decoding as decodings
from scaling_jax.evaluation.decoding import Decoding
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.planning.topologies import HERE, Hardware
from scaling_jax.training.evaluate import BATCHES_PER_CALL
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.precision import stored_as
from scaling_jax.training.program import Program
from scaling_jax.tuning.method import TuningMethod

STEPS = ("train", "evaluate", "decode")


@dataclasses.dataclass(frozen=True)
class Workload:
    """Runs that share one compiled program.

    Attributes:
        name: for people.
        kind: "pretraining" or "finetuning".
        model, method, optimizer, layout, microbatches: see `Program`.
        base_dtype: of a frozen base's matrices.
        rows: examples in a step.
        lengths: tokens that an example may have, padding included.
        mean_lengths: (inputs, targets), tokens that it has.
        steps: of every run.
        steps_per_call: that one compiled call takes.
        evaluation_rows: examples in a batch of an evaluation.
        decoding: how answers are generated; None where none are.
    """

    name: str
    kind: str
    model: ModelConfig
    method: TuningMethod
    optimizer: Optimizer
    layout: Layout
    rows: int
    lengths: Lengths
    mean_lengths: tuple[float, float]
    steps: tuple[int, ...]
    microbatches: int = 1
    base_dtype: str = "float32"
    steps_per_call: int = 1
    evaluation_rows: int = 64
    decoding: Decoding | None = None

    @property
    def step_kinds(self) -> tuple[str, ...]:
        """Which of `STEPS` its runs take."""
        return STEPS if self.decoding else STEPS[:2]

    def on(self, hardware: Hardware) -> Program:
        """Its program for devices that need not be here."""
        devices = None if hardware.name == HERE else hardware.devices
        if devices is None and hardware.count < jax.device_count():
            devices = hardware.devices
        return Program(self.model, self.method, self.optimizer, self.layout, self.microbatches, devices)


def abstract_base(workload: Workload) -> Any:
    """Shapes and dtypes of the base parameters as a run keeps them."""
    dtype = "float32" if workload.method.trains_base else workload.base_dtype
    return stored_as(counts.abstract_parameters(workload.model), dtype)


def abstract_batches(workload: Workload, stacked: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of so many batches of so many rows, each as long as an example may be."""
    lengths = workload.lengths
    encoded = bool(workload.model.encoder_layers)
    own = lengths.targets if encoded else lengths.both

    def array(length: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((stacked, rows, length), dtype)

    batch = {
        "inputs": array(own, jnp.int32),
        "targets": array(own, jnp.int32),
        "weights": array(own, jnp.float32),
    }
    if encoded:
        batch |= {
            "encoder_inputs": array(lengths.inputs, jnp.int32),
            "encoder_mask": array(lengths.inputs, jnp.bool_),
        }
    return batch


def lowered(workload: Workload, hardware: Hardware, step: str) -> jax.stages.Lowered:
    """One of `STEPS` as a run would compile it.

    Raises:
        InputError: the mesh does not divide the devices, the rows or the model.
    """
    program = workload.on(hardware)
    base = abstract_base(workload)
    if step == "train":
        program.check_rows(workload.rows)
        return program.lower_train(base, abstract_batches(workload, workload.steps_per_call, workload.rows))
    if step == "evaluate":
        program.check_rows(workload.evaluation_rows)
        batches = abstract_batches(workload, BATCHES_PER_CALL, workload.evaluation_rows)
        return program.lower_evaluate(base, batches)
    prompt = workload.lengths.inputs
    return decodings.lower(program, base, workload.decoding, prompt)


def parts(workload: Workload, hardware: Hardware) -> int:
    """Devices that split the rows of a batch."""
    layout = workload.layout
    return (layout.data or hardware.count // (layout.fsdp * layout.tensor)) * layout.fsdp
