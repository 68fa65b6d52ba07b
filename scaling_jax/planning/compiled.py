"""Steps compiled ahead of time, and what the compiler says of them."""

import dataclasses
import re
import time

import jax

from scaling_jax.planning.chips import GIB, Chip
from scaling_jax.planning.collectives import Collective, collectives
from scaling_jax.planning.memory import Memory, held
from scaling_jax.planning.topologies import Hardware, quiet
from scaling_jax.planning.workload import Workload, abstract_batches, lowered
from scaling_jax.training.evaluate import BATCHES_PER_CALL
from scaling_jax.training.program import Program

# "... required for HLO temporaries (28.45G) exceeds available HBM (15.75G)", or "Used 28.45G of 15.75G hbm".
_NEEDED = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available|Used ([\d.]+)([KMGT]?) of")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Step:
    """What is known of one step.

    Attributes:
        name: train, evaluate or decode.
        status: "compiled"; "too large" where the compiler refused it for its memory.
        memory: by kind; None where it was refused.
        needed: bytes of one device that it needs.
        collectives: of one step or batch by kind; None where the compiler gives no text.
        note: why something is not known.
        seconds: that lowering and compiling took.
        kernels: custom calls in the program by their target, such as a kernel of Pallas; None as above.
    """

    name: str
    status: str
    memory: Memory | None
    needed: int
    collectives: tuple[Collective, ...] | None
    note: str
    seconds: float
    kernels: dict[str, int] | None = None

    def link_seconds(self, chip: Chip) -> float | None:
        """The least time that the collectives take: their bytes at the full speed of the chip's links."""
        if self.collectives is None or not chip.link_bytes:
            return None
        return sum(one.bytes for one in self.collectives) / chip.link_bytes


def compiled_step(workload: Workload, hardware: Hardware, name: str) -> Step:
    """Compiles one of a workload's steps for the hardware.

    Raises:
        InputError: the mesh does not divide the devices, the rows or the model.
    """
    began = time.perf_counter()
    low = lowered(workload, hardware, name)
    try:
        with quiet():
            program = low.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        seconds = time.perf_counter() - began
        return Step(name, "too large", None, needed, None, _first_line(str(error)), seconds)
    memory = _memory(workload, workload.on(hardware), name, program.memory_analysis())
    # Memory first: the text of a program that compiled may still be refused (libtpu 0.0.51, some of v5p).
    found, kernels, note = None, None, ""
    try:
        with quiet():
            text = program.as_text()
        found, kernels = tuple(collectives(text, _repeated(workload, name))), _kernels(text)
    except jax.errors.JaxRuntimeError as error:
        note = (
            f"collectives unavailable: the compiler gives no text of this program ({_first_line(str(error))})"
        )
    return Step(name, "compiled", memory, memory.total, found, note, time.perf_counter() - began, kernels)


def _repeated(workload: Workload, name: str) -> int:
    """Steps or batches that one call of the program takes."""
    return {"train": workload.steps_per_call, "evaluate": BATCHES_PER_CALL}.get(name, 1)


def _memory(workload: Workload, program: Program, name: str, analysis: object) -> Memory:
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    arguments, temporaries = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    code = analysis.generated_code_size_in_bytes
    total = int(arguments + outputs + temporaries + code)
    if name == "train":
        batches = abstract_batches(workload, workload.steps_per_call, workload.rows)
        given = held(workload, program, batches)
        return dataclasses.replace(
            given, temporaries=int(temporaries), outputs=int(outputs), code=int(code), total=total
        )
    given = held(workload, program, abstract_batches(workload, 1, workload.rows))
    batch = max(0, arguments - given.trained - given.frozen)
    return Memory(
        given.trained, given.frozen, 0, int(batch), int(temporaries), int(outputs), int(code), total
    )


def _kernels(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for target in re.findall(r'custom_call_target="([^"]+)"', text):
        found[target] = found.get(target, 0) + 1
    return found


def _needed(message: str) -> int | None:
    """Bytes that a refused program needs; None where it was refused for something else."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = _NEEDED.search(message)
    if not found:
        return None
    amount, unit = [group for group in found.groups() if group is not None][:2]
    return int(float(amount) * _UNITS[unit])


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0][:300]
