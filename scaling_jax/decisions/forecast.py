"""What the fits of one method say of a run that was not made: several forms, weighted, and widened.

An interval of one law knows that the parameters are uncertain, not that the law may have another form. So
a forecast is a mixture: each draw takes one form, as often as its weight says, and one draw of that form's
parameters. What all forms get wrong together is a share of the change that they predict beyond the fitted
sizes: the logarithm of every draw moves by discrepancy * |change| * sqrt(1 + away) * z. `away` is how far
beyond the fitted sizes the point lies, in multiples of the range that they span (in doublings), and z a
Student's t deviate of the draw: one for all its points, as a law that bends away goes on doing so. A change
along another column than `d`, such as the model size, counts four times. Inside the fitted sizes nothing is
added. docs/backtest.md has where this comes from and how well it holds.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws.design import describe
from scaling_jax.laws.results import Fit

# Learned from 30 measured curves, docs/backtest.md: the scale of the relative error of the predicted change
# beyond the fitted sizes (over sqrt(1 + away)), and the degrees of freedom of its Student's t.
DISCREPANCY, TAILS = 0.15, 5.0
# The change predicted along other columns than `d`, such as the model size, is so many times as uncertain.
OTHER_COLUMNS = 4.0
# Power of the share of the change that has been seen, which is the correlation of what is off there and at
# the target: on the thirty curves 0.4 to 0.9 at a tenth of the way, about 0.9 and more from half of it on.
_FADING = 0.25
# Held-out errors below it are alike.
_LEAST_ERROR = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; `low` and `high` are None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Forecast:
    """One method's fits, as a mixture.

    Attributes:
        name: the method, or the value of the column that is chosen along.
        group: column -> value of the fits.
        fits: one per form; all of the same rows.
        weights: (forms,), not negative, 1 together.
        discrepancy: relative error of the change predicted beyond the fitted sizes.
    """

    name: str
    group: Mapping
    fits: tuple[Fit, ...]
    weights: tuple[float, ...]
    discrepancy: float

    @property
    def lower_is_better(self) -> bool:
        """Whether a loss was fitted; a score is better when higher."""
        return self.fits[0].form.better == "lower"

    @property
    def loss_column(self) -> str:
        """What was fitted."""
        return self.fits[0].columns["y"]

    @property
    def columns(self) -> tuple[str, ...]:
        """The design columns that a prediction needs."""
        return tuple(dict.fromkeys(fit.columns[role] for fit in self.fits for role in fit.form.role_names))

    @cached_property
    def _random(self) -> tuple[np.ndarray, np.ndarray]:
        """For each draw the form that it takes, and its deviate."""
        label = describe(dict(self.group)) + self.name
        count = min(len(next(iter(fit.draws.values()))) for fit in self.fits)
        return mixing(self.weights, count, [self.fits[0].seed, zlib.crc32(label.encode())])

    def predict(self, at: Mapping) -> np.ndarray:
        """The loss: the weighted geometric mean of the forms; `at` as for `Fit.predict`."""
        return self._mean([fit.column_values(at) for fit in self.fits])

    def draws(self, at: Mapping, before: Mapping | None = None) -> np.ndarray:
        """Draws of the loss (of the law, not of one more noisy run), (draws, *shape).

        Args:
            at: where, as for `Fit.predict`.
            before: a point further on, whose draws these go with: what is off here is only in part what will
                be off there, the less the nearer this is to the fitted sizes. None for draws of a forecast.
        """
        forms, deviates = self._random
        places = [fit.column_values(at) for fit in self.fits]
        each = [
            fit.draw_predictions(place)[: len(forms)] for fit, place in zip(self.fits, places, strict=True)
        ]
        reach = self._reach(places)
        if before is not None:
            whole = self._reach([fit.column_values(before) for fit in self.fits])
            shared = np.clip(reach / np.maximum(whole, 1e-300), 0.0, 1.0) ** _FADING
            others = np.random.default_rng(len(deviates)).permutation(deviates)
            deviates = shared * deviates + np.sqrt(1 - shared**2) * others
        found = np.stack(np.broadcast_arrays(*each))[forms, np.arange(len(forms))]
        return found * np.exp(self.discrepancy * np.multiply.outer(deviates, reach))

    def fitted_range(self, column: str) -> tuple[float, float]:
        """(smallest, largest) fitted value of a column."""
        fit = self.fits[0]
        role = next(role for role in fit.form.role_names if fit.columns[role] == column)
        return fit.fitted_range[role]

    def _reach(self, places: Sequence[Mapping]) -> np.ndarray:
        """The predicted change beyond the fitted sizes, column by column, times what makes it uncertain."""
        fitted = self.fits[0].fitted_range
        here = [{role: np.clip(values, *fitted[role]) for role, values in place.items()} for place in places]
        before, total = np.log(self._mean(here)), 0.0
        for role in sorted(fitted):
            here = [own | {role: place[role]} for own, place in zip(here, places, strict=True)]
            after = np.log(self._mean(here))
            share = 1.0 if role == "d" else OTHER_COLUMNS
            total = total + (share * (after - before)) ** 2 * (1 + away(places[0][role], *fitted[role]))
            before = after
        return np.sqrt(total)

    def _mean(self, places: Sequence[Mapping]) -> np.ndarray:
        with np.errstate(all="ignore"):
            logs = [
                np.log(fit.form.predict(fit.parameters, place))
                for fit, place in zip(self.fits, places, strict=True)
            ]
        return np.exp(sum(weight * log for weight, log in zip(self.weights, logs, strict=True)))

    def estimate(self, at: Mapping, level: float) -> Estimate:
        """Value and interval at one point."""
        value, draws = float(self.predict(at)), self.draws(at)
        low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
        return Estimate(value, min(float(low), value), max(float(high), value))

    def beyond(self, at: Mapping) -> list[str]:
        """Which columns lie outside the fitted range, in words; empty for an interpolation."""
        return self.fits[0].beyond(at)


def mixing(weights: Sequence[float], count: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` draws the form that it takes and its deviate: as many of each form as it weighs."""
    random = np.random.default_rng(seed)
    edges = np.cumsum(weights)[:-1]
    forms = np.searchsorted(edges, (random.permutation(count) + 0.5) / count, side="right")
    return forms, random.standard_t(TAILS, count)


