"""Tasks in words: what `prepare --show` prints, and the table of docs/tasks.md."""

import itertools
import re
from collections.abc import Iterable, Iterator

from scaling_jax.tasks.registry import DOCUMENTS, TextSource, TextTask


def description(task: TextTask) -> Iterator[str]:
    """Lines about a task that need no data."""
    features = ", ".join((*task.features, *task.columns))
    facts = {
        "task": f"{task.versioned_name} ({'pretraining' if task.features == DOCUMENTS else 'finetuning'})",
        "what": task.summary,
        "source": task.data.source,
        "get it": task.data.get,
        "splits": task.data.splits,
        "features": features,
        "prompt": task.data.prompt.replace("\n", "\\n"),
        "targets": task.data.targets,
        "scores": ", ".join(task.scores),
    }
    for name, value in facts.items():
        if value:
            yield f"{name:9s} {value}"


def found(source: TextSource) -> Iterator[str]:
    """Lines about the text that is there."""
    counts = (
        f"{split} ({source.examples[split]:,})" if split in source.examples else split
        for split in source.splits
    )
    yield f"{'found':9s} {', '.join(counts)}"
    for split, groups in source.groups.items():
        yield f"{'':9s} {split}: {', '.join(f'{name} {count:,}' for name, count in groups.items())}"
    for note in source.notes:
        yield f"{'note':9s} {note}"


def examples(task: TextTask, source: TextSource, count: int) -> Iterator[str]:
    """The first examples of the first split, a line for each feature, a blank line before each example."""
    block = next(next(iter(source.splits.values()))())
    names = (*task.features, *task.columns)
    for row in itertools.islice(zip(*(block[name] for name in names), strict=True), count):
        yield ""
        for name, text in zip(names, row, strict=True):
            yield f"{name:9s} {text}"


def markdown(tasks: Iterable[TextTask]) -> str:
    """All tasks as a table, and below it how to get each published data set and how it is used."""
    tasks = list(tasks)
    lines = ["| task | for | what it is | scores |", "| --- | --- | --- | --- |"]
    for task in tasks:
        purpose = "pretraining" if task.features == DOCUMENTS else "finetuning"
        lines.append(f"| `{task.name}` | {purpose} | {task.summary} | {', '.join(task.scores)} |")
    for task in (task for task in tasks if "https://" in task.data.source):
        lines += ["", f"**`{task.versioned_name}`** {_linked(task.data.source)}", ""]
        lines.append(f"* splits: {task.data.splits}")
        if task.data.prompt:
            lines.append(f"* inputs: `{task.data.prompt}`".replace("\n", "\\n"))
        if task.data.targets:
            lines.append(f"* targets: {task.data.targets}")
        lines.append(f"* to get it: {_linked(task.data.get)}")
    return "\n".join(lines) + "\n"


def _linked(text: str) -> str:
    """Text with its addresses as links."""
    return re.sub(r"https://[^\s,;()]*[^\s,;().]", r"<\g<0>>", text)
