"""Finetuning: one method, one nested subset of the examples, from one checkpoint,
pretrained or tuned before.

Input and target are one sequence, the loss is on the target (Zhang et al. 2024, section 3). The
optimizer is fresh, steps count from 0, the best step by dev loss is the one reported.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gin
import numpy as np

from scaling_jax import configuration, files
from scaling_jax.data import batches as data_batches
from scaling_jax.data.batches import TrainingBatches
from scaling_jax.data.sequences import Batch, Sequences
from scaling_jax.data.store import Split, TokenStore
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.training import checkpoints, costs, data_sets, records
from scaling_jax.training.bases import load_base, tuned_hash
from scaling_jax.training.evaluate import mean_loss
from scaling_jax.training.loop import LoopSettings, Outcome, Progress, finish, train
from scaling_jax.training.mesh import Layout, own_rows
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.training.schedules import Schedule
from scaling_jax.training.throughput import Work, noting_speed, work_here
from scaling_jax.tuning.method import method_scope, named_method, registered_name


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """How a method is tuned; bound per method in gin: `lora/FinetuneSettings.learning_rate = 1e-2`, and
    `lora/lora_last_half/FinetuneSettings...` for a variant of it.

    Attributes:
        learning_rate: peak rate.
        batch_size: examples per step.
        max_steps, max_epochs: a run ends at whichever comes first.
        patience: dev evaluations without a better loss after which a run stops; 0 never stops.
        eval_interval, steps_per_call, checkpoint_interval: in steps; no checkpoint to resume from at 0.
        eval_batch_size: examples per evaluation batch.
        dev_examples, test_examples: how many of the split are evaluated; None is all.
        keep_checkpoint: "best" writes what was trained, at the best step; "none" writes nothing.
        base_dtype: "bfloat16" keeps the frozen matrices in half the bytes; what is trained is float32,
            and the whole model is where the method trains it.
        optimizer, schedule, layout, microbatches: see `PretrainSettings`.
    """

    learning_rate: float = 1e-3
    batch_size: int = 16
    max_steps: int = 1000
    max_epochs: float = 100.0
    patience: int = 0
    eval_interval: int = 50
    steps_per_call: int = 1
    checkpoint_interval: int = 0
    eval_batch_size: int = 64
    dev_examples: int | None = None
    test_examples: int | None = None
    keep_checkpoint: str = "best"
    base_dtype: str = "float32"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    layout: Layout = dataclasses.field(default_factory=Layout)
    microbatches: int = 1

    def __post_init__(self):
        if self.keep_checkpoint not in ("best", "none"):
            raise InputError(f"FinetuneSettings.keep_checkpoint = {self.keep_checkpoint!r}: 'best' or 'none'")

    def steps(self, examples: int) -> int:
        """Steps of a run on that many examples, in whole calls."""
        wanted = min(self.max_steps, math.ceil(self.max_epochs * examples / self.batch_size))
        return max(1, math.ceil(wanted / self.steps_per_call)) * self.steps_per_call


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class FinetuneRun:
    """One point of a study.

    Attributes:
        base: folder of a pretrained checkpoint, or of a tuned one, which is merged first.
        store: folder of a token store with inputs and targets.
        method: name of a tuning method.
        examples: size of the training subset; None takes all.
        tuning_size: prompt length or rank; None is the method's own.
        learning_rate: None takes the method's own.
        seed: of what is initialised and of the order of examples.
        subset_seed: of the nested subsets.
    """

    base: str
    store: str
    method: str
    examples: int | None = None
    tuning_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    subset_seed: int = 0


def settings_for(method: str, learning_rate: float | None = None) -> FinetuneSettings:
    """The settings bound under the method's name, at another learning rate if one is given."""
    with gin.config_scope(method_scope(method)):
        settings = FinetuneSettings()
    return settings if learning_rate is None else dataclasses.replace(settings, learning_rate=learning_rate)