def away(values: np.ndarray, low, high) -> np.ndarray:
    """How far outside [low, high] sizes lie, in multiples of the range's own doublings (one at least)."""
    outside = np.maximum(0.0, np.maximum(np.log2(values / high), np.log2(low / values)))
    return outside / np.maximum(1.0, np.log2(high / low))


def forecasts_of(
    fits: Sequence[Fit], at: Mapping, along: str = "method", discrepancy: float | None = None
) -> list[Forecast]:
    """The forecasts, one for each value of the column `along`, from the fits that can answer at a point.

    Of fits of one method those are taken whose columns are all given in `at` and that use the most of them;
    where their group or `fixed` names a column of `at`, the values must agree. Without weights in `extra`
    forms of one method count by their squared held-out errors, or alike where none were held out.
    `discrepancy` is that of fits that state none; `DISCREPANCY` for None.

    Raises:
        InputError: no fit has the column, or none can answer (says what is missing); two groups of one method
            are left, such as two tasks (names the column that tells them apart).
    """
    fits = list(fits)
    if not fits:
        raise InputError("there is no fit to recommend from")
    named = [fit for fit in fits if along in fit.group]
    if not named:
        known = {column for fit in fits for column in fit.group}
        raise InputError(
            f"no fit has {along!r} in its group{did_you_mean(along, known)}; fit with --by {along}"
        )
    _check_columns(named, at)
    agreeing = [fit for fit in named if _agrees(fit, at)]
    if not agreeing:
        raise InputError(f"no fit has a group that agrees with {_shown(at)}; there are {_groups(named)}")
    answering = [fit for fit in agreeing if not fit.missing(at)]
    if not answering:
        missing = min((fit.missing(at) for fit in agreeing), key=len)
        raise InputError(f"--at needs {' and '.join(map(repr, missing))}, which the laws are in")
    found = []
    for name in dict.fromkeys(str(fit.group[along]) for fit in answering):
        own = [fit for fit in answering if str(fit.group[along]) == name]
        most = max(len(fit.form.role_names) for fit in own)
        own = [fit for fit in own if len(fit.form.role_names) == most]
        found.append(_forecast(name, own, along, discrepancy))
    _check_one_group(found, along)
    return found


