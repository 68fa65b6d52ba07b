"""The tables of Zhang et al. (ICLR 2024) from the results of a study of yours, as Markdown.

    python docs/examples/paper_tables.py runs/laws/results.csv --hold_out 'model == "ladder_500k" or ...'

Table 4 (fitted parameters, with intervals, and what follows from their draws), Table 6 (held-out error of
the multiplicative and the additive law), Table 5 (critical sizes by model, beside where the runs themselves
cross) and Table 7 (correlation of loss and score, where runs were scored), as on docs/finetuning_laws.md.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

LETTERS = {"model_size": "m", "pretraining": "p", "tuning_size": "t"}
FACTOR = {"model_size": "model size", "pretraining": "pretraining", "tuning_size": "tuning size"}


def table_text(header, rows) -> str:
    """Rows as a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def by_column(fits) -> dict:
    """(task, method) -> factor -> fit."""
    found = {}
    for fit in fits:
        found.setdefault((fit.group["task"], fit.group["method"]), {})[fit.group["factor"]] = fit
    return found


def table_4(fits) -> str:
    """A row per parameter, a column per task and method; a `?` where the runs do not identify it."""
    columns = by_column(fits)
    names = [(factor, name) for factor in LETTERS for name in ("A", "alpha")]
    rows = []
    for factor, name in [*names, (None, "beta"), (None, "E")]:
        cells = []
        for group in columns.values():
            fit = group.get(factor or next(iter(group)))
            cells.append(_estimate(fit, name) if fit is not None else "–")
        rows.append([f"{name}_{LETTERS[factor]}" if factor else name, *cells])
    return table_text(["", *(f"{task} {method}" for task, method in columns)], rows)


def _estimate(fit, name: str) -> str:
    low, high = fit.intervals[name]
    mark = "" if fit.identified[name] is True else "?"
    return f"{fit.parameters[name]:.3g}{mark} [{low:.3g}, {high:.3g}]"


def claims(fits) -> str:
    """The paper's statements on exponents, with the share of draws in which each holds here."""
    rows = []
    columns = by_column(fits)
    for (task, method), group in columns.items():
        if {"model_size", "pretraining"} <= set(group):
            size, tokens = (np.asarray(group[name].draws["alpha"]) for name in ("model_size", "pretraining"))
            count = min(len(size), len(tokens))
            share = np.mean(size[:count] > tokens[:count])
            rows.append([f"{task} {method}", "alpha_m > alpha_p", f"{share:.0%}"])
        if "tuning_size" in group:
            alpha = np.asarray(group["tuning_size"].draws["alpha"])
            rows.append([f"{task} {method}", "abs(alpha_t) < 0.01", f"{np.mean(np.abs(alpha) < 0.01):.0%}"])
    for task in dict.fromkeys(task for task, _ in columns):
        for first, second in (("full", "lora"), ("lora", "prompt")):
            if (task, first) in columns and (task, second) in columns:
                one, two = (
                    np.asarray(next(iter(columns[task, method].values())).draws["beta"])
                    for method in (first, second)
                )
                count = min(len(one), len(two))
                rows.append(
                    [task, f"beta of {first} > {second}", f"{np.mean(one[:count] > two[:count]):.0%}"]
                )
    return table_text(["fits", "statement", "draws in which it holds"], rows)


def table_6(first, second, names) -> str:
    """Held-out mean absolute deviation of two laws, and of the nearest fitted point."""
    rows = []
    for one, two in zip(first, second, strict=True):
        if one.errors["held_out_mad"] is None:
            continue
        errors = [one.errors["held_out_mad"], two.errors["held_out_mad"]]
        best = min(errors)
        told = [f"**{error:.4f}**" if error == best else f"{error:.4f}" for error in errors]
        rows.append([one.group["task"], FACTOR[one.group["factor"]], one.group["method"], *told])
    return table_text(["task", "factor", "method", *names], rows)


