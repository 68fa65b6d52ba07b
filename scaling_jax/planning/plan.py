"""A plan: every workload on its mesh, its steps compiled or estimated, what it costs, and what would fit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.planning import nearby
from scaling_jax.planning.compiled import Step, compiled_step
from scaling_jax.planning.cost import EFFICIENCY, Cost, cost
from scaling_jax.planning.memory import Memory, estimated
from scaling_jax.planning.nearby import Change
from scaling_jax.planning.topologies import Hardware
from scaling_jax.planning.workload import STEPS, Workload


@dataclasses.dataclass(frozen=True)
class Options:
    """How a plan is made.

    Attributes:
        mesh: "gin" takes the Layout that is bound, "auto" chooses one for each workload.
        steps: which of `STEPS` are compiled.
        compiled: whose steps: those of the "largest" workload by estimated memory, of "all", of "none".
        efficiency: share of the peak that training is taken to reach.
        peak: FLOP/s of a device; None is what is known of it.
        tries: how many changes are compiled where a training step does not fit.
    """

    mesh: str = "gin"
    steps: Sequence[str] = STEPS
    compiled: str = "largest"
    efficiency: float = EFFICIENCY
    peak: float | None = None
    tries: int = 3

    def __post_init__(self):
        if unknown := set(self.steps) - set(STEPS):
            raise InputError(f"--steps {','.join(sorted(unknown))}: of {', '.join(STEPS)}")
        if not 0 < self.efficiency <= 1:
            raise InputError(f"--mfu {self.efficiency:g}: a share of the peak, above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class Tried:
    """A change that was compiled: its training step."""

    change: Change
    step: Step


@dataclasses.dataclass(frozen=True)
class Planned:
    """A workload on its devices.

    Attributes:
        workload: with the mesh that it was planned on.
        hardware: the devices of one run.
        at_once: how many such runs the whole topology makes at the same time.
        estimate: memory of the training step by formula.
        steps: what was compiled.
        cost: of training.
        tried: changes that were compiled since it does not fit, in order; the last may.
    """

    workload: Workload
    hardware: Hardware
    at_once: int
    estimate: Memory
    steps: tuple[Step, ...]
    cost: Cost
    tried: tuple[Tried, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that the largest compiled step needs on a device; the estimate where none is."""
        return max((step.needed for step in self.steps), default=self.estimate.total)

    @property
    def margin(self) -> int | None:
        """What is left of a device's memory, negative where it is too little; None is not known."""
        limit = self.hardware.memory_bytes
        return None if limit is None else limit - self.needed

    @property
    def fits(self) -> bool:
        """Whether it does, as far as is known; what the compiler refused does not."""
        refused = any(step.status != "compiled" for step in self.steps)
        return not refused and (self.margin is None or self.margin >= 0)


