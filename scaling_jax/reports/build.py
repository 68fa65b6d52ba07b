"""Study folder -> report.html and figures/."""

from pathlib import Path

import scaling_jax
from scaling_jax import files
from scaling_jax.reports import sections, theme
from scaling_jax.reports.answer import answer
from scaling_jax.reports.blocks import drawings_of
from scaling_jax.reports.study_data import Study, read_study

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(study_dir: str | Path, out: str | Path | None = None) -> Path:
    """Writes one self-contained HTML page and, beside it, figures/NAME.svg and .png.

    Args:
        study_dir: a study folder with study.json, results.csv and fits.json (decision.json is optional).
        out: where the page goes; None is STUDY/report.html.

    Returns:
        The path of the page.

    Raises:
        InputError: a file is missing or damaged (see `study_data.read_study`), or `out` cannot be written.
    """
    study = read_study(study_dir)
    path = Path(out) if out is not None else study.folder / "report.html"
    first, parts = answer(study), sections.all_sections(study, path.parent)
    drawings = drawings_of(first.parts) + [
        drawing for section in parts for drawing in drawings_of(section.parts)
    ]
    for drawing in drawings:
        drawing.save(path.parent / "figures")
    return files.write_text(path, _page(study, first, parts))


def _page(study: Study, first, parts) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    created = str(study.description.get("created", ""))[:10]
    return environment.get_template("report.html.j2").render(
        title=f"{study.name}: finetuning scaling report",
        eyebrow=" · ".join(filter(None, (f"Finetuning scaling study “{study.name}”", created))),
        answer=first,
        sections=parts,
        source=f"{len(study.runs)} runs",
        version=scaling_jax.__version__,
        style=Markup((_TEMPLATES / "style.css").read_text("utf-8")),
        light=Markup(theme.css_variables("light")),
        dark=Markup(theme.css_variables("dark")),
        inline=lambda drawing: Markup(theme.inline(drawing)),
    )
