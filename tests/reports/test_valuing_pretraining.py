"""The report on pretraining mixtures, from made-up rows whose answer is known.

Run as a script it writes the page: `python -m tests.reports.test_valuing_pretraining /tmp/made_up`.
"""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.reports.update import update_report
from tests.reports.simulated_study import COLUMNS

TOKENS = (256_000, 512_000, 1_024_000, 2_048_000, 4_096_000)
# mixture: (score by tokens, loss by tokens) at 4,000 examples; fewer examples gain more from pretraining.
SHAPES = {
    "en": (lambda t: math.log(0.02 * t**0.45) ** 1.2 - 1.0 * max(0.0, math.log2(t / 1.0e6)), 7.0),
    "de": (lambda t: math.log(0.02 * t**0.62) ** 1.2, 6.6),
    "half": (lambda t: math.log(0.02 * t**0.7) ** 1.2, 6.0),
}
DECLARED = {
    "score": "bleu",
    "target": None,
    "mixtures": {"en": {"en": 1.0}, "de": {"de": 1.0}, "half": {"en": 0.5, "de": 0.5}},
    "tasks": {"multi30k_en_de_v1": ["en", "de"]},
}


def rows(seeds: int = 2) -> list[dict]:
    random = np.random.default_rng(0)
    levels = [("", 0), *((mixture, tokens) for mixture in SHAPES for tokens in TOKENS)]
    found = []
    for mixture, tokens in levels:
        for examples in (4000, 16000):
            for seed in range(seeds):
                score, scale = SHAPES[mixture] if mixture else (lambda t: 4.1, 0.0)
                bleu = (score(tokens) + 2.0 * math.log(examples / 4000)) * math.exp(
                    0.01 * random.standard_normal()
                )
                loss = 1.9 + (scale * tokens**-0.15 if tokens else 1.6) * (examples / 4000) ** -0.2
                name = f"full-tiny{f'-{mixture}' * bool(mixture)}-p{tokens}-d{examples}-s{seed}"
                row = dict.fromkeys((*COLUMNS, "pretrain_mixture", "after"), "")
                row.update(
                    run_id=name,
                    study="made_up",
                    task="multi30k_en_de_v1",
                    method="full",
                    model="tiny",
                    model_params=600_000,
                    non_embedding_params=230_000,
                    pretrain_mixture=mixture,
                    pretrain_tokens=tokens,
                    finetune_examples=examples,
                    seed=seed,
                    subset_seed=seed,
                    bleu=f"{bleu:.4f}",
                    loss=f"{loss * math.exp(0.003 * random.standard_normal()):.5f}",
                    status="done",
                    record=f"runs/{name}/record.json",
                )
                found.append(row)
    return found


def write_study(folder: Path, declared: dict | None = DECLARED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = rows()
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    about = {"name": "made up data, not a measurement", "config": "# none", "hold_out": "", "device": "none"}
    files.write_json(folder / "study.json", about | ({"valuing_pretraining": declared} if declared else {}))
    return folder


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("valued"))
    return folder, update_report(folder, bootstrap=40)


def test_the_page_values_each_mixture_at_each_number_of_examples(reported):
    folder, update = reported
    page = update.page.read_text("utf-8")
    assert "What is the pretraining data worth?" in page
    assert "tiny, 4k finetuning examples" in page and "tiny, 16k finetuning examples" in page
    assert "These data do not suit the task" in page or "these data do not suit the task" in page
    assert page.count("follows the log-law.") == 4  # half and de, at two numbers of examples
    assert "Pretraining is worth" in page and "not pretrained" in page
    first_screen = page[: page.index("<main")]
    assert "Best BLEU on multi30k_en_de_v1 with 16k examples, by pretraining data: half" in first_screen


def test_decisions_and_fits_can_be_read_by_others(reported):
    folder, update = reported
    entries = json.loads((folder / "decision.json").read_text())["valuing_pretraining"]
    assert {entry["mixture"]: entry["alignment"] for entry in entries} == pytest.approx(
        {"en": 0.7, "de": 0.8, "half": 1.0}
    )
    assert {
        entry["mixture"]: entry["verdict"]
        for entry in entries
        if entry["group"]["finetune_examples"] == "4000"
    } == {
        "en": "falls",
        "de": "grows",
        "half": "grows",
    }
    fits = json.loads((folder / "pretraining_fits.json").read_text())
    assert {(fit["law"], fit["columns"]["y"]) for fit in fits} == {("score_log", "bleu"), ("power", "loss")}
    assert "Worth of pretraining" in update.summary


def test_figures_are_written_with_the_model_that_was_not_pretrained(reported):
    folder, _ = reported
    figure = (folder / "figures/valuing-bleu-full-tiny-multi30k_en_de_v1-4000.svg").read_text("utf-8")
    assert "not pretrained" in figure and "half" in figure


def test_nothing_is_computed_twice(reported):
    folder, _ = reported
    again = update_report(folder, bootstrap=40)
    assert not again.fitted and not again.drawn
    (folder / "pretraining_fits.json").unlink()
    assert update_report(folder, bootstrap=40).fitted


def test_models_before_tuning_have_a_table(tmp_path):
    folder = write_study(tmp_path)
    about = "base_id,task,model,model_params,non_embedding_params,pretrain_mixture,pretrain_tokens"
    (folder / "bases.csv").write_text(
        f"{about},loss,status,reason,record,one_shot_bleu\n"
        "base-tiny-en-p256000,t,tiny,600000,230000,en,256000,5.125,done,,x,0.75\n",
        "utf-8",
    )
    page = update_report(folder, bootstrap=20).page.read_text("utf-8")
    assert "What the models do before they are tuned" in page and "one shot bleu" in page and "5.12" in page


def test_without_languages_there_is_no_alignment(tmp_path):
    folder = write_study(tmp_path, None)
    update_report(folder, bootstrap=20)
    entries = json.loads((folder / "decision.json").read_text())["valuing_pretraining"]
    assert {entry["alignment"] for entry in entries} == {None}


if __name__ == "__main__":
    print(update_report(write_study(Path(sys.argv[1])), bootstrap=200).summary)
