"""Joins fits with the rows they were made from, and evaluates a fit along a curve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_jax.laws.law import find_law
from scaling_jax.reports.study_data import Run, Study

Fit = Mapping[str, Any]


@dataclass(frozen=True)
class Band:
    """A law evaluated at some points [n]: its value and the bounds of its interval (NaN without one)."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def find_fit(study: Study, task: str, method: str, factor: str, law: str = "multiplicative") -> Fit | None:
    """The entry of fits.json for that group, None when there is none or it could not be fitted."""
    for fit in study.fits:
        group = fit.get("group", {})
        if (fit.get("law"), fit.get("factor"), group.get("task"), group.get("method")) == (
            law, factor, task, method
        ) and fit.get("parameters"):
            return fit
    return None


def evaluate(fit: Fit, x: Sequence[float] | float, examples: Sequence[float] | float) -> Band:
    """The fitted law at sizes `x` and numbers of examples, broadcast to [n]."""
    x, examples = np.broadcast_arrays(np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(examples, float)))
    value = np.asarray(find_law(fit["law"]).predict(fit["parameters"], {"x": x, "d": examples}))
    nothing = np.full(value.shape, math.nan)
    return Band(value, nothing, nothing)


def x_column(fit: Fit) -> str:
    """The results column that is the law's X."""
    return str(fit["columns"]["x"])


def rows_of(study: Study, fit: Fit) -> list[tuple[Run, bool]]:
    """The finished rows the fit is about, each with whether it was held out."""
    group = fit["group"]
    runs = [run for run in study.done if all(getattr(run, key) == value for key, value in group.items())]
    if fit["factor"] == "model_size":
        most = max(run["pretrain_tokens"] for run in runs)
        runs = [run for run in runs if run["pretrain_tokens"] == most]
    return [(run, run["finetune_examples"] >= 16000) for run in runs]
