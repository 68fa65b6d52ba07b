"""BLEU, chrF and ROUGE equal to sacrebleu and rouge-score called directly; the other scores by hand."""

import dataclasses
import json
import statistics
import subprocess
import sys

import gin
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from scaling_jax.errors import InputError
from scaling_jax.evaluation import score as scores
from scaling_jax.evaluation.score import Answer, find_score, known_scores, score_answers
from tests.evaluation import texts

OWN = {"german": texts.GERMAN, "chinese": texts.CHINESE, "english": texts.ENGLISH}
REAL = {
    "multi30k": texts.multi30k,
    "tatoeba": texts.tatoeba,
    "e2e_nlg": texts.e2e_nlg,
    "orangesum": texts.orangesum,
}
CHINESE = ("chinese", "tatoeba")


@pytest.fixture(scope="module", params=[*OWN, *REAL])
def answers(request):
    """(name, answers) of a text of our own or a real one."""
    name = request.param
    return name, texts.answers(OWN[name]) if name in OWN else REAL[name]()


@pytest.fixture(autouse=True)
def no_bindings():
    gin.clear_config()


def found(name, answers, tmp_path, **settings):
    result = find_score(name).call(answers, tmp_path, **settings)
    assert tuple(result.values) == known_scores()[name].columns
    return result


def streams(answers):
    """sacrebleu's own layout: a list of references for every place."""
    most = max(len(answer.references) for answer in answers)
    padded = [[*answer.references, *[None] * (most - len(answer.references))] for answer in answers]
    return [list(column) for column in zip(*padded, strict=True)]


def test_bleu_is_sacrebleu(answers, tmp_path):
    name, answers = answers
    hypotheses = [answer.hypothesis for answer in answers]
    tokenize = "zh" if name in CHINESE else "13a"
    direct = sacrebleu.corpus_bleu(hypotheses, streams(answers), tokenize=tokenize)
    result = found("bleu", answers, tmp_path)
    assert result.values["bleu"] == direct.score
    assert 0 < direct.score < 100
    assert f"|tok:{tokenize}|" in result.signature and sacrebleu.__version__ in result.signature
    counts = {len(answer.references) for answer in answers}
    assert f"nrefs:{counts.pop() if len(counts) == 1 else 'var'}|" in result.signature
    other = sacrebleu.corpus_bleu(hypotheses, streams(answers), tokenize="char", lowercase=True)
    chosen = found("bleu", answers, tmp_path, tokenize="char", lowercase=True)
    assert chosen.values["bleu"] == other.score != direct.score
    assert "case:lc" in chosen.signature and "tok:char" in chosen.signature


def test_chrf_is_sacrebleu(answers, tmp_path):
    _, answers = answers
    hypotheses = [answer.hypothesis for answer in answers]
    direct = sacrebleu.corpus_chrf(hypotheses, streams(answers))
    result = found("chrf", answers, tmp_path)
    assert result.values["chrf"] == direct.score and 0 < direct.score < 100
    assert "nc:6|nw:0" in result.signature
    plus = sacrebleu.corpus_chrf(hypotheses, streams(answers), word_order=2, beta=3)
    assert found("chrf", answers, tmp_path, word_order=2, beta=3).values["chrf"] == plus.score != direct.score


def rouge_by_hand(answers, scorer, spelled=lambda text: text):
    """{column: mean of the best F1}, from rouge-score for one pair at a time."""
    columns = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    found = {column: [] for column in columns}
    for answer in answers:
        pairs = [scorer.score(spelled(text), spelled(answer.hypothesis)) for text in answer.references]
        for column, kind in columns.items():
            found[column].append(max(pair[kind].fmeasure for pair in pairs))
    return {column: 100 * statistics.fmean(values) for column, values in found.items()}


