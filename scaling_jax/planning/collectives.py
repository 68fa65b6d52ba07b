"""Collectives of a compiled program, read off its text: how often each kind runs in a step, and its bytes.

Loops count: what stands in a loop's body is multiplied by its number of rounds, which is in the text as
`known_trip_count` or as the constant that the loop's condition compares its counter with. Bytes are those
of the result on one device: what an all-gather has gathered, what an all-reduce has added up. XLA chooses
the kinds: on TPU a gather may appear as an all-reduce, and a reduce-scatter never does.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "token": 0}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
# Not every line that begins so: the configuration of a kernel goes over several lines.
_END = re.compile(r"^\}(, execution_thread=.*)?\s*$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
# Roles of computations that run by themselves; the others are parts of an operation of their caller's.
_OWN = ("body", "condition", "branch_computations")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_CONSTANT = re.compile(r"%?([\w.\-]+) = s\d+\[\][^=]* constant\((\d+)\)")
_COMPARE = re.compile(r"compare\(([^)]*)\), direction=LT")
_TRIPS = re.compile(r'known_trip_count[":{ n]+(\d+)')


class Collective(NamedTuple):
    """All collectives of one kind in one step of a program, on one device."""

    kind: str
    count: int
    bytes: int


def collectives(text: str, steps: int = 1) -> list[Collective]:
    """The collectives of a program's text, by kind; the largest first.

    Args:
        text: of a compiled program.
        steps: that one run of it takes; counts and bytes are those of one step, rounded up.
    """
    bodies = _computations(text)
    times, homes = _times(bodies, _entry(text))
    found = list(_all(bodies))
    begun = {(kind, channel) for name, _, kind, _, channel in found if _begins(bodies[name])}
    seen: dict[tuple, tuple[str, int, int]] = {}
    for name, shape, kind, start, channel in found:
        # One that goes on beside other work stands in the text of every operation, and every loop, there.
        fused = homes.get(name) != name
        if fused and (kind, channel) in begun and not _begins(bodies[name]):
            continue
        # A fused one stands in the text of its start and of its end, under one channel. What XLA has
        # taken out of a loop keeps the channel too, and counts beside the rest.
        key = (kind, channel, homes.get(name)) if channel else (name, len(seen))
        entry = (kind, times.get(name, 1), _size(shape, start))
        seen[key] = max(seen.get(key, entry), entry)
    totals: dict[str, list[int]] = {}
    for kind, count, size in seen.values():
        total = totals.setdefault(kind, [0, 0])
        total[0] += count
        total[1] += count * size
    return sorted(
        (Collective(kind, -(-count // steps), -(-size // steps)) for kind, (count, size) in totals.items()),
        key=lambda one: -one.bytes,
    )


def _all(bodies: dict[str, list[str]]) -> Iterator[tuple[str, str, str, bool, str]]:
    """(computation, shape, kind, whether its start alone, channel or "") of every collective in the text."""
    for name, lines in bodies.items():
        for line in lines:
            if found := _COLLECTIVE.search(line):
                channel = re.search(r"channel_id=(\d+)", line)
                yield name, found[1], found[2], bool(found[3]), channel[1] if channel else ""


def _begins(lines: list[str]) -> bool:
    """Whether a fused computation is where a collective begins that goes on beside other work."""
    return any("AsyncCollectiveStart" in line for line in lines)


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of every computation by its name."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            lines = bodies.setdefault(begins.group(1), [])
        elif _END.match(line):
            lines = []
        else:
            lines.append(line)
    return bodies


def _entry(text: str) -> str:
    found = re.search(r"^ENTRY %?([\w.\-]+) ", text, re.MULTILINE)
    return found.group(1) if found else ""


def _times(bodies: dict[str, list[str]], entry: str) -> tuple[dict[str, int], dict[str, str]]:
    """How often each computation runs (one that nothing is known of: once), and the loop's body, branch or
    entry that it is a part of."""
    times: dict[str, int] = {}
    homes: dict[str, str] = {}

    def visit(name: str, count: int, home: str) -> None:
        if times.get(name, 0) >= count:
            return
        times[name], homes[name] = count, home
        for line in bodies.get(name, ()):
            for role, called in _CALLED.findall(line):
                rounds = _rounds(line, bodies) if role in ("body", "condition") else 1
                for other in re.findall(r"[\w.\-]+", called):
                    visit(other, count * rounds, other if role in _OWN else home)

    visit(entry, 1, entry)
    return times, homes


def _rounds(line: str, bodies: dict[str, list[str]]) -> int:
    """Rounds of the loop on a line; 1 where they are not constant."""
    if told := _TRIPS.search(line):
        return int(told.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition.group(1), []) if condition else []
    constants = dict(_CONSTANT.findall("\n".join(lines)))
    for compared in lines:
        if found := _COMPARE.search(compared):
            for operand in re.findall(r"%?([\w.\-]+)(?:,|$)", found.group(1)):
                if operand in constants:
                    return int(constants[operand])
    return 1


def _size(shape: str, start: bool) -> int:
    """Bytes of a shape in a program's text; of the start of an asynchronous one, of its last array."""
    arrays = _ARRAY.findall(shape)
    sizes = [_bytes(kind) * _elements(sides) for kind, sides in arrays]
    return int(sizes[-1] if start and sizes else sum(sizes))


def _bytes(kind: str) -> float:
    if kind in _BYTES:
        return _BYTES[kind]
    bits = re.search(r"\d+", kind)
    return int(bits.group()) / 8 if bits else 1


def _elements(sides: str) -> int:
    count = 1
    for side in filter(None, sides.split(",")):
        count *= int(side)
    return count