def weighted(name: str, fits: Sequence[Fit], discrepancy: float | None = None) -> Forecast:
    """A forecast from the fits of one method, by the `weight` and `discrepancy` of their `extra`."""
    otherwise = DISCREPANCY if discrepancy is None else discrepancy
    given = [fit.extra.get("weight") for fit in fits]
    weights = _judged(fits) if None in given else np.array(given, np.float64)
    if not np.all(weights >= 0) or not weights.sum() > 0:
        raise InputError(f"the weights of the fits of {name!r} are not numbers above zero")
    spread = max(float(fit.extra.get("discrepancy", otherwise)) for fit in fits)
    return Forecast(name, dict(fits[0].group), tuple(fits), tuple((weights / weights.sum()).tolist()), spread)


def _judged(fits: Sequence[Fit]) -> np.ndarray:
    """Weights of forms that state none: by their squared errors at rows held out, else alike."""
    errors = [fit.errors.get("held_out_rmsd_log") for fit in fits]
    if len(fits) < 2 or None in errors:
        return np.ones(len(fits))
    return 1 / np.maximum(errors, _LEAST_ERROR) ** 2


def _forecast(name: str, fits: list[Fit], along: str, discrepancy: float | None) -> Forecast:
    groups = {describe({key: value for key, value in fit.group.items() if key != along}) for fit in fits}
    columns = {tuple(sorted(fit.columns.items())) for fit in fits}
    if len(groups) > 1:
        told = _differing([dict(fit.group) for fit in fits])
        raise InputError(
            f"{along} {name!r} has fits of several {told[0]} ({told[1]}): results of different {told[0]} "
            f"values are not mixed; say which with --at '{told[0]}=...'"
        )
    laws = [fit.law for fit in fits]
    if len(columns) > 1 or len(set(laws)) < len(laws):
        raise InputError(
            f"{along} {name!r} has several fits of one law that can answer ({', '.join(laws)}); keep one "
            "file for each question, or name fewer columns in --at"
        )
    return weighted(name, fits, discrepancy)


def _check_one_group(found: Sequence[Forecast], along: str) -> None:
    """Refuses methods that were fitted to different tasks, or on different columns."""
    first = found[0]
    own = {key: value for key, value in first.group.items() if key != along}
    for other in found[1:]:
        theirs = {key: value for key, value in other.group.items() if key != along}
        if theirs != own:
            told = _differing([own, theirs])
            raise InputError(
                f"{along} {first.name!r} and {other.name!r} were fitted to different {told[0]} ({told[1]}), "
                "which cannot be compared"
            )
        if (other.loss_column, other.lower_is_better) != (first.loss_column, first.lower_is_better):
            raise InputError(
                f"{along} {first.name!r} was fitted to {first.loss_column!r} and {other.name!r} to "
                f"{other.loss_column!r}, which cannot be compared"
            )


def _differing(groups: Sequence[Mapping]) -> tuple[str, str]:
    """The first column in which groups differ, and its values as text."""
    for column in dict.fromkeys(column for group in groups for column in group):
        values = list(dict.fromkeys(str(group.get(column, "")) for group in groups))
        if len(values) > 1:
            return column, ", ".join(value or "empty" for value in values[:4])
    return "group", "alike"


def _check_columns(fits: Sequence[Fit], at: Mapping) -> None:
    known = {
        column for fit in fits for column in (*fit.group, *fit.columns.values(), *fit.extra.get("fixed", {}))
    }
    for column, value in at.items():
        if column not in known:
            raise InputError(f"--at: no fit has a column {column!r}{did_you_mean(column, known)}")
        if isinstance(value, float) and not (math.isfinite(value) and value > 0):
            raise InputError(f"--at: {column!r} must be a finite number above zero, not {value:g}")


def _agrees(fit: Fit, at: Mapping) -> bool:
    """Whether group and fixed values of a fit are those of `at`, where both name them."""
    stated = {**fit.extra.get("fixed", {}), **fit.group}
    own = set(fit.columns.values())
    return all(same(stated[column], at[column]) for column in stated if column in at and column not in own)


def same(value, given) -> bool:
    """Whether two values are equal, as numbers where both are."""
    try:
        return float(value) == float(given)
    except (TypeError, ValueError):
        return str(value) == str(given)


def _shown(at: Mapping) -> str:
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in at.items()
    )


def _groups(fits: Sequence[Fit]) -> str:
    told = list(dict.fromkeys(describe(dict(fit.group)) for fit in fits))
    return "; ".join(told[:6]) + ("; ..." if len(told) > 6 else "")
