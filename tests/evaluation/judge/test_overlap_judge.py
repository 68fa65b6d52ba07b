"""The stand-in for a judge in the docs: its overlap, and a whole evaluation against it."""

import importlib.util
import random
import threading
from pathlib import Path

import gin
import pytest

from scaling_jax.evaluation.judge.judging import judge_answers
from scaling_jax.evaluation.judge.settings import JudgeSettings
from scaling_jax.evaluation.score import Answer

PATH = Path(__file__).parents[3] / "docs" / "examples" / "overlap_judge.py"


@pytest.fixture(scope="module")
def stand_in():
    spec = importlib.util.spec_from_file_location("overlap_judge", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _by_table(one, two):
    lengths = [0] * (len(two) + 1)
    for a in one:
        diagonal = 0
        for place, b in enumerate(two):
            above = lengths[place + 1]
            lengths[place + 1] = diagonal + 1 if a == b else max(above, lengths[place])
            diagonal = above
    return lengths[-1]


def test_longest_common_subsequence_is_that_of_the_table(stand_in):
    draw = random.Random(0)
    for _ in range(200):
        one, two = ("".join(draw.choices("ab中c", k=draw.randint(0, 70))) for _ in range(2))
        assert stand_in.longest_common_subsequence(one, two) == _by_table(one, two)


def test_overlap_leaves_out_width_case_and_space(stand_in):
    assert stand_in.overlap("Ａ B，c", "ab,C") == 1.0
    assert stand_in.overlap("abcd", "xbyd") == pytest.approx(0.5)
    assert stand_in.overlap("", "a") == stand_in.overlap("a", " ") == 0.0


@pytest.mark.parametrize("language", ["zh", "en"])
def test_an_evaluation_against_the_stand_in(stand_in, tmp_path, language):
    pytest.importorskip("openai", reason="openai is not installed (extra judge)")
    answers = [
        Answer("q {answer}", "abcd", ("abcd",), {"class": "math"}),
        Answer("q", "xbyd\n\nmore", ("abcd\nabcd",), {"class": "open qa"}),
        Answer("a poem on abcd", "abcd", ("",), {"class": "generation"}),
        Answer("q", "", ("abcd",), {"class": "extract"}),
    ]
    gin.clear_config()
    server = stand_in.serve(0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        settings = JudgeSettings(endpoint=url, model="overlap", prompts=language, api_key_variable="")
        values = judge_answers(answers, tmp_path, settings).values
    finally:
        server.shutdown()
        server.server_close()
    overlaps = [stand_in.overlap(answer.hypothesis, answer.references[0]) for answer in answers]
    assert values["judge_others"] == 1.0
    assert values["judge_open_qa"] == pytest.approx(overlaps[1], abs=5e-4)
    assert values["judge_generation"] == pytest.approx(stand_in.overlap("abcd", answers[2].inputs), abs=5e-4)
    assert values["judge_extract"] == 0.0
    assert values["judge_score"] == pytest.approx(
        sum(values[name] for name in values if name != "judge_score") / 4
    )
