"""Simulated curves of losses over examples, for pilots and replays."""

import numpy as np

from scaling_jax.laws.table import table_of

SIZES = 200.0 * 2.0 ** np.arange(10)


def table(truths, noise=0.004, seed=0, sizes=SIZES, seeds=1, task=None):
    """Rows of `method, finetune_examples, loss` of power laws: name -> (A, beta, E)."""
    random = np.random.default_rng(seed)
    columns = {"method": [], "finetune_examples": [], "seed": [], "loss": []}
    for name, (scale, beta, floor) in truths.items():
        for size in sizes:
            for run in range(seeds):
                loss = (scale * size**-beta + floor) * np.exp(noise * random.standard_normal())
                for column, value in zip(columns, (name, size, run, loss), strict=True):
                    columns[column].append(value)
    if task is not None:
        columns["task"] = [task] * len(columns["loss"])
    return table_of("t", columns)
