"""What is asked of a finished model beside its test loss: answers to a split's inputs, and their scores.

    FOLDER/answers.jsonl        one answer a line: inputs, hypothesis, references, columns
    FOLDER/answers.about.json   which model and settings they come from, and the hash of the file
    FOLDER/...                  what a score keeps

Answers are generated once: a folder that has those of the same model and settings is scored again, so
that a kill between generation and scoring costs nothing, and a score can be added later.
"""

import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
import numpy as np

import scaling_jax
from scaling_jax import configuration, files
from scaling_jax.data.batches import first_examples
from scaling_jax.data.pieces import pieces_of
from scaling_jax.data.store import Split
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation import answers as answer_files
from scaling_jax.evaluation import positions
from scaling_jax.evaluation.decoding import Decoding, Generated, generate
from scaling_jax.evaluation.prompts import Shots, shot_prompts
from scaling_jax.evaluation.score import (
    Answer,
    Refusal,
    checked_scores,
    kept_as_note,
    refused,
    score_answers,
)
from scaling_jax.training import data_sets, processes, records
from scaling_jax.training.bases import Tuned, config_json, tuned_hash
from scaling_jax.training.finetune import AtBest, OpenRun
from scaling_jax.training.program import Program
from scaling_jax.training.split_loss import split_loss

# Name, in folders and records, of the evaluation of a run's own task.
OWN = "task"


