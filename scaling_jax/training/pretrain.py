"""Pretraining: one run over fixed windows, kept at every token count that a study asks for.

Intermediate checkpoints stand for smaller pretraining data, as in Zhang et al. 2024, section 3;
their learning rate is not annealed. The windows are of one store or of several in stated shares, what
is learnt of them says the objective. Token count 0 is the model before it has seen any.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
import numpy as np

from scaling_jax import configuration
from scaling_jax.data.objectives import objective as objectives
from scaling_jax.data.objectives.causal_lm import CausalLM
from scaling_jax.data.objectives.objective import Objective
from scaling_jax.data.store import TokenStore
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import named_model
from scaling_jax.training import checkpoints, records
from scaling_jax.training.evaluate import EvaluationSet, dev_losses
from scaling_jax.training.loop import LoopSettings, Progress, finish, note_evaluation, train
from scaling_jax.training.mesh import Layout, own_rows
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.pretraining_data import PretrainingData, check_enough, open_data
from scaling_jax.training.program import Program, TrainState
from scaling_jax.training.schedules import Schedule
from scaling_jax.training.throughput import Work, noting_speed, work_here
from scaling_jax.tuning.full import Full

objectives.load_all()  # so that gin knows them

FLOPS_FORMULA = "3 x forward: 2 per matrix parameter, causal attention, output embedding"


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """How every model of a study is pretrained.

    Attributes:
        objective: what is learnt of a window: `@causal_lm()`, `@prefix_lm()`, `@span_corruption()`, `@ul2()`.
        mixture: name of a store -> share of the windows; the shares add up to 1. Empty is the one store.
            A recipe of a study is a gin scope: `en30_de70/PretrainSettings.mixture = {...}`.
        learning_rate: peak rate.
        batch_size: windows per step.
        optimizer, schedule, layout: see there; Zhang et al. use Adafactor with a cosine from 1e-2 to 1e-3.
        eval_interval, steps_per_call, checkpoint_interval: in steps.
        dev_windows: windows of each store's dev split that are evaluated; None is all.
        epochs: how often the windows of a store may be passed over; above 1, tokens repeat.
        microbatches: parts of a batch whose gradients are added up.
    """

    objective: Objective = CausalLM()
    mixture: Mapping[str, float] = dataclasses.field(default_factory=dict)
    learning_rate: float = 1e-2
    batch_size: int = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule("cosine")
    layout: Layout = dataclasses.field(default_factory=Layout)
    eval_interval: int = 100
    steps_per_call: int = 1
    checkpoint_interval: int = 0
    dev_windows: int | None = None
    epochs: int = 1
    microbatches: int = 1

    def __post_init__(self):
        if not isinstance(self.objective, Objective):
            raise InputError(
                f"PretrainSettings.objective = {self.objective!r}: an objective such as @span_corruption()"
            )

    def recorded(self) -> dict[str, Any]:
        """The settings as JSON; the objective with its name."""
        return records.plain(self) | {"objective": records.plain(objectives.recorded(self.objective))}


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class PretrainRun:
    """One pretraining run.

    Attributes:
        model: name of a model in the gin configuration.
        store: folder of a store of windows; of several, name -> folder, the names those of the mixture.
        tokens: counts at which the model is kept; 0 is before training.
        seed: of the initial parameters, the order of the windows and what the objective draws.
        mixture: gin scope whose `PretrainSettings` hold, such as 'en30_de70'.
    """

    model: str
    store: str | Mapping[str, str]
    tokens: Sequence[int]
    seed: int = 0
    mixture: str = ""

    def __post_init__(self):
        tokens = self.tokens
        listed = isinstance(tokens, list | tuple) and tokens
        if not listed or not all(type(count) is int and count >= 0 for count in tokens):
            example = f"({tokens},)" if type(tokens) is int else "(819200, 1638400)"
            raise InputError(f"PretrainRun.tokens = {tokens!r}: a tuple of token counts such as {example}")


def level_steps(tokens: int, tokens_per_step: int) -> int:
    """Steps after which a run has seen `tokens`, to the nearest step, and at least one for any."""
    return max(1, round(tokens / tokens_per_step)) if tokens else 0


def pretrain(
    model: str,
    stores: str | Path | Mapping[str, str | Path],
    token_levels: Sequence[int],
    seed: int,
    folder: Path,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Pretrains one model under the `PretrainSettings` of the current gin scope; returns its record.

    Writes `folder/checkpoints/TOKENS/` for every level, and `folder/record.json` at the end.

    Args:
        model: name of a model in the gin configuration.
        stores: a store of windows, or name -> store, of which the mixture takes what it names.
        token_levels: tokens seen at which a checkpoint is kept, 0 for the initial parameters; the
            largest ends the run.
        seed: of the initial parameters, the order of the windows and what the objective draws.
        folder: the run folder.
        on_evaluation: called with the progress after every dev evaluation.
        elsewhere: see `loop.train`.

    Raises:
        InputError: more tokens than the stores hold (over the allowed epochs), stores that do not go
            together or with the model, or see `window_sequences`.
    """
    settings = PretrainSettings()
    data = open_data(stores, settings.mixture)
    config = named_model(model, data.vocabulary.size)
    sequences = data.sequences(settings.objective, config)
    tokens_per_step = settings.batch_size * data.window
    steps = _level_steps(token_levels, tokens_per_step)
    check_enough(data, max(steps) * settings.batch_size, settings.epochs)

    program = Program(config, Full(), settings.optimizer, settings.layout, settings.microbatches)
    about = _about(config, settings, data, seed)
    keep = functools.partial(_keep, folder, steps, about)
    start = program.restart(program.initial_parameters(seed))
    if (
        0 in steps and checkpoints.Kept(folder / "resume").latest() is None
    ):  # else it is there, or the plan is another
        keep(0, start)
    environment = records.environment(settings.layout)
    plan = {
        "about": about,
        "settings": settings.recorded(),
        "levels": list(steps.items()),
        "environment": records.fixed_by(environment),
    }
    dev = data.dev(settings.dev_windows, settings.batch_size, sequences)
    if max(steps) == 0:
        progress = _untrained(program, start.tuned, dev, on_evaluation)
    else:
        loop = LoopSettings(
            max(steps),
            settings.eval_interval,
            settings.steps_per_call,
            checkpoint_interval=settings.checkpoint_interval,
            stop_steps=tuple(step for step in steps if step),
        )
        progress = train(
            program,
            start,
            {},
            data.batches(settings.batch_size, sequences, seed, own_rows(program.mesh, settings.batch_size)),
            settings.schedule.rates(settings.learning_rate, loop.steps),
            dev,
            loop,
            folder,
            records.plain(plan),
            at_step=keep,
            on_evaluation=noting_speed(_work(config, settings, data), on_evaluation),
            elsewhere=elsewhere,
        ).progress
    record = _record(config, settings, program, progress, about, environment, data, steps)
    records.write_events(folder, progress)
    records.write(folder, record)
    finish(folder)
    return record


