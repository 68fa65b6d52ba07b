"""What script a text is written in: which letters stand alone, and which language has no spaces."""

import re
import unicodedata
from collections.abc import Iterable

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA = re.compile("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
# Scripts that put no space between words: Han, kana, Bopomofo, Thai, Lao, Myanmar, Khmer, Tibetan.
_UNSPACED = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3041-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9d\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\U00020000-\U000323af]"
)
# Of Japanese text far more than this is kana, of Chinese none.
_KANA_OF_JAPANESE = 0.05


def unspaced_language(texts: Iterable[str]) -> str:
    """ "zh", "ja" or "ko" where half of the letters are of that language's script, else "".

    Chinese is Han with next to no kana, Japanese is both.
    """
    han = kana = hangul = letters = 0
    for text in texts:
        han += len(_HAN.findall(text))
        kana += len(_KANA.findall(text))
        hangul += len(_HANGUL.findall(text))
        letters += sum(map(str.isalpha, text))
    if 2 * hangul > letters:
        return "ko"
    if 2 * (han + kana) > letters:
        return "ja" if kana > _KANA_OF_JAPANESE * (han + kana) else "zh"
    return ""


def words(text: str) -> list[str]:
    """Lower-case words of any script: runs of letters, digits and their marks.

    A letter of a script without spaces (Chinese, Japanese, Thai and others) is a word by itself.
    """
    found: list[str] = []
    inside = open_to_marks = False
    for character in unicodedata.normalize("NFC", text).lower():
        kind = unicodedata.category(character)[0]
        if kind == "M" and open_to_marks:
            found[-1] += character
        elif kind not in "LN":
            inside = open_to_marks = False
        elif _UNSPACED.match(character):
            found.append(character)
            inside, open_to_marks = False, True
        elif inside:
            found[-1] += character
        else:
            found.append(character)
            inside = open_to_marks = True
    return found


def share_beyond_ascii(texts: Iterable[str]) -> float:
    """The share of the letters that are not a to z, 0 where there are no letters."""
    letters = beyond = 0
    for text in texts:
        for character in filter(str.isalpha, text):
            letters += 1
            beyond += not character.isascii()
    return beyond / letters if letters else 0.0
