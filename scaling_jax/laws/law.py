"""What a law is, and how one is found by its name.

A law is one frozen `Law` in one file of `laws/forms/` (or in a file of your own, named as
`path/to/file.py:name`). It declares its parameters and its terms; search, intervals, prediction
and plots follow from that alone. The terms are plain arithmetic on logarithms, so that they can be
evaluated with NumPy (prediction needs no JAX) and traced by JAX (fitting), and cannot overflow.
"""

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax.errors import InputError, did_you_mean

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    Attributes:
        name: as printed, for example "beta".
        meaning: one phrase for tables and docs.
        lower, upper: the bounds the fit keeps to.
        starts: the range (low, high) that the search spans; not used for linear parameters.
        transform: "identity", or "log" to search a positive nonlinear parameter by its logarithm.
    """

    name: str
    meaning: str
    lower: float = 0.0
    upper: float = float("inf")
    starts: tuple[float, float] = (0.01, 1.5)
    transform: str = "identity"


@dataclass(frozen=True)
class Law:
    """A law L(columns; parameters).

    Attributes:
        name: what `--law` takes.
        equation: the formula as text.
        source: where it comes from.
        roles: the columns it needs by role, with their meaning, for example {"d": "examples"}, as
            a tuple of pairs. A role named `x` is given by `--x COLUMN`.
        parameters: all of them, in the order they are printed.
        linear: names of the parameters that enter linearly and are not negative; the k-th multiplies
            the exponential of the k-th of `log_terms`. May be empty.
        log_terms: (parameters, logs of the columns by role, numpy or jax.numpy) -> the logarithms of the
            terms, a tuple with one entry (an array that broadcasts to the rows, or a number) per linear
            parameter.
        formula: (parameters, columns by role, numpy or jax.numpy) -> the loss; used when `linear` is empty.
        better: "lower" for a loss, "higher" for a score.
    """

    name: str
    equation: str
    source: str
    roles: tuple[tuple[str, str], ...]
    parameters: tuple[Parameter, ...]
    linear: tuple[str, ...] = ()
    log_terms: Callable[[Values, Values, Any], tuple] | None = None
    formula: Callable[[Values, Values, Any], Any] | None = None
    better: str = "lower"

    def __post_init__(self):
        """Refuses a law that contradicts itself."""
        if self.better not in ("lower", "higher"):
            raise InputError(f"law {self.name!r}: better = {self.better!r}: 'lower' or 'higher'")
        names = [parameter.name for parameter in self.parameters]
        missing = [name for name in self.linear if name not in names]
        if missing or len(set(names)) != len(names):
            raise InputError(
                f"law {self.name!r}: linear parameters {missing} are not declared, or a name repeats"
            )
        if (self.log_terms is None) == (self.formula is None) or bool(self.linear) == (
            self.log_terms is None
        ):
            raise InputError(
                f"law {self.name!r} must have either linear parameters with log_terms, or a formula"
            )

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def nonlinear(self) -> tuple[Parameter, ...]:
        """The parameters that are not linear, in order."""
        return tuple(parameter for parameter in self.parameters if parameter.name not in self.linear)

    @property
    def role_names(self) -> tuple[str, ...]:
        """Roles of the columns, in order."""
        return tuple(role for role, _ in self.roles)

    def predict(self, parameters: Values, columns: Values, array: Any = np) -> Any:
        """The loss by the law; `columns` by role, above zero. Everything broadcasts.

        `array` is `numpy`, or `jax.numpy` to trace it.
        """
        if self.formula is not None:
            return self.formula(parameters, columns, array)
        logs = {role: array.log(columns[role]) for role in self.role_names}
        terms = zip(self.linear, self.log_terms(parameters, logs, array), strict=True)
        return sum(parameters[name] * array.exp(term) for name, term in terms)


_REGISTRY: dict[str, Law] = {}


def register(law: Law) -> Law:
    """Makes a law known by its name; returns it. Called once, at the end of the law's file."""
    known = _REGISTRY.get(law.name)
    if known is not None and known != law:
        raise InputError(f"two laws are named {law.name!r}")
    _REGISTRY[law.name] = law
    return law


def known_laws() -> dict[str, Law]:
    """All registered laws by name. Imports every file of `laws/forms/` (none of them needs JAX)."""
    from scaling_jax.laws import forms

    for info in pkgutil.iter_modules(forms.__path__):
        importlib.import_module(f"{forms.__name__}.{info.name}")
    return dict(sorted(_REGISTRY.items()))


def find_law(name: str) -> Law:
    """The law of that name; `path/to/file.py:name` takes the `Law` called `name` in that file.

    Raises:
        InputError: no such law or file; the file does not hold a `Law` of that name.
    """
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        return _law_from_file(Path(path), attribute)
    laws = known_laws()
    if name not in laws:
        raise InputError(f"no law is named {name!r}{did_you_mean(name, laws)}")
    return laws[name]


def _law_from_file(path: Path, attribute: str) -> Law:
    if not path.is_file():
        raise InputError(f"no such file: {path} (a law outside the package is path/to/file.py:name)")
    found = _laws_in(path, path.stat().st_mtime_ns)
    if attribute not in found:
        raise InputError(f"{path} holds no Law named {attribute!r}{did_you_mean(attribute, found)}")
    _check_at_starts(path, found[attribute])
    return found[attribute]


@functools.lru_cache(maxsize=32)
def _laws_in(path: Path, modified: int) -> dict[str, Law]:
    """The laws of a user's file, by their names and by those of the variables; read again when it changes."""
    spec = importlib.util.spec_from_file_location(f"scaling_jax_user_law_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from error
    found = {law.name: law for law in vars(module).values() if isinstance(law, Law)}
    for law in set(found.values()):
        # What its own file registers is found by that file, and not by its name alone.
        if _REGISTRY.get(law.name) is law:
            del _REGISTRY[law.name]
    return found | {key: law for key, law in vars(module).items() if isinstance(law, Law)}


def _check_at_starts(path: Path, law: Law) -> None:
    """Evaluates a user's law once, so that a slip in its formula is told with its file.

    Raises:
        InputError: it raises, or has another number of terms than linear parameters.
    """
    sizes = np.array([10.0, 100.0, 1000.0])
    parameters = {p.name: np.array([np.mean(p.starts)]) for p in law.parameters}
    columns = {role: sizes * (1 + position) for position, role in enumerate(law.role_names)}
    try:
        with np.errstate(all="ignore"):
            np.broadcast_to(np.asarray(law.predict(parameters, columns), np.float64), sizes.shape)
    except Exception as error:
        # Whatever a user's code raises; the file is what they need to be told.
        raise InputError(
            f"{path}: law {law.name!r} cannot be evaluated ({type(error).__name__}: {error}); "
            "log_terms takes (parameters, logs, array), a formula (parameters, columns, array)"
        ) from error
