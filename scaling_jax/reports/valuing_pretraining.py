"""What pretraining data is worth: score and loss against tokens of pretraining, by mixture, and a verdict."""

from collections.abc import Mapping, Sequence

import numpy as np

from scaling_jax.decisions.valuing_pretraining import FITS_FILE, score_name
from scaling_jax.laws.results import Fit, read_fits
from scaling_jax.reports import figures, theme, words
from scaling_jax.reports.blocks import Bullets, Cell, Heading, Panels, Paragraph, Section, Table
from scaling_jax.reports.figures import Baseline, Series
from scaling_jax.reports.study_data import Run, Study
from scaling_jax.reports.theme import Drawing

_PANEL = (4.4, 3.3)
_WORDS = {True: "yes", False: "no", None: "–"}
_VERDICTS = {
    "falls": "does not suit the task",
    "breaks": "leaves its law",
    "flat": "more is not worth it",
    "grows": "grows",
    "too few": "too few levels",
    "no score": "no score",
}


def section(study: Study) -> Section | None:
    """Figures, a table and verdicts for each task, method, model and number of examples; None without any."""
    places = _places(study)
    if not places:
        return None
    path = study.folder / FITS_FILE
    fits = read_fits(path) if path.is_file() else []
    parts: list = [Paragraph(_ABOUT, quiet=True)]
    for place, entries in places.items():
        group = entries[0]["group"]
        size = words.count(float(group["finetune_examples"]))
        parts.append(Heading(f"{_task(study, group)}{group['model']}, {size} finetuning examples"))
        drawings = [
            drawing
            for measure in ("score", "loss")
            if (drawing := _drawing(study, place, entries, fits, measure))
        ]
        parts.append(Panels(drawings, _caption(entries, fits)))
        parts.append(_table(study, entries))
        parts.append(Bullets([f"{_mixture(one)}: {one['text']}" for one in entries]))
    return Section("valuing", "Worth of pretraining", "What is the pretraining data worth?", parts)


def statements(study: Study) -> list[str]:
    """One sentence per task, method and model: which mixture gave the best score at the most examples."""
    found: dict[tuple, tuple[float, str]] = {}
    for entries in _places(study).values():
        group = entries[0]["group"]
        scored = [one for one in entries if one["score"]]
        if not scored:
            continue
        scored.sort(key=lambda one: -max(one["score"]["means"]))
        told = words.several(f"{_mixture(one)} {max(one['score']['means']):.3g}" for one in scored)
        baseline = scored[0]["score"]["baseline"]
        against = "" if baseline is None else f"; not pretrained {baseline:.3g}"
        examples = float(group["finetune_examples"])
        sentence = (
            f"Best {score_name(scored[0]['score']['column'])} on {group['task']} with "
            f"{words.count(examples)} examples, by pretraining data: {told}{against}."
        )
        place = (group["task"], group["method"], group["model"])
        if examples > found.get(place, (0.0, ""))[0]:
            found[place] = (examples, sentence)
    return [sentence for _, sentence in found.values()]


_ABOUT = (
    "The guide of Isik et al. (2024): data are worth pretraining on while the score grows steadily with "
    "tokens, follows the log-law S = (log(A D^alpha))^beta, and beats the model that was not pretrained. Go "
    "by the score: the loss may follow its power law where the score has long stopped to grow. Alignment is "
    "their Equation 2: 0 for languages that are not the task's, 1 for an even mixture of its two."
)


def _places(study: Study) -> dict[tuple, list[Mapping]]:
    """Entries of decision.json by task, method, model, size and examples."""
    found: dict[tuple, list[Mapping]] = {}
    for entry in study.decision.get("valuing_pretraining") or []:
        found.setdefault(tuple(sorted(entry["group"].items())), []).append(entry)
    return found


def _task(study: Study, group: Mapping) -> str:
    """Task and method, where a study has several."""
    several = len({run.task.split("@")[0] for run in study.runs}) > 1
    methods = len({run.method for run in study.runs}) > 1
    parts = [*([group["task"]] if several else []), *([words.method(group["method"])] if methods else [])]
    return ", ".join([*parts, ""]) if parts else ""


def _mixture(entry: Mapping) -> str:
    return entry["mixture"] or "pretrained"


def _colour(entries: Sequence[Mapping], entry: Mapping) -> str:
    return theme.category([one["mixture"] for one in entries].index(entry["mixture"]))


def _runs(study: Study, entry: Mapping, column: str) -> list[Run]:
    """The finished runs of an entry that measured the column."""
    wanted = {**entry["group"], "pretrain_mixture": entry["mixture"]}
    task = wanted.pop("task")
    return [
        run
        for run in study.runs
        if run.task.split("@")[0] == task
        and run.status == "done"
        and all((run.cells.get(name) or "") == value for name, value in wanted.items())
        and run.cells.get(column)
        and run["pretrain_tokens"] > 0
    ]