def characters_as_words(text):
    """Chinese for a tokenizer of ASCII: every character a word of its own, ASCII words as they are."""
    return "".join(
        f" u{ord(character):x} "
        if character.isalnum() and not character.isascii()
        else character
        if character.isascii()
        else " "
        for character in text
    )


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_rouge_score(answers, tmp_path, stemmer):
    name, answers = answers
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    if name in CHINESE:
        wanted = rouge_by_hand(answers, RougeScorer(["rouge1", "rouge2", "rougeL"]), characters_as_words)
        result = found("rouge", answers, tmp_path)
        assert "tok:unicode" in result.signature
        nothing = found("rouge", answers, tmp_path, tokenizer="rouge_score", stemmer=stemmer)
        assert nothing.values == pytest.approx(rouge_by_hand(answers, scorer))
        assert nothing.values["rouge_1"] < 0.5 * result.values["rouge_1"], "it drops what is not a to z"
        assert "not a to z" in nothing.notes[0]
    else:
        wanted = rouge_by_hand(answers, scorer)
        result = found("rouge", answers, tmp_path, stemmer=stemmer)
        assert "tok:rouge_score" in result.signature
        assert f"stem:{'porter' if stemmer else 'no'}" in result.signature
        assert bool(result.notes) == (name not in ("english", "e2e_nlg"))
    assert result.values == pytest.approx(wanted, rel=1e-12)
    assert all(0 < value < 100 for value in result.values.values())


def test_rouge_of_accents_and_marks(tmp_path):
    french = [Answer("", "un été", ("un âtà",))]
    own = found("rouge", french, tmp_path, tokenizer="rouge_score").values
    unicode = found("rouge", french, tmp_path, tokenizer="unicode").values
    # Its own tokenizer reads both as un t.
    assert own["rouge_1"] == pytest.approx(100) and unicode["rouge_1"] == pytest.approx(50)
    with pytest.raises(InputError, match="stems English words"):
        found("rouge", french, tmp_path, tokenizer="unicode", stemmer=True)
    with pytest.raises(InputError, match="rouge.tokenizer = 'unicod'; did you mean 'unicode'"):
        found("rouge", french, tmp_path, tokenizer="unicod")


@pytest.mark.parametrize("name", ["chinese", "tatoeba", "german"])
def test_the_command_of_sacrebleu_prints_the_same(name, tmp_path):
    """Files, references and signature as a reader of a paper would check them."""
    answers = [
        dataclasses.replace(answer, references=answer.references[:1])
        for answer in (texts.answers(OWN[name]) if name in OWN else REAL[name]())
    ]
    (tmp_path / "hypotheses").write_text("\n".join(answer.hypothesis for answer in answers) + "\n", "utf-8")
    (tmp_path / "references").write_text(
        "\n".join(answer.references[0] for answer in answers) + "\n", "utf-8"
    )
    tokenize = "zh" if name in CHINESE else "13a"
    files = [str(tmp_path / "references"), "-i", str(tmp_path / "hypotheses")]
    command = [sys.executable, "-m", "sacrebleu", *files, "-m", "bleu", "chrf", "-w", "9", "-tok", tokenize]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    bleu, chrf = json.loads(done.stdout)
    ours = score_answers(["bleu", "chrf"], answers, tmp_path)
    assert round(ours["bleu"], 9) == bleu["score"] and round(ours["chrf"], 9) == chrf["score"]
    assert ours["signatures"] == {"bleu": bleu["signature"], "chrf": chrf["signature"]}


