"""A plan as text for a terminal."""

from collections.abc import Sequence

from scaling_jax.planning import cost as costs
from scaling_jax.planning.chips import GIB
from scaling_jax.planning.compiled import Step
from scaling_jax.planning.memory import ESTIMATE, FORMULA, Memory
from scaling_jax.planning.plan import Options, Planned, totals
from scaling_jax.planning.topologies import Hardware

_KINDS = ("trained", "frozen", "optimizer", "batch", "temporaries", "outputs", "code")
_NAMES = {
    "trained": "parameters trained",
    "frozen": "frozen",
    "optimizer": "optimizer",
    "batch": "batch",
    "temporaries": "activations and temporaries",
    "outputs": "outputs",
    "code": "program",
}


def described(planned: Sequence[Planned], hardware: Hardware, options: Options, notes: Sequence[str]) -> str:
    """The plan in lines."""
    memory = "memory not known" if hardware.memory_bytes is None else f"{gib(hardware.memory_bytes)} each"
    peak = options.peak or hardware.chip.peak_flops
    speed = f"{peak / 1e12:g} TFLOP/s peak" if peak else "peak not known, so no times (--peak_tflops)"
    lines = [f"{hardware.name}: {hardware.count} devices {hardware.chip.kind}, {memory}, {speed}"]
    lines += [f"assumed: {note}" for note in notes]
    for one in planned:
        lines += ["", *_workload(one)]
    lines += ["", *_totals(planned, options)]
    if any(one.steps for one in planned):
        lines.append(f"memory: {FORMULA}")
    if any(not one.steps for one in planned):
        lines.append(f"estimated: not compiled; activations are {ESTIMATE}")
    if peak:
        lines.append(f"{costs.FORMULA}; efficiency {options.efficiency:g}")
    return "\n".join(lines)


def _workload(one: Planned) -> list[str]:
    workload, cost = one.workload, one.cost
    mesh = " x ".join(f"{axis} {size}" for axis, size in workload.on(one.hardware).mesh.shape.items())
    told = f", {one.at_once} runs at a time" if one.at_once > 1 else ""
    lengths = workload.lengths
    tokens = f"{lengths.inputs} + {lengths.targets}" if workload.model.encoder_layers else f"{lengths.both:,}"
    lines = [
        f"{workload.name}: {one.hardware.name}, {one.hardware.count} devices as {mesh}{told}",
        f"  {workload.rows:,} rows of {tokens} tokens a step, remat {workload.model.remat!r}, "
        f"microbatches {workload.microbatches}",
    ]
    if not one.steps:
        lines.append(f"  estimated: {_memory(one.estimate)}")
    for step in one.steps:
        lines += _step(step, one.hardware)
    lines += _verdict(one)
    told = f"  {cost.flops_per_step:.3g} FLOPs and {cost.tokens_per_step:,.0f} tokens a step"
    if cost.step_seconds is not None:
        told += (
            f", {seconds(cost.step_seconds)}; {len(workload.steps):,} runs, {cost.steps:,} steps, "
            f"{cost.hours:,.3g} hours, {cost.chip_hours:,.4g} chip-hours"
        )
    return [*lines, told]


def _step(step: Step, hardware: Hardware) -> list[str]:
    if step.memory is None:
        return [f"  {step.name}: the compiler refuses it: needs {gib(step.needed)} ({step.note})"]
    lines = [f"  {step.name}: {_memory(step.memory)} ({step.seconds:.0f} s to compile)"]
    if step.collectives is None:
        lines.append(f"    {step.note}")
    elif step.collectives:
        told = ", ".join(f"{one.kind} {one.count:,} times {gib(one.bytes)}" for one in step.collectives)
        least = step.link_seconds(hardware.chip)
        told += "" if least is None else f"; {seconds(least)} at the full speed of the links"
        lines.append(f"    collectives: {told}")
    return lines


def _memory(memory: Memory) -> str:
    parts = [
        f"{_NAMES[kind]} {gib(getattr(memory, kind))}" for kind in _KINDS if getattr(memory, kind) >= 2**20
    ]
    return f"{gib(memory.total)} a device: {', '.join(parts)}"


def _verdict(one: Planned) -> list[str]:
    if one.margin is None:
        return []
    word = "estimated to fit" if not one.steps else "fits"
    if one.fits:
        return [f"  {word}, {gib(one.margin)} left"]
    lines = [f"  does not fit: {gib(-one.margin)} too much" if one.margin < 0 else "  does not fit"]
    for tried in one.tried:
        limit = one.hardware.memory_bytes
        fits = tried.step.status == "compiled" and (limit is None or tried.step.needed <= limit)
        told = (
            f"fits with {gib(limit - tried.step.needed)} left" if fits else f"needs {gib(tried.step.needed)}"
        )
        lines.append(f"    with {tried.change.words}: {told}")
    if one.steps and not one.tried:
        lines.append("    nothing else was tried")
    return lines


def _totals(planned: Sequence[Planned], options: Options) -> list[str]:
    lines = []
    for kind, total in totals(planned).items():
        told = f"{kind}: {total['runs']:,} runs, {total['flops']:.3g} FLOPs"
        if total["chip_hours"] is not None:
            told += f", {total['chip_hours']:,.4g} chip-hours at {options.efficiency:.0%} of the peak"
        lines.append(told)
    return lines


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / GIB:.3g} GiB" if abs(size) >= GIB / 10 else f"{size / 2**20:.3g} MiB"


def seconds(count: float) -> str:
    """A time in words."""
    return f"{count:.3g} s" if count >= 1 else f"{count * 1e3:.3g} ms"
