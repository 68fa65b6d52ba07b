"""What a pilot starts from: a base checkpoint of each model and a token store of the examples.

A model is one of our checkpoints, a Hugging Face or T5X folder, which is converted once, or the name of a
size of ours, which is pretrained once on text that is given. The examples are tokenised with the model's own
tokenizer. Both happen in processes of their own: the first needs the accelerator, the second TensorFlow.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.data.store import open_store
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.interop import sources, t5x_arrays
from scaling_jax.studies.bases import read_base
from scaling_jax.studies.worker import CONFIGURABLES, STOPPED_BY_INPUT
from scaling_jax.training import checkpoints
from scaling_jax.training.platform import worker_environment

STORE = "finetune"
_TOKENIZERS = ("tokenizer.model", "spiece.model")
_TSV = (".tsv", ".tsv.gz", ".txt", ".txt.gz")
_JSONL = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# Of a file without dev or test files: a tenth of it each, within these.
_LEAST_CUT, _MOST_CUT, _CUT_SHARE = 16, 500, 10


@dataclasses.dataclass(frozen=True)
class Examples:
    """The user's examples, and how they are read.

    Attributes:
        train, dev, test: files; dev and test are cut out of train where they are None.
        fields: names of source and target in JSON lines.
        columns: of source and target in a TSV file, from zero.
        template: what the model reads; `{source}` is the source.
        lengths: most tokens of inputs and targets.
    """

    train: Path
    dev: Path | None
    test: Path | None
    fields: tuple[str, str]
    columns: tuple[int, int]
    template: str
    lengths: tuple[int, int]

    @property
    def task(self) -> str:
        """Name of the task that reads such files.

        Raises:
            InputError: a file of another kind.
        """
        for task, endings in (("jsonl", _JSONL), ("parallel_text", _TSV)):
            if self.train.name.endswith(endings):
                return task
        raise InputError(f"{self.train}: a file {', '.join((*_JSONL, *_TSV))} is needed")

    @property
    def given(self) -> list[Path]:
        """The files that are given."""
        return [path for path in (self.train, self.dev, self.test) if path]

    def counted(self) -> "Counted":
        """Reads the files from end to end.

        Raises:
            InputError: a file that is not there or cannot be read, with its line.
        """
        for path in self.given:
            if not path.is_file():
                raise InputError(f"no file {path}")
        from scaling_jax.tasks.jsonl import jsonl
        from scaling_jax.tasks.parallel_text import parallel_text

        named = {
            split: str(path)
            for split, path in zip(("train", "dev", "test"), self.paths(), strict=True)
            if path
        }
        if self.task == "jsonl":
            own = {"source": self.fields[0], "target": self.fields[1], "template": self.template}
            found = jsonl(**named, cut_dev=0, cut_test=0, **own)
        else:
            found = parallel_text(
                **named, cut_dev=0, cut_test=0, columns=self.columns, template=self.template
            )
        usable = found.examples["train"]
        cut = min(max(usable // _CUT_SHARE, _LEAST_CUT), _MOST_CUT)
        cuts = {split: cut for split in ("dev", "test") if split not in named}
        if sum(cuts.values()) * 2 > usable:
            raise InputError(
                f"{self.train} has {usable} examples, too few to take {cut} each for "
                f"{' and '.join(cuts)}: give --dev and --test, or more examples"
            )
        return Counted(usable - sum(cuts.values()), cuts)

    def paths(self) -> tuple[Path | None, Path | None, Path | None]:
        """Of train, dev and test."""
        return self.train, self.dev, self.test

    def bindings(self, cuts: dict[str, int]) -> list[str]:
        """Gin lines of the store's task."""
        task, lengths = self.task, dict(zip(("inputs", "targets"), self.lengths, strict=True))
        lines = [
            f"prepare.stores = [@{STORE}/task_store()]",
            f"{STORE}/task_store.name = {STORE!r}",
            f"{STORE}/task_store.task = {task!r}",
            f"{STORE}/task_store.feature_lengths = {lengths!r}",
            f"{task}.template = {self.template!r}",
        ]
        lines += [
            f"{task}.{split} = {str(path.absolute())!r}"
            for split, path in zip(("train", "dev", "test"), self.paths(), strict=True)
            if path
        ]
        lines += [f"{task}.cut_{split} = {count}" for split, count in cuts.items()]
        if task == "jsonl":
            return [*lines, f"jsonl.source = {self.fields[0]!r}", f"jsonl.target = {self.fields[1]!r}"]
        return [*lines, f"parallel_text.columns = {self.columns!r}"]


