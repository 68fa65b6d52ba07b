"""Scores on the page: which columns are scores, of what, and the numbers shown."""

import csv

import pytest

from scaling_jax import files
from scaling_jax.reports import scores
from scaling_jax.reports.answer import answer
from scaling_jax.reports.build import build_report
from scaling_jax.reports.study_data import read_study
from tests.reports import simulated_study

FURTHER = ("judge_math", "judge_code", "flores_loss", "flores_bleu", "remark")
# (method, examples, seed): BLEU, loss on Flores, BLEU on Flores
VALUES = {
    ("full", 100, 0): (10.0, 3.5, 1.0),
    ("full", 100, 1): (12.0, 3.3, 2.0),
    ("full", 1000, 0): (20.0, 3.1, 4.0),
    ("full", 1000, 1): (22.0, 3.0, 5.0),
    ("lora", 100, 0): (15.0, 3.0, 3.0),
    ("lora", 1000, 0): (18.0, 3.2, 6.0),
    ("lora_last_half", 1000, 0): (19.0, 3.2, 6.5),
}


def _row(method, examples, seed, bleu, loss, flores, **cells):
    row = dict.fromkeys([*simulated_study.COLUMNS[:-1], "pretrain_mixture", "record", *FURTHER], "")
    return (
        row
        | {
            "run_id": f"{method}-d{examples}-s{seed}" + "".join(map(str, cells.values())),
            "task": "t<1>",
            "method": method,
            "model": "small",
            "non_embedding_params": 800,
            "pretrain_tokens": 64000,
            "finetune_examples": examples,
            "seed": seed,
            "loss": 3.0,
            "bleu": bleu,
            "judge_math": 0.25,
            "flores_loss": loss,
            "flores_bleu": flores,
            "remark": "not a number",
            "status": "done",
        }
        | cells
    )


def _rows(**cells):
    return [_row(*place, *values, **cells) for place, values in VALUES.items()]


def _study(folder, rows):
    files.write_json(folder / "study.json", {"name": "made"})
    files.write_json(folder / "fits.json", [])
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _study(tmp_path_factory.mktemp("scored"), _rows())


@pytest.fixture(scope="module")
def section(folder):
    return scores.section(read_study(folder))


def test_scores_are_those_of_the_task_then_those_of_further_evaluations(folder):
    found = scores.columns(read_study(folder).runs)
    assert found == ["bleu", "judge_math", "flores_loss", "flores_bleu"]


def test_a_table_for_every_evaluation_with_means_over_seeds(section):
    own, flores = (part for part in section.parts if part.kind == "table")
    assert own.groups == (("", 2), ("BLEU", 2), ("Judge math", 2))
    assert flores.groups == (("", 2), ("Loss", 2), ("BLEU", 2)) and flores.caption.startswith("flores: by")
    assert own.header == ["Method", "Model", "100", "1k", "100", "1k"]
    assert [row[0].text for row in own.rows] == ["full tuning", "LoRA", "LoRA, last half"]
    full, lora, half = own.rows
    assert (full[2].text, full[2].interval, full[3].text) == ("11.0", "[10.0, 12.0]", "21.0")
    assert (lora[2].text, lora[2].interval) == ("15.0", "") and half[2].text == "–"
    assert [lora[2].best, full[2].best, full[3].best] == [True, False, True]


def test_of_losses_the_lowest_is_the_best(section):
    flores = section.parts[-2]
    assert [row[0].text for row in flores.rows if row[2].best] == ["LoRA"]  # 3.0 against 3.4
    assert [row[0].text for row in flores.rows if row[3].best] == ["full tuning"]  # 3.05 against 3.2
    assert [row[0].text for row in flores.rows if row[5].best] == ["LoRA, last half"]


def test_figures_leave_out_variants_and_the_classes_of_a_judge(section):
    titles = [drawing.title for drawing in section.parts[0].drawings]
    assert titles == [
        f"{label} against finetuning examples, t<1>, small"
        for label in ("BLEU", "Loss, flores", "BLEU, flores")
    ]
    assert section.parts[0].drawings[0].description == (
        "full tuning: 11.0 at 100 examples, 21.0 at 1k; LoRA: 15.0 at 100 examples, 18.0 at 1k"
    )


def test_without_laws_the_first_screen_says_them_and_the_page_is_escaped(folder):
    said = answer(read_study(folder))
    assert said.lead[0] == (
        "Highest BLEU on t<1> at small: LoRA at 100 examples (15.0) and full tuning at 1k examples (21.0)."
    )
    page = build_report(folder).read_text("utf-8")
    assert '<section id="scores"' in page and "t&lt;1&gt;" in page and "t<1>" not in page
    assert (folder / "figures" / "score-flores_bleu-t-1-.svg").is_file()


def test_what_models_were_pretrained_on_is_told_apart(tmp_path):
    rows = [
        *_rows(pretrain_mixture="en"),
        *_rows(pretrain_mixture="de"),
        *_rows(pretrain_tokens=0),
    ]
    study = read_study(_study(tmp_path, rows))
    parts = scores.section(study).parts
    table = next(part for part in parts if part.kind == "table")
    assert table.header[:4] == ["Method", "Model", "Started from", "Pretraining tokens"]
    assert [row[2] for row in table.rows][:3] == ["en", "de", "not pretrained"]
    assert [drawing.title.split(", ")[-1] for drawing in parts[0].drawings][:3] == [
        "en",
        "de",
        "not pretrained",
    ]


def test_one_method_has_a_line_for_each_mixture(tmp_path):
    rows = [row for name in ("en", "de") for row in _rows(pretrain_mixture=name) if row["method"] == "full"]
    drawings = scores.section(read_study(_study(tmp_path, rows))).parts[0].drawings
    assert len(drawings) == 3 and drawings[0].description.startswith("en: 11.0 at 100 examples")


def test_the_figure_is_of_the_largest_model_after_its_longest_pretraining(tmp_path):
    others = [row | {"bleu": 50.0} for row in _rows(pretrain_tokens=32000)]
    others += [row | {"bleu": 60.0} for row in _rows(model="tiny", non_embedding_params=80)]
    section = scores.section(read_study(_study(tmp_path, _rows() + others)))
    assert section.parts[0].drawings[0].description.startswith("full tuning: 11.0 at 100")
    assert "Pretraining tokens" in next(part for part in section.parts if part.kind == "table").header


def test_one_number_of_examples_makes_no_figure_and_no_score_no_section(tmp_path):
    few = [row for row in _rows() if row["finetune_examples"] == 1000]
    assert scores.section(read_study(_study(tmp_path / "few", few))).parts[0].kind == "table"
    none = dict.fromkeys(("bleu", *FURTHER), "")
    assert scores.section(read_study(_study(tmp_path / "none", [row | none for row in _rows()]))) is None
