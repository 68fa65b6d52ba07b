"""Brings a study's fits, decision and page up to date, doing only what is not done already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scaling_jax
from scaling_jax import files
from scaling_jax.decisions.study_fits import crossings, fit_study, nothing_to_fit, skipped_fits, summary_text
from scaling_jax.decisions.valuing_pretraining import FITS_FILE, fits_of, to_json, value_pretraining
from scaling_jax.errors import InputError
from scaling_jax.laws.design import describe
from scaling_jax.laws.results import write_fits
from scaling_jax.laws.table import read_table
from scaling_jax.reports import measured, method_comparison, scores
from scaling_jax.reports.study_data import read_description, read_fits, read_runs, read_study

_INPUTS = ("results.csv", "study.json")


@dataclass(frozen=True)
class Update:
    """What was done.

    Attributes:
        page: the report.
        summary: fits with intervals, held-out errors, crossings, for the terminal.
        fitted: whether the fits were computed now.
        drawn: whether the page was written now.
    """

    page: Path
    summary: str
    fitted: bool
    drawn: bool


def update_report(
    study_dir: str | Path,
    out: str | Path | None = None,
    bootstrap: int = 1000,
    further_laws: Sequence[str] = (),
    recommendation: Mapping[str, Any] | None = None,
) -> Update:
    """Fits, decides and writes the page where the inputs changed since; else keeps what is there.

    What the fits were made from is kept in decision.json under `made_from`: hashes of results.csv,
    study.json and of fits.json itself, the number of resamples, our version.

    Args:
        study_dir: the study folder.
        out: where the page goes; None is STUDY/report.html.
        bootstrap: draws behind the intervals.
        further_laws: laws to fit beside the usual ones; see `fit_study`.
        recommendation: to begin the page with, in place of one that decision.json may hold. One that was
            added to it (`recommend --out`) stays until the results change.

    Raises:
        InputError: not a study folder, or its table cannot be read or fitted.
    """
    folder = Path(study_dir)
    page = Path(out) if out is not None else folder / "report.html"
    inputs = _made_from(folder, bootstrap, further_laws)
    decision = _current(folder, inputs)
    fitted = decision is None
    if decision is None:
        decision = _fit(folder, inputs, bootstrap, further_laws)
    if recommendation is not None and decision.get("recommendation") != recommendation:
        decision = decision | {"recommendation": dict(recommendation)}
        files.write_json(folder / "decision.json", decision)
    drawn = fitted or not _is_newer(page, folder / "decision.json")
    if drawn:
        # Imported here: matplotlib takes a second that an unchanged study need not wait for.
        from scaling_jax.reports.build import build_report

        build_report(folder, page)
    fits = read_fits(folder / "fits.json")
    lines = [] if fits else _measured(folder, decision)
    if told := summary_text(fits, decision["crossings"], decision["skipped"]):
        lines.append(told)
    return Update(page, "\n".join([*lines, *_valued(decision)]), fitted, drawn)


def _measured(folder: Path, decision: dict[str, Any]) -> list[str]:
    """Of a study without laws: what was measured, and why there is no law."""
    study = read_study(folder)
    found = [*method_comparison.statements(study), *measured.statements(study), *scores.statements(study)]
    return [
        *found,
        decision.get("no_law") or f"No law could be fitted to the {len(study.done)} finished runs.",
    ]


def _valued(decision: dict[str, Any]) -> list[str]:
    """What is said of pretraining data, for the terminal."""
    entries = decision.get("valuing_pretraining") or []
    lines = ["Worth of pretraining"] if entries else []
    for entry in entries:
        group = describe({name: value for name, value in entry["group"].items() if value})
        lines.append(f"  {group}, mixture={entry['mixture'] or 'pretrained'}: {entry['text']}")
    return lines


def _made_from(folder: Path, bootstrap: int, further_laws: Sequence[str]) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `scaling-jax study` wrote")
    for name in _INPUTS:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; give the folder that `scaling-jax study` wrote")
    hashes = {name: files.sha256(folder / name) for name in _INPUTS}
    laws = {name: _law_hash(name) for name in further_laws}
    return hashes | {"bootstrap": bootstrap, "laws": laws, "scaling_jax": scaling_jax.__version__}


def _law_hash(name: str) -> str:
    """The hash of a user's law file; empty for a law of ours, which changes with our version."""
    path, separator, _ = name.rpartition(":")
    return files.sha256(Path(path)) if separator and Path(path).is_file() else ""


def _current(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """decision.json if it was made from just these inputs and fits.json is as it was left; else None."""
    decision, fits = folder / "decision.json", folder / "fits.json"
    if not (decision.is_file() and fits.is_file()):
        return None
    content = files.read_json(decision)
    if not isinstance(content, dict) or content.get("made_from") != inputs | _outputs(folder):
        return None
    return content


def _outputs(folder: Path) -> dict[str, str]:
    """Hashes of the files of fits."""
    paths = [folder / "fits.json", folder / FITS_FILE]
    return {path.name: files.sha256(path) for path in paths if path.is_file()}


def _fit(folder: Path, inputs: dict[str, Any], bootstrap: int, further_laws: Sequence[str]) -> dict[str, Any]:
    """Writes fits.json and then decision.json, which seals it by its hash."""
    read_runs(folder / "results.csv")  # names line and column of a bad cell before anything computes with it
    table = read_table(folder / "results.csv")
    about = read_description(folder / "study.json")
    hold_out = about.get("hold_out") or None
    size_column = about.get("model_size") or "non_embedding_params"
    fits = fit_study(table, hold_out, bootstrap=bootstrap, size_column=size_column, further_laws=further_laws)
    write_fits(folder / "fits.json", fits)
    valued = value_pretraining(table, about.get("valuing_pretraining"), hold_out, bootstrap)
    (folder / FITS_FILE).unlink(missing_ok=True)
    if valued_fits := fits_of(valued):
        write_fits(folder / FITS_FILE, valued_fits)
    decision = {
        "made_from": inputs | _outputs(folder),
        "crossings": crossings(fits),
        "no_law": nothing_to_fit(table, hold_out),
        "skipped": skipped_fits(table, hold_out, size_column, further_laws),
    } | ({"valuing_pretraining": to_json(valued)} if valued else {})
    files.write_json(folder / "decision.json", decision)
    return decision


def _is_newer(page: Path, than: Path) -> bool:
    return page.is_file() and page.stat().st_mtime_ns >= than.stat().st_mtime_ns