@functools.lru_cache(maxsize=2)
def _base_at(path: str, layout: Layout, dtype: str) -> Any:
    return load_base(files.at(path), layout, dtype)


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run with all that it reads, opened and checked."""

    run: FinetuneRun
    settings: FinetuneSettings
    store: TokenStore
    base: Any
    about: dict[str, Any]
    program: Program
    split: Split
    subset: np.ndarray

    @property
    def steps(self) -> int:
        """Length of the run."""
        return self.settings.steps(len(self.subset))

    @property
    def rates(self) -> np.ndarray:
        """Learning rates float32 [steps]."""
        return self.settings.schedule.rates(self.settings.learning_rate, self.steps)

    @property
    def sequences(self) -> Sequences:
        """How the model reads examples."""
        return data_sets.sequences_at(self.run.store, self.program.model, self.about.get("start_id"))

    def batches(self) -> TrainingBatches:
        """The training data."""
        rows, seed = self.settings.batch_size, self.run.seed
        own = own_rows(self.program.mesh, rows)
        return TrainingBatches(self.split, self.subset, rows, self.sequences, seed, own)

    def evaluation(self, split: str) -> tuple[Batch, ...]:
        """The evaluation set of split dev or test."""
        examples = {"dev": self.settings.dev_examples, "test": self.settings.test_examples}[split]
        rows = self.settings.eval_batch_size
        return data_sets.evaluation_at(self.run.store, split, examples, rows, self.sequences)

    @functools.cached_property
    def flops(self) -> costs.Flops:
        """Per token of an example of mean length."""
        lengths = self.split.total_lengths[self.subset]
        targets = data_batches.target_tokens(self.split, self.subset) / len(self.subset)
        program = self.program
        return costs.flops_per_token(
            program.model, program.method, program.abstract_tuned(), float(np.mean(lengths)), targets
        )

    @property
    def work(self) -> Work:
        """What a step does."""
        mean_length = float(np.mean(self.split.total_lengths[self.subset]))
        tokens = self.settings.batch_size * mean_length
        return work_here(tokens, self.flops.forward + self.flops.backward)

    def checkpoint_about(self) -> dict[str, Any]:
        """What the checkpoint of this run says of itself."""
        return {
            "kind": "tuned",
            "method": {"name": registered_name(self.run.method), **dataclasses.asdict(self.program.method)},
            "base": self.base_about(),
            "model": self.about["model"],
            "vocabulary_sha256": self.about["vocabulary_sha256"],
            "start_id": self.about.get("start_id"),
        }

    def base_about(self) -> dict[str, Any]:
        """Which base that is, and where it came from if it was tuned before."""
        base = {
            "path": str(self.run.base),
            "hash": self.about["hash"],
            "pretrain_tokens": self.about["pretrain_tokens"],
            "dtype": "float32" if self.program.method.trains_base else self.settings.base_dtype,
        }
        if self.about["kind"] == "tuned":
            base["tuned_from"] = {"method": self.about["method"], "base": self.about["base"]}
        return base


# Called with a run, what it trained at its best step, its frozen base and its folder; returns what is to
# be kept under `evaluations` of its record.
AtBest = Callable[[OpenRun, Any, Any, Path], dict[str, Any]]


def no_evaluations(opened: OpenRun, tuned: Any, frozen: Any, folder: Path) -> dict[str, Any]:
    """The `AtBest` of a run of which nothing but losses is asked."""
    return {}


def finetune(
    run: FinetuneRun,
    folder: Path,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    at_best: AtBest = no_evaluations,
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Makes one run; returns its record, also written to `folder/record.json`.

    Args:
        run: what is made.
        folder: where it goes.
        on_evaluation: called after every dev evaluation.
        at_best: called once training is done, before the record is written.
        elsewhere: see `loop.train`.

    Raises:
        InputError: more examples asked than exist, another vocabulary than the checkpoint's, no checkpoint,
            or a method whose settings do not fit the model.
    """
    opened = open_run(run)
    settings, program = opened.settings, opened.program
    state, frozen = program.start(opened.base, run.seed)
    environment = records.environment(settings.layout)
    loop = LoopSettings(
        opened.steps,
        settings.eval_interval,
        settings.steps_per_call,
        settings.patience,
        settings.checkpoint_interval,
    )
    plan = {
        "about": opened.checkpoint_about(),
        "settings": settings,
        "examples": len(opened.subset),
        "seed": run.seed,
        "subset": run.subset_seed,
        "store": opened.store.manifest_hash(),
        "environment": records.fixed_by(environment),
    }
    outcome = train(
        program,
        state,
        frozen,
        opened.batches(),
        opened.rates,
        opened.evaluation("dev"),
        loop,
        folder,
        records.plain(plan),
        on_evaluation=noting_speed(opened.work, on_evaluation),
        elsewhere=elsewhere,
    )
    peak = records.peak_memory_bytes(program.train_memory_bytes())
    record = write_run(opened, frozen, outcome, folder, environment, peak, at_best)
    finish(folder)
    return record


