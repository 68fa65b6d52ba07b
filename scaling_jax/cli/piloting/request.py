"""What a user asks of `scaling-jax pilot`, and what is made and measured for it, once in each folder."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax import configuration, files
from scaling_jax.decisions.pilot_design import ladder
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.studies import step_costs
from scaling_jax.studies.pilot_inputs import Counted, Examples, Model, Pretraining, about_bases, make_inputs
from scaling_jax.studies.step_costs import StepCosts
from scaling_jax.studies.worker import CONFIGURABLES
from scaling_jax.training.finetune import FinetuneSettings, settings_for
from scaling_jax.training.platform import worker_environment
from scaling_jax.tuning.method import method_names

SIZE = "non_embedding_params"
# Of the budget, at most, for the search of learning rates; it is made with at most so many examples.
_RATES_SHARE, _RATES_EXAMPLES = 0.2, 1024
# Runs are of at most this share of the target's examples: beyond it one might as well make the final run.
_LARGEST_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks for; see `cli.pilot`.

    Attributes:
        models: the first is the one to be tuned in the end, the others its family.
        target: examples of the final run; None is all there are.
        hours: device hours; None where `share` is given.
        share: of the cost of the final run; None where `hours` is given.
        smallest: of the data sizes.
        precision: relative width of an interval that is narrow enough.
        memory_gib, final_hours: what the final run may need; None is no limit.
    """

    models: tuple[Model, ...]
    examples: Examples
    counted: Counted
    methods: tuple[str, ...]
    target: int | None
    hours: float | None
    share: float | None
    vocabulary: Path | None
    pretraining: Pretraining
    execution: tuple[str, ...]
    smallest: int
    precision: float
    memory_gib: float | None
    final_hours: float | None
    gin_files: tuple[str, ...]
    bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    imports: tuple[str, ...]
    out: Path

    @property
    def target_examples(self) -> int:
        """Of the final run."""
        return self.counted.train if self.target is None else self.target

    def identity(self) -> dict[str, Any]:
        """What a folder belongs to; the budget may change."""
        return {
            "models": [model.given for model in self.models],
            "data": {path.name: files.sha256(path) for path in self.examples.given},
            "read_as": [*self.examples.fields, *self.examples.columns, self.examples.template],
            "lengths": list(self.examples.lengths),
            "methods": list(self.methods),
            "target": self.target_examples,
            "smallest": self.smallest,
            "limits": [self.memory_gib, self.final_hours],
            "execution": list(self.execution),
            "pretraining": [self.pretraining.tokens, self.pretraining.vocabulary],
            "gin": [*self.gin_files, *self.bindings, *self.imports],
        }


@dataclasses.dataclass(frozen=True)
class Ready:
    """A request with what it needs made and measured.

    Attributes:
        store: of the examples.
        bases: of `about_bases`, as the request's models.
        costs: (base folder, method) -> costs.
        rate_examples: of the search of learning rates.
        workers: that make runs at the same time.
    """

    request: Request
    store: Path
    bases: Sequence[Mapping[str, Any]]
    costs: Mapping[tuple[str, str], StepCosts]
    budget: float
    rate_examples: int
    rates: Mapping[str, Sequence[float]]
    workers: int

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that keep the limits of the final run."""
        return tuple(method for method in self.request.methods if method not in self.excluded)

    @property
    def excluded(self) -> dict[str, str]:
        """Method -> which limit of the final run it does not keep."""
        found = {}
        for method in self.request.methods:
            needs = []
            memory, hours = self.memory_gib(method), self.final_seconds(method) / 3600
            if self.request.memory_gib and memory and memory > self.request.memory_gib:
                needs.append(f"{memory:.3g} GiB of memory, the limit is {self.request.memory_gib:g}")
            if self.request.final_hours and hours > self.request.final_hours:
                needs.append(f"{hours:.3g} hours, the limit is {self.request.final_hours:g}")
            if needs:
                found[method] = f"the final run needs {' and '.join(needs)}"
        return found

    def memory_gib(self, method: str) -> float | None:
        """Of a step of the final run, on one device, by XLA's account."""
        size = self.costs[self.bases[0]["base"], method].memory_bytes
        return None if size is None else size / 2**30

    @property
    def law(self) -> str:
        """Of the data alone, or with a family of models of both sizes."""
        return "power" if len(self.bases) == 1 else "multiplicative"

    @property
    def target(self) -> dict[str, float]:
        """Role -> size of the final run."""
        d = {"d": float(self.request.target_examples)}
        return d if len(self.bases) == 1 else {"x": float(self.bases[0][SIZE]), **d}

    def settings(self, method: str) -> FinetuneSettings:
        """How a method is trained."""
        return settings_for(method)

    def final_seconds(self, method: str) -> float:
        """Of the final run, if it does not stop early."""
        costs = self.costs[self.bases[0]["base"], method]
        seconds = step_costs.run_seconds(self.settings(method), costs, self.request.target_examples)
        return seconds + costs.compile_seconds

    def rate_seconds(self, method: str) -> float:
        """Of the search of its learning rate."""
        smallest = min(self.bases, key=lambda base: base[SIZE])["base"]
        each = step_costs.run_seconds(self.settings(method), self.costs[smallest, method], self.rate_examples)
        return each * len(self.rates.get(method, ()))


