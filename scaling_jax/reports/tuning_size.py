"""Whether a longer prompt or a higher rank lowers the loss, where a study varied it."""

from scaling_jax.reports import curves, words
from scaling_jax.reports.blocks import Bullets, Heading, Panels, Paragraph, Section
from scaling_jax.reports.evidence import bounds, find_fit, level
from scaling_jax.reports.study_data import Study


def section(study: Study) -> Section | None:
    """Panels by tuning size and what its exponent says; None when no method has several tuning sizes."""
    parts: list = []
    for task in study.tasks:
        told = [line for method in study.methods(task) if (line := _line(study, task, method))]
        if not told:
            continue
        if len(study.tasks) > 1:
            parts.append(Heading(task))
        parts.append(Bullets(told))
        caption = f"One line per prompt length or rank, at one model. Bands are {level(study)} intervals."
        parts.append(Panels(curves.panels(study, task, "tuning_size"), caption))
    if not parts:
        return None
    about = "αₜ is the exponent of the tuning size: at zero, more tuned parameters change nothing."
    return Section("tuning-size", "Tuning size", "More tuned parameters?", [Paragraph(about), *parts])


def _line(study: Study, task: str, method: str) -> str:
    fit = find_fit(study, task, method, "tuning_size")
    if fit is None:
        return ""
    low, high = bounds(fit, "alpha")
    alpha = f"αₜ {words.parameter(fit.parameters['alpha'])} {words.between(low, high, words.parameter)}"
    if low > 0:
        verdict = f"a doubling takes {100 * (1 - 2 ** -fit.parameters['alpha']):.1f}% off the reducible loss"
    elif high < 0:
        verdict = "larger is worse"
    else:
        verdict = "the runs do not show that it matters"
    return f"{words.capital(words.method(method))}: {alpha}; {verdict}."
