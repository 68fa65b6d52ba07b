"""Published tables of losses, fitted again: the values that their authors found.

The tables are found by SCALING_JAX_DATA: laws/chinchilla_epoch, laws/nmt_gordon2021, laws/rectified_gigaword.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from scaling_jax.laws.choose import choose_rolling
from scaling_jax.laws.fit import Settings, fit_table, samples_of
from scaling_jax.laws.law import find_law
from scaling_jax.laws.table import read_table, table_of

pytestmark = pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)
CURVE = [200 * 2**k for k in range(14)]
FAMILIES = {"cerebras": "cerebras", "opt": "facebook/opt", "lamini": "lamini-gpt"}


def folder(name: str) -> Path:
    return Path(os.environ["SCALING_JAX_DATA"]) / "laws" / name


@pytest.fixture(scope="module")
def chinchilla():
    """The 240 points: the five highest losses are left out, as by Besiroglu et al. (2024)."""
    table = read_table(folder("chinchilla_epoch") / "svg_extracted_data.csv")
    table = table.derive("tokens = `Training FLOP` / (6 * `Model Size`)")
    limit = float(np.sort(table.numbers("loss"))[-5])
    rows = table.where(f"loss < {limit!r}")
    assert len(rows) == 240
    return rows


def test_chinchilla_optimum(chinchilla):
    """Besiroglu et al. (2024): the Huber sum and the parameters, to the digits that they give."""
    settings = Settings(bootstrap=20)
    (fit,) = fit_table(chinchilla, "additive", {"x": "Model Size", "d": "tokens"}, settings=settings)
    assert fit.objective["value"] <= 0.0010182742
    shown = {name: float(f"{value:.5g}") for name, value in fit.parameters.items()}
    assert shown["A"] == pytest.approx(477.8, abs=0.1)
    assert shown["B"] == pytest.approx(2143, abs=1)
    assert shown["E"] == pytest.approx(1.8172, abs=5e-5)
    assert shown["alpha"] == pytest.approx(0.3473, abs=5e-5)
    assert shown["beta"] == pytest.approx(0.3672, abs=5e-5)


def test_chinchilla_intervals(chinchilla):
    """4,000 resamplings of the rows beside the published standard errors and 95% intervals."""
    settings = Settings(bootstrap=4000, intervals="rows", level=0.95)
    (fit,) = fit_table(chinchilla, "additive", {"x": "Model Size", "d": "tokens"}, settings=settings)
    published = {
        "A": (124.5, 285, 744),
        "E": (0.0257, 1.769, 1.871),
        "alpha": (0.0154, 0.317, 0.373),
        "beta": (0.0206, 0.331, 0.415),
    }
    for name, (error, low, high) in published.items():
        assert fit.standard_errors[name] == pytest.approx(error, rel=0.25), name
        width = high - low
        assert fit.intervals[name] == pytest.approx((low, high), abs=0.2 * width), name
    # B's distribution has a long tail: its standard error is that of a few resamplings.
    low, high = fit.intervals["B"]
    assert low == pytest.approx(1042, rel=0.15) and high == pytest.approx(5810, rel=0.35)


@pytest.fixture(scope="module")
def translation():
    table = read_table(folder("nmt_gordon2021") / "data_scaling.0126.summary")
    table = table.derive("n = 2 * Layers * (4 * ModelSize**2 + 2 * ModelSize * FeedForward)")
    return table.where("data_bytes > 5242880")


@pytest.mark.parametrize(
    ("pair", "rows", "bottleneck", "score"),
    [
        ("deen", 54, (0.1222, 19.372, 0.4204, 18.997), (76.16, 0.4697)),
        ("ruen", 66, (0.1093, 21.616, 0.3805, 20.044), (64.20, 0.4373)),
        ("zhen", 60, (0.1214, 19.772, 0.4142, 19.031), (83.73, 0.4274)),
    ],
)
def test_translation(translation, pair, rows, bottleneck, score):
    """Gordon et al. (2021): their law of model and data size, and BLEU from the loss."""
    settings = Settings(residual="linear", loss="squared", bootstrap=20)
    where = f'Lang == "{pair}"'
    (fit,) = fit_table(
        translation, "bottleneck", {"x": "n", "d": "data_bytes"}, "ent_dev", where=where, settings=settings
    )
    assert fit.rows["fitted"] == rows
    found = fit.parameters
    shown = (found["alpha_N"], np.log(found["N_C"]), found["alpha_D"], np.log(found["D_C"]))
    assert shown == pytest.approx(bottleneck, abs=6e-4)
    (bleu,) = fit_table(
        translation, "loss_to_score", {"x": "ent_dev"}, "bleu_dev", where=where, settings=settings
    )
    assert bleu.parameters["C"] == pytest.approx(score[0], abs=6e-3)
    assert bleu.parameters["k"] == pytest.approx(score[1], abs=6e-5)


@pytest.fixture(scope="module")
def gigaword():
    """One row per model and data size."""
    wide = read_table(folder("rectified_gigaword") / "gigaword.csv")
    count = len(CURVE)
    return table_of(
        "gigaword",
        {
            "name": np.repeat(wide.text("config name"), count),
            "model_params": np.repeat(wide.numbers("size"), count),
            "finetune_examples": CURVE * len(wide),
            "loss": np.stack([wide.numbers(str(size)) for size in CURVE], axis=1).ravel(),
        },
    )


def test_rectified_law_on_thirty_curves(gigaword):
    """Lin et al. (2024): mean RMSD of the log loss 0.0052 by the rectified law, 0.0106 by the power law."""
    errors = {}
    for law in ("rectified", "power"):
        settings = Settings(loss="squared", bootstrap=20)
        fits = fit_table(gigaword, law, {"d": "finetune_examples"}, by=("name",), settings=settings)
        errors[law] = np.mean([fit.errors["fitted_rmsd_log"] for fit in fits])
        assert len(fits) == 30
    assert errors["rectified"] <= 0.0052
    assert errors["power"] <= 0.0106


def family(gigaword, part: str):
    names = np.char.lower(gigaword.text("name").astype(str))
    return gigaword.rows(np.char.find(names, part) >= 0)


def test_joint_fits_of_one_family(gigaword):
    """The Huber sums of the reference refits, or below."""
    columns = {"x": "model_params", "d": "finetune_examples"}
    rows = family(gigaword, FAMILIES["cerebras"])
    assert len(rows) == 4 * 14
    for law, value in (("multiplicative", 0.00144), ("additive", 0.00307)):
        (fit,) = fit_table(rows, law, columns, settings=Settings(bootstrap=20))
        # The reference is given to these digits.
        assert round(fit.objective["value"], 5) <= value
    (fit,) = fit_table(rows, "multiplicative", columns, settings=Settings(bootstrap=20))
    assert fit.parameters["A"] == pytest.approx(317.5, abs=0.1)
    assert fit.parameters["alpha"] == pytest.approx(0.2254, abs=1e-4)
    assert fit.parameters["beta"] == pytest.approx(0.1136, abs=1e-4)
    assert fit.parameters["E"] == pytest.approx(0.932, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_pre_power_phase_predicts_the_next_size_better(gigaword, name):
    """Rolling held-out sizes: docs/laws/rectified_multiplicative.md has the table."""
    rows = family(gigaword, FAMILIES[name])
    laws = {law: find_law(law) for law in ("multiplicative", "additive", "rectified_multiplicative")}
    columns = {"x": "model_params", "d": "finetune_examples"}
    (sample,) = samples_of(rows, laws["multiplicative"], columns, "loss", Settings())
    choice = choose_rolling(sample, laws, "d", Settings())
    print(choice.text)
    for score in choice.scores:
        print(f"{name} {score.law} {score.held_out_mad:.4f} {score.worse_by}")
    assert choice.scores[0].law == "rectified_multiplicative"
