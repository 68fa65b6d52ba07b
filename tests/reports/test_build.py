"""The page as a whole: self-contained, escaped, complete, and true to the numbers it was given."""

import html.parser
import re
import shutil

import pytest

from scaling_jax import files
from scaling_jax.laws.results import write_fits
from scaling_jax.reports import crossings, evidence, tuning_size
from scaling_jax.reports.answer import _contest, answer, stretches
from scaling_jax.reports.build import build_report
from scaling_jax.reports.study_data import read_study
from tests.reports import simulated_study

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """Tags, ids, links and headings of a page; fails on tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.tags, self.open, self.headings = [], [], set(), [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data.strip())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = simulated_study.write_study(tmp_path_factory.mktemp("study") / "a study")
    simulated_study.write_made_fits(folder)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return build_report(study).read_text("utf-8")


def test_the_page_is_whole_and_loads_nothing(page):
    parsed = Page(page)
    assert "script" not in parsed.tags and "link" not in parsed.tags and "img" not in parsed.tags
    assert not re.search(r"""(?:src|srcset|data|action)\s*=|@import|url\((?!#)""", page)
    addresses = set(re.findall(r"https?://[^\"' <)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert '<html lang="en">' in page and 'name="viewport"' in page and "<title>simulated:" in page


def test_ids_are_unique_and_every_link_leads_somewhere(page, study):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = [link[1:] for link in parsed.links if link.startswith("#")]
    records = [link for link in parsed.links if not link.startswith("#")]
    assert inside and set(inside) <= set(parsed.ids)
    assert len(set(records)) == len(simulated_study.rows())
    assert all((study / link).is_file() for link in records)


def test_text_from_data_is_escaped(page):
    assert "loss is NaN at step 112 &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Translate &lt;b&gt;this&lt;/b&gt; &amp; that:" in page


def test_every_section_is_there_in_reading_order(page):
    anchors = re.findall(r'<section id="([\w-]+)"', page)
    wanted = [
        "loss",
        "exponents",
        "held-out",
        "factors",
        "methods",
        "costs",
        "entropy",
        "left-out",
        "reproduce",
    ]
    assert [anchor for anchor in anchors if anchor in wanted] == wanted


def test_the_first_screen_names_the_methods_in_the_order_of_the_truth(study):
    data = read_study(study)
    ahead = stretches(_contest(data, "lab_translation"))
    assert [stretch.method for stretch in ahead] == ["lora", "full"]
    at = ahead[0].high
    size = simulated_study.MODELS["n1m"][1]
    tokens = simulated_study.PRETRAINING[-1]
    lora, full = (simulated_study.true_loss(name, size, tokens, at) for name in ("lora", "full"))
    assert lora == pytest.approx(full, rel=1e-3)
    sentence = answer(data).sentence
    assert re.search(r"LoRA up to about 1\.[78]k finetuning examples \(90% interval 1\.\dk to [12]", sentence)
    assert sentence.endswith("and full tuning beyond.")


def test_critical_sizes_are_shown_with_their_interval_or_none(page):
    assert "Where one method overtakes another" in page
    assert page.count("extrapolated") >= 1  # LoRA and prompt tuning tie below the fewest examples
    assert re.search(r'1\.[78]k <span class="interval">\[1\.\dk to [12](\.\d)?k\]', page)


def test_no_crossing_is_said_in_words(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    decision = files.read_json(folder / "decision.json")
    for entry in decision["crossings"]:
        entry.update(crossings=[], better=entry["first"], share_crossing=0.02)
    files.write_json(folder / "decision.json", decision)
    page = build_report(folder).read_text("utf-8")
    assert "no crossing in range" in page and "no crossing: full tuning ahead" in page
    assert "how sure, the fits do not say" in page


def test_held_out_rows_are_those_of_the_study_expression(study):
    data = read_study(study)
    fit = evidence.find_fit(data, "lab_translation", "lora", "pretraining")
    rows = evidence.rows_of(data, fit)
    assert {run.model for run, _ in rows} == {"n100k"} and len(rows) == 42
    for run, hidden in rows:
        assert hidden == (run["finetune_examples"] >= 16000 or run["pretrain_tokens"] == 2_000_000)


def test_a_fit_without_its_lost_rows(study):
    data = read_study(study)
    fit = evidence.find_fit(data, "lab_translation", "full", "model_size")
    rows = evidence.rows_of(data, fit)
    assert len(rows) == 55 and all(run["pretrain_tokens"] == 8e6 and run.status == "done" for run, _ in rows)


def test_numbers_of_the_fits_are_on_the_page(page):
    for method in simulated_study.LAWS.values():
        assert f'{method[2]:.3f} <span class="interval">[' in page
    assert "prompt tuning, model size law, E: the interval of E reaches zero" in page
    assert "closer in 6 of 6 comparisons" in page
    assert "1.3100" in page


def test_tables_scroll_in_their_own_box_and_take_the_keyboard(page):
    boxes = re.findall(r'<div class="scroll[^"]*"([^>]*)>', page)
    assert len(boxes) == page.count("<table>") >= 5
    assert all('tabindex="0"' in box and "aria-label" in box for box in boxes)


def test_figures_lie_beside_the_page_and_have_words(page, study):
    names = {path.stem for path in (study / "figures").iterdir()}
    assert {"methods-lab_translation", "entropy", "model-size-lab_translation-lora"} <= names
    assert all(
        (study / "figures" / f"{name}{ending}").stat().st_size > 1000
        for name in names
        for ending in (".svg", ".png")
    )
    assert page.count("<svg") == page.count("<desc") == page.count('role="img"')
    assert not re.search(r"<desc[^>]*></desc>", page)


def test_the_same_study_gives_the_same_page_elsewhere(study, page, tmp_path):
    again = build_report(study, tmp_path / "other.html").read_text("utf-8")
    assert (tmp_path / "figures" / "entropy.svg").exists()
    strip = re.compile(r'<a href="[^"#]*">')
    assert strip.sub("", again) == strip.sub("", page)


def test_a_study_that_nothing_fits_still_gets_a_page(tmp_path):
    folder = simulated_study.write_study(tmp_path / "study", lab=False)
    files.write_json(folder / "fits.json", [])
    page = build_report(folder).read_text("utf-8")
    assert "No law could be fitted to the 250 finished runs" in page
    assert 'id="entropy"' not in page and 'id="costs"' in page


def test_one_method_alone_is_not_compared(tmp_path):
    folder = simulated_study.write_study(tmp_path / "study")
    simulated_study.write_results(
        folder / "results.csv", [row for row in simulated_study.rows() if row["method"] == "lora"]
    )
    fits = [fit for fit in simulated_study.made_fits() if fit.group["method"] == "lora"]
    write_fits(folder / "fits.json", fits)
    page = build_report(folder).read_text("utf-8")
    assert not (folder / "decision.json").exists()
    assert "LoRA was the only method run, from 250 to 16k finetuning examples." in page
    assert 'id="methods"' not in page


def test_one_model_alone_is_told_by_the_law_in_the_examples(tmp_path):
    folder = simulated_study.write_study(tmp_path / "study")
    table = [row | {"task": "a/b: <c>"} for row in simulated_study.rows() if row["model"] == "n100k"]
    simulated_study.write_results(folder / "results.csv", table)
    write_fits(folder / "fits.json", simulated_study.single_fits("a/b: <c>", "n100k"))
    page = build_report(folder).read_text("utf-8")
    Page(page)
    assert (
        "At 103k non\u2011embedding parameters, the method with the lowest predicted loss is LoRA up to"
        in page
    )
    assert "the law fitted to each model alone" in page
    assert "a/b: &lt;c&gt;" in page and not list((folder / "figures").glob("*/"))


@pytest.mark.parametrize(
    ("alpha", "said"),
    [(0.05, "a doubling takes 3.4% off"), (-0.05, "larger is worse"), (0.0, "do not show that")],
)
def test_a_tuning_size_is_told_by_the_sign_of_its_interval(tmp_path, alpha, said):
    folder = simulated_study.write_study(tmp_path / "study")
    table = [row for row in simulated_study.rows() if row["model"] == "n100k" and row["method"] == "lora"]
    table = [row | {"tuning_size": size} for row in table for size in (4, 16)]
    simulated_study.write_results(folder / "results.csv", table)
    write_fits(folder / "fits.json", [simulated_study.tuning_size_fit(alpha)])
    section = tuning_size.section(read_study(folder))
    assert said in section.parts[1].items[0]
    assert [part.kind for part in section.parts] == ["paragraph", "bullets", "panels"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0, 380.0, "anywhere below 380"),
        (1500.0, float("inf"), "anywhere above 1.5k"),
        (90.0, 400.0, "90 to 400"),
    ],
)
def test_an_open_end_of_a_critical_size_is_said(low, high, said):
    assert crossings.interval_text(crossings.Critical(200.0, low, high, "a", "b", False)) == said
