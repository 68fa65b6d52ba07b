"""On the lab the floor has a truth: the fitted E beside the language's exact entropy."""

import math

from scaling_jax.reports import figures, words
from scaling_jax.reports.blocks import Panels, Paragraph, Section, Table
from scaling_jax.reports.curves import method_colour
from scaling_jax.reports.evidence import bounds, level
from scaling_jax.reports.exponents import owner
from scaling_jax.reports.figures import Interval
from scaling_jax.reports.study_data import Study


def section(study: Study) -> Section | None:
    """On the lab: the true entropy beside the fitted E of every method."""
    entropy = (study.facts.get("entropy_per_target_token") or {}).get("test")
    if entropy is None:
        return None
    oracle = (study.facts.get("oracle_loss") or {}).get("test")
    rows, cells = [], []
    for task in study.tasks:
        for method in study.methods(task):
            fit = owner(study, task, method, "model_size", "E")
            if fit is None:
                continue
            low, high = bounds(fit, "E")
            value = fit.parameters["E"]
            best = min(run.loss for run in study.done if (run.task, run.method) == (task, method))
            rows.append(Interval(task, words.method(method), method_colour(study, method), value, low, high))
            inside = "yes" if low <= entropy <= high else "no" if math.isfinite(low) else "–"
            cells.append(
                [
                    words.method(method),
                    words.loss(value),
                    words.between(low, high, words.loss),
                    words.loss(high - low),
                    inside,
                    words.loss(best),
                ]
            )
    if not rows:
        return None
    about = "; ".join(
        f"{row.label} {words.loss(row.value)} {words.between(row.low, row.high, words.loss)}" for row in rows
    )
    drawing = figures.intervals(
        "entropy",
        "Fitted E by method beside the true entropy",
        f"True entropy {words.loss(entropy)}. {about}",
        rows,
        f"E ({words.LOSS_UNIT})",
        width=3.35,
        truth=("true entropy", entropy),
        limits=figures.limits(rows, entropy),
    )
    told = (
        f" The loss of the true distribution on this very test set is {words.loss(oracle)}." if oracle else ""
    )
    return Section(
        "entropy",
        "True entropy",
        "The fitted floor against the true entropy",
        [
            Paragraph(
                f"The data are a synthetic language whose conditional entropy is computed exactly: "
                f"{entropy:.4f} {words.LOSS_UNIT} on the test split. No model can do better on "
                f"average.{told} A fitted E is the floor of one method at these settings: it may lie above "
                "the entropy, and a wide interval says that the runs stop too far from the floor to see it."
            ),
            Panels([drawing], f"Fitted E with its {level(study)} interval; the line is the entropy."),
            Table(
                "Fitted E and entropy",
                ["Method", "E", "Interval", "Width", "Holds the entropy", "Lowest measured loss"],
                cells,
                text=(0,),
            ),
        ],
    )
