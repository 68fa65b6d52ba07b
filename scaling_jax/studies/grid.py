"""Which runs a study makes: grids over model, pretraining, data, tuning size, method and seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gin

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.studies.bases import read_base
from scaling_jax.tuning.method import method_names, named_method

# The finetuning store of a study that has one.
FINETUNE = "finetune"


@dataclasses.dataclass(frozen=True)
class Point:
    """One finetuning run of a study.

    Attributes:
        pretrain_tokens: 0 is not pretrained; None is not known, as of a converted base.
        tuning_size: None is a method without one.
        store: name of the finetuning store, of the study's only one or of one among several.
        mixture: scope of the pretraining recipe; "" is the one without a scope.
        base: folder of the checkpoint that the run starts from; "" is one that the study pretrains.
        after: the earlier run whose tuned result this one starts from, or None.
    """

    model: str
    pretrain_tokens: int | None
    method: str
    tuning_size: int | None
    finetune_examples: int
    seed: int
    store: str = FINETUNE
    mixture: str = ""
    base: str = ""
    after: "Point | None" = None

    @property
    def origin(self) -> str:
        """Readable name of the model that is tuned, but for an earlier tuning."""
        mixture = f"-{self.mixture}" if self.mixture else ""
        tokens = "" if self.pretrain_tokens is None else f"-p{self.pretrain_tokens}"
        return f"{self.model}{mixture}{tokens}"

    @property
    def run_id(self) -> str:
        """Readable and unique within a study."""
        after = f"-after-{self.earlier}" if self.after else ""
        return f"{self.tuning}-{self.origin}-d{self.finetune_examples}-s{self.seed}{after}"

    @property
    def earlier(self) -> str:
        """How the model was tuned before, readable; "" where it was not."""
        if self.after is None:
            return ""
        before = f"-after-{self.after.earlier}" if self.after.after else ""
        return f"{self.after.tuning}-d{self.after.finetune_examples}{before}"

    @property
    def tuning(self) -> str:
        """Store, method and tuning size, readable."""
        store = "" if self.store == FINETUNE else f"{self.store}-"
        size = "" if self.tuning_size is None else f"-t{self.tuning_size}"
        return f"{store}{self.method}{size}"


class Origin(NamedTuple):
    """What runs of a grid start from; fields as in `Point`."""

    model: str
    pretrain_tokens: int | None
    mixture: str = ""
    base: str = ""
    after: Point | None = None


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of its lists. Runs start from one of three things: models that the study
    pretrains (`models` and `pretrain_tokens`), checkpoints that are there (`bases`), or what the runs of
    another grid have tuned (`after`).

    Attributes:
        models: names of models in the gin configuration.
        pretrain_tokens: tokens seen by the pretrained checkpoint; 0 is the model as it is initialised.
        finetune_examples: sizes of the nested training subsets.
        methods: tuning methods, or variants of them (see `tuning.method`).
        seeds: each seed is another subset, another start and another order.
        tuning_sizes: per method, its prompt lengths or ranks; a method left out takes its own default.
        store: name of the prepared store that is tuned on; a study of several tasks has a grid for each.
        mixtures: gin scopes of pretraining recipes: `half/PretrainSettings.mixture = {'en': 0.5, 'de': 0.5}`
            is the recipe `half`; "" is what is bound without a scope. What is not pretrained has none.
        bases: folders that `convert`, `pretrain` or `finetune` wrote.
        after: a grid whose tuned results are the bases: each run starts from every run of that grid that has
            its own seed. The runs of that grid are made too, whether the study lists it or not.
    """

    models: Sequence[str] = ()
    pretrain_tokens: Sequence[int] = ()
    finetune_examples: Sequence[int] = ()
    methods: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    tuning_sizes: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    store: str = FINETUNE
    mixtures: Sequence[str] = ("",)
    bases: Sequence[str] = ()
    after: "Grid | None" = None

    def points(self) -> list[Point]:
        """All points; those of `after` come first.

        Raises:
            InputError: an empty list, a size too small, an unknown method, more than one kind of start.
        """
        return [*(self.after.points() if self.after else ()), *self._own_points()]

    def _own_points(self) -> list[Point]:
        self._check()
        return [
            Point(
                origin.model,
                origin.pretrain_tokens,
                method,
                size,
                examples,
                seed,
                self.store,
                origin.mixture,
                origin.base,
                origin.after,
            )
            for origin in self._origins()
            for method in self.methods
            for size in self.tuning_sizes.get(method) or (named_method(method).tuning_size,)
            for examples in self.finetune_examples
            for seed in self.seeds
            if origin.after is None or origin.after.seed == seed
        ]

    def _check(self) -> None:
        if self.bases or self.after:
            start = "bases" if self.bases else "after"
            others = {"models": (), "pretrain_tokens": (), "mixtures": ("",), "after": None}
            for name, unset in others.items():
                if name != start and getattr(self, name) not in (unset, list(unset or ())):
                    raise InputError(
                        f"Grid.{start} says what runs start from, and so does Grid.{name}: bind one of them "
                        f"(Grid.{name} = {unset} takes it back in this scope)"
                    )
        needed = () if self.bases or self.after else ("models", "pretrain_tokens", "mixtures")
        for field in (*needed, "finetune_examples", "methods", "seeds"):
            if not getattr(self, field):
                raise InputError(f"Grid.{field} is empty: give at least one")
        for field, least in (("pretrain_tokens", 0), ("finetune_examples", 1)):
            wrong = [size for size in getattr(self, field) if not isinstance(size, int) or size < least]
            if wrong:
                raise InputError(f"Grid.{field} holds {wrong}: whole numbers of at least {least}")
        unknown = [name for name in (*self.methods, *self.tuning_sizes) if name not in method_names()]
        if unknown:
            raise InputError(
                f"Grid.methods: no tuning method {unknown[0]!r}{did_you_mean(unknown[0], method_names())}"
            )

    def _origins(self) -> list[Origin]:
        if self.bases:
            folders = (self.bases,) if isinstance(self.bases, str) else self.bases
            bases = [read_base(folder) for folder in folders]
            return [Origin(base.name, base.pretrain_tokens, base=base.folder) for base in bases]
        if self.after:
            return self._tuned_origins(self.after)
        pretrained = [
            # The initial parameters are the same whatever would have followed.
            Origin(model, tokens, mixture if tokens else "")
            for model in self.models
            for mixture in self.mixtures
            for tokens in self.pretrain_tokens
        ]
        return list(dict.fromkeys(pretrained))

    def _tuned_origins(self, after: "Grid") -> list[Origin]:
        missing = sorted(set(self.seeds) - set(after.seeds))
        if missing:
            raise InputError(
                f"Grid.seeds holds {missing[0]}, but the grid that it comes after has the seeds "
                f"{list(after.seeds)}, and a run goes on from one of its own seed"
            )
        return [
            Origin(point.model, point.pretrain_tokens, point.mixture, point.base, point)
            for point in after._own_points()
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
        mixture: scope of the checkpoint's pretraining recipe.
        base: folder of a checkpoint, instead of model, pretrain_tokens and mixture.
    """

    finetune_examples: int
    rates: Mapping[str, Sequence[float]]
    model: str = ""
    pretrain_tokens: int = 0
    seed: int = 0
    store: str = FINETUNE
    mixture: str = ""
    base: str = ""

    def point(self, method: str) -> Point:
        """The run at which rates of a method are compared.

        Raises:
            InputError: neither a model nor a base, or both.
        """
        if bool(self.model) == bool(self.base):
            raise InputError(
                "LearningRateSearch needs model and pretrain_tokens, or base: bind one of the two"
            )
        origin = Origin(self.model, self.pretrain_tokens, self.mixture if self.pretrain_tokens else "")
        if self.base:
            base = read_base(self.base)
            origin = Origin(base.name, base.pretrain_tokens, base=base.folder)
        return Point(
            origin.model,
            origin.pretrain_tokens,
            method,
            None,
            self.finetune_examples,
            self.seed,
            self.store,
            origin.mixture,
            origin.base,
        )
