"""Which runs a study makes: grids over model, pretraining, data, tuning size, method and seed."""

import dataclasses
from collections.abc import Mapping, Sequence

import gin

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tuning.method import method_names, named_method

# The finetuning store of a study that has one.
FINETUNE = "finetune"


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """One finetuning run of a study.

    Attributes:
        tuning_size: None is a method without one.
        store: name of the finetuning store, of the study's only one or of one among several.
    """

    model: str
    pretrain_tokens: int
    method: str
    tuning_size: int | None
    finetune_examples: int
    seed: int
    store: str = FINETUNE

    @property
    def run_id(self) -> str:
        """Readable and unique within a study."""
        store = "" if self.store == FINETUNE else f"{self.store}-"
        size = "" if self.tuning_size is None else f"-t{self.tuning_size}"
        data = f"p{self.pretrain_tokens}-d{self.finetune_examples}-s{self.seed}"
        return f"{store}{self.method}{size}-{self.model}-{data}"


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of its lists.

    Attributes:
        models: names of models in the gin configuration.
        pretrain_tokens: tokens seen by the pretrained checkpoint.
        finetune_examples: sizes of the nested training subsets.
        methods: tuning methods, or variants of them (see `tuning.method`).
        seeds: each seed is another subset, another start and another order.
        tuning_sizes: per method, its prompt lengths or ranks; a method left out takes its own default.
        store: name of the prepared store that is tuned on; a study of several tasks has a grid for each.
    """

    models: Sequence[str]
    pretrain_tokens: Sequence[int]
    finetune_examples: Sequence[int]
    methods: Sequence[str]
    seeds: Sequence[int] = (0,)
    tuning_sizes: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    store: str = FINETUNE

    def points(self) -> list[Point]:
        """All points.

        Raises:
            InputError: an empty list, a size below 1, an unknown method.
        """
        for field in ("models", "pretrain_tokens", "finetune_examples", "methods", "seeds"):
            if not getattr(self, field):
                raise InputError(f"Grid.{field} is empty: give at least one")
        for field in ("pretrain_tokens", "finetune_examples"):
            wrong = [size for size in getattr(self, field) if not isinstance(size, int) or size < 1]
            if wrong:
                raise InputError(f"Grid.{field} holds {wrong}: whole numbers of at least 1")
        unknown = [name for name in (*self.methods, *self.tuning_sizes) if name not in method_names()]
        if unknown:
            raise InputError(
                f"Grid.methods: no tuning method {unknown[0]!r}{did_you_mean(unknown[0], method_names())}"
            )
        return [
            Point(model, tokens, method, size, examples, seed, self.store)
            for model in self.models
            for tokens in self.pretrain_tokens
            for method in self.methods
            for size in self.tuning_sizes.get(method) or (named_method(method).tuning_size,)
            for examples in self.finetune_examples
            for seed in self.seeds
        ]


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class LearningRateSearch:
    """A small grid of learning rates per method at one model, chosen on dev (Zhang et al. 2024, section 3).

    Attributes:
        model: usually the smallest.
        pretrain_tokens: of its checkpoint.
        finetune_examples: size at which rates are compared.
        rates: method to rates; a method left out keeps the rate bound in gin. A variant takes the rate
            of its method where it is not searched itself.
        seed: of the runs.
        store: which of the prepared stores the rates are searched on.
    """

    model: str
    pretrain_tokens: int
    finetune_examples: int
    rates: Mapping[str, Sequence[float]]
    seed: int = 0
    store: str = FINETUNE