@gin.configurable(module="evaluation")
@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a finished model.

    The settings of its scores and of its shots are read under the gin scope `name`:
    `flores_zh/bleu.tokenize = 'char'`, `flores_zh/Shots.separator = ' => '`.

    Attributes:
        name: of its columns and folder, a Python identifier; "" is the run's own task.
        store: name of a prepared store; None is the run's own.
        split: of that store.
        examples: the first so many, None is all; of a mixture (`mlsum`), of each part in its share. Where
            the store says `same_inputs`, the first so many distinct inputs are answered.
        scores: names of scores, or one; with none and without `loss`, those that the store's task names.
        loss: whether the mean loss is measured too.
        shots: how many examples of the store's training split are shown before every input, see `Shots`.
        decoding: how answers are generated.
        batch_size: examples per batch of the loss.
    """

    name: str = ""
    store: str | None = None
    split: str = "test"
    examples: int | None = None
    scores: str | Sequence[str] = ()
    loss: bool = False
    shots: int = 0
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    batch_size: int = 64

    def __post_init__(self):
        given = [self.scores] if isinstance(self.scores, str) else self.scores
        object.__setattr__(self, "scores", tuple(given))  # gin gives lists
        if self.name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name):
            raise InputError(
                f"Evaluation.name = {self.name!r}: letters, digits and _ only, since columns are named by it"
            )
        if self.name == OWN:
            raise InputError(f"Evaluation.name = {OWN!r} stands for the run's own task: leave it empty")
        if self.examples is not None and self.examples < 1:
            raise InputError(f"Evaluation.examples = {self.examples}: at least 1, or None for all")
        if self.batch_size < 1:
            raise InputError(f"Evaluation.batch_size = {self.batch_size}: at least 1")
        if self.shots < 0:
            raise InputError(f"Evaluation.shots = {self.shots}: must not be negative")

    @property
    def label(self) -> str:
        """Its name in folders and records."""
        return self.name or OWN


@dataclasses.dataclass(frozen=True)
class Subject:
    """A finished model.

    Attributes:
        program: runs it.
        tuned: what was trained.
        base: what was frozen.
        about: what a checkpoint says of itself (vocabulary, start, objective).
        path: of its folder, for messages.
        identity: hash of what it computes.
    """

    program: Program
    tuned: Any
    base: Any
    about: Mapping[str, Any]
    path: Path
    identity: str


def of_checkpoint(path: Path, loaded: Tuned) -> Subject:
    """The model of a checkpoint that was loaded from `path`."""
    about = loaded.about
    identity = about.get("hash") or tuned_hash(loaded.tuned, about)  # tuned ones did not always say it
    return Subject(loaded.program, loaded.tuned, loaded.base, about, path, identity)


def of_run(opened: OpenRun, tuned: Any, frozen: Any, folder: Path) -> Subject:
    """The model that a run has just trained."""
    about = opened.checkpoint_about()
    return Subject(opened.program, tuned, frozen, about, folder, tuned_hash(tuned, about))


def at_best(evaluations: Sequence[Evaluation], stores: Mapping[str, str]) -> AtBest:
    """What `finetune` calls at the best step: makes the evaluations in `RUN/evaluations/LABEL/`.

    Args:
        evaluations: with names of their own.
        stores: folder of each prepared store by name.

    Returns:
        A function whose result is {label: what `evaluate_answers` returns}. What cannot be evaluated or
        scored is noted there, so that a run that has been trained keeps its record.

    Raises:
        InputError: two of one name, an unknown score or store, a missing package.
    """
    check(evaluations, stores)

    def evaluate(opened: OpenRun, tuned: Any, frozen: Any, folder: Path) -> dict[str, Any]:
        if not evaluations:
            return {}
        subject = of_run(opened, tuned, frozen, folder)
        found = {}
        for evaluation in evaluations:
            store = stores[evaluation.store] if evaluation.store else opened.run.store
            own_folder = folder / "evaluations" / evaluation.label
            try:
                result = evaluate_answers(subject, store, evaluation, own_folder, kept_as_note)
            except InputError as error:  # a run that is trained is not lost for it
                result = {"signatures": {}, "notes": [f"not evaluated: {configuration.message(error)}"]}
            found[evaluation.label] = result
        return found

    return evaluate


def check(evaluations: Sequence[Evaluation], stores: Mapping[str, str]) -> None:
    """Looks through evaluations before any run is made for them.

    Raises:
        InputError: two of one name, an unknown score or store, a missing package, settings that a score
            cannot use.
    """
    labels = [evaluation.label for evaluation in evaluations]
    for evaluation in evaluations:
        if labels.count(evaluation.label) > 1:
            raise InputError(f"two evaluations are named {evaluation.name!r}: give each a name of its own")
        if evaluation.store and evaluation.store not in stores:
            near = did_you_mean(evaluation.store, stores)
            raise InputError(f"Evaluation.store = {evaluation.store!r}: no such store{near}")
        for one in checked_scores(evaluation.scores):
            with _scope(evaluation):
                one.ready()


def _scope(evaluation: Evaluation) -> Any:
    """The gin scope under which the settings of its scores and shots are read."""
    return gin.config_scope([*gin.current_scope(), *filter(None, [evaluation.name])])


def evaluate_answers(
    subject: Subject,
    store_path: str,
    evaluation: Evaluation,
    folder: Path,
    on_refusal: Refusal = refused,
) -> dict[str, Any]:
    """Makes one evaluation.

    Args:
        subject: the model.
        store_path: of the store with the split.
        evaluation: what is asked.
        folder: gets the answers and what scores keep.
        on_refusal: see `score_answers`.

    Returns:
        {"loss": nats per target token if asked, COLUMN: value of each score's column, "signatures": {score:
        signature}, "notes": [...], "examples": n, "seconds": generating, scoring and loss}. A score that
        cannot be measured is None.

    Raises:
        InputError: a store of another vocabulary or without texts, no such split, nothing asked, or what
            a score or the decoding refuses.
    """
    began = time.perf_counter()
    store = data_sets.store_at(store_path)
    data_sets.check_vocabulary(store, subject.path, subject.about)
    found: dict[str, Any] = {"signatures": {}, "notes": []}
    names = evaluation.scores or (() if evaluation.loss else tuple(store.manifest.get("scores", ())))
    if not names and not evaluation.loss:
        raise InputError(
            f"nothing is asked of {store.path}: its task names no scores, so give some "
            "(Evaluation.scores), or ask for the loss"
        )
    checked_scores(names)
    earlier = 0.0
    if evaluation.loss:
        loss, found["examples"] = _loss(subject, store_path, evaluation)
        found["loss"] = loss if math.isfinite(loss) else None
    if names:
        with _scope(evaluation):
            about = _answers(subject, store_path, evaluation, folder)
            scored = processes.on_first(lambda: _scored(names, folder, on_refusal))
        earlier = about["seconds"] if about["reused"] else 0.0
        found |= scored | {"notes": [*about["notes"], *scored["notes"]]}
    return found | {"seconds": time.perf_counter() - began + earlier}


def _loss(subject: Subject, store_path: str, evaluation: Evaluation) -> tuple[float, int]:
    return split_loss(
        subject.program,
        subject.tuned,
        subject.base,
        subject.about,
        store_path,
        evaluation.split,
        evaluation.examples,
        evaluation.batch_size,
    )


def _scored(names: Sequence[str], folder: Path, on_refusal: Refusal) -> dict[str, Any]:
    answers = answer_files.read(folder / "answers.jsonl")
    return score_answers(names, answers, folder, on_refusal) | {"examples": len(answers)}


def _answers(subject: Subject, store_path: str, evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Sees to it that answers are in the folder, and returns what is known of them.

    Those of this model and settings are kept. Generation is one program over all processes; the folder is
    process 0's.
    """
    path, about_path = folder / "answers.jsonl", folder / "answers.about.json"
    shots = Shots(evaluation.shots)
    identity = {
        "model": subject.identity,
        "store": data_sets.store_at(store_path).manifest_hash(),
        "split": evaluation.split,
        "examples": evaluation.examples,
        "shots": records.plain(shots),
        "decoding": records.plain(evaluation.decoding),
        "version": scaling_jax.__version__,
    }

    def kept() -> dict[str, Any] | None:
        about = files.read_json(about_path) if about_path.exists() else {}
        same = about.get("identity") == identity and path.exists() and files.sha256(path) == about["sha256"]
        return about if same else None

    about = processes.on_first(kept)
    if about is not None:
        return about | {"reused": True}
    began = time.perf_counter()
    answers, notes = _generated(subject, store_path, evaluation, shots)

    def write() -> dict[str, Any]:
        answer_files.write(path, answers)
        about = {
            "identity": identity,
            "sha256": files.sha256(path),
            "seconds": time.perf_counter() - began,
            "notes": notes,
        }
        files.write_json(about_path, about)
        return about

    return processes.on_first(write) | {"reused": False}


