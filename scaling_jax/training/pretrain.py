"""Pretraining: one run over fixed windows, kept at every token count that a study asks for.

Intermediate checkpoints stand for smaller pretraining data, as in Zhang et al. 2024, section 3;
their learning rate is not annealed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gin
import jax
import numpy as np

from scaling_jax import configuration
from scaling_jax.data.batches import TrainingBatches
from scaling_jax.data.sequences import Batch, OneSequence
from scaling_jax.data.store import Split, TokenStore
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import named_model
from scaling_jax.training import checkpoints, data_sets, records
from scaling_jax.training.loop import LoopSettings, Progress, finish, train
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program, TrainState
from scaling_jax.training.schedules import Schedule
from scaling_jax.tuning.full import Full


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """How every model of a study is pretrained.

    Attributes:
        learning_rate: peak rate.
        batch_size: windows per step.
        optimizer, schedule, layout: see there; Zhang et al. use Adafactor with a cosine from 1e-2 to 1e-3.
        eval_interval, steps_per_call, checkpoint_interval: in steps.
        dev_windows: windows of the dev split that are evaluated; None is all.
        epochs: how often the windows may be passed over; above 1, tokens repeat.
        microbatches: parts of a batch whose gradients are added up.
    """

    learning_rate: float = 1e-2
    batch_size: int = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule("cosine")
    layout: Layout = Layout()
    eval_interval: int = 100
    steps_per_call: int = 1
    checkpoint_interval: int = 0
    dev_windows: int | None = None
    epochs: int = 1
    microbatches: int = 1


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class PretrainRun:
    """One pretraining run: a model's name, a store of windows, the token counts to keep, a seed."""

    model: str
    store: str
    tokens: Sequence[int]
    seed: int = 0


def level_steps(tokens: int, tokens_per_step: int) -> int:
    """Steps after which a run has seen `tokens`, to the nearest step."""
    return max(1, round(tokens / tokens_per_step))