def check_enough_windows(
    stores: TokenStore | Mapping[str, TokenStore], settings: PretrainSettings, token_levels: Iterable[int]
) -> None:
    """Compares what a run would read with what there is, before it runs.

    Raises:
        InputError: a store's training split does not hold so many tokens over the allowed epochs, or
            stores that do not go together.
    """
    data = open_data(stores, settings.mixture)
    steps = level_steps(max(token_levels), settings.batch_size * data.window)
    check_enough(data, steps * settings.batch_size, settings.epochs)


def _about(
    config: ModelConfig, settings: PretrainSettings, data: PretrainingData, seed: int
) -> dict[str, Any]:
    """What every checkpoint of the run says of itself."""
    return {
        "kind": "pretrained",
        "model": dataclasses.asdict(config),
        "vocabulary_sha256": data.vocabulary.sha256(),
        "token_ids": {"pad": data.vocabulary.pad_id, "end": data.vocabulary.eos_id},
        "store": data.manifest_hash(),
        "objective": records.plain(objectives.recorded(settings.objective)),
        "mixture": dict(data.shares) if settings.mixture else {},
        "seed": seed,
    }


def _keep(folder: Path, steps: dict[int, int], about: dict[str, Any], step: int, state: TrainState) -> None:
    """Writes the checkpoint of the level that a step reaches."""
    tokens = steps[step]
    details = {"step": step, "pretrain_tokens": tokens, "hash": checkpoints.tree_hash(state.tuned)}
    checkpoints.save(folder / "checkpoints" / str(tokens), state.tuned, about | details)


