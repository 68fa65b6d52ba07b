"""The comparison of tuning methods: what is compared with what, and the numbers shown."""

import csv

import pytest

from scaling_jax import files
from scaling_jax.reports import method_comparison, words
from scaling_jax.reports.answer import answer
from scaling_jax.reports.build import build_report
from scaling_jax.reports.curves import method_colour
from scaling_jax.reports.study_data import read_study
from tests.reports import simulated_study

# method: test loss at 100 and 1,000 examples, trained, step seconds, peak bytes, converged step
METHODS = {
    "full": ((3.0, 2.0), 1000, 0.10, 4000, (100, 200)),
    "lora": ((2.8, 2.2), 100, 0.08, 3000, (200, 300)),
    "lora_last_half": ((2.9, 2.1), 50, 0.06, 2500, (250, 300)),
    "prompt": ((3.1, 2.9), 10, 0.12, 3500, (400, 0)),
}
BEST = (
    "Lowest test loss on e2e<1> at small: LoRA at 100 examples (2.800) and full tuning "
    "at 1k examples (2.000)."
)


def _rows(task="e2e<1>", methods=METHODS, seeds=(0, 1)):
    for method, (losses, trained, step_seconds, peak, converged) in methods.items():
        for examples, loss, step in zip((100, 1000), losses, converged, strict=True):
            for seed in seeds:
                row = dict.fromkeys(simulated_study.COLUMNS, "")
                yield row | {
                    "run_id": f"{task}-{method}-d{examples}-s{seed}",
                    "study": "made",
                    "task": task,
                    "method": method,
                    "model": "small",
                    "model_params": 1000,
                    "non_embedding_params": 800,
                    "pretrain_tokens": 64000,
                    "finetune_examples": examples,
                    "tuning_params": trained,
                    "seed": seed,
                    "loss": loss + (0.02 if seed else -0.02),
                    "step_seconds": step_seconds,
                    "train_seconds": step_seconds * 500,
                    "peak_memory_bytes": peak,
                    "converged_step": step,
                    "status": "done",
                }


def _study(folder, rows):
    files.write_json(folder / "study.json", {"name": "made", "device": "a machine"})
    files.write_json(folder / "fits.json", [])
    rows = list(rows)
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def folder(tmp_path):
    return _study(tmp_path, [*_rows(), *_rows("cola")])


def test_findings_and_ablations_in_words(folder):
    section = method_comparison.section(read_study(folder))
    assert [part.kind for part in section.parts] == [
        "panels",
        *("heading", "bullets", "table") * 2,
        "paragraph",
    ]
    assert section.parts[2].items == [
        BEST,
        "Least memory: LoRA, 0.75 of full tuning's.",
        "Fastest step: LoRA, 0.80 of full tuning's.",
        "LoRA, last half trains 50% of what LoRA trains; test loss +0.100 at 100 and −0.100 at 1k examples.",
    ]


def test_the_table_is_relative_to_full_tuning(folder):
    table = method_comparison.section(read_study(folder)).parts[3]
    rows = {row[0].text: [getattr(cell, "text", cell) for cell in row[1:]] for row in table.rows}
    assert list(rows) == ["full tuning", "LoRA", "LoRA, last half", "prompt tuning"]
    assert rows["full tuning"] == ["1k", "3.000", "2.000", "1.0", "1.0", "1.0", "1.0", "100", "200"]
    assert rows["LoRA"] == ["100", "2.800", "2.200", "0.80", "0.75", "1.6", "1.2", "200", "300"]
    assert rows["prompt tuning"][3:7] == ["1.2", "0.88", "4.8", "0"]
    assert sum(count for _, count in table.groups) == len(table.header) == len(table.rows[0])
    assert [row[0].text for row in table.rows if row[2].best] == ["LoRA"]
    assert [row[0].text for row in table.rows if row[3].best] == ["full tuning"]


def test_without_a_law_the_first_screen_says_what_was_measured(folder):
    said = answer(read_study(folder))
    assert said.sentence == BEST and said.lead[0] == BEST.replace("e2e<1>", "cola")
    assert said.lead[1].startswith("No law could be fitted to the 32 finished runs of this study.")


def test_the_page_shows_it_escaped_with_one_figure_a_task(folder):
    page = build_report(folder).read_text("utf-8")
    assert '<section id="comparison"' in page and "e2e&lt;1&gt;" in page and "e2e<1>" not in page
    figures = sorted(path.name for path in (folder / "figures").glob("comparison-*.svg"))
    assert len(figures) == 2 and "comparison-cola.svg" in figures


def test_costs_of_runs_made_together_are_said_to_be_so(tmp_path):
    rows = [row | {"runs_at_once": 6 if row["method"] in ("lora", "prompt") else 1} for row in _rows()]
    said = method_comparison.section(read_study(_study(tmp_path, rows))).parts[-1].text
    assert "Runs of LoRA and prompt tuning were made up to 6 at a time: their seconds are a share" in said
    alone = method_comparison.section(read_study(_study(tmp_path / "b", _rows()))).parts[-1].text
    assert "at a time" not in alone


@pytest.mark.parametrize("missing", ["converged_step", "peak_memory_bytes"])
def test_runs_without_costs_are_not_compared(tmp_path, missing):
    study = read_study(_study(tmp_path, (row | {missing: ""} for row in _rows())))
    assert method_comparison.section(study) is None


def test_ablations_do_not_make_up_the_number_of_methods(tmp_path):
    few = {name: METHODS[name] for name in ("full", "lora", "lora_last_half")}
    assert method_comparison.section(read_study(_study(tmp_path, _rows(methods=few)))) is None


def test_without_full_tuning_there_is_nothing_to_divide_by(tmp_path):
    others = {name: METHODS["lora"] for name in ("lora", "ia3", "bitfit")}
    section = method_comparison.section(read_study(_study(tmp_path, _rows(methods=others))))
    assert [str(cell) for cell in section.parts[2].rows[0][4:8]] == ["–"] * 4
    assert section.parts[1].items == [
        "Lowest test loss on e2e<1> at small: LoRA from 100 to 1k examples (2.800 to 2.200)."
    ]


def test_variants_are_told_by_their_names(folder):
    assert words.method("ia3_last_half") == "(IA)³, last half"
    assert words.method("mine_last_half") == "mine_last_half"
    assert words.ablations(["lora", "lora_a", "lora_a_b", "loras"]) == {"lora_a": "lora", "lora_a_b": "lora"}
    study = read_study(folder)
    colours = {method: method_colour(study, method) for method in METHODS}
    assert colours["lora"] == colours["lora_last_half"] and len(set(colours.values())) == 3