def pretrain(
    model: str,
    store_path: str,
    token_levels: tuple[int, ...],
    seed: int,
    folder: Path,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Pretrains one model; returns its record.

    Writes `folder/checkpoints/TOKENS/` for every level, and `folder/record.json` at the end.

    Args:
        model: name of a model in the gin configuration.
        store_path: a store of windows.
        token_levels: tokens seen at which a checkpoint is kept; the largest ends the run.
        seed: of the initial parameters and the order of the windows.
        folder: the run folder.
        on_evaluation: called with the progress after every dev evaluation.

    Raises:
        InputError: more tokens than the store holds (over the allowed epochs).
    """
    settings = PretrainSettings()
    store, config = _store_and_model(store_path, model)
    split = data_sets.split_at(store_path, "train")
    tokens_per_step = settings.batch_size * int(store.manifest["feature_lengths"]["targets"])
    steps = _level_steps(token_levels, tokens_per_step)
    check_enough_windows(store, settings, token_levels)

    program = Program(config, Full(), settings.optimizer, settings.layout, settings.microbatches)
    batches = _batches(store, split, settings.batch_size, seed)
    loop = LoopSettings(
        max(steps),
        settings.eval_interval,
        settings.steps_per_call,
        checkpoint_interval=settings.checkpoint_interval,
        stop_steps=tuple(steps),
    )
    about = {
        "kind": "pretrained",
        "model": dataclasses.asdict(config),
        "vocabulary_sha256": store.vocabulary.sha256(),
        "store": store.manifest_hash(),
        "seed": seed,
    }

    def keep(step: int, state: TrainState) -> None:
        details = {"step": step, "pretrain_tokens": steps[step], "hash": checkpoints.tree_hash(state.tuned)}
        checkpoints.save(folder / "checkpoints" / str(steps[step]), state.tuned, about | details)

    environment = records.environment(settings.layout)
    plan = {
        "about": about,
        "settings": settings,
        "levels": list(steps.items()),
        "environment": records.fixed_by(environment),
    }
    outcome = train(
        program,
        program.restart(program.initial_parameters(seed)),
        {},
        batches,
        settings.schedule.rates(settings.learning_rate, loop.steps),
        _dev(store_path, config, settings),
        loop,
        folder,
        records.plain(plan),
        at_step=keep,
        on_evaluation=on_evaluation,
    )
    record = _record(config, settings, program, outcome.progress, about, environment, tokens_per_step, steps)
    records.write_events(folder, outcome.progress)
    records.write(folder, record)
    finish(folder)
    return record


def _store_and_model(store_path: str, model: str):
    """The store of windows and the decoder, checked to go together."""
    store = data_sets.store_at(store_path)
    if set(store.manifest["feature_lengths"]) != {"targets"}:
        raise InputError(f"{store_path} holds examples for finetuning, pretraining needs a store of windows")
    config = named_model(model, store.vocabulary.size)
    if config.encoder_layers:
        raise InputError(
            f"model {model!r} is an encoder-decoder, and pretraining on windows is a decoder's: "
            "bring a pretrained one with scaling-jax convert"
        )
    return store, config


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


def _dev(store_path: str, config: ModelConfig, settings: PretrainSettings) -> tuple[Batch, ...]:
    sequences = data_sets.sequences_at(store_path, config)
    return data_sets.evaluation_at(store_path, "dev", settings.dev_windows, settings.batch_size, sequences)


def _batches(store: TokenStore, split: Split, rows: int, seed: int) -> TrainingBatches:
    """Every window once per epoch."""
    window = int(store.manifest["feature_lengths"]["targets"])
    process, pad_id = (jax.process_index(), jax.process_count()), store.vocabulary.pad_id
    return TrainingBatches(
        split, np.arange(len(split)), rows, OneSequence((window,), pad_id, pad_id), seed, process
    )


def check_enough_windows(store: TokenStore, settings: PretrainSettings, token_levels: Iterable[int]) -> None:
    """
    Raises:
        InputError: the store's training split does not hold so many tokens over the allowed epochs.
    """
    windows = store.manifest["splits"]["train"]["examples"]
    window = store.manifest["feature_lengths"]["targets"]
    wanted = level_steps(max(token_levels), settings.batch_size * window) * settings.batch_size
    if wanted > windows * settings.epochs:
        raise InputError(
            f"pretraining asks for {wanted * window:,} tokens, {store.path} has {windows * window:,} "
            f"and PretrainSettings.epochs = {settings.epochs} allows {windows * window * settings.epochs:,}: "
            "ask for fewer, prepare more text, or allow more epochs"
        )


def _record(
    config: ModelConfig,
    settings: PretrainSettings,
    program: Program,
    progress: Progress,
    about: dict[str, Any],
    environment: dict[str, Any],
    tokens_per_step: int,
    steps: dict[int, int],
) -> dict[str, Any]:
    seconds = progress.train_seconds
    done = max(progress.step, 1)
    window = tokens_per_step // settings.batch_size
    flops = 3 * counts.forward_flops_per_token(config, window)
    return {
        "kind": "pretraining",
        "status": progress.status,
        "reason": progress.reason,
        "model": config.name,
        "config": configuration.resolved(),
        "settings": records.plain(settings),
        "metrics": progress.history,
        "levels": [
            {"pretrain_tokens": tokens, "step": step, "checkpoint": f"checkpoints/{tokens}"}
            for step, tokens in steps.items()
            if step <= progress.step and progress.status == "done"
        ],
        "costs": {
            "train_seconds": seconds,
            "step_seconds": seconds / done,
            "tokens_per_second": done * tokens_per_step / seconds if seconds else None,
            "flops_per_token": flops,
            "flops_formula": "3 x forward: 2 per matrix parameter, causal attention, output embedding",
            "peak_memory_bytes": records.peak_memory_bytes(program.train_memory_bytes()),
            "compile_seconds": program.compile_seconds(),
        },
        "parameters": {
            "total": counts.model_parameters(config),
            "non_embedding": counts.non_embedding_parameters(config),
        },
        "seeds": {"seed": about["seed"]},
        "data": {"store": about["store"]},
        "environment": environment,
    }
