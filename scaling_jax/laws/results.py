"""`Fit`, what a fit found, and `fits.json`, where fits are kept. Needs no JAX: predicting is NumPy."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.files import read_json, write_json
from scaling_jax.laws.law import Law, find_law

# What `fits.json` keeps of the bootstrap, so that a prediction made later has its interval.
_KEPT_DRAWS = 500
_KEPT_DIGITS = 9


@dataclass(frozen=True)
class Fit:
    """One law fitted to one group of rows; the object of `fits.json`.

    Attributes:
        law: name of the law, or "path/to/file.py:name".
        equation: its formula as text.
        group: column -> value of the `--by` columns.
        columns: role -> column, and "y" -> the loss column.
        parameters: name -> value.
        intervals: name -> (low, high), percentiles of the draws at `level`.
        standard_errors: name -> standard deviation of the draws.
        level: of all intervals.
        interval_method: "simulated", "rows" or "sandwich" (see `uncertainty`).
        objective: {kind, delta, value}; value is the sum over fitted rows. With shared parameters also
            `joint_value`, the sum over all groups, which is what was minimised.
        rows: {fitted, held_out, dropped}.
        dropped_reasons: reason -> count of the rows left out (status not done, a cell empty).
        errors: {fitted_mad, held_out_mad, fitted_rmsd_log, held_out_rmsd_log}; None without held-out rows.
        status: "identified" or "not identified: NAMES".
        identified: name -> True or the reason.
        shared: parameters that all groups have in common.
        frozen: parameters that were given, from another fit.
        starts: {total, agreeing}.
        condition_number: of the slopes at the optimum, unit columns, centred coordinates.
        fitted_range: role -> (smallest, largest) fitted.
        where, hold_out: expressions that chose the rows, or None.
        bootstrap, seed: draws and their seed.
        notes: what else a reader should know of rows and noise.
        versions: of the libraries.
        draws: name -> (draws,).
        extra: further keys of the object in `fits.json`, set by who asked for the fit.
    """

    law: str
    equation: str
    group: Mapping
    columns: Mapping[str, str]
    parameters: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    standard_errors: Mapping[str, float]
    level: float
    interval_method: str
    objective: Mapping
    rows: Mapping[str, int]
    dropped_reasons: Mapping[str, int]
    errors: Mapping[str, float | None]
    status: str
    identified: Mapping[str, bool | str]
    shared: tuple[str, ...]
    frozen: tuple[str, ...]
    starts: Mapping[str, int]
    condition_number: float | None
    fitted_range: Mapping[str, tuple[float, float]]
    where: str | None
    hold_out: str | None
    bootstrap: int
    seed: int
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    draws: Mapping[str, np.ndarray]
    extra: Mapping

    @property
    def form(self) -> Law:
        """The law itself."""
        return find_law(self.law)

    def missing(self, at: Mapping) -> list[str]:
        """The law's columns that `at` gives neither by role nor by column name."""
        return [self.columns[r] for r in self.form.role_names if r not in at and self.columns[r] not in at]

    def column_values(self, at: Mapping) -> dict[str, np.ndarray]:
        """Picks the law's columns out of values given by role or by column name, as float arrays.

        Raises:
            InputError: one is missing, or not above zero.
        """
        for column in self.missing(at):
            raise InputError(f"a prediction of law {self.law!r} needs {column!r}{did_you_mean(column, at)}")
        found = {}
        for role in self.form.role_names:
            column = self.columns[role]
            try:
                values = np.asarray(at[role] if role in at else at[column], np.float64)
            except ValueError as error:
                raise InputError(
                    f"{column!r} must be a number, not {at.get(role, at.get(column))!r}"
                ) from error
            if not np.all(np.isfinite(values) & (values > 0)):
                raise InputError(f"{column!r} must be a finite number above zero")
            found[role] = values
        return found

    def predict(self, at: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The law's loss and its interval (of the law, not of one more noisy run).

        Args:
            at: values by role ("x", "d") or by column name; numbers or arrays that broadcast.

        Returns:
            (values, low, high), each of the broadcast shape.
        """
        columns = self.column_values(at)
        with np.errstate(all="ignore"):
            values = np.asarray(self.form.predict(self.parameters, columns), np.float64)
        draws = self.draw_predictions(columns)
        tail = 50 * (1 - self.level)
        with np.errstate(all="ignore"):
            low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
        # As for the parameters, the interval holds the estimate.
        return values, np.minimum(low, values), np.maximum(high, values)

    def draw_predictions(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The law at every bootstrap draw, (draws, *shape)."""
        shape = np.broadcast_shapes(*(np.shape(values) for values in columns.values()))
        draws = {name: values.reshape(-1, *(1,) * len(shape)) for name, values in self.draws.items()}
        with np.errstate(all="ignore"):
            return np.asarray(self.form.predict(draws, columns), np.float64)

    def beyond(self, at: Mapping) -> list[str]:
        """Which columns lie outside the fitted range, in words; empty for an interpolation."""
        notes = []
        for role, values in self.column_values(at).items():
            low, high = self.fitted_range[role]
            if np.any(values < low) or np.any(values > high):
                notes.append(f"{self.columns[role]} outside the fitted {low:g} to {high:g}")
        return notes

    def with_identified(self, known: Mapping[str, bool | str]) -> "Fit":
        """The same fit with what another one says of the parameters that it was given."""
        identified = {**self.identified, **known}
        unknown = [name for name, state in identified.items() if state is not True]
        status = "identified" if not unknown else f"not identified: {', '.join(unknown)}"
        return dataclasses.replace(self, identified=identified, status=status)

    def with_extra(self, **extra) -> "Fit":
        """The same fit with further keys in its `fits.json` object."""
        return dataclasses.replace(self, extra={**self.extra, **extra})

    def to_json(self) -> dict:
        """The object of `fits.json`; what is not finite is null."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        draws, extra = fields.pop("draws"), fields.pop("extra")
        fields["draws"] = {name: _pack(values) for name, values in draws.items()}
        return plain(fields | dict(extra))

    @classmethod
    def from_json(cls, content: Mapping) -> "Fit":
        """Reads an object of `fits.json`.

        Raises:
            InputError: keys are missing, the law is unknown.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name not in ("draws", "extra")]
        missing = [name for name in [*names, "draws"] if name not in content]
        if missing:
            raise InputError(
                f"a fit lacks {', '.join(missing)}; another version wrote it, or a hand: fit again"
            )
        law = find_law(content["law"])
        unknown = set(law.parameter_names) ^ set(content["parameters"])
        if unknown:
            raise InputError(
                f"a fit of law {law.name!r} has other parameters than the law: {sorted(unknown)}"
            )
        fields = {name: content[name] for name in names}
        nan = math.nan
        fields["parameters"] = {k: nan if v is None else v for k, v in content["parameters"].items()}
        fields["intervals"] = {k: _pair(v) for k, v in content["intervals"].items()}
        fields |= {name: tuple(content[name]) for name in ("shared", "frozen", "notes")}
        fields["fitted_range"] = {k: _pair(v) for k, v in content["fitted_range"].items()}
        fields["condition_number"] = (
            math.inf if content["condition_number"] is None else content["condition_number"]
        )
        try:
            fields["draws"] = {name: _unpack(text) for name, text in content["draws"].items()}
        except (ValueError, AttributeError) as error:
            raise InputError("a fit's draws are not numbers separated by spaces") from error
        lengths = {len(values) for values in fields["draws"].values()}
        if set(fields["draws"]) != set(law.parameter_names) or len(lengths) != 1 or lengths == {0}:
            raise InputError("a fit needs as many draws of each of its parameters")
        extra = {key: value for key, value in content.items() if key not in names and key != "draws"}
        return cls(**fields, extra=extra)


