"""Evaluations of a run: what is asked, what is written, and what a kill leaves."""

import ast
import dataclasses
import json
from pathlib import Path

import gin
import pytest

import scaling_jax
from scaling_jax import files
from scaling_jax.data.pieces import pieces_of
from scaling_jax.data.store import open_store
from scaling_jax.errors import InputError
from scaling_jax.evaluation import answers as answer_files
from scaling_jax.evaluation import evaluations, score
from scaling_jax.evaluation.decoding import Decoding, Generated, generate
from scaling_jax.evaluation.evaluations import Evaluation, at_best, evaluate_answers, of_checkpoint
from scaling_jax.evaluation.score import score_answers
from scaling_jax.training.bases import load_checkpoint
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.finetune_cohort import finetune_cohort
from scaling_jax.training.mesh import Layout
from tests.evaluation import small_runs
from tests.training import tiny

SHORT = Decoding(max_new_tokens=6, batch_size=4)
OWN = Evaluation(scores=("bleu", "chrf", "exact_match"), decoding=SHORT)


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture(autouse=True)
def configured():
    tiny.configure()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(folder, stores, record of a run with evaluations in folder/run)."""
    folder = tmp_path_factory.mktemp("evaluations")
    stores = small_runs.make(folder)
    other = Evaluation("described", "described", scores=["rouge", "bleu"], loss=True, decoding=SHORT)
    record = finetune(run(folder, stores), folder / "run", at_best=at_best([OWN, other], stores))
    return folder, stores, record


def run(folder, stores, method="lora", **changes):
    return FinetuneRun(str(folder / "base/checkpoints/0"), stores["copies"], method, **changes)


def subject(folder):
    return of_checkpoint(folder, load_checkpoint(folder, Layout()))


def never(*arguments, **named):
    raise AssertionError("nothing is to be generated")


def test_a_record_holds_its_evaluations(room):
    folder, _, record = room
    assert record["status"] == "done" and list(record["evaluations"]) == ["task", "described"]
    assert files.read_json(folder / "run/record.json") == json.loads(json.dumps(record))
    own, other = record["evaluations"].values()
    assert own["examples"] == 6 and {"bleu", "chrf", "exact_match", "signatures", "notes", "seconds"} < set(
        own
    )
    assert "loss" not in own and 0 < other["loss"] < 20 and other["seconds"] > 0
    assert other["examples"] == 3, "distinct inputs"
    for label, found in record["evaluations"].items():
        answers = answer_files.read(folder / "run/evaluations" / label / "answers.jsonl")
        again = score_answers(list(found["signatures"]), answers, folder)
        assert {key: found[key] for key in again if key != "notes"} == {
            key: value for key, value in again.items() if key != "notes"
        }


def test_answers_are_what_the_saved_checkpoint_generates(room):
    """From the files of the run alone, the last prompt first."""
    folder, stores, _ = room
    program, tuned, base, _ = load_checkpoint(folder / "run/checkpoint", Layout())
    store = open_store(stores["copies"])
    split, vocabulary = store.split("test"), store.vocabulary
    written = answer_files.read(folder / "run/evaluations/task/answers.jsonl")
    assert [answer.inputs for answer in written] == small_runs.words(6, 3)
    prompts = [split[index]["inputs"] for index in reversed(range(len(split)))]
    again = generate(program, tuned, base, prompts, SHORT, vocabulary, vocabulary.pad_id)
    for answer, one in zip(written, reversed(again), strict=True):
        assert answer.hypothesis == pieces_of(vocabulary).decode(one.tokens)
        assert answer.references == (answer.inputs,) and answer.columns == {"class": answer.inputs[0]}


def test_targets_of_one_input_are_its_references(room):
    folder, _, record = room
    answers = answer_files.read(folder / "run/evaluations/described/answers.jsonl")
    assert [answer.inputs for answer in answers] == ["ab", "cd", "ef"]
    assert [answer.references for answer in answers] == [("a b", "b a", "ab"), ("c", "d"), ("e",)]
    assert {answer.language for answer in answers} == {"zh"}
    assert "tok:zh" in record["evaluations"]["described"]["signatures"]["bleu"]
    assert "nrefs:var" in record["evaluations"]["described"]["signatures"]["rouge"]


def test_a_kill_between_generation_and_scoring_costs_no_generation(room, tmp_path, monkeypatch):
    folder, stores, record = room

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(evaluations, "score_answers", killed)
        with pytest.raises(Killed):
            finetune(run(folder, stores), tmp_path / "run", at_best=at_best([OWN], stores))
    assert not (tmp_path / "run/record.json").exists()
    written = (tmp_path / "run/evaluations/task/answers.jsonl").read_bytes()
    assert written == (folder / "run/evaluations/task/answers.jsonl").read_bytes()
    monkeypatch.setattr(evaluations, "generate", never)
    again = finetune(run(folder, stores), tmp_path / "run", at_best=at_best([OWN], stores))
    own, first = again["evaluations"]["task"], record["evaluations"]["task"]
    assert {**own, "seconds": 0} == {**first, "seconds": 0}
    about = files.read_json(tmp_path / "run/evaluations/task/answers.about.json")
    assert own["seconds"] >= about["seconds"] > 0, "the seconds of generating count"


@pytest.mark.parametrize("what", ["decoding", "examples", "split", "model", "file"])
def test_answers_of_anything_else_are_generated_again(room, tmp_path, monkeypatch, what):
    folder, stores, _ = room
    asked = Evaluation(scores=("exact_match",), examples=2, decoding=SHORT)
    tuned = subject(folder / "run/checkpoint")
    place = tmp_path / "answers"
    evaluate_answers(tuned, stores["copies"], asked, place)
    monkeypatch.setattr(evaluations, "generate", never)
    evaluate_answers(tuned, stores["copies"], dataclasses.replace(asked, scores=("chrf",)), place)
    if what == "model":
        tuned = subject(folder / "base/checkpoints/0")
    elif what == "file":
        (place / "answers.jsonl").write_bytes((place / "answers.jsonl").read_bytes()[:-5])
    else:
        changes = {"decoding": Decoding(max_new_tokens=5), "examples": 1, "split": "dev"}
        asked = dataclasses.replace(asked, **{what: changes[what]})
    with pytest.raises(AssertionError, match="nothing is to be generated"):
        evaluate_answers(tuned, stores["copies"], asked, place)


def test_what_is_measured_by_default(room, tmp_path):
    folder, stores, _ = room
    tuned = subject(folder / "run/checkpoint")
    own = evaluate_answers(tuned, stores["copies"], Evaluation(examples=2, decoding=SHORT), tmp_path / "a")
    assert "exact_match" in own and own["examples"] == 2, "the scores that its task names"
    loss = evaluate_answers(tuned, stores["copies"], Evaluation(loss=True), tmp_path / "b")
    assert set(loss) == {"loss", "examples", "seconds", "signatures", "notes"} and loss["examples"] == 6
    assert not (tmp_path / "b").exists()
    with pytest.raises(InputError, match="described: its task names no scores"):
        evaluate_answers(tuned, stores["described"], Evaluation(), tmp_path / "c")
    with pytest.raises(InputError, match="windows holds pretraining windows"):
        asked = Evaluation(split="dev", scores=("bleu",))
        evaluate_answers(tuned, stores["windows"], asked, tmp_path / "c")
    with pytest.raises(InputError, match="'train' has no texts"):
        asked = Evaluation(split="train", scores=("bleu",))
        evaluate_answers(tuned, stores["copies"], asked, tmp_path / "c")


def test_unfinished_answers_are_noted(room, tmp_path, monkeypatch):
    folder, stores, _ = room
    written = [Generated(small_runs.tokens("ab"), -1.0, finished) for finished in (True, False) * 3]
    monkeypatch.setattr(evaluations, "generate", lambda *given: written)
    asked = Evaluation(scores=("chrf",), decoding=SHORT)
    found = evaluate_answers(subject(folder / "run/checkpoint"), stores["copies"], asked, tmp_path)
    assert "3 of 6 answers had not ended after max_new_tokens = 6" in found["notes"]
    assert not any("positions" in note for note in found["notes"])


def test_answers_beyond_the_positions_of_the_model_are_noted(room, tmp_path, monkeypatch):
    folder, stores, _ = room
    tuned = subject(folder / "base/checkpoints/0")
    lengths = [len(word) for word in small_runs.words(6, 3)]
    tuned = dataclasses.replace(tuned, about={**tuned.about, "hugging_face": {"max_position_embeddings": 9}})
    written = [Generated(small_runs.tokens("abcdef"), -1.0, False)] * 6
    monkeypatch.setattr(evaluations, "generate", lambda *given: written)
    asked = Evaluation(scores="chrf", decoding=SHORT)
    assert asked.scores == ("chrf",)
    notes = evaluate_answers(tuned, stores["copies"], asked, tmp_path)["notes"]
    # Start, prompt, and what was written but for the last token, which was not read again.
    count = sum(1 + length + 5 > 9 for length in lengths)
    assert 0 < count < 6
    assert any(note.startswith(f"{count} of 6 answers took") and "9 positions" in note for note in notes)


def test_shots_are_shown_and_part_of_what_answers_are(room, tmp_path, monkeypatch):
    folder, stores, _ = room
    prompts = []

    def written(*given):
        prompts.extend(given[3])
        return [Generated(small_runs.tokens("a"), -1.0, True)] * len(given[3])

    monkeypatch.setattr(evaluations, "generate", written)
    asked = Evaluation("shown", scores=("chrf",), examples=2, shots=1, decoding=SHORT)
    tiny.configure("shown/Shots.separator=|")
    tuned = subject(folder / "run/checkpoint")
    evaluate_answers(tuned, stores["copies"], asked, tmp_path)
    assert len(prompts) == 2
    for prompt, word in zip(prompts, small_runs.words(6, 3), strict=False):
        shown, last = pieces_of(small_runs.VOCABULARY).decode(prompt).split("|")
        assert last == word and shown in [2 * example for example in small_runs.words(40, 1)]
    tiny.configure("shown/Shots.separator=;")
    evaluate_answers(tuned, stores["copies"], asked, tmp_path)
    assert len(prompts) == 4, "other shots, other answers"


def test_scores_are_read_under_the_name(room, tmp_path):
    folder, stores, _ = room
    tiny.configure("named/bleu.tokenize=char", "bleu.lowercase=True")
    tuned = subject(folder / "run/checkpoint")
    asked = Evaluation(scores=("bleu",), examples=2, decoding=SHORT)
    plain = evaluate_answers(tuned, stores["copies"], asked, tmp_path)
    named = evaluate_answers(tuned, stores["copies"], dataclasses.replace(asked, name="named"), tmp_path)
    assert "tok:13a" in plain["signatures"]["bleu"] and "case:lc" in plain["signatures"]["bleu"]
    assert "tok:char" in named["signatures"]["bleu"] and "case:lc" in named["signatures"]["bleu"]


@pytest.mark.slow
def test_a_cohort_evaluates_every_run(room, tmp_path):
    folder, stores, record = room
    runs = [run(folder, stores), run(folder, stores, learning_rate=0.01, examples=8)]
    places = [tmp_path / "a", tmp_path / "b"]
    records = finetune_cohort(runs, places, at_best([OWN], stores))
    for made, place in zip(records, places, strict=True):
        assert made["evaluations"]["task"]["examples"] == 6
        assert files.read_json(place / "record.json")["evaluations"] == made["evaluations"]
        # From the files that it left, the same again.
        answers = (place / "evaluations/task/answers.jsonl").read_bytes()
        asked = dataclasses.replace(OWN, scores=("chrf",))
        again = evaluate_answers(subject(place / "checkpoint"), stores["copies"], asked, tmp_path / "again")
        assert again["chrf"] == made["evaluations"]["task"]["chrf"]
        assert (tmp_path / "again/answers.jsonl").read_bytes() == answers
    identities = [
        files.read_json(place / "evaluations/task/answers.about.json")["identity"]["model"]
        for place in places
    ]
    assert identities[0] != identities[1]


def test_a_refusal_does_not_lose_the_run(room, tmp_path, monkeypatch):
    folder, stores, _ = room
    monkeypatch.setattr(score, "_SCORES", dict(score.known_scores()))

    @score.score("stubborn", columns=("stubborn",), summary="refuses")
    def stubborn(answers, folder):
        raise InputError("the endpoint\nis gone")

    asked = [
        dataclasses.replace(OWN, scores=("stubborn", "chrf")),
        Evaluation("missing", "copies", split="tset", scores=("chrf",)),
    ]
    record = finetune(run(folder, stores), tmp_path, at_best=at_best(asked, stores))
    own, missing = record["evaluations"].values()
    assert record["status"] == "done" and own["stubborn"] is None and own["chrf"] >= 0
    assert "stubborn: not measured: the endpoint is gone" in own["notes"]
    assert missing["notes"][0].startswith("not evaluated: ") and "did you mean 'test'" in missing["notes"][0]
    with pytest.raises(InputError, match="is gone"):
        evaluate_answers(subject(tmp_path / "checkpoint"), stores["copies"], asked[0], tmp_path / "x")


def test_a_diverged_run_is_not_evaluated(room, tmp_path):
    folder, stores, _ = room
    record = finetune(run(folder, stores, learning_rate=1e30), tmp_path, at_best=at_best([OWN], stores))
    assert record["status"] == "diverged" and record["evaluations"] == {}
    assert not (tmp_path / "evaluations").exists()


def test_what_is_asked_is_checked_before_any_run():
    with pytest.raises(InputError, match="no score 'blue'; did you mean 'bleu'"):
        at_best([Evaluation(scores=("blue",))], {})
    with pytest.raises(InputError, match="Evaluation.store = 'flore': no such store; did you mean 'flores'"):
        at_best([Evaluation(store="flore")], {"flores": "x"})
    with pytest.raises(InputError, match="JudgeSettings.endpoint is not set"):
        at_best([Evaluation("judged", scores=("judge",))], {})
    with gin.unlock_config():
        gin.bind_parameter("judged/JudgeSettings.endpoint", "http://127.0.0.1/v1")
        gin.bind_parameter("judged/JudgeSettings.model", "mine")
    at_best([Evaluation("judged", scores=("judge",))], {})
    with pytest.raises(InputError, match="two evaluations are named 'a'"):
        at_best([Evaluation("a"), Evaluation("a")], {})
    for name in ("zero-shot", "1st", "a/b"):
        with pytest.raises(InputError, match="letters, digits and _ only"):
            Evaluation(name)
    with pytest.raises(InputError, match="Evaluation.name = 'task' stands for"):
        Evaluation("task")
    with pytest.raises(InputError, match="Evaluation.examples = 0: at least 1"):
        Evaluation(examples=0)
    with pytest.raises(InputError, match="Evaluation.batch_size = 0: at least 1"):
        Evaluation(batch_size=0)


def test_training_imports_no_evaluation():
    for path in Path(scaling_jax.__file__).parent.glob("training/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("scaling_jax.evaluation") for name in names), path
