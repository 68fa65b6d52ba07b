"""Fits, comparisons of laws and the joint table as text for a terminal."""

from collections.abc import Sequence

_FACTOR_LETTERS = {"model_size": "m", "pretraining": "p", "tuning_size": "t"}


def fit_text(fit) -> str:
    """One fit as an aligned table."""
    roles = ", ".join(f"{role.upper()} = {column}" for role, column in fit.columns.items() if role != "y")
    group = ", ".join(f"{column}={value}" for column, value in fit.group.items())
    counts = (
        f"{fit.rows['fitted']} rows fitted, {fit.rows['held_out']} held out, {fit.rows['dropped']} dropped"
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in fit.dropped_reasons.items())
    lines = [f"{fit.equation}" + (f"    [{group}]" if group else "")]
    lines.append(f"  y = {fit.columns['y']}, {roles}; {counts}{f' ({reasons})' if reasons else ''}")
    heading = f"{100 * fit.level:.0f}% interval"
    lines.append(f"  {'parameter':<10} {'value':>11}   {heading:<24}  standard error")
    for name, value in fit.parameters.items():
        low, high = fit.intervals[name]
        known = fit.identified[name]
        note = " (shared)" if name in fit.shared else ""
        note += "" if known is True else f"   not identified: {known}"
        interval = f"{low:>10.4g} to {high:<10.4g}"
        error = fit.standard_errors[name]
        # The spread of draws that run off to anywhere is no number to print.
        shown = f"{error:.3g}" if error < 100 * (high - low) else "-"
        lines.append(f"  {name:<10} {value:>11.5g}   {interval}  {shown:>10}{note}".rstrip())
    lines.append(f"  {'error':<10} {'mean |y - law|':>18} {'RMS of log':>12}")
    for name in ("fitted", "held_out"):
        if fit.errors[f"{name}_mad"] is not None:
            label = name.replace("_", " ")
            logs = fit.errors[f"{name}_rmsd_log"]
            shown = "" if logs is None else f"{logs:.5f}"
            lines.append(f"  {label:<10} {fit.errors[f'{name}_mad']:>18.5f} {shown:>12}".rstrip())
    lines.append(_objective_line(fit))
    lines += [f"  note: {note}" for note in fit.notes]
    return "\n".join(lines)


def _objective_line(fit) -> str:
    kind, delta = fit.objective["kind"], fit.objective["delta"]
    loss, _, residual = kind.partition("_")
    names = {"huber": "Huber sum", "squared": "sum of squares", "absolute": "sum of absolute residuals"}
    joint = fit.objective.get("joint_value")
    return (
        f"  {names[loss]} {fit.objective['value']:.6g}"
        + (f" (all groups {joint:.6g})" if joint is not None else "")
        + f" of {residual} residuals"
        + (f", delta {delta:g}" if delta is not None else "")
        + f"; {fit.starts['agreeing']} of {fit.starts['total']} starts agree; "
        f"condition number {fit.condition_number:.2g}; "
        f"intervals: {fit.interval_method}, {fit.bootstrap} draws"
    )


def choice_text(choice) -> str:
    """Laws side by side, best first; a law in a file of its own by its name there."""
    group = ", ".join(f"{column}={value}" for column, value in choice.group.items())
    short = _short_names([score.law for score in choice.scores])
    lines = [f"Which law?{f'    [{group}]' if group else ''}  {choice.rule}"]
    level = f"{100 * choice.level:.0f}%"
    width = max(len("predicted size"), *map(len, short.values()))
    lines.append(
        f"  {'law':<{width}}  parameters  {'fitted':>8}  {'held out':>8}  {'RMS of log':>10}  "
        f"worse than the best by [{level} interval]"
    )
    for score in choice.scores:
        fitted = "" if score.fitted_mad is None else f"{score.fitted_mad:.5f}"
        logs = "" if score.held_out_rmsd_log is None else f"{score.held_out_rmsd_log:.5f}"
        gap = ""
        if score.worse_by is not None:
            value, low, high = score.worse_by
            gap = f"{value:.5f} [{low:.5f}, {high:.5f}]"
        lines.append(
            f"  {short[score.law]:<{width}}  {score.parameters:>10}  {fitted:>8}  "
            f"{score.held_out_mad:>8.5f}  {logs:>10}  {gap}".rstrip()
        )
    sizes = sorted({size for score in choice.scores for size in score.by_size})
    if sizes:
        lines.append(f"  {'predicted size':<{width}}  " + "  ".join(f"{size:>8.3g}" for size in sizes))
        for score in choice.scores:
            cells = "  ".join(f"{score.by_size[size]:>8.4f}" for size in sizes)
            lines.append(f"  {short[score.law]:<{width}}  {cells}")
    text = choice.text
    for name, own in short.items():
        text = text.replace(name, own)
    return "\n".join([*lines, f"  {text}"])


def _short_names(laws: Sequence[str]) -> dict[str, str]:
    """A law of a file by its name there, unless another law has the same."""
    short = {law: law.rpartition(":")[2] for law in laws}
    return short if len(set(short.values())) == len(short) else {law: law for law in laws}


def table4_text(fits: Sequence) -> str:
    """The layout of Zhang et al. (2024), Table 4: parameters down, task and method across."""
    blocks: dict[str, dict[str, tuple]] = {}
    for fit in fits:
        group = {column: value for column, value in fit.group.items() if column != "factor"}
        own = blocks.setdefault(" ".join(str(value) for value in group.values()) or "all", {})
        letter = _FACTOR_LETTERS[fit.group["factor"]]
        for name, value in fit.parameters.items():
            shared = name in fit.shared or name in fit.frozen
            key = name if shared else f"{name}_{letter}"
            own.setdefault(key, (value, fit.intervals[name], fit.identified[name]))
    order = [f"{name}_{letter}" for letter in "mpt" for name in fits[0].parameters]
    order += list(fits[0].parameters)
    used = [key for key in order if any(key in own for own in blocks.values())]
    rows = [["", *blocks]]
    for key in used:
        row = [key]
        for own in blocks.values():
            if key not in own:
                row.append("-")
                continue
            value, (low, high), known = own[key]
            row.append(f"{value:.3g} [{low:.3g}, {high:.3g}]{'' if known is True else ' ?'}")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.append(
        f"m = model size, p = pretraining tokens, t = tuning size; {100 * fits[0].level:.0f}% intervals; "
        "? = not identified"
    )
    lines += _reasons(blocks)
    return "\n".join(lines + _errors(fits))


def _reasons(blocks: dict) -> list[str]:
    found = []
    for label, own in blocks.items():
        for key, (_, _, known) in own.items():
            if known is not True:
                found.append(f"  {label}, {key}: {known}")
    return found


def _errors(fits: Sequence) -> list[str]:
    """Mean absolute deviations, fitted and held out, by factor (the paper's Table 6)."""
    lines = ["mean |loss - law|, fitted and held out"]
    for fit in fits:
        held = fit.errors["held_out_mad"]
        shown = f"{held:.4g} ({fit.rows['held_out']} rows)" if held is not None else "none"
        label = ", ".join(str(value) for value in fit.group.values())
        lines.append(f"  {label}: {fit.errors['fitted_mad']:.4g} ({fit.rows['fitted']} rows), {shown}")
        lines += [f"    dropped {count}: {reason}" for reason, count in fit.dropped_reasons.items()]
        lines += [f"    note: {note}" for note in fit.notes]
    return lines
