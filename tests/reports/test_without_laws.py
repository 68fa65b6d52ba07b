"""Pages of studies to which no law, or no joint law, was fitted: what was measured, and nothing empty."""

import csv
import re

import pytest

from scaling_jax import files
from scaling_jax.laws.results import write_fits
from scaling_jax.reports import costs, exponents, measured, sections
from scaling_jax.reports.study_data import read_study
from scaling_jax.reports.update import update_report
from tests.reports import simulated_study

EVERYTHING = "finetune_examples > 0"
NO_LAW = "All 21 runs are held out (finetune_examples > 0), so no law was asked for."


def _rows(methods=("full", "lora", "prompt"), **cells):
    return [
        row | {"converged_step": 100, "runs_at_once": 1} | cells
        for row in simulated_study.rows(seeds=1)
        if row["model"] == "n100k" and row["pretrain_tokens"] == 8_000_000 and row["method"] in methods
    ]


def _study(folder, rows, hold_out=""):
    files.write_json(folder / "study.json", {"name": "made", "hold_out": hold_out})
    files.write_json(folder / "fits.json", [])
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _anchors(page):
    return re.findall(r'<section id="([\w-]+)"', page), re.findall(r'<li><a href="#([\w-]+)"', page)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    folder = _study(tmp_path_factory.mktemp("held_out"), _rows(), EVERYTHING)
    update = update_report(folder)
    return update, update.page.read_text("utf-8")


def test_a_study_that_holds_out_everything_begins_with_what_was_measured(held_out):
    page = held_out[1]
    shown, contents = _anchors(page)
    assert shown == contents == ["comparison", "costs", "reproduce"]
    main = page[page.index("<main") :]
    assert main.index("<svg") < main.index("<table") and main.index("<svg") < main.index("<li>")
    assert (
        "3 methods, 1 model<" in page and "Lowest test loss on lab_translation" in page[: page.index("<main")]
    )


def test_it_says_once_that_no_law_was_asked_for(held_out):
    update, page = held_out
    assert page.replace("&gt;", ">").count(NO_LAW) == 1
    assert not re.search("could (not )?be fitted|identified|Used as|No law could", page)
    first, second = update.summary.splitlines()
    assert (
        first.startswith("Lowest test loss on lab_translation at n100k: LoRA from 250 to")
        and second == NO_LAW
    )
    decision = files.read_json(update.page.parent / "decision.json")
    assert decision["no_law"] == NO_LAW and decision["skipped"] == []


def test_too_few_sizes_are_one_reason_for_all_methods(tmp_path):
    rows = [row for row in _rows() if row["finetune_examples"] in (250, 16000)]
    update = update_report(_study(tmp_path, rows))
    page = update.page.read_text("utf-8")
    assert _anchors(page)[0] == ["comparison", "costs", "not-fitted", "reproduce"]
    assert "No law could be fitted to the 6 finished runs of this study." in page
    told = (
        "power by single for 3 groups (task=lab_translation; method=full, lora, prompt; model=n100k): "
        "law &#39;power&#39; has 3 parameters and needs as many different sizes"
    )
    assert page.count(told) == update.summary.count(told.replace("&#39;", "'")) == 1
    assert update.summary.count("power by single") == 1


def test_methods_that_are_not_compared_have_their_losses_shown(tmp_path):
    folder = _study(tmp_path, _rows(("full", "lora")), EVERYTHING)
    page = update_report(folder).page.read_text("utf-8")
    assert _anchors(page)[0] == ["loss", "costs", "reproduce"]
    study = read_study(folder)
    panels = sections.loss_section(study).parts[0]
    assert [drawing.name for drawing in panels.drawings] == [
        "measured-lab_translation-full",
        "measured-lab_translation-lora",
    ]
    lora = {row["finetune_examples"]: row["loss"] for row in _rows(("lora",))}
    assert f"n100k: {float(lora[250]):.3f} at 250 examples" in panels.drawings[1].description
    (said,) = measured.statements(study)
    assert (
        re.search(r"LoRA from 250 to 2k examples \(2\.\d{3} to .* and full tuning from 4k to 16k", said)
        and said in page
    )


def test_models_alone_have_their_power_laws_in_a_table(tmp_path):
    folder = _study(tmp_path, _rows())
    fits = simulated_study.single_fits("lab_translation", "n100k")
    write_fits(folder / "fits.json", fits)
    section = exponents.section(read_study(folder))
    table = section.parts[0]
    assert [(row[0].text, row[1]) for row in table.rows] == [
        (name, "n100k") for name in ("full tuning", "LoRA", "prompt tuning")
    ]
    beta = simulated_study.LAWS["lora"][4]
    assert table.rows[1][3].text == f"{beta:.3f}" and table.rows[1][3].interval.startswith("[0.1")
    assert table.rows[1][5:] == ["0.1600", "0.1600"]
    assert section.parts[-1].text == "Every parameter above is identified by the runs."


def test_costs_of_runs_made_together_are_called_so(tmp_path):
    rows = _rows(("full",)) + _rows(("lora",), runs_at_once=6)
    rows += [
        row | {"runs_at_once": 3 if row["finetune_examples"] == 250 else 1} for row in _rows(("prompt",))
    ]
    section = costs.section(read_study(_study(tmp_path / "together", rows)))
    table = section.parts[0]
    assert [row[2] for row in table.rows] == ["1", "6", "1 to 3"] and table.header[2] == "Runs at once"
    groups = [label for label, span in table.groups for _ in range(span)]
    named = dict(zip(table.header, groups, strict=True))
    assert {named[name] for name in ("s per run", "s per step", "Tokens/s")} == {"A run's share"}
    assert named["Peak memory"] == "All at once" and named["Parameters"] == named["Checkpoint"] == ""
    assert "Study.cohort = 1" in section.parts[-1].text
    alone = costs.section(read_study(_study(tmp_path / "alone", _rows())))
    assert alone.parts[0].header == costs._HEADER and "at once" not in alone.parts[-1].text
