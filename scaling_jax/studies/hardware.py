"""A study's jobs as workloads to plan on hardware: one for each program, with all runs that use it."""

from pathlib import Path

from scaling_jax.planning.runs import finetuning, pretraining
from scaling_jax.planning.stores import Sizes
from scaling_jax.planning.workload import Workload
from scaling_jax.studies.assumptions import sizes_of
from scaling_jax.studies.bases import missing_bases
from scaling_jax.studies.grid import Point
from scaling_jax.studies.jobs import Models
from scaling_jax.studies.plan import Study, recipe


def study_workloads(study: Study, folder: Path) -> tuple[list[Workload], list[str]]:
    """(workloads, what was assumed) of all pretraining and finetuning runs of a study.

    Args:
        study: from gin.
        folder: where its stores would be.

    Raises:
        InputError: the configuration cannot be run.
    """
    sizes = sizes_of(study, folder)
    models = Models(sizes.vocabulary)
    points = study.points()
    notes = [*sizes.notes, *missing_bases(study.bases())]
    return [*_pretraining(study, points, models, sizes), *_finetuning(study, points, models, sizes)], notes


def _pretraining(study: Study, points: list[Point], models: Models, sizes: Sizes) -> list[Workload]:
    levels: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if not point.base and point.pretrain_tokens:
            levels.setdefault((point.model, point.mixture), []).append(point)
    found = []
    for (model, mixture), own in levels.items():
        settings = recipe(mixture)
        window = sizes.windows.get(study.recipes()[mixture][0], 0)
        tokens = max(point.pretrain_tokens for point in own)
        name = f"pretraining of {model}{f' on {mixture}' if mixture else ''}"
        found.append(pretraining(models.of(own[0]), settings, window, tokens, name))
    return found


def _finetuning(study: Study, points: list[Point], models: Models, sizes: Sizes) -> list[Workload]:
    groups: dict[tuple, list[Point]] = {}
    for point in points:
        key = (point.store, point.method, point.tuning_size, point.model, point.base)
        groups.setdefault(key, []).append(point)
    decoding = study.evaluations[0].decoding if study.evaluations else None
    several = len({point.store for point in points}) > 1
    return [
        finetuning(
            models.of(own[0]),
            method,
            size,
            sizes.examples[store],
            [point.finetune_examples for point in own],
            decoding,
            f"{method}{'' if size is None else f' of {size}'} of {model}{f' on {store}' if several else ''}",
        )
        for (store, method, size, model, _), own in groups.items()
    ]
