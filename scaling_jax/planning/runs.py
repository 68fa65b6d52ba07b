"""Runs of a gin configuration as workloads: one pretraining or finetuning run; studies build on the same."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import gin

from scaling_jax import configuration
from scaling_jax.data.objectives.objective import Lengths
from scaling_jax.errors import InputError
from scaling_jax.evaluation.decoding import Decoding
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.models.families import named_model
from scaling_jax.planning.stores import ExampleLengths, of_lengths, store_sizes
from scaling_jax.planning.workload import Workload
from scaling_jax.training import checkpoints
from scaling_jax.training.finetune import FinetuneRun, settings_for
from scaling_jax.training.pretrain import PretrainRun, PretrainSettings, level_steps
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import named_method, restored_method

# The data of one example where neither a store nor gin says: given on the command line.
LENGTHS_FLAG = "--lengths"


def bound() -> str | None:
    """Which of a study, a pretraining and a finetuning run the gin configuration describes."""
    names = {selector.split(".")[-1] for _, selector in gin.config._CONFIG}
    return next((name for name in ("Study", "PretrainRun", "FinetuneRun") if name in names), None)


def run_workloads(lengths: Sequence[int] = ()) -> tuple[list[Workload], list[str]]:
    """(the run that gin describes, what was assumed).

    Args:
        lengths: tokens of a window, or of inputs and of targets, where there is no store yet.

    Raises:
        InputError: no run, or one without a model.
    """
    kind = bound()
    if kind == "PretrainRun":
        return _pretraining_run(configuration.call(PretrainRun), lengths)
    if kind == "FinetuneRun":
        return _finetuning_run(configuration.call(FinetuneRun), lengths)
    raise InputError(
        "nothing to plan: the gin files bind no PretrainRun, FinetuneRun or Study "
        "(gin_configs/runs/pretrain.gin, runs/finetune.gin, studies/*.gin)"
    )


def pretraining(
    model: ModelConfig, settings: PretrainSettings, window: int, tokens: int, name: str
) -> Workload:
    """A pretraining run of so many tokens over windows of so many."""
    lengths = settings.objective.lengths(window)
    return Workload(
        name=name,
        kind="pretraining",
        model=model,
        method=Full(),
        optimizer=settings.optimizer,
        layout=settings.layout,
        rows=settings.batch_size,
        lengths=lengths,
        mean_lengths=settings.objective.mean_lengths(window),
        steps=(level_steps(tokens, settings.batch_size * window),),
        microbatches=settings.microbatches,
        steps_per_call=settings.steps_per_call,
        evaluation_rows=settings.batch_size,
    )


def finetuning(
    model: ModelConfig,
    method: str,
    tuning_size: int | None,
    lengths: ExampleLengths,
    examples: Sequence[int],
    decoding: Decoding | None,
    name: str,
) -> Workload:
    """Finetuning runs by one method, one for each number of examples."""
    settings = settings_for(method)
    return Workload(
        name=name,
        kind="finetuning",
        model=model,
        method=named_method(method, tuning_size),
        optimizer=settings.optimizer,
        layout=settings.layout,
        rows=settings.batch_size,
        lengths=padded(lengths.greatest),
        mean_lengths=lengths.mean,
        steps=tuple(settings.steps(count) for count in examples),
        microbatches=settings.microbatches,
        base_dtype=settings.base_dtype,
        steps_per_call=settings.steps_per_call,
        evaluation_rows=settings.eval_batch_size,
        decoding=decoding,
    )


def padded(lengths: Lengths) -> Lengths:
    """As long as the longest batch is: the greatest length bucket."""
    return Lengths(*(-(-length // 8) * 8 for length in lengths))


def _pretraining_run(run: PretrainRun, lengths: Sequence[int]) -> tuple[list[Workload], list[str]]:
    stores = run.store if isinstance(run.store, dict) else {"pretrain": run.store}
    sizes = store_sizes({name: str(path) for name, path in stores.items()})
    notes = list(sizes.notes)
    window = next(iter(sizes.windows.values()), 0)
    if len(lengths) == 1:
        window, notes = lengths[0], []
    elif lengths:
        raise InputError(f"{LENGTHS_FLAG} {','.join(map(str, lengths))}: pretraining has one, its window's")
    if not window:
        raise InputError(f"PretrainRun.store = {run.store!r} holds no windows")
    with gin.config_scope(run.mixture or None):
        settings = PretrainSettings()
    model = named_model(run.model, sizes.vocabulary if sizes.prepared else 1)
    if model.vocabulary_size == 1:
        model = dataclasses.replace(model, vocabulary_size=sizes.vocabulary)
    name = f"pretraining of {run.model}"
    return [pretraining(model, settings, window, max(run.tokens), name)], notes


def _finetuning_run(run: FinetuneRun, lengths: Sequence[int]) -> tuple[list[Workload], list[str]]:
    sizes = store_sizes({"store": str(run.store)})
    notes = [note.replace("store:", f"{run.store}:", 1) for note in sizes.notes]
    examples = sizes.examples.get("store")
    if len(lengths) == 2:
        examples, notes = of_lengths(*lengths), []
    elif lengths:
        raise InputError(f"{LENGTHS_FLAG} {','.join(map(str, lengths))}: finetuning has two, inputs,targets")
    if examples is None:
        raise InputError(f"FinetuneRun.store = {run.store!r} holds pretraining windows")
    model, said = base_model(run.base, sizes.vocabulary)
    notes += said
    count = run.examples
    if count is None:
        count = settings_for(run.method).max_steps * settings_for(run.method).batch_size
        notes.append("all examples of a store are trained on: the run is taken to be max_steps long")
    size = "" if run.tuning_size is None else f" of {run.tuning_size}"
    name = f"{run.method}{size} of {model.name}"
    return [finetuning(model, run.method, run.tuning_size, examples, [count], Decoding(), name)], notes


def base_model(folder: str | os.PathLike, vocabulary_size: int) -> tuple[ModelConfig, list[str]]:
    """(the model of a checkpoint, notes); where none is there, the model of the gin files that its folder is
    named after.

    Raises:
        InputError: neither.
    """
    if checkpoints.exists(folder):
        about = checkpoints.about(folder)
        model = from_record(about["model"])
        return (
            restored_method(about["method"]).merged_model(model) if about["kind"] == "tuned" else model
        ), []
    name = Path(folder).name
    try:
        model = named_model(name, 1)
    except InputError as error:
        raise InputError(
            f"FinetuneRun.base = {str(folder)!r} holds no checkpoint, and its name is that of no model "
            f"to plan with instead: {error}"
        ) from error
    if model.vocabulary_size == 1:
        model = dataclasses.replace(model, vocabulary_size=vocabulary_size)
    return model, [f"base {folder}: not there; its model is taken to be {name!r} of the gin files"]
