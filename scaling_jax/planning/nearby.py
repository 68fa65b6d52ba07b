"""Other meshes, remat policies and microbatches for the same runs, those that change least first."""

import dataclasses
from collections.abc import Iterable, Iterator

from scaling_jax.errors import InputError
from scaling_jax.models.attention import LANES
from scaling_jax.models.config import ModelConfig
from scaling_jax.planning.memory import estimated
from scaling_jax.planning.topologies import Hardware
from scaling_jax.planning.workload import Workload, parts
from scaling_jax.training.mesh import Layout

TENSORS = (1, 2, 4, 8, 16, 32)
MICROBATCHES = (2, 4, 8, 16)
# Of the memory that a device has, the share that an estimate may take; estimates are not exact.
ROOM = 0.9


def undivided(model: ModelConfig, tensor: int) -> str:
    """What of heads, feed-forward and vocabulary so many devices do not share evenly; "" is nothing."""
    sides = {
        "heads": model.heads,
        "columns of the feed-forward": model.feed_forward_dim,
        "pieces of the vocabulary": model.vocabulary_size,
    }
    return next((f"{side:,} {name}" for name, side in sides.items() if side % tensor), "")


def layouts(workload: Workload, count: int) -> Iterator[Layout]:
    """Meshes of so many devices that divide rows, heads and widths.

    Parameters go over as many devices as leave each whole lanes, and over as many as can be.
    """
    for tensor in TENSORS:
        split = count // tensor
        if count % tensor or undivided(workload.model, tensor) or workload.rows % split:
            continue
        for fsdp in _shares(workload.model.model_dim, split):
            yield dataclasses.replace(workload.layout, data=split // fsdp, fsdp=fsdp, tensor=tensor)


def _shares(model_dim: int, split: int) -> list[int]:
    """Over how many of so many devices parameters may go: with whole lanes, and as many as can be."""
    dividing = [fsdp for fsdp in _counts(split) if model_dim % fsdp == 0]
    whole = [fsdp for fsdp in dividing if not _narrow(model_dim, fsdp)]
    return list(dict.fromkeys([*whole[:1], *dividing[:1]]))


def _narrow(model_dim: int, fsdp: int) -> bool:
    """Whether a device has less of the model's width than a TPU's tile.

    Of such shards XLA writes all-reduces in place of gathers, and a program twice as long (docs/planning.md).
    """
    return fsdp > 1 and model_dim // fsdp < LANES


def chosen(workload: Workload, hardware: Hardware) -> tuple[Workload, Hardware]:
    """The mesh to take where none is asked for, and the part of the hardware that it needs.

    Rows split a batch first: the most devices whose number divides it, each with whole heads, and with whole
    lanes of the parameters. Where that is estimated not to fit, parameters are split further, and then heads,
    feed-forward and vocabulary too.

    Raises:
        InputError: no mesh divides rows and model.
    """
    best: dict[tuple, tuple[Layout, int]] = {}
    for count in _counts(hardware.count):
        for layout in layouts(workload, count):
            narrow = _narrow(workload.model.model_dim, layout.fsdp)
            best.setdefault((layout.tensor, narrow), (layout, count))
    tried = []
    for _, (layout, count) in sorted(best.items(), key=lambda one: one[0]):
        try:
            part = hardware.part(count)
        except InputError:
            continue
        laid = on_layout(workload, layout, part)
        total = estimated(laid, part).total
        if hardware.memory_bytes is None or total <= ROOM * hardware.memory_bytes:
            return laid, part
        tried.append((total, laid, part))
    if not tried:
        raise InputError(
            f"{workload.name}: no mesh of {hardware.name} divides its {workload.rows} rows and the heads, "
            "widths and vocabulary of its model: take another batch size"
        )
    _, laid, part = min(tried, key=lambda one: one[0])
    return laid, part


def on_layout(workload: Workload, layout: Layout, hardware: Hardware) -> Workload:
    """The same runs on another mesh; batches of evaluations become as large as it needs."""
    laid = dataclasses.replace(workload, layout=layout)
    split = parts(laid, hardware)
    rows = -(-workload.evaluation_rows // split) * split
    return dataclasses.replace(laid, evaluation_rows=rows)


@dataclasses.dataclass(frozen=True)
class Change:
    """Another way to make the same runs: what is changed in words, and the bytes it is estimated to need."""

    words: str
    workload: Workload
    estimate: int


def changes(workload: Workload, hardware: Hardware) -> list[Change]:
    """What may fit instead on the same devices, what changes least first; estimated to fit before not."""
    found = []
    for layout in _other_layouts(workload, hardware):
        for remat in dict.fromkeys((workload.model.remat, "full")):
            for microbatches in _microbatches(workload, layout, hardware):
                if (layout, remat, microbatches) == (
                    workload.layout,
                    workload.model.remat,
                    workload.microbatches,
                ):
                    continue
                model = dataclasses.replace(workload.model, remat=remat)
                other = on_layout(workload, layout, hardware)
                other = dataclasses.replace(other, model=model, microbatches=microbatches)
                try:
                    estimate = estimated(other, hardware).total
                except InputError:
                    continue
                found.append(Change(_words(workload, other), other, estimate))
    room = hardware.memory_bytes * ROOM if hardware.memory_bytes else float("inf")

    def order(change: Change) -> tuple:
        other = change.workload
        fits = change.estimate <= room
        return (
            not fits,
            0 if fits else change.estimate,
            other.model.remat != workload.model.remat,  # computes a third more
            other.layout != workload.layout,
            other.microbatches,
            other.layout.tensor,
        )

    return sorted(found, key=order)


def _other_layouts(workload: Workload, hardware: Hardware) -> Iterable[Layout]:
    return dict.fromkeys((workload.layout, *layouts(workload, hardware.count)))


def _microbatches(workload: Workload, layout: Layout, hardware: Hardware) -> list[int]:
    split = parts(dataclasses.replace(workload, layout=layout), hardware)
    own = workload.rows // split
    return [
        count
        for count in dict.fromkeys((workload.microbatches, *MICROBATCHES))
        if count >= workload.microbatches and own and own % count == 0
    ]


def _words(before: Workload, after: Workload) -> str:
    changed = []
    if after.layout != before.layout:
        layout = after.layout
        changed.append(f"Layout data {layout.data or 'rest'} x fsdp {layout.fsdp} x tensor {layout.tensor}")
    if after.model.remat != before.model.remat:
        changed.append(f"remat = {after.model.remat!r}")
    if after.microbatches != before.microbatches:
        changed.append(f"microbatches = {after.microbatches}")
    return ", ".join(changed)


def _counts(count: int) -> Iterator[int]:
    while True:
        yield count
        if count % 2:
            return
        count //= 2