def test_the_language_chooses_the_tokenizer_of_bleu(tmp_path):
    latin = texts.answers([("a b c d", ["a b c d"])])
    said = [dataclasses.replace(answer, language="zh") for answer in latin]
    assert "tok:13a" in found("bleu", latin, tmp_path).signature
    assert "tok:zh" in found("bleu", said, tmp_path).signature, "what the task says comes before the script"
    assert "tok:zh" in found("bleu", latin, tmp_path, language="zh").signature
    assert "tok:13a" in found("bleu", said, tmp_path, language="de").signature
    for spelling in ("zh-CN", "zho_Hant", "cmn", "Chinese", "yue"):
        assert "tok:zh" in found("bleu", latin, tmp_path, language=spelling).signature
        said = [dataclasses.replace(answer, language=spelling) for answer in latin]
        assert "tok:zh" in found("bleu", said, tmp_path).signature
    mixed = [dataclasses.replace(latin[0], language=one) for one in ("zh", "Chinese")]
    assert "tok:zh" in found("bleu", mixed, tmp_path).signature
    unknown = [dataclasses.replace(answer, language="klingon") for answer in latin]
    bound = {"language": "klingon"}
    for message, given, settings in (
        ("bleu.language = 'klingon': not a language.*did you mean.*bind bleu.tokenize", latin, bound),
        ("language of the answers = 'klingon': not a language", unknown, {}),
    ):
        with pytest.raises(InputError, match=message):
            found("bleu", given, tmp_path, **settings)
    assert "tok:char" in found("bleu", unknown, tmp_path, tokenize="char").signature
    with pytest.raises(InputError, match="bleu.tokenize = 'zhh'; did you mean 'zh'"):
        found("bleu", latin, tmp_path, tokenize="zhh")
    with pytest.raises(InputError, match="bleu.smooth_method = 'expo'; did you mean 'exp'"):
        found("bleu", latin, tmp_path, smooth_method="expo")
    japanese = texts.answers([("これは本です。", ["これは本でした。"])])
    try:
        assert "tok:ja-mecab" in found("bleu", japanese, tmp_path).signature
    except InputError as error:
        assert "ja-mecab" in str(error) and "bleu.tokenize = 'char'" in str(error)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("bleu", {"smooth_method": "floor", "smooth_value": -1.0}, "bleu.smooth_value = -1.0: 0 or more"),
        ("bleu", {"smooth_method": "add-k", "smooth_value": float("nan")}, "bleu.smooth_value = nan"),
        ("bleu", {"smooth_value": float("inf")}, "bleu.smooth_value = inf: 0 or more"),
        ("chrf", {"char_order": -1}, "chrf.char_order = -1: 1 or more"),
        ("chrf", {"char_order": 0}, "chrf.char_order = 0: 1 or more"),
        ("chrf", {"word_order": -1}, "chrf.word_order = -1: 0 or more"),
        ("chrf", {"beta": 0}, "chrf.beta = 0: 1 or more"),
        ("accuracy", {"labels": (1, 2)}, "accuracy.labels = .*: a list of texts"),
        ("accuracy", {"labels": 3}, "accuracy.labels = 3: a list of texts"),
    ],
)
def test_settings_out_of_range(name, settings, says, tmp_path):
    with pytest.raises(InputError, match=says):
        found(name, texts.answers([("a", ["b"])]), tmp_path, **settings)


def test_exact_match(tmp_path):
    pairs = [(" 4 ", ["four", "4"]), ("Paris", ["paris"]), ("", ["none"]), ("", [" "])]
    answers = texts.answers(pairs)
    assert found("exact_match", answers, tmp_path).values["exact_match"] == 50.0
    result = found("exact_match", answers, tmp_path, lowercase=True)
    assert result.values["exact_match"] == 75.0 and "case:lc" in result.signature


def test_accuracy_counts_what_is_no_label(tmp_path):
    pairs = [(" sports\n", ["sports"]), ("world", ["sports"]), ("Sport!", ["sports"]), ("", ["world"])]
    result = found("accuracy", texts.answers(pairs), tmp_path)
    assert result.values["accuracy"] == 25.0 and result.signature.startswith("labels:2|")
    assert "2 of 4 answers are none of the 2 labels" in result.notes[0] and "'Sport!'" in result.notes[0]
    more = found("accuracy", texts.answers(pairs), tmp_path, labels=("sports", "world", "Sport!", "science"))
    assert "1 of 4" in more.notes[0] and more.values == result.values
    assert not found("accuracy", texts.answers(pairs[:2]), tmp_path, labels=("sports", "world")).notes


def test_nothing_but_empty_answers_is_zero(tmp_path):
    answers = texts.answers([("", ["a b c d e"]), (" ", ["f g h i j"])])
    values = score_answers(["bleu", "chrf", "rouge", "exact_match"], answers, tmp_path)
    assert {values[name] for name in ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "exact_match")} == {
        0.0
    }
    assert values["notes"] == ["2 of 2 answers are empty; they count"]