@dataclasses.dataclass(frozen=True)
class Counted:
    """How many examples there are to tune on, and how many are cut out of the file for dev and test."""

    train: int
    cuts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """How a size of ours is pretrained: text files, tokens to see, pieces of the vocabulary."""

    text: tuple[Path, ...] = ()
    tokens: int = 0
    vocabulary: int = 2048


@dataclasses.dataclass(frozen=True)
class Model:
    """A model to tune.

    Attributes:
        given: as the user named it.
        kind: "ours" (a checkpoint), "foreign" (Hugging Face, T5X) or "size" (to be pretrained).
        base: folder of its checkpoint, there or to be made.
    """

    given: str
    kind: str
    base: Path


def find_model(given: str, out: Path) -> Model:
    """What a user's model is; its base is made in `out` where it is not there.

    Raises:
        InputError: neither a checkpoint nor a folder that can be converted nor a size of ours.
    """
    path = Path(given)
    if checkpoints.exists(path):
        read_base(path)
        return Model(given, "ours", path.absolute())
    name = path.resolve().name or given
    if (path / "config.json").is_file() or (path.is_dir() and t5x_arrays.is_checkpoint(path)):
        return Model(given, "foreign", (out / "base" / name).absolute())
    if path.is_dir():
        if steps := sources.inside(path):
            raise InputError(
                f"{given} is a folder of T5X checkpoints: name one of them, the newest is {steps[-1]}"
            )
        raise InputError(
            f"{given}: no model: a checkpoint of ours (about.json), a Hugging Face folder (config.json) or a "
            "T5X checkpoint_STEP is needed"
        )
    if given in (known := own_sizes()):
        return Model(given, "size", (out / "base" / given).absolute())
    raise InputError(f"--model {given}: no such folder, and no size of ours{did_you_mean(given, known)}")


def own_sizes() -> dict[str, str]:
    """Size of ours -> gin file that has it."""
    found = {}
    for folder in configuration.CONFIG_FOLDERS:
        for path in sorted(Path(folder).glob("gin_configs/models/*.gin")):
            for line in path.read_text("utf-8").splitlines():
                name, separator, _ = line.partition("/")
                if separator and "_config." in line and not line.startswith("#"):
                    found.setdefault(name.strip(), f"gin_configs/models/{path.name}")
    return found


def make_inputs(
    models: Sequence[Model],
    examples: Examples,
    cuts: dict[str, int],
    vocabulary: Path | None,
    pretraining: Pretraining,
    execution: Sequence[str],
    out: Path,
    say: Callable[[str], None],
) -> Path:
    """Makes the bases and the store that are not there yet; returns the store.

    Args:
        models: from `find_model`.
        examples, cuts: the user's, counted.
        vocabulary: file or store of the models' tokens, where it cannot be found beside them.
        pretraining: of sizes of ours.
        execution: flags of `convert`.
        out: folder of the pilot.
        say: takes progress lines.

    Raises:
        InputError: see `convert`, `prepare` and `pretrain`; a vocabulary that is not found.
    """
    stores = out / "stores"
    sizes = [model for model in models if model.kind == "size"]
    if sizes and len(sizes) < len(models):
        raise InputError(
            "--models: sizes of ours are pretrained together; give sizes or checkpoints, not both"
        )
    if sizes and (not pretraining.text or not pretraining.tokens):
        raise InputError(
            f"{sizes[0].given} is a size of ours, not a checkpoint: say with --pretrain FILE and "
            "--pretrain_tokens N on which text it is pretrained, or give a checkpoint"
        )
    for model in models:
        if model.kind == "foreign" and not checkpoints.exists(model.base):
            say(f"converting {model.given}")
            given = [] if vocabulary is None else ["--vocabulary", str(vocabulary)]
            run_verb("convert", [model.given, str(model.base), *given, *execution])
    if not (stores / STORE / "manifest.json").exists():
        say("tokenising the examples")
        lines = examples.bindings(cuts)
        if sizes:
            lines += _pretraining_lines(pretraining)
        else:
            lines += _vocabulary_lines(models[0], vocabulary)
        config = files.write_text(out / "prepare.gin", "\n".join(lines) + "\n")
        run_verb("prepare", ["--gin_file", str(config), "--out", str(stores)])
    for model in sizes:
        if not checkpoints.exists(model.base):
            _pretrain(model, pretraining, stores / "pretrain", out, say)
    return (stores / STORE).absolute()


