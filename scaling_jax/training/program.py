"""The compiled programs of a run: start, train a few steps, evaluate a set.

One `Program` is a model, a method, an optimizer and a mesh. Runs that share these share the
compiled code, whatever their data, rate, seed and length: learning rates are an input.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scaling_jax.data.sequences import Batch
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.model import arguments, model_of, smallest_batch
from scaling_jax.training import mesh as meshes
from scaling_jax.training import processes
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.tuning.method import TuningMethod


class TrainState(NamedTuple):
    """What training changes: steps taken, the trained tree, the optimizer's state; and the run's seed,
    from which, with the step, every random draw of a step follows (uint32, dropout)."""

    step: jax.Array
    tuned: Any
    optimizer: Any
    seed: jax.Array


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled. `microbatches` splits a batch for gradient accumulation.

    `devices` None is those at hand; for others, which are not here, steps can be compiled and not run.
    """

    model: ModelConfig
    method: TuningMethod
    optimizer: Optimizer
    layout: Layout
    microbatches: int = 1
    devices: tuple[jax.Device, ...] | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The mesh over its devices."""
        return self.layout.mesh(self.devices)

    @functools.cached_property
    def module(self) -> nn.Module:
        """The model with the method's hook in it."""
        return model_of(self.model, self.method)

    @functools.cached_property
    def shardings(self) -> dict[str, Any]:
        """Shardings of the base parameters and of what the method adds, by collection.

        Raises:
            InputError: the method's settings or the mesh do not fit the model.
        """
        self.layout.check_model(self.model)
        return self.layout.parameter_shardings(dict(_variables(self)), self.mesh)

    def initial_parameters(self, seed: int) -> Any:
        """Random base parameters, sharded."""
        return _initial_parameters(dataclasses.replace(self, method=TuningMethod()))(jax.random.key(seed))

    def start(self, base: Any, seed: int) -> tuple[TrainState, Any]:
        """(state, frozen base) at step 0 of tuning from pretrained parameters."""
        tuned, frozen = self.method.start(base, lambda params: _added(self)(params, jax.random.key(seed)))
        return self.restart(tuned, seed), frozen

    def restart(self, tuned: Any, seed: int = 0) -> TrainState:
        """A state with a fresh optimizer around a trained tree, which is copied: a run begins."""
        _called_in_run.pop(self, None)
        return _fresh_state(self)(tuned, jnp.uint32(seed))

    def train(self, state: TrainState, base: Any, batches: Batch, rates: Any) -> tuple[TrainState, dict]:
        """Takes as many steps as `batches` has; `state` is consumed.

        Args:
            state: from `start`.
            base: the frozen parameters.
            batches: arrays [steps, rows of this process, length].
            rates: learning rates float32 [steps].

        Returns:
            The state after them, and {loss, gradient_norm}: float32 [steps].
        """
        placed = self.place(batches)
        return self.call("train", _train, state, base, placed, jnp.asarray(rates, jnp.float32))

    def lower_train(self, base: Any, batches: Any) -> jax.stages.Lowered:
        """The training step of abstract arrays, to compile and look into without any memory.

        Args:
            base: shapes and dtypes of the whole base parameters.
            batches: shapes and dtypes of what `train` takes, of all processes.
        """
        state = self.abstract_state()
        steps = jax.tree.leaves(batches)[0].shape[0]
        rates = jax.ShapeDtypeStruct((steps,), jnp.float32, sharding=meshes.replicated(self.mesh))
        return _train(self).lower(state, self.abstract_frozen(base), self.abstract_batches(batches), rates)

    def lower_evaluate(self, base: Any, batches: Any) -> jax.stages.Lowered:
        """The evaluation of abstract arrays; see `lower_train`."""
        frozen = self.abstract_frozen(base)
        return _evaluate(self).lower(self.abstract_tuned(), frozen, self.abstract_batches(batches))

    def evaluate(self, tuned: Any, base: Any, batches: Batch) -> tuple[jax.Array, jax.Array]:
        """(sum of nats, sum of weights) of each batch: float32 [batches], from [batches, rows, length]."""
        return self.call("evaluate", _evaluate, tuned, base, self.place(batches))

    def trained_parameters(self) -> int:
        """Number of trained parameters."""
        return counts.size(_abstract_tuned(self))

    def abstract_tuned(self) -> Any:
        """Shapes and shardings of what is trained, to restore a checkpoint onto."""
        return _on(_abstract_tuned(self), state_shardings(self).tuned)

    def abstract_state(self) -> TrainState:
        """Shapes and shardings of what training changes."""
        state = jax.eval_shape(
            _fresh_state(self), _abstract_tuned(self), jax.ShapeDtypeStruct((), jnp.uint32)
        )
        return _on(state, state_shardings(self))

    def abstract_frozen(self, base: Any) -> Any:
        """Shapes and shardings of what stays frozen of the (abstract) base parameters."""
        shardings = self.method.start(self.shardings["params"], lambda _: None)[1]
        return _on(self.method.start(base, lambda _: None)[1], shardings)

    def abstract_batches(self, batches: Any, leading: int = 1) -> Any:
        """(Abstract) batches with so many axes before the rows, and their shardings."""
        sharding = meshes.batch_sharding(self.mesh, leading)
        return _on(batches, jax.tree.map(lambda _: sharding, batches))

    def train_memory_bytes(self, name: str = "train") -> int | None:
        """Bytes that the largest training step since `start` needs on one device; None before the first.

        `name` is that of `call`. Steps differ by the length of their batches.
        """
        called = _called_in_run.get(self, {}).get(name, {}).values()
        analyses = [compiled.memory_analysis() for compiled in called]
        return max((_bytes_needed(analysis) for analysis in analyses if analysis is not None), default=None)

    def compile_seconds(self) -> float:
        """Seconds that this process has spent compiling this program."""
        return _compile_seconds.get(self, 0.0)

    def check_rows(self, rows: int) -> None:
        """
        Raises:
            InputError: a batch of so many rows is not divided by the devices that split them.
        """
        meshes.check_rows(self.mesh, rows)

    def place(self, batches: Batch, leading: int = 1) -> Any:
        """This process's rows on its devices, from arrays with so many axes before the rows.

        Raises:
            InputError: the rows are not divided by the devices that split them.
        """
        return {name: meshes.placed(self.mesh, array, leading) for name, array in batches.items()}

    def call(self, name: str, build: Any, *arguments: Any) -> Any:
        """Calls `build(self)`, a jitted function compiled once per name and shapes; seconds are counted."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments))
        cache = _compiled_programs(self)
        if (name, shapes) not in cache:
            began = time.perf_counter()
            cache[name, shapes] = build(self).lower(*arguments).compile()
            _compile_seconds[self] = self.compile_seconds() + time.perf_counter() - began
            processes.meet()
        _called_in_run.setdefault(self, {}).setdefault(name, {})[shapes] = cache[name, shapes]
        return cache[name, shapes](*arguments)


_compile_seconds: dict[Program, float] = {}
# By program, name and shapes: the steps that the run at hand has called.
_called_in_run: dict[Program, dict[str, dict[Any, jax.stages.Compiled]]] = {}


def _on(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree with these shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _bytes_needed(analysis: Any) -> int:
    """Of XLA's account: what goes in, what comes out in memory of its own, and what lies between."""
    kept = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return kept + analysis.temp_size_in_bytes


