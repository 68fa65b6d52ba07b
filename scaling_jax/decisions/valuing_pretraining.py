"""What pretraining data is worth for a task: the guide of Isik et al. (2024), section 3.5.

For every pretraining mixture and number of finetuning examples: is the score monotone in the tokens of
pretraining, does it follow the log-law, does it beat the model that was not pretrained, and is more
pretraining worth it? A score that breaks its law is a sign that the data do not suit the task, even where
the loss still follows its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaling_jax.decisions.pretraining_curves import Curve, curve, noise_of
from scaling_jax.laws.factors import EARLIER, EXAMPLES, MIXTURE, PRETRAINING, TUNING, with_column
from scaling_jax.laws.results import Fit, plain
from scaling_jax.laws.table import Table

# Scores that a study may have measured, the first that is there is valued where the study names none.
SCORES = (
    *("bleu", "chrf", "rouge_l", "rouge_1", "rouge_2", "exact_match", "accuracy"),
    *("bleurt", "judge_score"),
)
_NAMES = {
    **{"bleu": "BLEU", "chrf": "chrF", "bleurt": "BLEURT", "judge_score": "judge's score"},
    **{"rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "rouge_l": "ROUGE-L"},
}
AHEAD = (2.0, 10.0)
# Beside fits.json, with the fits of `fits_of`.
FITS_FILE = "pretraining_fits.json"
_GROUP = ("task", "method", "model", EARLIER, TUNING, EXAMPLES)


@dataclass(frozen=True)
class Ahead:
    """The score that the law predicts at more pretraining.

    Attributes:
        times: of the most tokens that were tried.
        worth: "yes", "no" or "unclear": whether it reaches the target, or without one whether it is above
            the last score by more than noise, at both ends of the interval.
    """

    times: float
    tokens: float
    value: float
    low: float
    high: float
    worth: str


@dataclass(frozen=True)
class Valuation:
    """One mixture, valued for one task, method, model and number of examples.

    Attributes:
        group: column -> value.
        mixture: the recipe; "" where the study has one without a name.
        alignment: Equation 2, 0 to 1; None where the languages are not declared.
        target: a score that is wanted, or None.
        score: the score's curve; None where no score was measured.
        loss: the loss's curve.
        ahead: predictions at more tokens; empty where the score does not follow its law.
        verdict: "falls", "breaks", "flat", "grows", "too few" or "no score".
        text: the verdict in words.
    """

    group: Mapping[str, str]
    mixture: str
    alignment: float | None
    target: float | None
    score: Curve | None
    loss: Curve
    ahead: tuple[Ahead, ...]
    verdict: str
    text: str


def score_name(column: str) -> str:
    """A column of scores as people write it."""
    return _NAMES.get(column, column.replace("_", " "))


def alignment(shares: Mapping[str, float], source: str, target: str) -> float:
    """How well a pretraining mixture suits a translation task: Equation 2 of Isik et al. (2024).

    Args:
        shares: language -> share of the mixture.
        source, target: languages of the task.
    """
    of_source, of_target = shares.get(source, 0.0), shares.get(target, 0.0)
    return of_source * of_target + 0.7 * of_source + 0.8 * of_target


def value_pretraining(
    table: Table,
    declared: Mapping[str, Any] | None = None,
    hold_out: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[Valuation]:
    """Values every mixture of a study; empty where a study says nothing of this.

    A study does where it declares it, or where it has runs that were not pretrained or several mixtures, and
    at least two levels of pretraining.

    Args:
        table: a study's `results.csv`, from `read_table`.
        declared: `valuing_pretraining` of study.json: {"score", "target", "mixtures": {mixture: {language:
            share}}, "tasks": {task: [source, target]}}.
        hold_out: expression of the rows that are not fitted.
        bootstrap, seed: of the intervals.

    Raises:
        InputError: a column that is missing or holds text for numbers.
    """
    for column in (PRETRAINING, TUNING, MIXTURE, EARLIER):
        table = with_column(table, column)
    table = table.where(f"{EXAMPLES} > 0")
    if not len(table) or (declared is None and not _is_about_pretraining(table)):
        return []
    declared = declared or {}
    score = declared.get("score") or next((name for name in SCORES if _measured(table, name)), None)
    found = []
    for group, rows in table.groups([name for name in _GROUP if name in table]):
        noises = {
            column: noise_of(rows, (MIXTURE, PRETRAINING), column)
            for column in (score, "loss")
            if column and column in rows
        }
        pretrained = rows.rows(rows.numbers(PRETRAINING) != 0)
        baseline = rows.rows(rows.numbers(PRETRAINING) == 0)
        for mixture, own in pretrained.groups((MIXTURE,)) if len(pretrained) else []:
            fitting = {"bootstrap": bootstrap, "seed": seed}
            loss = curve(own, baseline, "loss", "power", noises["loss"], hold_out, **fitting)
            if loss is None or len(loss.tokens) < 2:
                continue
            scored = (
                curve(own, baseline, score, "score_log", noises[score], hold_out, **fitting)
                if score in noises
                else None
            )
            found.append(_valuation(group, mixture[MIXTURE], scored, loss, declared))
    return found


def fits_of(valuations: Sequence[Valuation]) -> list[Fit]:
    """The fits to all levels, to predict from: groups name the mixture."""
    found = []
    for one in valuations:
        for measured in (one.score, one.loss):
            if measured is not None and measured.whole is not None:
                group = {**one.group, MIXTURE: one.mixture}
                found.append(dataclasses.replace(measured.whole, group=group))
    return found


def to_json(valuations: Sequence[Valuation]) -> list[dict]:
    """Plain dicts for `decision.json`; of the fits the parameters, held-out error and interval."""
    found = []
    for one in valuations:
        entry = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        entry["score"] = _curve_json(one.score)
        entry["loss"] = _curve_json(one.loss)
        entry["ahead"] = [dataclasses.asdict(ahead) for ahead in one.ahead]
        found.append(plain(entry))
    return found


def _curve_json(measured: Curve | None) -> dict | None:
    if measured is None:
        return None
    entry = {field.name: getattr(measured, field.name) for field in dataclasses.fields(measured)}
    for name in ("tested", "whole"):
        fit = entry[name]
        entry[name] = fit and {
            "parameters": dict(fit.parameters),
            "intervals": dict(fit.intervals),
            "identified": dict(fit.identified),
            "errors": dict(fit.errors),
            "level": fit.level,
        }
    return entry


def _is_about_pretraining(table: Table) -> bool:
    tokens, mixtures = set(table.numbers(PRETRAINING)), set(table.text(MIXTURE)) - {""}
    return sum(level > 0 for level in tokens) > 1 and (0 in tokens or len(mixtures) > 1)


def _measured(table: Table, column: str) -> bool:
    return column in table and any(table.text(column))


def _valuation(
    group: Mapping[str, str], mixture: str, score: Curve | None, loss: Curve, declared: Mapping[str, Any]
) -> Valuation:
    shares = declared.get("mixtures", {}).get(mixture)
    pair = declared.get("tasks", {}).get(group["task"])
    aligned = alignment(shares, *pair) if shares and pair else None
    target = declared.get("target")
    verdict = _verdict(score)
    ahead = _ahead(score, target) if verdict == "grows" else ()
    text = " ".join(_sentences(verdict, score, loss, ahead, target))
    return Valuation(dict(group), mixture, aligned, target, score, loss, ahead, verdict, text)


def _verdict(score: Curve | None) -> str:
    if score is None:
        return "no score"
    if score.falls:
        return "falls"
    if len(score.tokens) < 3:
        return "too few"
    if abs(score.growth) <= score.allowed:
        return "flat"
    return "breaks" if score.follows is False else "grows"


def _ahead(score: Curve, target: float | None) -> tuple[Ahead, ...]:
    if score.whole is None:
        return ()
    found = []
    for times in AHEAD:
        tokens = times * score.tokens[-1]
        value, low, high = (float(part) for part in score.whole.predict({"d": tokens}))
        wanted = score.means[-1] + score.allowed if target is None else target
        worth = "yes" if low >= wanted else "no" if high < wanted else "unclear"
        found.append(Ahead(times, tokens, value, low, high, worth))
    return tuple(found)


def _sentences(
    verdict: str, score: Curve | None, loss: Curve, ahead: Sequence[Ahead], target: float | None
) -> list[str]:
    if score is None:
        return ["No score was measured: the guide goes by the score, the loss alone does not value data."]
    name = score_name(score.column)
    steady = f"{name} grows with pretraining, from {score.means[0]:.3g} to {score.means[-1]:.3g}"
    told = {
        "falls": f"{name} does not grow steadily: {score.reason}. No law holds: these data do not suit the "
        "task, and the best checkpoint is what they are worth.",
        "breaks": f"{steady}, but does not follow the log-law: {score.reason}. The data may not suit the "
        "task well enough to pretrain longer on.",
        "flat": f"{name} does not change with pretraining by more than noise ({score.means[0]:.3g} to "
        f"{score.means[-1]:.3g}): more of it is not worth it.",
        "too few": f"{len(score.tokens)} levels of pretraining: three are needed to tell how {name} grows.",
        "grows": f"{steady}, and follows the log-law."
        if score.follows
        else f"{steady}; whether by the log-law cannot be told: {score.reason}.",
    }
    found = [told[verdict][:1].upper() + told[verdict][1:], _against_baseline(score, name)]
    found += [_more(ahead, score, name, target)] if ahead else []
    if verdict in ("falls", "breaks") and loss.follows:
        found.append("The loss still follows its power law: it would not have shown this.")
    return [sentence for sentence in found if sentence]


def _against_baseline(score: Curve, name: str) -> str:
    if score.worth is None:
        return "No model that was not pretrained was tuned (pretrain_tokens 0), so its worth is not known."
    pair = f"{score.best:.3g} against {score.baseline:.3g}"
    if score.worth > score.allowed:
        return f"Pretraining is worth {score.worth:.3g} of {name} over the model not pretrained ({pair})."
    if score.worth < -score.allowed:
        return f"The model not pretrained is better ({pair}): this pretraining harms."
    return f"Pretraining is worth nothing beyond noise over the model not pretrained ({pair})."


def _more(ahead: Sequence[Ahead], score: Curve, name: str, target: float | None) -> str:
    told = ", ".join(
        f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}] at {one.times:g} times the tokens" for one in ahead
    )
    wanted = f"the wanted {target:g}" if target is not None else "more than noise above what there is"
    worth = [one.worth for one in ahead]
    if worth[0] == "yes":
        decided = f"twice the tokens give {wanted}: more pretraining is worth it"
    elif "yes" in worth:
        decided = f"ten times the tokens give {wanted}, twice may not"
    elif set(worth) == {"no"}:
        decided = f"not even ten times the tokens give {wanted}: more is not worth it"
    else:
        decided = f"whether more gives {wanted} is open: pretrain further, tune and fit again"
    return f"Predicted {name}: {told}; {decided}."