def test_answers_and_references_are_needed(tmp_path):
    with pytest.raises(InputError, match="no answers to score"):
        score_answers(["bleu"], [], tmp_path)
    unanswerable = [Answer("", "a", ("a",)), Answer("", "b", ())]
    for name in ("bleu", "chrf", "rouge", "exact_match", "accuracy"):
        with pytest.raises(InputError, match=f"score '{name}': answer 2 has no reference"):
            find_score(name).call(unanswerable, tmp_path)
    with pytest.raises(InputError, match="no score 'blue'; did you mean 'bleu'"):
        score_answers(["blue"], unanswerable, tmp_path)


@pytest.mark.parametrize(("name", "package"), [("bleu", "sacrebleu"), ("rouge", "rouge_score")])
def test_a_missing_package_is_named_with_its_extra(name, package, tmp_path, monkeypatch):
    found_otherwise = scores.importlib.util.find_spec
    monkeypatch.setattr(
        scores.importlib.util, "find_spec", lambda one: None if one == package else found_otherwise(one)
    )
    with pytest.raises(
        InputError, match=rf"needs the package {package}: pip install 'scaling-jax\[scores\]'"
    ):
        score_answers([name], texts.answers(texts.GERMAN), tmp_path)


def test_bleurt_says_how_to_install_it(tmp_path):
    if scores.importlib.util.find_spec("bleurt"):
        pytest.skip("bleurt is installed here")
    with pytest.raises(InputError, match="needs the package bleurt: pip install git.*BLEURT-20.*checkpoint"):
        score_answers(["bleurt"], texts.answers(texts.GERMAN), tmp_path)


BLEURT = """
class BleurtScorer:
    def __init__(self, checkpoint):
        self.checkpoint = checkpoint

    def score(self, *, references, candidates, batch_size):
        assert len(references) == len(candidates) and batch_size == 16
        return [len(set(r) & set(c)) / len(set(r) | set(c)) for r, c in zip(references, candidates)]
"""


def test_bleurt_is_called_with_every_reference(tmp_path, monkeypatch):
    """A package of that name whose score can be computed by hand: the share of characters in common."""
    (tmp_path / "bleurt").mkdir()
    (tmp_path / "bleurt" / "__init__.py").write_text("")
    (tmp_path / "bleurt" / "score.py").write_text(BLEURT)
    (tmp_path / "BLEURT-20").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bleurt", raising=False)
    answers = texts.answers([("abc", ["abcd", "ab"]), ("", ["xy"])])
    with pytest.raises(InputError, match="bleurt.checkpoint = '': bind it to the folder"):
        score_answers(["bleurt"], answers, tmp_path)
    gin.bind_parameter("bleurt.checkpoint", str(tmp_path / "BLEURT-20"))
    values = score_answers(["bleurt"], answers, tmp_path)
    assert values["bleurt"] == pytest.approx((0.75 + 0.0) / 2)
    assert values["signatures"]["bleurt"].endswith("checkpoint:BLEURT-20")
    for name in ("bleurt.score", "bleurt"):
        sys.modules.pop(name, None)


def test_two_scores_cannot_fill_one_column(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "_SCORES", dict(known_scores()))

    @scores.score("again", columns=("bleu",), summary="a column that is taken")
    def again(answers, folder):
        return scores.ScoreResult({"bleu": 1.0}, "")

    with pytest.raises(InputError, match="'again' fills column 'bleu', which another score has"):
        score_answers(["bleu", "again"], texts.answers(texts.GERMAN), tmp_path)


def test_two_files_cannot_register_one_name():
    with pytest.raises(InputError, match="registers a score 'bleu', which scaling_jax.*scores.bleu has"):

        @scores.score("bleu", columns=("bleu",), summary="a name that is taken")
        def mine(answers, folder):
            return scores.ScoreResult({}, "")