def run_verb(verb: str, arguments: Sequence[str]) -> None:
    """Runs a verb in a process of its own; what it prints is shown.

    Raises:
        InputError: what it refused.
    """
    command = [sys.executable, "-m", "scaling_jax.cli.main", verb, *arguments]
    environment = {**worker_environment(), "TF_CPP_MIN_LOG_LEVEL": "2"}
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment)
    if ended.returncode == STOPPED_BY_INPUT:
        line = ended.stderr.strip().splitlines()[-1]
        raise InputError(line.removeprefix(f"scaling-jax {verb}: error: "))
    if ended.returncode:
        raise RuntimeError(f"{verb} failed:\n{ended.stderr[-3000:]}")


def _vocabulary_lines(model: Model, given: Path | None) -> list[str]:
    wanted = checkpoints.about(model.base)["vocabulary_sha256"]
    if wanted and wanted.startswith("bytes-"):
        return ["prepare.vocabulary = @byte_vocabulary()"]
    path = _vocabulary_file(model, given, wanted)
    return [
        "prepare.vocabulary = @sentencepiece_model()",
        f"sentencepiece_model.path = {str(path.absolute())!r}",
    ]


def _vocabulary_file(model: Model, given: Path | None, wanted: str | None) -> Path:
    if given is not None:
        path = open_store(given).vocabulary.path if given.is_dir() else given
        if path is None or not path.is_file():
            raise InputError(f"--vocabulary {given}: no SentencePiece file")
        return path
    base = model.base
    beside = [base / "tokenizer" / name for name in _TOKENIZERS]
    # A checkpoint that a study or a run made: the stores beside it.
    beside += [
        path for parent in [*base.parents][:4] for path in sorted(parent.glob("stores/*/vocabulary.model"))
    ]
    for path in beside:
        if path.is_file() and (wanted is None or files.sha256(path) == wanted):
            return path
    raise InputError(
        f"the vocabulary of {model.given} is not beside it: give its SentencePiece file, or a token store "
        "made with it, with --vocabulary PATH"
    )


def _pretraining_lines(pretraining: Pretraining) -> list[str]:
    return [
        f"prepare.stores = [@pretrain/task_store(), @{STORE}/task_store()]",
        "prepare.vocabulary = @sentencepiece()",
        f"sentencepiece.size = {pretraining.vocabulary}",
        "sentencepiece.character_coverage = 0.9999",
        "pretrain/task_store.name = 'pretrain'",
        "pretrain/task_store.task = 'plain_text'",
        "pretrain/task_store.window = 128",
        f"plain_text.train = {[str(path.absolute()) for path in pretraining.text]!r}",
        "plain_text.dev_share = 0.01",
        "plain_text.test_share = 0.0",
    ]


def _pretrain(
    model: Model, pretraining: Pretraining, store: Path, out: Path, say: Callable[[str], None]
) -> None:
    say(f"pretraining {model.given} on {pretraining.tokens:,} tokens (not part of the budget)")
    lines = [
        f"include {own_sizes()[model.given]!r}",
        "include 'gin_configs/methods/cpu_ladder.gin'",
        f"PretrainRun.model = {model.given!r}",
        f"PretrainRun.store = {str(store.absolute())!r}",
        f"PretrainRun.tokens = ({pretraining.tokens},)",
    ]
    config = files.write_text(out / "pretraining" / f"{model.given}.gin", "\n".join(lines) + "\n")
    run = out / "pretraining" / model.given
    run_verb("pretrain", ["--gin_file", str(config), "--gin_import", CONFIGURABLES, "--out", str(run)])
    model.base.parent.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / str(pretraining.tokens)).rename(model.base)


def about_bases(models: Sequence[Model]) -> list[dict[str, Any]]:
    """Name, size and hash of every base, for the record."""
    from scaling_jax.models import counts

    found = []
    for model in models:
        base = read_base(model.base)
        found.append(
            {
                "given": model.given,
                "base": base.folder,
                "model": base.name,
                "model_params": counts.model_parameters(base.model),
                "non_embedding_params": counts.non_embedding_parameters(base.model),
                "hash": base.hash,
            }
        )
    return found