def _untrained(
    program: Program, initial: Any, dev: EvaluationSet, on_evaluation: Callable[[Progress], None]
) -> Progress:
    """The end of a run of no steps: the initial parameters evaluated."""
    progress = Progress()
    losses = dev_losses(program, initial, {}, dev)
    note_evaluation(progress, losses.pop("dev_loss"), np.zeros(0), 0, losses)
    if progress.status == "running":
        progress.status = "done"
    on_evaluation(progress)
    return progress


def _level_steps(token_levels: Iterable[int], tokens_per_step: int) -> dict[int, int]:
    """Step -> tokens of every level, ascending."""
    steps: dict[int, int] = {}
    for tokens in sorted(token_levels):
        step = level_steps(tokens, tokens_per_step)
        if step in steps:
            raise InputError(
                f"pretraining to {steps[step]:,} and to {tokens:,} tokens is both step {step} "
                f"of {tokens_per_step:,} tokens: choose counts further apart"
            )
        steps[step] = tokens
    return steps


def _work(config: ModelConfig, settings: PretrainSettings, data: PretrainingData) -> Work:
    """What a step does; tokens are those of the windows."""
    read, said = settings.objective.mean_lengths(data.window)
    of_example = counts.forward_flops_per_token(config, read + said, said) * (read + said)
    return work_here(settings.batch_size * data.window, 3 * of_example / data.window)


def _record(
    config: ModelConfig,
    settings: PretrainSettings,
    program: Program,
    progress: Progress,
    about: dict[str, Any],
    environment: dict[str, Any],
    data: PretrainingData,
    steps: dict[int, int],
) -> dict[str, Any]:
    seconds = progress.train_seconds
    done = max(progress.step, 1)
    tokens = progress.step * settings.batch_size * data.window
    read, said = settings.objective.mean_lengths(data.window)
    work = _work(config, settings, data)
    return {
        "kind": "pretraining",
        "status": progress.status,
        "reason": progress.reason,
        "model": config.name,
        "config": configuration.resolved(),
        "settings": settings.recorded(),
        "metrics": progress.history,
        "resumed_elsewhere": progress.moves,
        "levels": [
            {"pretrain_tokens": tokens, "step": step, "checkpoint": f"checkpoints/{tokens}"}
            for step, tokens in steps.items()
            if step <= progress.step and progress.status == "done"
        ],
        "costs": {
            "train_seconds": seconds,
            "step_seconds": seconds / done,
            "tokens_per_second": tokens / seconds if seconds else None,
            "tokens": "of the windows, whatever the objective makes of them",
            **work.recorded(progress.step, seconds),
            "flops_per_token": work.flops_per_token,
            "flops_formula": FLOPS_FORMULA,
            "peak_memory_bytes": records.peak_memory_bytes(program.train_memory_bytes()),
            "compile_seconds": program.compile_seconds(),
        },
        "parameters": {
            "total": counts.model_parameters(config),
            "non_embedding": counts.non_embedding_parameters(config),
        },
        "seeds": {"seed": about["seed"]},
        "data": {
            "store": about["store"],
            "mixture": about["mixture"],
            "windows": data.windows_read(progress.step * settings.batch_size),
            "mean_input_tokens": read,
            "mean_target_tokens": said,
        },
        "environment": environment,
    }
