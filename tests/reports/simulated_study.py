"""A simulated study folder whose law is known: what the report is developed and tested on.

Run as a script it writes one: `python tests/reports/simulated_study.py /tmp/simulated`.
"""

import csv
import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np

from scaling_jax import files
from scaling_jax.decisions.study_fits import crossings
from scaling_jax.laws.results import Fit, stated, write_fits

COLUMNS = (
    "run_id,study,task,method,model,model_params,non_embedding_params,pretrain_tokens,finetune_examples,"
    "finetune_tokens,tuning_size,tuning_params,subset_seed,seed,steps,best_step,dev_loss,loss,bleu,chrf,"
    "rouge_l,accuracy,judge_score,step_seconds,train_seconds,tokens_per_second,peak_memory_bytes,"
    "checkpoint_bytes,status,reason,record"
).split(",")

ENTROPY = 1.31
MODELS = {
    "n30k": (95_000, 31_000),
    "n100k": (230_000, 103_000),
    "n300k": (520_000, 310_000),
    "n1m": (1_350_000, 1_020_000),
}
EXAMPLES = (250, 500, 1000, 2000, 4000, 8000, 16000)
PRETRAINING = (500_000, 2_000_000, 8_000_000)
PRETRAINED_MODEL = "n100k"
# method: E, loss above E at 100k parameters, 8M pretraining tokens and 1,000 examples, alpha_m, alpha_p, beta
LAWS = {
    "full": (1.33, 1.30, 0.24, 0.11, 0.33),
    "lora": (1.30, 1.15, 0.20, 0.14, 0.19),
    "prompt": (1.42, 1.42, 0.17, 0.13, 0.06),
}
HOLD_OUT = "finetune_examples >= 16000 or non_embedding_params >= 1000000 or pretrain_tokens == 2000000"
CONFIG = """# simulated study, no gin file was read
study.name = 'simulated'
study.methods = ['full', 'lora', 'prompt']
study.template = 'Translate <b>this</b> & that:'
"""


def true_loss(method: str, model_size: float, pretrain_tokens: float, examples: float) -> float:
    """Nats per target token of the law the rows are drawn from."""
    floor, scale, alpha_model, alpha_pretraining, beta = LAWS[method]
    return floor + scale * (
        (model_size / 103_000) ** -alpha_model
        * (pretrain_tokens / 8_000_000) ** -alpha_pretraining
        * (examples / 1000) ** -beta
    )


def _points(method: str):
    for model, examples in itertools.product(MODELS, EXAMPLES):
        yield model, PRETRAINING[-1], examples
    for tokens, examples in itertools.product(PRETRAINING[:-1], EXAMPLES):
        yield PRETRAINED_MODEL, tokens, examples


def rows(noise: float = 0.006, seeds: int = 2) -> list[dict[str, str]]:
    """Rows of results.csv; one diverged, one failed."""
    generator = np.random.default_rng(0)
    found = []
    for method in LAWS:
        for (model, tokens, examples), seed in itertools.product(_points(method), range(seeds)):
            total, body = MODELS[model]
            loss = true_loss(method, body, tokens, examples) * (1 + noise * generator.standard_normal())
            tuned = {"full": total, "lora": int(body**0.7), "prompt": 16 * int(body**0.36)}[method]
            seconds = 2.0 + 1e-6 * body * (10 if method == "full" else 7)
            run_id = f"{method}-{model}-p{tokens}-d{examples}-s{seed}"
            row = dict.fromkeys(COLUMNS, "")
            row.update(
                run_id=run_id,
                study="simulated",
                task="lab_translation",
                method=method,
                model=model,
                model_params=total,
                non_embedding_params=body,
                pretrain_tokens=tokens,
                finetune_examples=examples,
                finetune_tokens=examples * 14,
                tuning_size={"full": "", "lora": 4, "prompt": 16}[method],
                tuning_params=tuned,
                subset_seed=seed,
                seed=seed,
                steps=400,
                best_step=360,
                dev_loss=f"{loss * 1.002:.6f}",
                loss=f"{loss:.6f}",
                step_seconds=f"{seconds / 400:.5f}",
                train_seconds=f"{seconds:.3f}",
                tokens_per_second=f"{400 * 32 * 28 / seconds:.1f}",
                peak_memory_bytes=int(4e8 + 12 * total),
                checkpoint_bytes=4 * tuned,
                status="done",
                record=f"runs/{run_id}/record.json",
            )
            found.append(row)
    found[0].update(
        status="diverged", reason="loss is NaN at step 112 <script>alert(1)</script>", loss="", dev_loss=""
    )
    found[-1].update(status="failed", reason="killed: out of memory", loss="", dev_loss="")
    return found