@functools.cache
def _compiled_programs(program: Program) -> dict:
    return {}


@functools.cache
def _initial_parameters(program: Program) -> Any:
    batch = _zeros(program)
    return jax.jit(
        lambda key: nn.unbox(program.module.init(key, **batch)["params"]),
        out_shardings=program.shardings["params"],
    )


@functools.cache
def _added(program: Program) -> Any:
    batch = _zeros(program)

    def create(params: Any, key: jax.Array) -> Any:
        _, created = program.module.apply(
            {"params": params}, **batch, mutable=["tuned"], rngs={"params": key}
        )
        return program.method.kept(nn.unbox(created["tuned"]))

    return jax.jit(create, out_shardings=program.shardings["tuned"])


def _zeros(program: Program) -> dict[str, jax.Array]:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), smallest_batch(program.model))


@functools.cache
def _fresh_state(program: Program) -> Any:
    transformation = program.optimizer.transformation()

    def create(tuned: Any, seed: jax.Array) -> TrainState:
        tuned = jax.tree.map(jnp.array, tuned)
        return TrainState(jnp.zeros((), jnp.int32), tuned, transformation.init(tuned), seed)

    return jax.jit(create, out_shardings=state_shardings(program))


def _variables(program: Program) -> Any:
    """Shapes of all variables with logical axis names, of a method that fits the model."""
    program.method.check(counts.abstract_parameters(program.model))
    return counts.abstract_variables(program.model, program.method)


