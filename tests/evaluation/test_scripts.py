"""Which language a text's script tells, and words of scripts with and without spaces."""

import pytest

from scaling_jax.evaluation.scripts import share_beyond_ascii, unspaced_language, words


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["你好吗?我很好。"], "zh"),
        (["型号 X200 的价格是多少?"], "zh"),
        (["これは本です。"], "ja"),
        (["東京都庁 2020 カ"], "ja"),
        (["오늘 날씨가 좋네요"], "ko"),
        (["The Chinese word 你好 means hello."], ""),
        (["Grüße aus Österreich", "été"], ""),
        (["Привет, мир"], ""),
        (["123 !?", ""], ""),
        ([], ""),
    ],
)
def test_language_of_a_script(texts, language):
    assert unspaced_language(iter(texts)) == language


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It's 2,5 L_iters!", ["it", "s", "2", "5", "l", "iters"]),
        ("L'été ÉTÉ e\u0301te\u0301", ["l", "été", "été", "été"]),
        ("买了X200型。", ["买", "了", "x200", "型"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("오늘 날씨", ["오늘", "날씨"]),
        ("これは本", ["こ", "れ", "は", "本"]),
        ("\u0301 a", ["a"]),
        ("", []),
    ],
)
def test_words(text, wanted):
    assert words(text) == wanted


def test_share_beyond_ascii():
    assert share_beyond_ascii(["été 12!"]) == pytest.approx(2 / 3)
    assert share_beyond_ascii(["12!"]) == 0.0
