"""A law in a user's own file: pretraining on data that are seen more than once.

Muennighoff et al. (2023), "Scaling Data-Constrained Language Models", give a token that is seen again less
and less value. U unique tokens seen in so many epochs are worth

    D' = U (1 + R (1 - exp(-(epochs - 1) / R)))

fresh ones, and the loss is that of Hoffmann et al. (2022) with D' for D. R is the number of repetitions
after which a further one is worth 1/e of a fresh epoch; however often the data are repeated, D' stays below
U (1 + R). The paper gives an excess of model size the same treatment; this example keeps N as it is.

    python repeated_epochs.py > runs.csv
    scaling-jax fit runs.csv --law repeated_epochs.py:repeated_epochs \
        --column n=params --column u=unique_tokens --column epochs=epochs --out fits

The first line writes simulated runs, so that the second one has something to fit.
"""

import csv
import itertools
import sys

import numpy as np

from scaling_jax.laws.law import Law, Parameter

# What `simulated_runs` simulates from.
TRUTH = {"A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R": 15.0, "E": 1.8}


def _log_terms(parameters, logs, array):
    """Logarithms of what A, B and E multiply, from the logarithms of the columns.

    `array` is `numpy` or `jax.numpy`, so that one formula predicts and is differentiated.
    """
    repeats = array.exp(logs["epochs"]) - 1.0
    # expm1 and log1p keep their digits where one epoch makes D' equal to U.
    gained = -parameters["R"] * array.expm1(-repeats / parameters["R"])
    log_worth = logs["u"] + array.log1p(gained)
    return -parameters["alpha"] * logs["n"], -parameters["beta"] * log_worth, 0.0


repeated_epochs = Law(
    name="repeated_epochs",
    equation="L = A / N^alpha + B / D'^beta + E, D' = U (1 + R (1 - exp(-(epochs - 1) / R)))",
    source="Muennighoff et al. (2023), Scaling Data-Constrained Language Models",
    roles=(
        ("n", "parameters of the model"),
        ("u", "unique tokens"),
        ("epochs", "how often each was seen, 1 or more"),
    ),
    parameters=(
        Parameter("A", "loss due to the model at N = 1"),
        Parameter("B", "loss due to data at D' = 1"),
        Parameter("alpha", "exponent of the model", upper=4.0, starts=(0.05, 1.5)),
        Parameter("beta", "exponent of the data", upper=4.0, starts=(0.05, 1.5)),
        Parameter(
            "R",
            "repetitions until one is worth 1/e of a fresh epoch",
            lower=0.01,
            upper=1e4,
            starts=(0.3, 300.0),
            transform="log",
        ),
        Parameter("E", "loss that neither removes"),
    ),
    linear=("A", "B", "E"),
    log_terms=_log_terms,
)


def simulated_runs(noise: float = 0.005, seed: int = 0) -> dict[str, np.ndarray]:
    """120 runs of `TRUTH` with noise on the log loss: params, unique_tokens, epochs, loss, each (120,)."""
    grid = itertools.product((1e8, 3e8, 1e9, 3e9), (1e8, 3e8, 1e9, 3e9, 1e10), (1, 2, 4, 10, 30, 100))
    params, tokens, epochs = np.array(list(grid), np.float64).T
    loss = repeated_epochs.predict(TRUTH, {"n": params, "u": tokens, "epochs": epochs})
    scatter = np.random.default_rng(seed).standard_normal(len(loss))
    return {
        "params": params,
        "unique_tokens": tokens,
        "epochs": epochs,
        "loss": loss * np.exp(noise * scatter),
    }


if __name__ == "__main__":
    runs = simulated_runs()
    table = csv.writer(sys.stdout)
    table.writerow(runs)
    table.writerows(zip(*(values.tolist() for values in runs.values()), strict=True))
