"""The sections of the report in reading order. A new section is one file and one line here."""

from pathlib import Path

from scaling_jax.reports import (
    before_tuning,
    costs,
    crossings,
    curves,
    entropy,
    evidence,
    exponents,
    factors,
    further_laws,
    held_out,
    measured,
    method_comparison,
    provenance,
    recommended,
    scores,
    tuning_size,
    valuing_pretraining,
    words,
)
from scaling_jax.reports.blocks import Heading, Panels, Section
from scaling_jax.reports.study_data import Study


def all_sections(study: Study, page_folder: Path) -> list[Section]:
    """Sections that have something to say about this study; links are relative to `page_folder`.

    Without any law, the page begins with what was measured.
    """
    laws = [
        loss_section(study),
        exponents.section(study),
        held_out.section(study),
        further_laws.section(study),
        factors.section(study),
        tuning_size.section(study),
        crossings.section(study),
    ]
    compared = [method_comparison.section(study)]
    sections = [
        recommended.section(study),
        valuing_pretraining.section(study),
        *(laws + compared if study.fits else compared + laws),
        scores.section(study),
        before_tuning.section(study),
        costs.section(study),
        entropy.section(study),
        exponents.not_fitted_section(study),
        provenance.left_out_section(study, page_folder),
        provenance.reproduce_section(study, page_folder),
    ]
    return [section for section in sections if section is not None]


def loss_section(study: Study) -> Section | None:
    """Loss against examples, one panel per method, one line per model size: laws, or what was measured.

    None where another section shows all of it: a study varies its pretraining, or compares methods.
    """
    parts: list = []
    unfitted = measured.tasks(study)
    for task in study.tasks:
        drawings = curves.panels(study, task, "model_size")
        caption = _caption(study, task) if drawings else _MEASURED
        if task in unfitted:
            drawings = measured.panels(study, task)
        if not drawings:
            continue
        if len(study.tasks) > 1:
            parts.append(Heading(task))
        parts.append(Panels(drawings, caption))
    if not parts:
        return None
    several = len({run.model for run in study.done}) > 1
    heading = "Loss against finetuning examples" + (", by model size" if several else "")
    return Section("loss", "Loss", heading, parts)


_MEASURED = "Each point is one run; lines join the means over seeds. No law was fitted to them."


def _caption(study: Study, task: str) -> str:
    fits = [evidence.find_fit(study, task, method, "model_size") for method in study.methods(task)]
    joint = next((fit for fit in fits if fit is not None), None)
    if joint is None:
        lines, labels = "the law fitted to each model alone", "model"
    else:
        lines = "the joint law fitted to all sizes of a method at once"
        labels = words.column(evidence.x_column(joint))
    return (
        "Each point is one run (seeds are separate points); hollow points were held out of the fit. Lines "
        f"are {lines}, bands its {evidence.level(study)} interval (of the law, not of one more "
        f"run). Line labels: {labels}."
    )
