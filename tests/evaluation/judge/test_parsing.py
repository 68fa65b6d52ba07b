"""Scores in answers of judges: what is read, and what is refused rather than guessed."""

import time

import pytest

from scaling_jax.evaluation.judge.parsing import parse_score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("得分: 0.8", 0.8),
        ("得分：0.8\n理由：满分为1分，扣0.2分。", 0.8),
        ("评分：０．８分", 0.8),
        ("**得分:** 0.9", 0.9),
        ("得分：【0.3】", 0.3),
        ("得分为 0.95", 0.95),
        ("得分0.8分。", 0.8),
        ("得分：0，因为有1处错误", 0.0),
        ("得分：0，1处错误", 0.0),
        ("得分：\n0.7\n理由：……", 0.7),
        ("Score: 1.", 1.0),
        ("score is .5", 0.5),
        ('{"reason": "good", "score": 0.8}', 0.8),
        ("0.8", 0.8),
        ("  1分。", 1.0),
        ("### Score: 0.8\n- 3 reasons", 0.8),
        ("<think>Score: 0.1</think>\nScore: 0.9", 0.9),
        ("得分: 0.5\n其中格式得分: 1", 0.5),
        ("得分: 0.85。理由：若修改，得分可为1。", 0.85),
        ("The first score: 0.5 and again score: 0.5", 0.5),
    ],
)
def test_read(answer, score):
    assert parse_score(answer).score == pytest.approx(score)
    assert not parse_score(answer).scaled


@pytest.mark.parametrize(
    "answer",
    ["得分: 8/10", "Score: 80%", "Score: 4/5", "得分：８／１０", "8 out of 10", "得分: 8分(满分10分)"],
)
def test_a_stated_scale_is_brought_to_one(answer):
    parsed = parse_score(answer)
    assert parsed.score == pytest.approx(0.8) and parsed.scaled


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "an empty answer"),
        (" \n", "an empty answer"),
        ("This is a good answer.", "no score"),
        ("得分: 8分", "outside 0 to 1"),
        ("得分: 1.5", "outside 0 to 1"),
        ("Score: 12/10", "outside 0 to 1"),
        ("Score: -0.5", "no score"),
        ("得分: 0.6-0.8", "no score"),
        ("Score: 0.6 to 0.8", "no score"),
        ("分数在0到1之间，得分为0到1", "no score"),
        ("Score: 0,8", "no score"),
        ("Score: 0.8/10", "may mean 0.8 or 0.08"),
        ("Score: 0.5\nScore: 0.7", "different scores"),
        ("Style score: 0.5, content score: 0.7", "different scores"),
        ("Score:\n1. It is clear.\n2. It is right.", "no score"),
        ("Score 1: 0.5", "no score"),
        ("underscore: 0.5", "no score"),
        ("得分: 高", "no score"),
        ("<think>Score: 0.1", "an empty answer"),
    ],
)
def test_refused(answer, reason):
    parsed = parse_score(answer)
    assert parsed.score is None and reason in parsed.reason


@pytest.mark.parametrize("filling", [" ", "*", "得分", "得分:", "0.", "\n", "score is ", "得分 \n"])
def test_long_garbage_is_read_quickly(filling):
    began = time.monotonic()
    parse_score("得分" + filling * (4000 // len(filling)))
    assert time.monotonic() - began < 1.0