def critical_sizes_text(fits, runs) -> str:
    """Where two methods tie at each model by the model-size law, and between which sizes the runs cross."""
    from scaling_jax.decisions.critical_size import critical_sizes

    rows = []
    sized = {key: group["model_size"] for key, group in by_column(fits).items() if "model_size" in group}
    for task in dict.fromkeys(task for task, _ in sized):
        methods = [method for other, method in sized if other == task]
        models = sorted({(run["size"], run["model"]) for run in runs if run["task"] == task})
        for first, second in itertools.combinations(methods, 2):
            for size, model in models:
                compared = critical_sizes(sized[task, first], sized[task, second], {"x": size})
                told = [_crossing(crossing, compared) for crossing in compared.crossings]
                measured = _measured_crossing(runs, task, model, first, second)
                rows.append([task, f"{first} and {second}", model, "; ".join(told) or "none", measured])
    return table_text(["task", "methods", "model", "they tie at, by the law", "in the runs"], rows)


def _crossing(crossing, compared) -> str:
    low = "below" if crossing.low is None else f"{crossing.low:,.0f}"
    high = "beyond" if crossing.high is None else f"{crossing.high:,.0f}"
    inside = compared.fitted[0] <= crossing.size <= compared.fitted[1]
    return f"{crossing.size:,.0f} [{low}, {high}]{'' if inside else ' (outside the data)'}"


def _measured_crossing(runs, task, model, first, second) -> str:
    """Between which neighbouring data sizes the means over seeds change their order."""
    means = []
    for method in (first, second):
        losses = {}
        for run in runs:
            if (run["task"], run["model"], run["method"]) == (task, model, method):
                losses.setdefault(run["examples"], []).append(run["loss"])
        means.append({examples: np.mean(found) for examples, found in losses.items()})
    shared = sorted(means[0].keys() & means[1].keys())
    ahead = [first if means[0][examples] < means[1][examples] else second for examples in shared]
    changes = [
        f"{before:,} to {after:,} ({ahead[i]}, then {ahead[i + 1]})"
        for i, (before, after) in enumerate(itertools.pairwise(shared))
        if ahead[i] != ahead[i + 1]
    ]
    return "; ".join(changes) or (f"{ahead[0]} throughout" if ahead else "")


def table_7(runs, score: str) -> str:
    """Pearson correlation of loss and score over the runs of a task and method."""
    rows = []
    for key in dict.fromkeys((run["task"], run["method"]) for run in runs):
        pairs = [
            (run["loss"], run[score])
            for run in runs
            if (run["task"], run["method"]) == key and np.isfinite(run[score])
        ]
        if len(pairs) > 2:
            rows.append([*key, str(len(pairs)), f"{np.corrcoef(np.transpose(pairs))[0, 1]:.3f}"])
    return table_text(["task", "method", "runs", f"correlation of loss and {score}"], rows)


def read_runs(table, score: str | None) -> list[dict]:
    """What the tables of single runs need, at the longest pretraining and the usual tuning size."""
    from scaling_jax.laws.factors import model_size_rows

    runs = []
    for group, members in table.groups(("task", "method")):
        found = model_size_rows(members, "non_embedding_params")
        rows = found.rows if found else members
        columns = {
            "model": rows.text("model"),
            "size": rows.numbers("non_embedding_params"),
            "examples": rows.numbers("finetune_examples").astype(int),
            "loss": rows.numbers("loss"),
        }
        if score:
            columns[score] = rows.numbers(score)
        runs += [
            dict(group) | dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
    return runs


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--hold_out", help="as in the study's gin file")
    parser.add_argument("--methods", default="full,lora,prompt", help="with all factors; others are left out")
    parser.add_argument("--score", help="a column, for example bleu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from scaling_jax.laws.fit import Settings
    from scaling_jax.laws.joint import fit_joint
    from scaling_jax.laws.table import keep_done, read_table

    methods = " or ".join(f'method == "{name}"' for name in arguments.methods.split(","))
    table = keep_done(read_table(arguments.results)).where(methods)
    settings = Settings(residual="linear", seed=arguments.seed)
    options = {
        "size_column": "non_embedding_params",
        "hold_out": arguments.hold_out,
        "settings": settings,
    }
    multiplicative = fit_joint(table, "multiplicative", **options)
    additive = fit_joint(table, "additive", **options)
    runs = read_runs(table, arguments.score)
    told = {
        "Table 4": table_4(multiplicative),
        "Statements": claims(multiplicative),
        "Table 6": table_6(multiplicative, additive, ("multiplicative", "additive")),
        "Table 5": critical_sizes_text(multiplicative, runs),
    }
    if arguments.score:
        told["Table 7"] = table_7(runs, arguments.score)
    print("\n\n".join(f"### {name}\n\n{text}" for name, text in told.items()))


if __name__ == "__main__":
    main()
