"""`evaluate`: a checkpoint with scores, answers and texts without a model, and a user's own score."""

import json
import subprocess
import sys

import pytest
import sacrebleu

from scaling_jax.cli.main import main
from scaling_jax.evaluation import evaluation_file
from tests.evaluation import small_runs, texts

OWN_SCORE = """
from scaling_jax.evaluation.score import ScoreResult, score


@score("brevity", columns=("brevity",), summary="mean characters of an answer")
def brevity(answers, folder, unit=1):
    lengths = [len(answer.hypothesis) for answer in answers]
    (folder / "lengths.txt").write_text(str(lengths))
    return ScoreResult({"brevity": sum(lengths) / len(lengths) / unit}, f"unit:{unit}")
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(folder with a base, stores)."""
    folder = tmp_path_factory.mktemp("evaluate")
    return folder, small_runs.make(folder)


@pytest.fixture
def files(tmp_path):
    """Hypotheses and two reference files, the second with a gap."""
    rows = [(hypothesis, own[0], (own + [""])[1]) for hypothesis, own in texts.GERMAN]
    for name, lines in zip(("out", "ref1", "ref2"), zip(*rows, strict=True), strict=True):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return tmp_path


def printed(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    return error


def test_texts_without_a_model(files, capsys):
    references = ["--references", files / "ref1", files / "ref2"]
    found = printed(capsys, "--hypotheses", files / "out", *references, "--scores", "bleu, chrf")
    streams = [[own[0] for _, own in texts.GERMAN], [(own + [None])[1] for _, own in texts.GERMAN]]
    direct = sacrebleu.corpus_bleu([hypothesis for hypothesis, _ in texts.GERMAN], streams)
    assert found["bleu"] == direct.score and found["examples"] == 4
    assert found["signatures"]["bleu"].startswith("nrefs:var|case:mixed")
    assert found["notes"] == ["1 of 4 answers are empty; they count"]
    arguments = ["--hypotheses", files / "out", *references, "--scores", "bleu", "--gin.bleu.lowercase=True"]
    assert main(["evaluate", *map(str, arguments)]) == 0
    shown = capsys.readouterr().out
    assert "bleu " in shown and "case:lc" in shown and "note: 1 of 4" in shown
    asked = ["--hypotheses", files / "out", *references, "--scores", "bleu", "--language", "zh"]
    assert "tok:zh" in printed(capsys, *asked)["signatures"]["bleu"]


def test_a_short_reference_file_names_both_counts(files, capsys):
    (files / "short").write_text("eins\nzwei\n")
    references = ["--references", files / "ref1", files / "short"]
    error = refused(capsys, "--hypotheses", files / "out", *references, "--scores", "bleu")
    assert "short has 2 lines" in error and "out has 4" in error


def test_references_are_not_passed_over(files, capsys):
    path = files / "answers.jsonl"
    path.write_text('{"hypothesis": "a", "references": ["b"]}\n')
    error = refused(capsys, "--answers", path, "--references", files / "ref1", "--scores", "bleu")
    assert "--references and --language go with --hypotheses" in error


def test_what_infer_writes_is_scored(files, capsys):
    lines = [json.dumps({"inputs": "?", "output": hypothesis}) for hypothesis, _ in texts.GERMAN]
    (files / "out.jsonl").write_text("\n".join(lines), "utf-8")
    asked = ["--references", files / "ref1", "--scores", "chrf"]
    found = printed(capsys, "--hypotheses", files / "out.jsonl", *asked)
    assert found == printed(capsys, "--hypotheses", files / "out", *asked)


def test_texts_are_scored_without_jax(files):
    command = ["evaluate", "--hypotheses", str(files / "out"), "--references", str(files / "ref1")]
    code = (
        "import sys; from scaling_jax.cli.main import main\n"
        f"main({[*command, '--scores', 'bleu,chrf,rouge,exact_match,accuracy']})\n"
        "print([name for name in ('jax', 'tensorflow', 'orbax', 'grain') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_is_asked_must_be_clear(files, room, capsys):
    assert "give one thing to evaluate" in refused(capsys)
    assert "give one thing to evaluate" in refused(capsys, "x", "--answers", "y", "--scores", "bleu")
    assert "--scores is missing: name some of accuracy, bleu" in refused(capsys, "--answers", "y")
    assert "--store is missing" in refused(capsys, "x")
    assert "did you mean 'chrf'" in refused(capsys, "--answers", "y", "--scores", "bleu,chr")
    assert "no references to score it against" in refused(
        capsys, "--hypotheses", files / "out", "--scores", "bleu"
    )
    base = room[0] / "base/checkpoints/0"
    assert "did you mean 'greedy'" in refused(
        capsys, base, "--store", room[1]["copies"], "--scores", "bleu", "--strategy", "gredy"
    )
    assert "has no texts" in refused(
        capsys, base, "--store", room[1]["copies"], "--scores", "bleu", "--split", "train"
    )


def test_a_checkpoint_answers_and_is_scored(room, tmp_path, capsys):
    folder, stores = room
    checkpoint = folder / "base/checkpoints/0"
    asked = [checkpoint, "--store", stores["copies"], "--max_new_tokens", "6", "--out", tmp_path / "out"]
    found = printed(
        capsys, *asked, "--scores", "bleu,exact_match,rouge", "--strategy", "beam", "--beams", "2"
    )
    assert {"loss", "perplexity", "bleu", "exact_match", "rouge_1", "rouge_l"} < set(found)
    assert found["examples"] == found["loss_examples"] == 6 and found["split"] == "test"
    about = json.loads((tmp_path / "out/answers.about.json").read_text())
    decoding = about["identity"]["decoding"]
    assert (decoding["strategy"], decoding["beams"], decoding["max_new_tokens"]) == ("beam", 2, 6)
    assert json.loads((tmp_path / "out/evaluation.json").read_text()) == found
    answers = tmp_path / "out/answers.jsonl"
    again = printed(capsys, "--answers", answers, "--scores", "exact_match,bleu")
    assert again["bleu"] == found["bleu"] and again["examples"] == 6
    assert main(["evaluate", *map(str, asked), "--scores", "chrf", "--examples", "3"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "nats per target token" in shown[0] and "3 test examples" in shown[0]
    assert shown[1].startswith("chrf ") and shown[-1] == f"answers: {answers}"
    greedy = printed(capsys, *asked, "--scores", "chrf", "--gin.Decoding.strategy=greedy")
    assert greedy["seconds"] > 0
    assert (
        json.loads((tmp_path / "out/answers.about.json").read_text())["identity"]["decoding"]["strategy"]
        == "greedy"
    )


def kept(folder):
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def test_a_score_is_added_to_those_of_the_same_answers(files, capsys):
    out = files / "o"
    asked = ["--hypotheses", files / "out", "--references", files / "ref1", "--out", out, "--scores"]
    bleu = printed(capsys, *asked, "bleu,rouge")
    chrf = printed(capsys, *asked, "chrf")
    assert "bleu" not in chrf and kept(out) == {
        **bleu,
        **chrf,
        "signatures": bleu["signatures"] | chrf["signatures"],
        "notes": [*bleu["notes"], *(note for note in chrf["notes"] if note not in bleu["notes"])],
    }
    again = printed(capsys, *asked, "bleu", "--gin.bleu.tokenize=char")
    assert kept(out)["bleu"] == again["bleu"] != bleu["bleu"]
    assert kept(out)["signatures"] == kept(out)["signatures"] | again["signatures"]
    assert "rouge_l" in kept(out) and "chrf" in kept(out)
    (files / "out").write_text((files / "out").read_text("utf-8").replace("Hund", "Kater"), "utf-8")
    other = printed(capsys, *asked, "chrf")
    assert kept(out) == other, "other answers, other scores"


def test_a_score_of_a_judge_leaves_none_of_its_earlier_columns(tmp_path):
    of = {"answers": "same"}
    first = {"judge_score": 0.5, "judge_math": 0.5, "bleu": 1.0, "signatures": {"judge": "1", "bleu": "b"}}
    evaluation_file.add(tmp_path, first | {"notes": ["judge: 1 failed", "of all"]}, of)
    evaluation_file.add(tmp_path, {"judge_score": 0.6, "signatures": {"judge": "2"}, "notes": []}, of)
    assert kept(tmp_path) == {
        "bleu": 1.0,
        "judge_score": 0.6,
        "signatures": {"judge": "2", "bleu": "b"},
        "notes": ["of all"],
    }


def test_a_score_is_added_to_those_of_a_checkpoint(room, tmp_path, capsys):
    base, store = room[0] / "base/checkpoints/0", room[1]["copies"]
    asked = [base, "--store", store, "--max_new_tokens", "3", "--examples", "2", "--out", tmp_path]
    first = printed(capsys, *asked, "--scores", "bleu")
    printed(capsys, *asked, "--scores", "exact_match")
    printed(capsys, *asked)  # the loss alone
    of_texts = ["--answers", tmp_path / "answers.jsonl", "--out", tmp_path, "--scores", "chrf"]
    printed(capsys, *of_texts)
    found = kept(tmp_path)
    assert {"loss", "bleu", "exact_match", "chrf", "perplexity"} < found.keys()
    assert found["bleu"] == first["bleu"] and found["loss"] == first["loss"]


def test_a_score_in_a_file_of_ones_own(files, room, tmp_path, capsys):
    (tmp_path / "brevity.py").write_text(OWN_SCORE)
    asked = [
        "--scores",
        "brevity,exact_match",
        "--gin_import",
        tmp_path / "brevity.py",
        "--out",
        tmp_path / "o",
    ]
    found = printed(
        capsys, "--hypotheses", files / "out", "--references", files / "ref1", *asked, "--gin.brevity.unit=2"
    )
    lengths = [len(hypothesis) for hypothesis, _ in texts.GERMAN]
    assert found["brevity"] == pytest.approx(sum(lengths) / 4 / 2)
    assert found["signatures"]["brevity"] == "unit:2"
    assert (tmp_path / "o/lengths.txt").read_text() == str(lengths)
    of_model = printed(
        capsys,
        room[0] / "base/checkpoints/0",
        "--store",
        room[1]["copies"],
        *asked,
        "--max_new_tokens",
        "3",
    )
    assert of_model["brevity"] <= 3
