"""Where the numbers come from: rows left out, every run with its record, and how to make it all again."""

import json
import os
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from scaling_jax.reports import words
from scaling_jax.reports.blocks import Bullets, Cell, Code, Details, Paragraph, Section, Table
from scaling_jax.reports.costs import device_text
from scaling_jax.reports.evidence import rows_of
from scaling_jax.reports.study_data import Run, Study

_RUN_HEADER = [
    "Run",
    "Task",
    "Method",
    "Model",
    "Pretraining tokens",
    "Examples",
    "Seed",
    "Best step",
    "Dev loss",
    "Test loss",
]


def left_out_section(study: Study, page_folder: Path) -> Section | None:
    """Rows that did not enter a fit because they carry no loss, with the reason each run recorded.

    None where nothing was fitted and no row is left out.
    """
    if not study.left_out and not study.fits:
        return None
    parts: list = []
    if not study.left_out:
        parts.append(Paragraph(f"None: all {len(study.runs)} rows carry a loss."))
    else:
        counts = Counter(run.status for run in study.left_out)
        told = words.several(f"{number} {status}" for status, number in counts.items())
        parts.append(
            Paragraph(
                f"{len(study.left_out)} of {len(study.runs)} rows carry no loss and entered no fit: "
                f"{told}. They are kept in results.csv with their reason."
            )
        )
        parts.append(
            Table(
                "Rows left out",
                ["Run", "Method", "Model", "Examples", "Status", "Reason"],
                [
                    [
                        _link(study, run, page_folder),
                        words.method(run.method),
                        run.model,
                        words.count(run["finetune_examples"]),
                        run.status,
                        run.reason or "no reason recorded",
                    ]
                    for run in study.left_out
                ],
                text=(0, 1, 2, 4, 5),
            )
        )
    return Section("left-out", "Rows left out", "Rows left out, and why", parts)


def reproduce_section(study: Study, page_folder: Path) -> Section:
    """Commands, versions, device, seeds, the resolved configuration, and the table of all runs."""
    about = study.description
    name = os.path.relpath(study.folder, Path.cwd())
    name = name if not name.startswith("..") else study.folder.name
    seeds = sorted({int(run["seed"]) for run in study.runs if "seed" in run.numbers})
    rates = about.get("learning_rates") or {}
    items = [
        f"Device: {device_text(about.get('device'))}.",
        "Seeds: " + (words.several(map(str, seeds)) if seeds else "not recorded") + ".",
        "Versions: "
        + (
            ", ".join(f"{key} {value}" for key, value in (about.get("versions") or {}).items())
            or "not recorded"
        )
        + ".",
        f"Held out before fitting: {about.get('hold_out') or 'nothing'}.",
    ]
    if rates:
        told = "; ".join(f"{words.method(str(method))} {rate}" for method, rate in rates.items())
        items.append(f"Learning rates, one policy per method: {told}.")
    parts = [
        Code(
            f"scaling-jax study --gin_file {name}/config.gin --out {name}-again\n"
            f"scaling-jax report {name}-again"
        ),
        Bullets(items),
        Paragraph(
            "Every point in the figures is one row below; its link opens the record of that run (settings, "
            "metrics by step, costs, environment). "
            + (
                "The fits are in fits.json, the table in results.csv."
                if study.fits
                else "The table is results.csv."
            )
        ),
        Details(f"All {len(study.runs)} runs", [runs_table(study, page_folder)]),
        Details("Configuration, resolved", [Code(str(about.get("config") or "not recorded"))]),
    ]
    for key, label in (("grid", "Grid"), ("learning_rate_search", "Learning-rate search")):
        if about.get(key):
            parts.append(Details(label, [Code(json.dumps(about[key], indent=1, ensure_ascii=False))]))
    return Section("reproduce", "Reproduce", "How to make this again", parts)


def runs_table(study: Study, page_folder: Path) -> Table:
    """Every row of results.csv with its role in the fits and a link to its record."""
    use = _use(study)
    used = ["Used as"] if study.fits else []
    rows = [
        [
            _link(study, run, page_folder),
            run.task,
            words.method(run.method),
            run.model,
            words.count(run["pretrain_tokens"]),
            words.count(run["finetune_examples"]),
            f"{run['seed']:.0f}" if "seed" in run.numbers else "–",
            f"{run['best_step']:.0f}" if "best_step" in run.numbers else "–",
            words.loss(run["dev_loss"]),
            words.loss(run.loss),
            *[use.get(run.run_id, "no fit") for _ in used],
            run.status,
        ]
        for run in study.runs
    ]
    header = [*_RUN_HEADER, *used, "Status"]
    text = (0, 1, 2, 3, *range(len(_RUN_HEADER), len(header)))
    return Table("All runs", header, rows, text=text, tall=True)


def _use(study: Study) -> dict[str, str]:
    found: dict[str, str] = {}
    for fit in study.fits:
        for run, hidden in rows_of(study, fit):
            found[run.run_id] = "held out" if hidden else found.get(run.run_id, "fitted")
    return found


def _link(study: Study, run: Run, page_folder: Path) -> Cell:
    """The run's name, linked to its record when that file exists inside the study folder."""
    record = (study.folder / run.record).resolve() if run.record else None
    if record is None or not record.is_file() or study.folder.resolve() not in record.parents:
        return Cell(run.run_id)
    relative = Path(os.path.relpath(record, page_folder.resolve())).as_posix()
    return Cell(run.run_id, href=quote(relative))
