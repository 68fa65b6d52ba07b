"""Sizes of stores that a dry run plans with."""

from types import SimpleNamespace

import gin
import numpy as np

from scaling_jax.data.store import VocabularyFile, write_store
from scaling_jax.studies.assumptions import sizes_of


def test_a_store_without_a_train_split_has_a_size_too(tmp_path):
    gin.clear_config()
    example = {"inputs": np.array([3, 4]), "targets": np.array([5, 6, 1])}
    write_store(
        tmp_path / "asked",
        task="asked_v1",
        vocabulary=VocabularyFile("bytes", 259),
        feature_lengths={"inputs": 8, "targets": 8},
        splits={"test": [example] * 3},
        facts={},
        seed=None,
        settings={},
    )
    study = SimpleNamespace(store_paths=lambda folder: {"asked": str(tmp_path / "asked")})
    sizes = sizes_of(study, tmp_path)
    assert sizes.tokens == {"asked": 5.0} and sizes.prepared and sizes.vocabulary == 259