def make_plan(
    workloads: Sequence[Workload],
    hardware: Hardware,
    options: Options,
    say: Callable[[str], None] = lambda line: None,
) -> list[Planned]:
    """Plans every workload; compiles what the options say.

    Raises:
        InputError: a mesh that does not divide devices, rows or model.
    """
    placed = [_placed(workload, hardware, options) for workload in workloads]
    estimates = [_estimated(workload, part) for workload, part in placed]
    largest = max(range(len(placed)), key=lambda index: estimates[index].total, default=None)
    planned = []
    for index, ((workload, part), estimate) in enumerate(zip(placed, estimates, strict=True)):
        wanted = options.compiled == "all" or (options.compiled == "largest" and index == largest)
        steps = []
        for name in workload.step_kinds if wanted else ():
            if name in options.steps:
                say(f"compiling {name} of {workload.name} for {part.name}")
                steps.append(compiled_step(workload, part, name))
        peak = options.peak or part.chip.peak_flops
        one = Planned(
            workload,
            part,
            max(1, hardware.count // part.count),
            estimate,
            tuple(steps),
            cost(workload, part, options.efficiency, peak),
        )
        train = next((step for step in steps if step.name == "train"), None)
        if train is not None and not _within(train, part):
            one = dataclasses.replace(one, tried=_tried(workload, part, options.tries, say))
        planned.append(one)
    return planned


def _placed(workload: Workload, hardware: Hardware, options: Options) -> tuple[Workload, Hardware]:
    if options.mesh == "auto":
        return nearby.chosen(workload, hardware)
    return workload, hardware


def _estimated(workload: Workload, hardware: Hardware) -> Memory:
    try:
        if wrong := nearby.undivided(workload.model, workload.layout.tensor):
            raise InputError(f"Layout.tensor = {workload.layout.tensor} does not divide its {wrong}")
        workload.on(hardware).check_rows(workload.rows)
        return estimated(workload, hardware)
    except InputError as error:
        meshes = [
            f"fsdp {layout.fsdp} x tensor {layout.tensor}"
            for layout in nearby.layouts(workload, hardware.count)
        ]
        known = f"; what divides: {', '.join(meshes)}" if meshes else "; no mesh of all its devices does"
        raise InputError(
            f"{workload.name} on {hardware.name}: {error}{known} (--mesh auto chooses one)"
        ) from error


def _within(step: Step, hardware: Hardware) -> bool:
    limit = hardware.memory_bytes
    return step.status == "compiled" and (limit is None or step.needed <= limit)


def _tried(
    workload: Workload, hardware: Hardware, tries: int, say: Callable[[str], None]
) -> tuple[Tried, ...]:
    """Compiles changes in their order until one fits."""
    tried: list[Tried] = []
    for change in nearby.changes(workload, hardware)[:tries]:
        say(f"compiling train with {change.words}")
        try:
            tried.append(Tried(change, compiled_step(change.workload, hardware, "train")))
        except InputError:
            continue
        if _within(tried[-1].step, hardware):
            break
    return tuple(tried)


def as_record(
    planned: Sequence[Planned], hardware: Hardware, options: Options, notes: Sequence[str]
) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "topology": hardware.name,
        "devices": hardware.count,
        "device": hardware.chip.kind,
        "memory_bytes": hardware.memory_bytes,
        "peak_flops": options.peak or hardware.chip.peak_flops,
        "efficiency": options.efficiency,
        "assumed": list(notes),
        "workloads": [_workload_record(one) for one in planned],
        "totals": totals(planned),
    }


def totals(planned: Sequence[Planned]) -> dict[str, dict[str, Any]]:
    """Runs, FLOPs and chip-hours of each kind."""
    found = {}
    for kind in dict.fromkeys(one.workload.kind for one in planned):
        own = [one for one in planned if one.workload.kind == kind]
        hours = [one.cost.chip_hours for one in own]
        found[kind] = {
            "runs": sum(len(one.workload.steps) for one in own),
            "flops": sum(one.cost.flops_per_step * one.cost.steps for one in own),
            "chip_hours": None if None in hours else sum(hours),
        }
    return found


def _workload_record(one: Planned) -> dict[str, Any]:
    workload, layout = one.workload, one.workload.layout
    shape = dict(workload.on(one.hardware).mesh.shape)
    return {
        "name": workload.name,
        "kind": workload.kind,
        "model": workload.model.name,
        "topology": one.hardware.name,
        "devices": one.hardware.count,
        "at_once": one.at_once,
        "mesh": {axis: int(count) for axis, count in shape.items()},
        "data": layout.data,
        "remat": workload.model.remat,
        "microbatches": workload.microbatches,
        "rows": workload.rows,
        "lengths": list(workload.lengths),
        "runs": len(workload.steps),
        "estimate": dataclasses.asdict(one.estimate),
        "steps": [_step_record(step, one.hardware) for step in one.steps],
        "needed_bytes": one.needed,
        "margin_bytes": one.margin,
        "fits": one.fits,
        "cost": dataclasses.asdict(one.cost),
        "tried": [
            {"change": tried.change.words, **_step_record(tried.step, one.hardware)} for tried in one.tried
        ],
    }


def _step_record(step: Step, hardware: Hardware) -> dict[str, Any]:
    record = dataclasses.asdict(step) | {"link_seconds": step.link_seconds(hardware.chip)}
    if step.collectives is not None:
        record["collectives"] = [one._asdict() for one in step.collectives]
    return record
