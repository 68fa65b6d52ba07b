"""What a study is; the whole of it follows from gin."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import gin

from scaling_jax import configuration, files
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation.evaluations import Evaluation
from scaling_jax.laws.expressions import column_names
from scaling_jax.studies.bases import check_bases, read_base
from scaling_jax.studies.columns import COLUMNS
from scaling_jax.studies.grid import FINETUNE, Grid, LearningRateSearch, Point
from scaling_jax.studies.valuing import ValuingPretraining
from scaling_jax.training.pretrain import PretrainSettings

PRETRAIN = "pretrain"


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class Study:
    """What a study is.

    Attributes:
        name: shown in results and report.
        grids: their union is run.
        hold_out: expression over the columns of the results; such points are never fitted.
        learning_rates: a search, or None to take the rates bound in gin.
        model_size: column that stands for model size in the laws.
        pretrain_store, finetune_store: prepared stores; None prepares them from this configuration
            under the names `pretrain` and `finetune`. Other names in `Grid.store` are prepared too.
        stores: prepared stores under any other name, by that name.
        evaluations: made of every tuned model, at its best step; their scores are columns of results.csv.
        base_evaluations: made of every model before it is tuned (zero and few shots); see bases.csv.
        means: name -> names of evaluations whose mean is a column too, for every score that all of them have:
            `{'zero_shot': ('flores_fr_de', 'flores_zh_de')}` gives `zero_shot_bleu`.
        valuing: languages and wanted score, by which the report values pretraining mixtures.
        pretrain_seed: of every pretraining run.
        workers: processes; 0 is one per core on CPU and one on an accelerator.
        cohort: runs of one program and base that a worker makes at the same time; 0 is 8 on an
            accelerator and 1 on CPU, where processes gain more. Full tuning shares nothing: one by one.
    """

    name: str
    grids: Sequence[Grid]
    hold_out: str = ""
    learning_rates: LearningRateSearch | None = None
    model_size: str = "non_embedding_params"
    pretrain_store: str | None = None
    finetune_store: str | None = None
    pretrain_seed: int = 0
    workers: int = 0
    cohort: int = 0
    stores: Mapping[str, str] = dataclasses.field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    base_evaluations: Sequence[Evaluation] = ()
    means: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    valuing: ValuingPretraining | None = None

    def __post_init__(self):
        for name in ("workers", "cohort"):
            if getattr(self, name) < 0:
                raise InputError(f"Study.{name} = {getattr(self, name)}: at least 1, or 0 for the default")
        self._check_means()
        try:
            named = column_names(self.hold_out) if self.hold_out else ()
        except InputError as error:
            raise InputError(f"Study.hold_out: {error}") from error
        # Columns of an evaluation without a name are those of its scores, which a user may have added.
        if not all(one.name for one in self.evaluations):
            return
        measured = tuple(f"{name}_" for name in [*self.means, *(one.name for one in self.evaluations)])
        for name in named:
            if name not in COLUMNS and not name.startswith(measured):
                raise InputError(f"Study.hold_out: no column {name!r}{did_you_mean(name, COLUMNS)}")

    def _check_means(self) -> None:
        known = {one.name for one in [*self.evaluations, *self.base_evaluations]}
        for mean, names in self.means.items():
            if mean in known:
                raise InputError(f"Study.means: {mean!r} is an evaluation's own name already")
            if not names:
                raise InputError(f"Study.means: {mean!r} is a mean of nothing: name evaluations")
            for name in names:
                if name not in known:
                    raise InputError(f"Study.means: no evaluation {name!r}{did_you_mean(name, known)}")

    def points(self) -> list[Point]:
        """The union of all grids, in order of first appearance.

        Raises:
            InputError: see `Grid.points`; or two points that would be called the same.
        """
        points = list(dict.fromkeys(point for grid in self.grids for point in grid.points()))
        points = _told_apart(points)
        repeated = [name for name, count in Counter(point.run_id for point in points).items() if count > 1]
        if repeated:
            raise InputError(f"two different runs would be called {repeated[0]}: rename a model or a recipe")
        return points

    def rate_points(self) -> list[Point]:
        """The runs at which learning rates are compared, one per method that is searched."""
        search = self.learning_rates
        return [search.point(method) for method in search.rates] if search else []

    def recipes(self) -> dict[str, tuple[str, ...]]:
        """The stores that each pretraining recipe reads, by the scope of the recipe.

        Where models are only initialised and never pretrained, the one without a scope: its vocabulary is
        the models'.

        Raises:
            InputError: `Grid.mixtures` names a scope without bindings.
        """
        own = [point for point in [*self.points(), *self.rate_points()] if not point.base]
        scopes = dict.fromkeys(point.mixture for point in own if point.pretrain_tokens)
        return {scope: _stores_of(scope) for scope in (scopes or [""])} if own else {}

    def store_paths(self, folder: Path) -> dict[str, str]:
        """Where the stores of this study are: those of pretraining first, those of its points, then those
        that are only evaluated on."""
        given = {PRETRAIN: self.pretrain_store, FINETUNE: self.finetune_store}
        pretraining = [name for names in self.recipes().values() for name in names]
        tuned = [point.store for point in [*self.points(), *self.rate_points()]]
        asked = [one.store for one in [*self.evaluations, *self.base_evaluations] if one.store]
        names = dict.fromkeys([*pretraining, *tuned, *asked])
        given = self.stores | {name: path for name, path in given.items() if path}
        return {name: given.get(name) or str(folder / "stores" / name) for name in names}

    def bases(self) -> list[str]:
        """Folders of the checkpoints that it starts from."""
        points = [*self.points(), *self.rate_points()]
        return list(dict.fromkeys(point.base for point in points if point.base))


def recipe(scope: str) -> PretrainSettings:
    """The settings of a pretraining recipe."""
    with gin.config_scope(scope or None):
        return PretrainSettings()


def _stores_of(scope: str) -> tuple[str, ...]:
    """Names of the stores that a recipe reads."""
    bound = {name for name, selector in gin.config._CONFIG if selector.split(".")[-1] == "PretrainSettings"}
    if scope and scope not in bound:
        known = sorted(name for name in bound if name)
        raise InputError(
            f"Grid.mixtures: no recipe {scope!r}{did_you_mean(scope, known)}: bind "
            f"{scope}/PretrainSettings.mixture to a mapping of store names to shares"
        )
    return tuple(recipe(scope).mixture) or (PRETRAIN,)


def _told_apart(points: list[Point]) -> list[Point]:
    """Bases whose models are called the same get a part of their hash in the name."""
    folders: dict[str, set[str]] = {}
    for point in points:
        if point.base:
            folders.setdefault(point.model, set()).add(point.base)
    alike = {folder for several in folders.values() if len(several) > 1 for folder in several}
    if not alike:
        return points
    names = {folder: read_base(folder) for folder in alike}

    def renamed(point: Point | None) -> Point | None:
        if point is None or point.base not in alike:
            return point
        base = names[point.base]
        suffix = f"-{base.hash[:6]}" if base.hash else ""
        return dataclasses.replace(point, model=base.name + suffix, after=renamed(point.after))

    return [renamed(point) for point in points]


def identity() -> str:
    """Hash of the resolved configuration: a study folder belongs to one."""
    return hashlib.sha256(configuration.resolved().encode()).hexdigest()


def claim_folder(folder: Path, study: Study) -> None:
    """Writes `study.json` and `config.gin` into a new study folder, or checks that it is the same study.

    Raises:
        InputError: the folder holds another study, or something that is no study; a base is not there, or
            is not the one that the study was begun with.
    """
    record = folder / "study.json"
    if record.exists():
        known = files.read_json(record)
        if known["identity"] != identity():
            changed = _first_difference(known["config"], configuration.resolved())
            raise InputError(
                f"{folder} already holds another study ({known['name']}; first difference: {changed}): "
                "give a new --out, or the configuration it was made with"
            )
        check_bases(study.bases(), known.get("bases", {}))
        return
    refuse_other_things(folder)
    bases = check_bases(study.bases(), {})
    files.write_text(folder / "config.gin", configuration.resolved())
    about = {"name": study.name, "identity": identity(), "config": configuration.resolved()}
    files.write_json(record, about | ({"bases": bases} if bases else {}))


def refuse_other_things(folder: Path) -> None:
    """
    Raises:
        InputError: the folder holds something that is no study, nor the beginning of one.
    """
    beginning = {"claims", "config.gin"}
    if (folder / "study.json").exists() or not folder.exists():
        return
    if not folder.is_dir() or any(
        path.name not in beginning and not path.name.startswith(".") for path in folder.iterdir()
    ):
        raise InputError(f"{folder} is not empty and holds no study: give a new --out")


def _first_difference(old: str, new: str) -> str:
    old_lines, new_lines = set(old.splitlines()), set(new.splitlines())
    for line in [*new.splitlines(), *old.splitlines()]:
        if (line in new_lines) != (line in old_lines):
            return f"{'now' if line in new_lines else 'then'} {line.strip()!r}"
    return "the order of bindings"
