"""Sizes of a study's stores: of the stores themselves, or where they are not prepared yet from gin."""

from pathlib import Path

from scaling_jax.planning.stores import Sizes, store_sizes
from scaling_jax.studies.plan import Study


def sizes_of(study: Study, folder: Path) -> Sizes:
    """Sizes by store; opens what is there, and assumes the rest from the gin configuration.

    Raises:
        InputError: a store that is there cannot be opened.
    """
    return store_sizes(study.store_paths(folder))
