"""Choosing a form: which law predicts losses that it has not seen, and whether the data can tell.

Two rules. **Held out**: the laws are fitted to the same rows and judged on the same others.
**Rolling**: fitted to the k smallest sizes and judged on the next one, for every k that allows a fit.
The differences between the laws have intervals from a paired bootstrap. For held-out rows, the rows that are
fitted get the same random weights for every law, and the rows that are predicted are resampled alike; for the
rolling rule, which fits each law many times, only the sizes predicted are resampled. Their errors go
together, so that these intervals are too narrow, and below five sizes nothing is claimed. Where the interval
of a difference holds zero the data cannot tell the two laws apart, and that is said.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings
from scaling_jax.laws.law import Law
from scaling_jax.laws.results import Fit, plain
from scaling_jax.laws.sample import Sample

_DRAWS = 1000
# Fewer steps of a rolling comparison show no difference; one below this share of the error is rounding.
_FEWEST_STEPS, _ROUNDING = 5, 1e-6


@dataclass(frozen=True)
class Score:
    """One law's errors.

    Attributes:
        law: its name.
        parameters: how many it has.
        fitted_mad: mean absolute deviation at the rows fitted; None for the rolling rule.
        held_out_mad, held_out_rmsd_log: at the rows not fitted.
        by_size: rolling only: size -> mean absolute deviation there.
        worse_by: held-out deviation above the best law's, with its interval; None for the best.
    """

    law: str
    parameters: int
    fitted_mad: float | None
    held_out_mad: float
    held_out_rmsd_log: float | None
    by_size: Mapping[float, float]
    worse_by: tuple[float, float, float] | None


@dataclass(frozen=True)
class Choice:
    """Laws compared on one group of rows.

    Attributes:
        group: column -> value.
        rule: what was held out, in words.
        rows: how many predictions each law was judged by.
        scores: best first.
        level: of the intervals.
        text: what the data can tell, one sentence.
    """

    group: Mapping
    rule: str
    rows: int
    scores: tuple[Score, ...]
    level: float
    text: str

    def to_json(self) -> dict:
        """Plain types for JSON."""
        return plain(asdict(self))


def choose_held_out(samples: Mapping[str, Sample], fits: Mapping[str, Fit], settings: Settings) -> Choice:
    """Compares fits of several laws at the rows that they held out.

    Args:
        samples: law -> the rows, the same for each.
        fits: law -> the fit to them.
        settings: how they were fitted.

    Raises:
        InputError: no rows are held out.
    """
    from scaling_jax.laws.solution import fit_samples

    first = next(iter(samples.values()))
    if not first.held.any():
        raise InputError(
            "several laws are compared at rows that none has seen: add --hold_out, "
            "--hold_out_largest or --rolling"
        )
    for name, sample in samples.items():
        if not np.array_equal(sample.runs, first.runs):
            raise InputError(
                f"law {name!r} has {len(sample.runs)} rows and another law {len(first.runs)}, as cells are "
                "empty in columns that only one of them uses; leave such rows out with --where"
            )
    resampling = dataclasses.replace(settings, intervals="rows", bootstrap=max(200, settings.bootstrap // 2))
    drawn = {}
    for name, sample in samples.items():
        held = {role: values[sample.held] for role, values in sample.sizes.items()}
        loss = sample.loss[sample.held]
        paired = fit_samples([sample], fits[name].form, resampling, reference=fits[name].law)[0]
        drawn[name] = np.abs(paired.draw_predictions(held) - loss)
    draws = len(next(iter(drawn.values())))
    chosen = _resampled(int(first.held.sum()), draws, settings.seed)
    means = {name: np.take_along_axis(values, chosen, axis=1).mean(axis=1) for name, values in drawn.items()}
    scores = [
        Score(
            law=name,
            parameters=len(fits[name].parameters),
            fitted_mad=fits[name].errors["fitted_mad"],
            held_out_mad=fits[name].errors["held_out_mad"],
            held_out_rmsd_log=fits[name].errors["held_out_rmsd_log"],
            by_size={},
            worse_by=None,
        )
        for name in samples
    ]
    rule = f"held out: {first.hold_out}"
    return _choice(first.group, rule, int(first.held.sum()), scores, means, settings.level)


def choose_rolling(
    sample: Sample,
    laws: Mapping[str, Law],
    role: str,
    settings: Settings,
    watch: Callable[[Sequence], Iterable] = iter,
) -> Choice:
    """Fits each law to the k smallest sizes along a role and judges it on the next, for every k.

    The smallest k is the one at which every law has more rows than parameters and three sizes. `watch` wraps
    the list of k as it is worked through, to show progress.

    Raises:
        InputError: there are too few sizes.
    """
    from scaling_jax.laws.problem import Objective, make_problem, parameters_of
    from scaling_jax.laws.solve import best_point

    sizes = np.unique(sample.sizes[role])
    most = max(len(law.parameters) for law in laws.values())
    steps = [k for k in range(3, len(sizes)) if np.sum(sample.sizes[role] < sizes[k]) > most]
    if not steps:
        raise InputError(
            f"--rolling: {sample.columns[role]!r} has {len(sizes)} sizes; the laws need three of them and "
            f"more than {most} rows before the size that is predicted"
        )
    gaps, logs, places = {name: [] for name in laws}, {name: [] for name in laws}, []
    for k in watch(steps):
        seen, next_rows = sample.sizes[role] < sizes[k], sample.sizes[role] == sizes[k]
        places += [sizes[k]] * int(next_rows.sum())
        for name, law in laws.items():
            objective = Objective(law, settings.residual, settings.loss)
            columns = {r: values[seen] for r, values in sample.sizes.items()}
            problem = make_problem(
                objective,
                columns,
                sample.loss[seen],
                settings.delta,
                sample.weights[seen],
                # One size of arrays for every k: one compilation.
                room=len(sample.loss),
            )
            point = best_point(objective, problem, settings.back_end).point
            found = {key: value[0] for key, value in parameters_of(objective, problem, point, np).items()}
            ahead = law.predict(found, {r: values[next_rows] for r, values in sample.sizes.items()})
            gaps[name] += np.abs(ahead - sample.loss[next_rows]).tolist()
            with np.errstate(all="ignore"):
                logs[name] += np.log(np.maximum(ahead, 1e-300) / sample.loss[next_rows]).tolist()
    places = np.array(places)
    scores, means = [], {}
    # The rows of one step share the fits that predict them: steps are resampled, not rows.
    ahead_sizes, step = np.unique(places, return_inverse=True)
    chosen = _resampled(len(ahead_sizes), _DRAWS, settings.seed)
    counts = np.bincount(step)
    for name, law in laws.items():
        errors = np.array(gaps[name])
        totals = np.bincount(step, errors)
        means[name] = totals[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
        log_errors = np.array(logs[name])
        usable = np.all(np.isfinite(log_errors))
        scores.append(
            Score(
                law=name,
                parameters=len(law.parameters),
                fitted_mad=None,
                held_out_mad=float(errors.mean()),
                held_out_rmsd_log=float(np.sqrt(np.mean(log_errors**2))) if usable else None,
                by_size={float(size): float(errors[places == size].mean()) for size in np.unique(places)},
                worse_by=None,
            )
        )
    rule = f"rolling: fitted to the smaller values of {sample.columns[role]}, judged on the next"
    enough = len(ahead_sizes) >= _FEWEST_STEPS
    return _choice(sample.group, rule, len(places), scores, means, settings.level, enough)


def _resampled(rows: int, draws: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).integers(rows, size=(draws, rows))


def _choice(group, rule, rows, scores, means: Mapping, level: float, enough: bool = True) -> Choice:
    """Sorts the scores and says what the differences are worth, where there is enough to judge by."""
    ordered = sorted(scores, key=lambda score: np.nan_to_num(score.held_out_mad, nan=np.inf))
    best, tail = ordered[0], 50 * (1 - level)
    found = [best]
    for score in ordered[1:]:
        low, high = np.percentile(means[score.law] - means[best.law], [tail, 100 - tail])
        gap = score.held_out_mad - best.held_out_mad
        found.append(dataclasses.replace(score, worse_by=(gap, float(low), float(high))))
    rounding = _ROUNDING * best.held_out_mad
    worse = [score.law for score in found[1:] if enough and score.worse_by[1] > rounding]
    alike = [score.law for score in found[1:] if score.law not in worse]
    told = "predicts best (" if len(found) > 1 else "predicts what it has not seen ("
    parts = [f"{best.law} {told}mean deviation {best.held_out_mad:.4g} over {rows} rows)"]
    if worse:
        parts.append(f"better than {', '.join(worse)} beyond the {100 * level:.0f}% interval")
    if alike:
        parts.append(f"the data cannot tell it from {', '.join(alike)}")
    return Choice(dict(group), rule, rows, tuple(found), level, "; ".join(parts))
