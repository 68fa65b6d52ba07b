"""Names and numbers as the report prints them."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping

from scaling_jax.reports.theme import count_text

_COLUMNS = {
    "model_params": "parameters",
    "non_embedding_params": "non\u2011embedding parameters",
    "pretrain_tokens": "pretraining tokens",
    "finetune_examples": "finetuning examples",
    "tuning_size": "tuning size",
    "tuning_params": "tuned parameters",
    "loss": "test loss",
}
_METHODS = {
    "full": "full tuning",
    "lora": "LoRA",
    "prompt": "prompt tuning",
    "bitfit": "BitFit",
    "ia3": "(IA)³",
}
_FACTORS = {"model_size": "model size", "pretraining": "pretraining tokens", "tuning_size": "tuning size"}
LOSS_UNIT = "nats per target token"


def column(name: str) -> str:
    """A results column in words."""
    return _COLUMNS.get(name, name.replace("_", " "))


def method(name: str) -> str:
    """A tuning method in words, a variant as "LoRA, last half"; one we do not know keeps its own name."""
    parent = ablations({name, *_METHODS}).get(name)
    if parent is None:
        return _METHODS.get(name, name)
    return f"{_METHODS[parent]}, {name.removeprefix(parent + '_').replace('_', ' ')}"


def ablations(methods: Collection[str]) -> dict[str, str]:
    """Those of `methods` that are variants of another one among them, by name: `lora_last_half` of `lora`."""
    found = {}
    for name in methods:
        parents = [other for other in methods if name.startswith(f"{other}_")]
        if parents:
            found[name] = min(parents, key=len)
    return found


def factor(name: str) -> str:
    """What a joint law varies beside the data, in words."""
    return _FACTORS.get(name, name.replace("_", " "))


def capital(text: str) -> str:
    """`text` with its first letter raised."""
    return text[:1].upper() + text[1:]


def heading(name: str) -> str:
    """`name` with its first letter raised, unless it has capitals of its own, as chrF has."""
    return capital(name) if name.islower() else name


def several(items, joint: str = "and") -> str:
    """a; a and b; a, b and c."""
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joint} {items[-1]}" if items else ""


def winners(best: Mapping[float, tuple[float, str]], value: Callable[[float], str]) -> str:
    """Who was best at which numbers of examples: `LoRA at 100 examples (2.8) and full tuning from 1k to 4k
    examples (2.1 to 1.9)`.

    Args:
        best: number of examples -> (the best value there, the name of what had it).
        value: writes a value.
    """
    told = []
    for name, group in itertools.groupby(sorted(best), key=lambda examples: best[examples][1]):
        sizes = list(group)
        first, last = (value(best[examples][0]) for examples in (sizes[0], sizes[-1]))
        told.append(
            f"{name} at {count(sizes[0])} examples ({first})"
            if len(sizes) == 1
            else f"{name} from {count(sizes[0])} to {count(sizes[-1])} examples ({first} to {last})"
        )
    return several(told)


def number_of(count: int, noun: str) -> str:
    """1 model; 3 models."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float | None, digits: int = 3) -> str:
    """A measured number with `digits` significant ones; a dash when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    places = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def parameter(value: float | None) -> str:
    """A law's parameter: three decimals below ten, else three significant digits."""
    if value is not None and math.isfinite(value) and (value == 0 or 5e-4 <= abs(value) < 10):
        return f"{value:.3f}"
    return number(value)


def roughly(value: float | None) -> str:
    """A count with two significant digits, for sentences."""
    if value is None or not math.isfinite(value) or value == 0:
        return count(value)
    return count(float(f"{value:.2g}"))


def loss(value: float | None) -> str:
    """A loss with three decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def error(value: float | None) -> str:
    """A deviation between losses with four decimals."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def between(low: float | None, high: float | None, text=number) -> str:
    """An interval as `[low, high]`, empty when a bound is missing; an open end is written as infinity."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    ends = [text(end) if math.isfinite(end) else number(end) for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def count(value: float | None) -> str:
    """A count as people say it; see `theme.count_text`."""
    return "–" if value is None or not math.isfinite(value) else count_text(value)


def bytes_text(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def seconds(value: float | None) -> str:
    """A duration: 0.8 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
