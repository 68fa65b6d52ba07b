"""`task_store`: one store that `prepare.stores` asks for; each has its own gin scope."""

import dataclasses
from collections.abc import Mapping

import gin

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from scaling_jax.tasks.registry import DOCUMENTS, TextSource, TextTask


@dataclasses.dataclass(frozen=True)
class StoreRequest:
    """One store to be made: its sub-folder, its task and text, and the shape of its examples.

    `feature_lengths` are the greatest lengths in tokens. Pretraining text has `window` set instead:
    all documents end to end, each followed by EOS, cut into windows of exactly that many tokens.
    """

    name: str
    task: TextTask
    source: TextSource
    feature_lengths: Mapping[str, int]
    window: int | None


@gin.configurable(module="tasks")
def task_store(
    name: str | None = None,
    task: str | None = None,
    window: int | None = None,
    feature_lengths: Mapping[str, int] | None = None,
) -> StoreRequest:
    """One store of `prepare.stores`; give each its own gin scope.

    Args:
        name: sub-folder of the output folder; the task's name where None.
        task: registered task.
        window: tokens of a pretraining window.
        feature_lengths: for tasks with inputs and targets, the greatest length of each in tokens;
            longer ones are cut (targets still end in EOS) and counted.

    Raises:
        InputError: no such task, or lengths that do not fit its features.
    """
    scope = f"{gin.current_scope_str()}/" if gin.current_scope_str() else ""
    if not task:
        raise InputError(f"{scope}task_store.task is not set; tasks: {', '.join(registry.all_tasks())}")
    found = registry.find(task)
    if found.features == DOCUMENTS:
        if not isinstance(window, int) or window < 2 or feature_lengths:
            raise InputError(
                f"{scope}task_store: {task} is pretraining text, bind window (2 tokens or more) alone"
            )
        lengths = {"targets": window}
    else:
        lengths = dict(feature_lengths or {})
        if window or set(lengths) != set(found.features) or min(lengths.values()) < 2:
            wanted = {feature: 128 for feature in found.features}
            raise InputError(
                f"{scope}task_store: {task} needs feature_lengths such as {wanted}, and no window"
            )
    return StoreRequest(name or task, found, found.call(), lengths, window)
