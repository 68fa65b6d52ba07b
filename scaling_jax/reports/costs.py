"""What each method cost at each model size, as measured by the runs."""

import statistics
from collections.abc import Sequence

from scaling_jax.reports import words
from scaling_jax.reports.blocks import Cell, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key
from scaling_jax.reports.study_data import Run, Study

_HEADER = [
    "Method",
    "Model",
    "Parameters",
    "Tuned",
    "Share",
    "s per run",
    "s per step",
    "Per epoch",
    "Tokens/s",
    "Peak memory",
    "Checkpoint",
]
# Where one program made several runs, what was measured is not that of a run alone, and is not called so.
_TOGETHER_HEADER = [*_HEADER[:2], "Runs at once", *_HEADER[2:]]
_TOGETHER_GROUPS = (("", 6), ("A run's share", 4), ("All at once", 1), ("", 1))


def section(study: Study) -> Section:
    """Medians over the finished runs of a method and model; time is summed over all runs."""
    parts, together = [], _most_at_once(study.done) > 1
    header, groups = (_TOGETHER_HEADER, _TOGETHER_GROUPS) if together else (_HEADER, ())
    for task in study.tasks:
        rows = [
            _row(study, method, runs, [_at_once(runs)] if together else [])
            for method in study.methods(task)
            for runs in _by_model(study, task, method)
        ]
        parts.append(
            Table(
                f"Costs, {task}",
                header,
                rows,
                text=(0, 1),
                groups=groups,
                caption=task if len(study.tasks) > 1 else "",
            )
        )
    total = sum(run.numbers.get("train_seconds", 0.0) for run in study.done)
    device = study.description.get("device")
    parts.append(
        Paragraph(
            f"Medians over the finished runs of a row, measured on {device_text(device)}. All "
            f"{len(study.done)} finetuning runs together trained for {words.seconds(total)}, pretraining not "
            "counted. Tuned: parameters that training changes and an adapter checkpoint stores; share: of "
            "the base model. Per epoch: one pass over the examples of the runs that have the most. Peak "
            "memory: what the compiled training step needs on one device."
            + (_ABOUT_TOGETHER if together else ""),
            quiet=True,
        )
    )
    return Section("costs", "Costs", "What it cost", parts)


_ABOUT_TOGETHER = (
    " Runs at once: how many runs one program made together. A run's seconds are then its share of the "
    "program's, its tokens per second come from that share, and the memory is that of all of them; only rows "
    "with 1 there say what a run alone needs (Study.cohort = 1)."
)


def _most_at_once(runs: Sequence[Run]) -> int:
    return int(max((run.numbers.get("runs_at_once", 1.0) for run in runs), default=1.0))


def _at_once(runs: Sequence[Run]) -> str:
    """One number, or the range of them."""
    counts = [int(run.numbers.get("runs_at_once", 1.0)) for run in runs]
    return f"{max(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def device_text(device) -> str:
    """The device of study.json in words; it may be text or an object."""
    if isinstance(device, dict):
        return ", ".join(f"{key} {value}" for key, value in device.items())
    return str(device) if device else "a device the study did not record"


def _by_model(study: Study, task: str, method: str) -> list[list[Run]]:
    """Finished runs by model and tuning size, smallest first."""
    groups: dict[tuple, list[Run]] = {}
    for run in study.done:
        if (run.task, run.method) == (task, method):
            size = (run["non_embedding_params"], run.model, run.numbers.get("tuning_size", 0.0))
            groups.setdefault(size, []).append(run)
    return [groups[size] for size in sorted(groups)]


def _row(study: Study, method: str, runs: list[Run], at_once: Sequence[str]) -> list:
    tuned, total = _median(runs, "tuning_params"), _median(runs, "model_params")
    share = _percent(tuned / total) if tuned is not None and total else "–"
    if method == "full" and tuned is None:
        tuned, share = total, "100%"
    size = runs[0].numbers.get("tuning_size")
    label = words.method(method) + (f", size {size:.0f}" if size else "")
    return [
        Cell(label, key=colour_key(study, method)),
        runs[0].model,
        *at_once,
        words.count(total),
        words.count(tuned),
        share,
        words.number(_median(runs, "train_seconds")),
        words.number(_median(runs, "step_seconds"), 2),
        _epoch(runs),
        words.count(_median(runs, "tokens_per_second")),
        words.bytes_text(_median(runs, "peak_memory_bytes")),
        words.bytes_text(_median(runs, "checkpoint_bytes")),
    ]


def _epoch(runs: list[Run]) -> str:
    """One pass over the examples: of the runs with the most of them, whose epoch is the longest."""
    most = max(run.numbers.get("finetune_examples", 0.0) for run in runs)
    of_most = [run for run in runs if run.numbers.get("finetune_examples", 0.0) == most]
    return words.seconds(_median(of_most, "epoch_seconds"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def _median(runs: list[Run], column: str) -> float | None:
    values = [run.numbers[column] for run in runs if column in run.numbers]
    return statistics.median(values) if values else None