def _series(
    study: Study, entries: Sequence[Mapping], entry: Mapping, curve: Mapping, fit: Fit | None
) -> Series:
    colour = _colour(entries, entry)
    runs = _runs(study, entry, curve["column"])
    tokens = np.array([run["pretrain_tokens"] for run in runs])
    values = np.array([float(run.cells[curve["column"]]) for run in runs])
    held = np.isin(tokens, curve["held_out"])
    line = {}
    if fit is not None and curve["follows"] is not False:
        grid = np.geomspace(tokens.min(), tokens.max(), 60)
        value, low, high = fit.predict({"d": grid})
        line = {"line_x": grid, "line_y": value, "low": low, "high": high}
    else:  # no law holds: the means, joined
        line = {"line_x": np.array(curve["tokens"]), "line_y": np.array(curve["means"])}
    return Series(_mixture(entry), colour, tokens, values, held, colour, **line)


def _drawing(
    study: Study, place: tuple, entries: Sequence[Mapping], fits: Sequence[Fit], measure: str
) -> Drawing | None:
    shown = [(one, one[measure]) for one in entries if one[measure]]
    if not shown:
        return None
    column = shown[0][1]["column"]
    drawn = [_series(study, entries, one, curve, _fit(fits, one, column)) for one, curve in shown]
    baseline = shown[0][1]["baseline"]
    lines = [] if baseline is None else [Baseline("not pretrained", baseline)]
    name = "-".join(str(value) for key, value in place if value and key in ("task", "method", "model"))
    examples = dict(place)["finetune_examples"]
    label = _label(column)
    about = "; ".join(
        f"{line.label}: {curve['means'][0]:.3g} at {words.count(curve['tokens'][0])} tokens, "
        f"{curve['means'][-1]:.3g} at {words.count(curve['tokens'][-1])}"
        for line, (_, curve) in zip(drawn, shown, strict=True)
    )
    return figures.curves(
        f"valuing-{column}-{name}-{examples}",
        f"{label} against pretraining tokens by mixture, {words.count(float(examples))} finetuning examples",
        about + (f"; not pretrained: {baseline:.3g}" if baseline is not None else ""),
        drawn,
        "Pretraining tokens",
        f"Test loss ({words.LOSS_UNIT})" if column == "loss" else label,
        size=_PANEL,
        heading=label,
        baselines=lines,
    )


def _fit(fits: Sequence[Fit], entry: Mapping, column: str) -> Fit | None:
    wanted = {**entry["group"], "pretrain_mixture": entry["mixture"]}
    for fit in fits:
        if fit.columns["y"] == column and {key: str(value) for key, value in fit.group.items()} == wanted:
            return fit
    return None


def _label(column: str) -> str:
    return words.heading(score_name(column))


def _caption(entries: Sequence[Mapping], fits: Sequence[Fit]) -> str:
    curve = next(one["score"] or one["loss"] for one in entries)
    level = f"{100 * fits[0].level:.0f}%" if fits else "90%"
    difference = f"{curve['allowed']:.2g} {_label(curve['column'])}"
    noise = f"differences of means below {difference} are taken for noise between seeds"
    if curve["noise"] is None:
        noise = f"with one seed each, differences below {difference} are taken for noise"
    return (
        "Every point is a run; hollow ones were held out when the law was judged. Lines are the laws fitted "
        f"to all levels with their {level} band, or where no law holds the means. Dashed: the model that was "
        f"not pretrained; {noise}."
    )


def _table(study: Study, entries: Sequence[Mapping]) -> Table:
    first = next((one["score"] for one in entries if one["score"]), None)
    name = _label(first["column"]) if first else "Score"
    rows = [_row(entries, one) for one in entries]
    return Table(
        "Worth of pretraining mixtures",
        [
            *("Mixture", "Verdict", "Alignment", "best", "gained", "steady", "follows", "off by"),
            *("follows", "off by", "at 2 times", "at 10 times"),
        ],
        rows,
        text=(0, 1),
        groups=(("", 3), (name, 5), ("Loss", 2), (f"{name} predicted", 2)),
        caption=f"gained: best {name} over the model that was not pretrained. steady: never falls by more "
        f"than noise. follows: {name} the log-law and the loss its power law, at held-out levels, which they "
        "miss by that much on average. Predicted, with intervals of the law, where it is not broken.",
    )


def _row(entries: Sequence[Mapping], one: Mapping) -> list:
    score, loss = one["score"], one["loss"]
    worth = None
    if score and score["baseline"] is not None:
        worth = max(score["means"]) - score["baseline"]
    ahead = [
        Cell(f"{part['value']:.3g}", words.between(part["low"], part["high"], lambda end: f"{end:.3g}"))
        for part in one["ahead"]
    ]
    return [
        Cell(_mixture(one), key=theme.css_colour(_colour(entries, one))),
        _VERDICTS[one["verdict"]],
        "–" if one["alignment"] is None else f"{one['alignment']:.2f}",
        f"{max(score['means']):.3g}" if score else "–",
        "–" if worth is None else f"{worth:+.3g}".replace("-", "−"),
        _WORDS[not score["falls"]] if score else "–",
        _WORDS[score["follows"]] if score else "–",
        _held_out(score),
        _WORDS[loss["follows"]],
        _held_out(loss),
        *(ahead or ["–", "–"]),
    ]


def _held_out(curve: Mapping | None) -> str:
    if not curve or not curve["tested"]:
        return "–"
    error = curve["tested"]["errors"]["held_out_mad"]
    return "–" if error is None else f"{error:.3g}"
