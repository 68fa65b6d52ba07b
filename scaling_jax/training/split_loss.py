"""Loss of a finished model, from memory or from a checkpoint, on a split of a store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_jax.data.objectives import objective as objectives
from scaling_jax.training import data_sets
from scaling_jax.training.bases import load_checkpoint
from scaling_jax.training.evaluate import mean_loss
from scaling_jax.training.mesh import Layout
from scaling_jax.training.program import Program


def split_loss(
    program: Program,
    tuned: Any,
    base: Any,
    about: Mapping[str, Any],
    store_path: str,
    split: str,
    examples: int | None = None,
    rows: int = 64,
) -> tuple[float, int]:
    """(mean nats per target token, examples) on a split.

    Args:
        program: runs the model.
        tuned: what was trained.
        base: what was frozen.
        about: what a checkpoint says of itself: `start_id` begins what the model reads, `objective` is that
            of its pretraining, for a store of windows.
        store_path: a token store of the model's vocabulary.
        split: its name.
        examples: the first so many; None takes all.
        rows: examples per batch.

    Raises:
        InputError: no such split, fewer than one example, or see `data_sets.sequences_at`.
    """
    of_split = len(data_sets.split_at(store_path, split))
    of_windows = "inputs" not in data_sets.store_at(store_path).manifest["feature_lengths"]
    objective = objectives.restored(about["objective"]) if of_windows and about.get("objective") else None
    sequences = data_sets.sequences_at(store_path, program.model, about.get("start_id"), objective)
    batches = data_sets.evaluation_at(store_path, split, examples, rows, sequences)
    return mean_loss(program, tuned, base, batches), min(examples or of_split, of_split)


def evaluate_checkpoint(
    checkpoint: Path, store_path: str, split: str, examples: int | None, rows: int, base: Path | None = None
) -> tuple[float, int]:
    """(mean nats per target token, examples) of a pretrained or tuned checkpoint on a split.

    Args:
        checkpoint: folder written by `pretrain` or `finetune`.
        store_path: a token store of the checkpoint's vocabulary.
        split: name of the split.
        examples: the first so many; None takes all.
        rows: examples per batch.
        base: where a tuned checkpoint's base is, if not where it was.

    Raises:
        InputError: no checkpoint, another vocabulary, or a base with another hash than was tuned.
    """
    program, tuned, frozen, about = load_checkpoint(checkpoint, Layout(), base)
    data_sets.check_vocabulary(data_sets.store_at(store_path), checkpoint, about)
    return split_loss(program, tuned, frozen, about, store_path, split, examples, rows)