def write_results(path: Path, table: list[dict[str, str]]) -> None:
    """Writes results.csv with every column of the contract."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table)


def write_study(folder: str | Path, noise: float = 0.006, seeds: int = 2, lab: bool = True) -> Path:
    """Writes study.json, results.csv, the stores' manifests and every run's record into `folder`."""
    folder = Path(folder)
    table = rows(noise, seeds)
    facts = {
        "entropy_per_target_token": {"test": ENTROPY, "dev": ENTROPY + 0.01},
        "oracle_loss": {"test": ENTROPY + 0.004, "dev": ENTROPY + 0.012},
    }
    files.write_json(
        folder / "stores/finetune/manifest.json", {"task": "lab_translation", "facts": facts if lab else {}}
    )
    files.write_json(folder / "stores/pretrain/manifest.json", {"task": "lab_text", "facts": {}})
    for row in table:
        record = folder / row["record"]
        record.parent.mkdir(parents=True)
        record.write_text("{}\n", "utf-8")
    files.write_text(folder / "config.gin", CONFIG)
    write_results(folder / "results.csv", table)
    files.write_json(
        folder / "study.json",
        {
            "name": "simulated",
            "created": "2026-01-02T03:04:05+00:00",
            "config": CONFIG,
            "versions": {"scaling_jax": "0.1.0", "jax": "0.10.2", "python": "3.11.2"},
            "device": "cpu (2 cores)",
            "hold_out": HOLD_OUT,
            "stores": {"pretrain": "stores/pretrain", "finetune": "stores/finetune"},
            "learning_rates": {"full": 0.003, "lora": 0.02, "prompt": 0.3},
            "grid": {
                "methods": list(LAWS),
                "models": list(MODELS),
                "finetune_examples": list(EXAMPLES),
                "pretrain_tokens": list(PRETRAINING),
                "seeds": list(range(seeds)),
            },
        },
    )
    return folder


def made_fits(wrong: float = 0.15) -> list[Fit]:
    """Fits written down, not fitted: multiplicative is the truth, additive is off by `wrong`."""
    generator = np.random.default_rng(1)
    fits = []
    for factor, column, where, reference, position in (
        ("model_size", "non_embedding_params", "pretrain_tokens == 8000000", 103_000, 2),
        ("pretraining", "pretrain_tokens", f"model == '{PRETRAINED_MODEL}'", 8_000_000, 3),
    ):
        for method, law in LAWS.items():
            floor, scale, alpha, beta = law[0], law[1], law[position], law[4]
            truth = {"A": scale * reference**alpha * 1000**beta, "alpha": alpha, "beta": beta, "E": floor}
            additive = {
                "A": scale / 2 * reference**alpha,
                "B": scale / 2 * 1000**beta,
                "alpha": alpha,
                "beta": beta,
                "E": floor + wrong,
            }
            for name, parameters in (("multiplicative", truth), ("additive", additive)):
                fits.append(_made_fit(name, factor, column, where, method, parameters, generator))
    return fits


def write_made_fits(folder: Path) -> None:
    """Writes `made_fits` and the crossings that follow from them."""
    fits = made_fits()
    write_fits(folder / "fits.json", fits)
    files.write_json(
        folder / "decision.json", {"crossings": crossings(fits), "skipped": ["power: <too few> rows"]}
    )


def single_fits(task: str, model: str) -> list[Fit]:
    """Made fits of the law in the examples alone, for one model."""
    size = MODELS[model][1]
    generator = np.random.default_rng(2)
    fits = []
    for method, (floor, scale, alpha, _, beta) in LAWS.items():
        reducible = scale * (size / 103_000) ** -alpha * 1000**beta
        parameters = {"A": reducible, "beta": beta, "E": floor}
        fit = _made_fit("power", "single", "", "pretrain_tokens == 8000000", method, parameters, generator)
        group = {"task": task, "method": method, "model": model, "non_embedding_params": size}
        columns = {"d": "finetune_examples", "y": "loss"}
        fits.append(dataclasses.replace(fit, group=group, columns=columns))
    return fits


def tuning_size_fit(alpha: float) -> Fit:
    """A made fit of LoRA over its rank; the interval of alpha is 0.02 wide."""
    generator = np.random.default_rng(3)
    parameters = {"A": 4.0, "alpha": alpha, "beta": 0.2, "E": 1.3}
    where = "pretrain_tokens == 8000000"
    fit = _made_fit("multiplicative", "tuning_size", "tuning_size", where, "lora", parameters, generator)
    return dataclasses.replace(fit, intervals={**fit.intervals, "alpha": (alpha - 0.01, alpha + 0.01)})


def _made_fit(name, factor, column, where, method, parameters, generator) -> Fit:
    draws = {key: value * (1 + 0.002 * generator.standard_normal(40)) for key, value in parameters.items()}
    identified = dict.fromkeys(parameters, True)
    if (name, method, factor) == ("multiplicative", "prompt", "model_size"):
        identified["E"] = "the interval of E reaches zero: the data do not show that this term is there"
    at = MODELS.values() if factor == "model_size" else ()
    sizes = [float(size) for _, size in at] or [float(tokens) for tokens in PRETRAINING]
    error = 0.01 if name == "multiplicative" else 0.16
    columns = {"x": column, "d": "finetune_examples", "y": "loss"}
    fitted = {"x": (1e4, 1e6), "d": (250.0, 8000.0)}
    group = {"task": "lab_translation", "method": method}
    return dataclasses.replace(
        stated(name, columns, parameters, draws, fitted, group),
        objective={"kind": "huber_log", "delta": 1e-3, "value": 1e-3},
        rows={"fitted": 36, "held_out": 20, "dropped": 2},
        dropped_reasons={"diverged: loss is NaN at step 112": 1, "failed: killed": 1},
        errors={
            "fitted_mad": error,
            "held_out_mad": error,
            "fitted_rmsd_log": error,
            "held_out_rmsd_log": error,
            "nearest_neighbour_mad": 0.1,
        },
        status="identified",
        identified=identified,
        starts={"total": 100, "agreeing": 60},
        condition_number=900.0,
        where=where,
        hold_out=HOLD_OUT,
        versions={"jax": "0.10.2"},
        extra={"factor": factor, "sizes": sizes},
    )


if __name__ == "__main__":
    study = write_study(sys.argv[1])
    write_made_fits(study)
    print(study)