def write_run(
    opened: OpenRun,
    frozen: Any,
    outcome: Outcome,
    folder: Path,
    environment: dict[str, Any],
    peak_memory_bytes: int | None,
    at_best: AtBest = no_evaluations,
    cohort: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Evaluates the best step on test, writes what a run leaves in `folder`, and returns its record.

    Args:
        opened: the run.
        frozen: its base.
        outcome: of its training.
        folder: where it goes.
        environment: from `records.environment`.
        peak_memory_bytes: of the process.
        at_best: called where training was done.
        cohort: folder names of all runs that were made at the same time, in order; empty for one alone.
    """
    run, settings, program = opened.run, opened.settings, opened.program
    test_loss = checkpoint_bytes = None
    evaluations: dict[str, Any] = {}
    if outcome.progress.status == "done":
        test_loss = mean_loss(program, outcome.best, frozen, opened.evaluation("test"))
        if settings.keep_checkpoint == "best":
            about = opened.checkpoint_about()
            best = {"step": outcome.progress.best_step, "hash": tuned_hash(outcome.best, about)}
            checkpoint_bytes = checkpoints.save(folder / "checkpoint", outcome.best, about | best)
        evaluations = at_best(opened, outcome.best, frozen, folder)
    record = {
        **_identity(opened),
        "status": outcome.progress.status,
        "reason": outcome.progress.reason,
        "results": _results(outcome, test_loss),
        "evaluations": evaluations,
        "metrics": outcome.progress.history,
        "resumed_elsewhere": outcome.progress.moves,
        "costs": _costs(opened, outcome.progress)
        | {
            "peak_memory_bytes": peak_memory_bytes,
            "checkpoint_bytes": checkpoint_bytes,
            "runs_at_once": len(cohort) or 1,
        },
        "cohort": list(cohort),
        "seeds": {"seed": run.seed, "subset_seed": run.subset_seed},
        "data": {
            "store": opened.store.manifest_hash(),
            "task": opened.store.manifest["task"],
            "examples": len(opened.subset),
        },
        "settings": records.plain(settings),
        "config": configuration.resolved(),
        "environment": environment,
    }
    records.write_events(folder, outcome.progress)
    records.write(folder, record)
    return record


def open_run(run: FinetuneRun) -> OpenRun:
    """Opens the store and the base of a run.

    Raises:
        InputError: see `finetune`.
    """
    settings = settings_for(run.method, run.learning_rate)
    store = data_sets.store_at(run.store)
    if "inputs" not in store.manifest["feature_lengths"]:
        raise InputError(f"{run.store} holds pretraining windows, finetuning needs inputs and targets")
    method = named_method(run.method, run.tuning_size)
    dtype = "float32" if method.trains_base else settings.base_dtype
    config, base, about = _base_at(run.base, settings.layout, dtype)
    data_sets.check_vocabulary(store, files.at(run.base), about)
    split = data_sets.split_at(run.store, "train")
    examples = len(split) if run.examples is None else run.examples
    subset = data_batches.nested_subset(len(split), examples, run.subset_seed, split.groups)
    program = Program(config, method, settings.optimizer, settings.layout, settings.microbatches)
    return OpenRun(run, settings, store, base, about, program, split, subset)


def _identity(opened: OpenRun) -> dict[str, Any]:
    program = opened.program
    return {
        "kind": "finetuning",
        "method": opened.run.method,
        "model": program.model.name,
        "base": opened.base_about(),
        "finetune_examples": len(opened.subset),
        "finetune_tokens": data_batches.target_tokens(opened.split, opened.subset),
        "tuning_size": program.method.tuning_size,
        "parameters": {
            "total": counts.model_parameters(program.model),
            "non_embedding": counts.non_embedding_parameters(program.model),
            "trained": program.trained_parameters(),
        },
    }


def _results(outcome: Outcome, test_loss: float | None) -> dict[str, Any]:
    progress = outcome.progress
    finite = math.isfinite(progress.best_dev_loss)
    return {
        "loss": test_loss,
        "dev_loss": progress.best_dev_loss if finite else None,
        "best_step": progress.best_step,
        "steps": progress.step,
        "converged_step": costs.converged_step(progress.history),
        "start_dev_loss": progress.history[0]["dev_loss"] if progress.history else None,
    }


def _costs(opened: OpenRun, progress: Progress) -> dict[str, Any]:
    program, flops, work = opened.program, opened.flops, opened.work
    seconds, steps = progress.train_seconds, max(progress.step, 1)
    return {
        "train_seconds": seconds,
        "step_seconds": seconds / steps,
        # one pass over the run's examples at that speed, however many it made
        "epoch_seconds": seconds / steps * len(opened.subset) / opened.settings.batch_size,
        "tokens_per_second": steps * work.tokens / seconds if seconds else None,
        "tokens": "inputs and targets, padding left out",
        **work.recorded(progress.step, seconds),
        "flops_per_token": flops.forward + flops.backward,
        "forward_flops_per_token": flops.forward,
        "backward_flops_per_token": flops.backward,
        "flops_saved": flops.saved,
        "flops_formula": costs.FORMULA,
        "compile_seconds": program.compile_seconds(),
    }