def _generated(
    subject: Subject, store_path: str, evaluation: Evaluation, shots: Shots
) -> tuple[list[Answer], list[str]]:
    store, split = data_sets.store_at(store_path), data_sets.split_at(store_path, evaluation.split)
    if "inputs" not in split.features:
        raise InputError(f"{store_path} holds pretraining windows, answers need inputs and targets")
    texts = split.texts()
    groups = _groups(split, texts, store.references, evaluation.examples)
    vocabulary = store.vocabulary
    inputs = [split[group[0]]["inputs"] for group in groups]
    if shots.count:
        inputs = shot_prompts(inputs, data_sets.split_at(store_path, "train"), vocabulary, shots)
    start_id = subject.about.get("start_id")
    generated = generate(
        subject.program,
        subject.tuned,
        subject.base,
        inputs,
        evaluation.decoding,
        vocabulary,
        vocabulary.pad_id if start_id is None else start_id,
    )
    pieces = pieces_of(vocabulary)
    language = store.manifest.get("target_language") or ""
    answers = [
        Answer(
            texts[group[0]]["inputs"],
            pieces.decode(one.tokens),
            tuple(texts[index]["targets"] for index in group),
            {key: text for key, text in texts[group[0]].items() if key not in ("inputs", "targets")},
            language,
        )
        for group, one in zip(groups, generated, strict=True)
    ]
    notes = _beyond(subject, inputs, generated)
    cut = sum(not one.finished for one in generated)
    if cut:
        notes.append(
            f"{cut:,} of {len(answers):,} answers had not ended after max_new_tokens = "
            f"{evaluation.decoding.max_new_tokens}"
        )
    return answers, notes


def _beyond(subject: Subject, inputs: Sequence[np.ndarray], generated: Sequence[Generated]) -> list[str]:
    """A note of the answers that took the model beyond the positions that it was made for, if there are."""
    longest = config_json(dict(subject.about)).get("max_position_embeddings")
    pairs = zip(inputs, generated, strict=True)
    count = sum(positions.are_beyond(subject.program, longest, tokens, made) for tokens, made in pairs)
    return [positions.said(count, len(inputs), longest)] if count else []


def _groups(
    split: Split, texts: Sequence[Mapping[str, str]], references: str, examples: int | None
) -> list[list[int]]:
    """Numbers of the examples that are asked together: those with the same input, or each alone."""
    if references != "same_inputs":
        return [[int(index)] for index in first_examples(split, examples)]
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text["inputs"], []).append(index)
    return list(groups.values())[:examples]