def stated(
    law: str,
    columns: Mapping[str, str],
    parameters: Mapping[str, float],
    draws: Mapping[str, np.ndarray],
    fitted_range: Mapping[str, tuple[float, float]],
    group: Mapping | None = None,
    level: float = 0.9,
) -> Fit:
    """A fit that someone else made, from its printed parameters, to predict from and to compare.

    Args:
        law: its name.
        columns: role -> column, and "y" -> the loss column.
        parameters: name -> value.
        draws: name -> (draws,), what is uncertain of them; intervals are its percentiles.
        fitted_range: role -> (smallest, largest) size it was fitted to.
        group: column -> value.
        level: of the intervals.

    Raises:
        InputError: other parameters than the law's.
    """
    form = find_law(law)
    if set(form.parameter_names) != set(parameters) or set(draws) != set(parameters):
        raise InputError(f"law {form.name!r} has the parameters {', '.join(form.parameter_names)}")
    tail = 50 * (1 - level)
    nothing = dict.fromkeys(("fitted_mad", "held_out_mad", "fitted_rmsd_log", "held_out_rmsd_log"))
    return Fit(
        law=law,
        equation=form.equation,
        group=dict(group or {}),
        columns=dict(columns),
        parameters=dict(parameters),
        intervals={name: tuple(np.percentile(draws[name], [tail, 100 - tail])) for name in parameters},
        standard_errors={name: float(np.std(draws[name])) for name in parameters},
        level=level,
        interval_method="stated",
        objective={"kind": "stated", "delta": None, "value": None},
        rows={"fitted": 0, "held_out": 0, "dropped": 0},
        dropped_reasons={},
        errors=nothing,
        status="stated, not fitted",
        identified=dict.fromkeys(parameters, True),
        shared=(),
        frozen=(),
        starts={"total": 0, "agreeing": 0},
        condition_number=None,
        fitted_range=dict(fitted_range),
        where=None,
        hold_out=None,
        bootstrap=len(next(iter(draws.values()))),
        seed=0,
        notes=(),
        versions={},
        draws={name: np.asarray(values) for name, values in draws.items()},
        extra={},
    )


def write_fits(path: str | Path, fits: Iterable[Fit]) -> Path:
    """Writes `fits.json`, a list of fits, whole or not at all."""
    return write_json(path, [fit.to_json() for fit in fits])


def read_fits(path: str | Path) -> list[Fit]:
    """Reads `fits.json`; a folder means the `fits.json` in it.

    Raises:
        InputError: not readable, or not a list of fits.
    """
    path = Path(path)
    path = path / "fits.json" if path.is_dir() else path
    content = read_json(path)
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f"{path}: not a list of fits")
    try:
        return [Fit.from_json(entry) for entry in content]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: a fit is damaged ({type(error).__name__}: {error}); fit again") from error


def _pack(values: np.ndarray) -> str:
    return " ".join(f"{value:.{_KEPT_DIGITS}g}" for value in np.asarray(values)[:_KEPT_DRAWS])


def _unpack(text: str) -> np.ndarray:
    return np.array([float(value) for value in text.split()])


def _pair(values) -> tuple[float, float]:
    low, high = values
    return (-math.inf if low is None else low, math.inf if high is None else high)


def plain(value):
    """Python's own types, with None for what JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