def claim(request: Request) -> dict[str, Any]:
    """The record of the folder, `pilot.json`; a new one in a new folder.

    Raises:
        InputError: the folder holds another pilot, or something else.
    """
    path, identity = request.out / "pilot.json", request.identity()
    if path.exists():
        known = files.read_json(path)
        changed = [name for name in identity if known["request"].get(name) != identity[name]]
        if changed:
            raise InputError(
                f"{request.out} holds a pilot of another {changed[0]} ({known['request'].get(changed[0])}): "
                "give a new --out, or the command it was made with (only the budget may change)"
            )
        return known
    if request.out.exists() and any(request.out.iterdir()):
        raise InputError(f"{request.out} is not empty and holds no pilot: give a new --out")
    record = {"request": identity, "rounds": [], "ended": ""}
    files.write_json(path, record)
    return record


def parse(request: Request, lines: Sequence[str] = ()) -> None:
    """Parses the training settings, then what the pilot binds, then the user's bindings."""
    text = "".join(f"include {path!r}\n" for path in request.gin_files) + "\n".join(lines) + "\n"
    path = files.write_text(request.out / "study.gin", text)
    imports = [CONFIGURABLES, *request.imports]
    configuration.parse([str(path)], request.bindings, request.search_paths, imports)


def check_size(request: Request) -> np.ndarray:
    """The candidate data sizes, ascending.

    Raises:
        InputError: too few examples, or a target inside the pilot.
    """
    target, train = request.target_examples, request.counted.train
    largest = min(train, int(_LARGEST_SHARE * target))
    sizes = ladder(largest, request.smallest)
    least = 8 * request.smallest
    if largest >= least:
        return sizes
    if train >= target or request.target is None:
        raise InputError(
            f"a target of {target:,} examples lies inside a pilot, whose sizes are {request.smallest} to at "
            f"least {least} and at most half of the target: tune on all {target:,} by every method instead, "
            f"or give --smallest {max(1, largest // 8)}"
        )
    raise InputError(
        f"{request.examples.train}: {train} examples to tune on, a pilot needs at least {least} "
        f"(--smallest {request.smallest}): give more, or --smallest {max(1, train // 8)}"
    )


def check(request: Request) -> None:
    """What can be checked before anything is made.

    Raises:
        InputError: see `check_size`; gin files or bindings that cannot be parsed; an unknown method.
    """
    check_size(request)
    imports = [CONFIGURABLES, *request.imports]
    configuration.parse(request.gin_files, request.bindings, request.search_paths, imports)
    known = method_names()
    for method in request.methods:
        if method not in known:
            raise InputError(f"--methods: no tuning method {method!r}{did_you_mean(method, known)}")


def ready(request: Request, say: Callable[[str], None]) -> Ready:
    """Makes bases and store, measures costs, and says what the budget is."""
    sizes = check_size(request)
    parse(request)
    store = make_inputs(
        request.models,
        request.examples,
        request.counted.cuts,
        request.vocabulary,
        request.pretraining,
        request.execution,
        request.out,
        say,
    )
    bases = about_bases(request.models)
    for what, values in (("name", "model"), ("size", SIZE)):
        if len({base[values] for base in bases}) < len(bases):
            raise InputError(f"--models: two of the models have the same {what}; a family varies the size")
    costs = _costs(request, store, bases, int(sizes[-1]), say)
    rates = _rates(request.methods)
    made = Ready(request, store, bases, costs, 0.0, int(sizes[0]), rates, _workers())
    if not made.methods:
        told = "; ".join(f"{method}: {why}" for method, why in made.excluded.items())
        raise InputError(f"no method keeps the limits of the final run: {told}")
    budget = _budget(made)
    return dataclasses.replace(made, budget=budget, rate_examples=_rate_examples(made, sizes, budget))


def _budget(made: Ready) -> float:
    request = made.request
    if request.hours is not None:
        return request.hours * 3600
    return request.share * max(made.final_seconds(method) for method in made.methods)


def _rate_examples(made: Ready, sizes: np.ndarray, budget: float) -> int:
    """The largest size whose search stays within its share of the budget; else the smallest there is."""
    found = int(sizes[0])
    for size in sizes[sizes <= _RATES_EXAMPLES]:
        trial = dataclasses.replace(made, rate_examples=int(size))
        if sum(trial.rate_seconds(method) for method in made.methods) <= _RATES_SHARE * budget:
            found = int(size)
    return found


def _rates(methods: Sequence[str]) -> dict[str, list[float]]:
    """The rates that are tried of each method; one whose gin file names none keeps its own."""
    import gin

    try:
        rates = gin.query_parameter("LearningRateSearch.rates")
    except ValueError:
        return {}
    return {method: list(rates[method]) for method in methods if method in rates}


def _workers() -> int:
    """Processes that a study starts: one for each core, one for an accelerator."""
    from scaling_jax.studies.runner import _backend

    on_cpu = _backend(worker_environment()) == "cpu"
    return len(os.sched_getaffinity(0)) if on_cpu else 1


def _costs(
    request: Request, store: Path, bases: Sequence[Mapping], examples: int, say: Callable[[str], None]
) -> dict[tuple[str, str], StepCosts]:
    path = request.out / "costs.json"
    known = step_costs.read_costs(path)
    wanted = {
        f"{base['model']} {method}": (base["base"], method) for base in bases for method in request.methods
    }
    missing = [name for name in wanted if name not in known]
    if missing:
        say(f"measuring the cost of a step: {', '.join(missing)}")
        config = files.write_text(request.out / "measured.gin", configuration.resolved())
        runs = [(base, str(store), method, examples) for base, method in (wanted[name] for name in missing)]
        found = step_costs.measured(config, runs, worker_environment(), request.imports)
        known |= dict(zip(missing, found, strict=True))
        step_costs.write_costs(path, known)
    return {key: known[name] for name, key in wanted.items()}
