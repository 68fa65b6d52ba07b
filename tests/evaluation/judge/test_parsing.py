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
        ("得分是：0.6", 0.6),
        ("Score is: 0.6", 0.6),
        ("0.75\n理由：回答正确。", 0.75),
        ("\n**0.75**\n\nReason: it says what was asked.", 0.75),
        ("1\n理由：完全正确，满分。", 1.0),
        ("0\nIt is wrong.", 0.0),
        ("Score: 1 point", 1.0),
        ("Score (0-1): 0.8", 0.8),
        ("得分（0到1分）：0.8", 0.8),
        ("Score: 0.8 on a scale of 0 to 1", 0.8),
        ("得分：0.8，总分1分", 0.8),
        ("Score: 0.8 out of 1", 0.8),
        ("Score: 0.8/1", 0.8),
        ("满分为1分。得分：0.8", 0.8),
        ("得分：1（满分）", 1.0),
        ("Score: 0 (worst)", 0.0),
        ("Score: <0.5>", 0.5),
        ("**Score: 0.8**: it is good", 0.8),
        ("Score: 0.8 to be fair", 0.8),
        ("Score: 0.6, since 3 out of 5 facts are right", 0.6),
        ("Score: 0.6\nReason: 3 out of 5 facts are right", 0.6),
        ("Score: 0.5\nReason: a score of 1 would need more", 0.5),
        ("得分：0.8，因为共有3处错误", 0.8),
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
    "answer",
    [
        "Score: 1 of 5",
        "Score: 1 out of 5",
        "Score: 1 point out of 5",
        "Score: 1 out of a possible 5",
        "Score: 1 (out of 5.0)",
        "**Score:** 1 **out of 5**",
        "Rating: 1/5 stars",
        "1 of 5",
        "1/5\nIt is wrong.",
        "得分：1分（共5分）",
        "得分：1分（总共5分）",
        "得分：1分，满分5分",
        "得分：1分 / 5分",
        "Score: 20 percent",
    ],
)
def test_the_worst_answer_on_a_stated_scale_is_not_the_best(answer):
    parsed = parse_score(answer)
    assert parsed.score == pytest.approx(0.2) and parsed.scaled


OTHER_SCALES = """
Score: 1 on a scale of 1-10
Score: 1 on a scale from 1 (worst) to 5 (best)
Score: 1 on the 5-point scale
Score: 1 on a 5-star scale
Score: 1 (range 1–5)
Score: 1 (1-5)
Score: 1 [0, 5]
Score: 1 (max 5)
Score: 1 (5 max)
Score: 1; maximum: 5
Score: 1 (scale: 1..10)
Score: 1 (Likert 1-5)
Score: 1 (with 10 the best possible)
得分：1 （5分量表）
得分：1（李克特5级量表）
得分：1（总计10分）
Score: 1 (1 = worst, 5 = best)
Score: 1 - poor (5 would be excellent)
Score: 1 (lowest)
Score: 1, the worst
Out of 10, score: 1
On a scale of one to ten, score: 1
{"score": 1, "max_score": 5}
{"score": 1, "scale": "1-5"}
{"score": 1, "out_of": 5}
得分：1，总分10
得分：1 分，总分为 100 分
得分：1，最高5分
得分：1（五分制）
得分：1（百分制）
10分制，得分：1
得分：1（0～5）
得分：1（评分范围：1-5）
得分：1（满分：十分）
得分：1分（10分为满分）
得分：1分，5分满分
满分10分，得分1分
得分：1（1分最差，5分最好）
得分：1（1为最低，10为最高）
得分：1（最低分）
"""


ON_TWO_LINES = ('{"score": 1,\n "max_score": 5}', "得分：1\n（满分为10分）")


@pytest.mark.parametrize("answer", [*OTHER_SCALES.strip().split("\n"), *ON_TWO_LINES])
def test_another_scale_in_words_is_not_guessed_at(answer):
    parsed = parse_score(answer)
    assert parsed.score is None and "speaks of another scale" in parsed.reason


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
        ("Score: 1e-1", "no score"),
        ("Score: 1x", "no score"),
        ("Score: 1½", "no score"),
        ("Score: 1 star", "no score"),
        ("Score: 1 (★☆☆☆☆)", "no score"),
        ("得分：1星", "no score"),
        ("得分：1成", "no score"),
        ("Score: 1 of five", "no score"),
        ("Score: 1 / five", "no score"),
        ("Score: 1, out of 5", "no score"),
        ("Score: 1 over 5", "no score"),
        ("Score: 1 per 10", "no score"),
        ("得分：1\\5", "no score"),
        ("得分：1：5", "no score"),
        ("Score: 1 in 5", "no score"),
        ("Score (1-10): 1", "no score"),
        ("得分（满分10分）：1", "no score"),
        ("得分：百分之1", "no score"),
        ("Score [1]: 0.5", "no score"),
        ("Score: 0.5 + 0.3 = 0.8", "no score"),
        ("Score: 0.8 ± 0.1", "no score"),
        ("Score: 0.8 or 0.9", "no score"),
        ("得分：0.8或0.9", "no score"),
        ("Score: <0.5", "a bound"),
        ("Score: 0.9. Final score: 0.3", "different scores"),
        ("得分：0.9。最终得分0.3", "different scores"),
        ("0.75\nScore: 0.5", "different scores"),
        ("0.5\n0.7", "different scores"),
        ("1\n2\n3", "different scores"),
        ("1.\nIt is clear.", "no score"),
        ("8\n理由：好。", "outside 0 to 1"),
    ],
)
def test_refused(answer, reason):
    parsed = parse_score(answer)
    assert parsed.score is None and reason in parsed.reason


LONG = [" ", "*", "得分", "得分:", "0.", "\n", "score is ", "得分 \n", "1 of ", "满分 ", "最高"]


@pytest.mark.parametrize("filling", LONG)
def test_long_garbage_is_read_quickly(filling):
    began = time.monotonic()
    parse_score("得分" + filling * (4000 // len(filling)))
    parse_score("得分: 1 " + filling * (4000 // len(filling)))
    assert time.monotonic() - began < 1.0
