"""What a study declares of its languages, so that the report can value its pretraining data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gin

from scaling_jax.errors import InputError


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class ValuingPretraining:
    """What the guide of Isik et al. 2024 needs beside the results.

    Attributes:
        score: column of results.csv by which data are valued; "" is the first that was measured.
        target: the score that is wanted; None asks for more than noise above the last one.
        languages: language of each pretraining store, by its name.
        tasks: (source, target) languages of each finetuning store, by its name.
    """

    score: str = ""
    target: float | None = None
    languages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        wrong = [name for name, pair in self.tasks.items() if isinstance(pair, str) or len(pair) != 2]
        if wrong:
            raise InputError(
                f"ValuingPretraining.tasks: {wrong[0]!r} needs two languages, such as ('en', 'de')"
            )

    def declared(
        self, recipes: Mapping[str, Mapping[str, float]], tasks: Mapping[str, str]
    ) -> dict[str, Any]:
        """What goes into study.json under `valuing_pretraining`.

        Args:
            recipes: scope of each recipe -> store -> share.
            tasks: task of each finetuning store, by the store's name.
        """
        return {
            "score": self.score,
            "target": self.target,
            "mixtures": {
                scope: self._shares(recipe)
                for scope, recipe in recipes.items()
                if all(name in self.languages for name in recipe)
            },
            "tasks": {tasks[name]: list(pair) for name, pair in self.tasks.items() if name in tasks},
        }

    def _shares(self, recipe: Mapping[str, float]) -> dict[str, float]:
        shares: dict[str, float] = {}
        for name, share in recipe.items():
            language = self.languages[name]
            shares[language] = shares.get(language, 0.0) + share
        return shares