def _abstract_tuned(program: Program) -> Any:
    """Shapes of what is trained."""
    variables = nn.unbox(_variables(program))

    def create(_: Any) -> Any:
        return jax.eval_shape(program.method.kept, variables["tuned"])

    return program.method.start(variables["params"], create)[0]


def state_shardings(program: Program) -> TrainState:
    """Shardings of what training changes."""
    tuned = _abstract_tuned(program)
    tuned_shardings, _ = program.method.start(
        program.shardings["params"], lambda _: program.shardings["tuned"]
    )
    optimizer = jax.eval_shape(program.optimizer.transformation().init, tuned)
    one = meshes.replicated(program.mesh)
    return TrainState(
        one, tuned_shardings, meshes.like_parameters(optimizer, tuned, tuned_shardings, program.mesh), one
    )


def training_steps(program: Program) -> Callable[..., tuple[TrainState, dict]]:
    """The function (state, base, batches, rates) -> (state, metrics) that `Program.train` compiles."""
    transformation = program.optimizer.transformation()

    def one_step(carry: tuple[TrainState, Any], inputs: tuple[Any, jax.Array]) -> tuple[Any, dict]:
        state, base = carry
        batch, rate = inputs
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        loss, gradients = _loss_and_gradients(program, state.tuned, base, batch, key)
        updates, optimizer = transformation.update(gradients, state.optimizer, state.tuned)
        tuned = optax.apply_updates(state.tuned, jax.tree.map(lambda update: -rate * update, updates))
        metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradients)}
        return (TrainState(state.step + 1, tuned, optimizer, state.seed), base), metrics

    def train(state: TrainState, base: Any, batches: Any, rates: jax.Array) -> tuple[TrainState, dict]:
        with meshes.constrained(program.mesh, program.layout.rules):
            (state, _), metrics = jax.lax.scan(one_step, (state, base), (batches, rates))
        return state, metrics

    return train


def evaluation(program: Program) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The function (tuned, base, batches) -> sums that `Program.evaluate` compiles."""

    def evaluate(tuned: Any, base: Any, batches: Any) -> tuple[jax.Array, jax.Array]:
        with meshes.constrained(program.mesh, program.layout.rules):
            return jax.lax.map(lambda batch: _loss_sums(program, tuned, base, batch), batches)

    return evaluate


@functools.cache
def _train(program: Program) -> Any:
    one = meshes.replicated(program.mesh)
    out = (state_shardings(program), {"loss": one, "gradient_norm": one})
    return jax.jit(training_steps(program), donate_argnums=0, out_shardings=out)


@functools.cache
def _evaluate(program: Program) -> Any:
    return jax.jit(evaluation(program), out_shardings=meshes.replicated(program.mesh))


def _loss_sums(
    program: Program, tuned: Any, base: Any, batch: Any, random: dict[str, jax.Array] | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sums of nats and of weights; `random` holds the streams of a training step, if it draws any."""
    variables = program.method.variables(tuned, base)
    losses = program.module.apply(variables, **arguments(batch), rngs=random)
    return jnp.sum(losses * batch["weights"]), jnp.sum(batch["weights"])


def _loss_and_gradients(
    program: Program, tuned: Any, base: Any, batch: Any, key: jax.Array
) -> tuple[jax.Array, Any]:
    """Mean nats per target token of the whole batch, and its gradient.

    Microbatches add sums, not means, so that accumulation does not change the objective.
    """

    def summed(trained: Any, part: Any, index: Any = 0) -> jax.Array:
        random = {"dropout": jax.random.fold_in(key, index)} if program.method.draws else None
        return _loss_sums(program, trained, base, part, random)[0]

    tokens = jnp.sum(batch["weights"])
    if program.microbatches == 1:
        total, gradients = jax.value_and_grad(summed)(tuned, batch)
    else:
        rows, count = batch["targets"].shape[0], program.microbatches
        if rows % count:
            raise InputError(f"a batch of {rows} rows is not divided by microbatches = {count}")
        # Every microbatch takes rows of every device, so that no row has to move.
        parts = jax.tree.map(lambda leaf: leaf.reshape(rows // count, count, -1).swapaxes(0, 1), batch)

        def add(carry: Any, numbered: Any) -> tuple[Any, None]:
            index, part = numbered
            return jax.tree.map(jnp.add, carry, jax.value_and_grad(summed)(tuned, part, index)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, tuned))
        (total, gradients), _ = jax.lax.scan(add, zero, (jnp.arange(count), parts))
    return total / tokens, jax.tree.map(lambda gradient: gradient / tokens, gradients)
