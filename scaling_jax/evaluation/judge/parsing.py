"""The score in a judge's answer.

Accepted, in Chinese or English, with half- or full-width digits and signs, bold or quoted:

    得分: 0.8      评分：０．８分      Score: 0.8      {"score": 0.8}      0.8 (and nothing else)
    得分: 8/10     Score: 80%          Score: 8 out of 10                  these state their scale: 0.8

Refused, since any number would be a guess: `8分` (of how many?), a range (`0.6-0.8`), a value outside
0 to 1, `0,8`, `0.8/10` (0.8 or 0.08?), and an answer that gives two different scores. What is refused
is not a score of 0: the caller keeps the answer and leaves it out of the average.
"""

import dataclasses
import re

# NFKC would also turn the Chinese comma into one that may be a decimal comma.
_WIDE = str.maketrans("０１２３４５６７８９：＝／％．（）－～", "0123456789:=/%.()-~")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

_MARK = r"(?:得分|评分|打分|分数|(?<![a-z])(?:score|rating)(?![a-z]))"
_SPACE = r"[^\S\n]"
# Between mark and number: quotes, brackets and bold, one sign of "is".
_DRESS = r"(?:[^\S\n]|[\"'`*_“”‘’「」【\[(<])*+"
_IS = rf"{_DRESS}(?::|=|是|为|is|of)?{_DRESS}"
_NUMBER = r"(?<![\d.\-+])(?P<number>\d+(?:\.\d+)?|\.\d+)"
_OUT_OF = rf"(?:/|out{_SPACE}+of|[(,，]?{_SPACE}*满分{_SPACE}*(?:为|是|:)?){_SPACE}*(?P<of>\d+(?:\.\d+)?)"
_SCALE = rf"{_SPACE}*分?{_DRESS}(?:{_OUT_OF}|(?P<percent>%))?"
# No further digits, no decimal comma, no range and no list number ("Score 1: ...") behind.
_END = rf"(?![\d%]|\.\d|,\d|{_SPACE}*(?:[-–—~到至]|to){_SPACE}*\.?\d|{_SPACE}*:)"
_SCORE = rf"{_IS}{_NUMBER}{_SCALE}{_END}"
_MARKED = re.compile(rf"{_MARK}{_SCORE}", re.IGNORECASE)
_LINE = re.compile(rf"^(?:{_SPACE}|[\"'`*_#>\-{{【\[(])*+{_MARK}{_SCORE}", re.IGNORECASE | re.MULTILINE)
_ALONE = re.compile(rf"[\s\"'`*_]*{_NUMBER}{_SCALE}分?[\s\"'`*_。.]*", re.IGNORECASE)
# A mark with its number alone on the line below; a list may begin there too ("1. ..."), which is no score.
_BELOW = re.compile(
    rf"({_MARK}{_IS})\n\s*(?=[*_]*(?:\d+(?:\.\d+)?|\.\d+){_SPACE}*(?:分|/{_SPACE}*\d+|%)?[*_\s]*?$)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A score from 0 to 1, or None with the reason; `scaled` where the answer stated another scale."""

    score: float | None
    reason: str = ""
    scaled: bool = False


def parse_score(answer: str) -> Parsed:
    """The score that an answer gives; see the module for what is accepted.

    Scores at the beginning of a line are taken before others, and have to agree.
    """
    text = _BELOW.sub(r"\1 ", _THOUGHTS.sub(" ", answer).translate(_WIDE))
    alone = _ALONE.fullmatch(text)
    found = [alone] if alone else list(_LINE.finditer(text)) or list(_MARKED.finditer(text))
    if not found:
        return Parsed(None, "no score" if text.strip() else "an empty answer")
    values = [_value(match) for match in found]
    if len({value.score for value in values}) > 1:
        return Parsed(None, f"different scores: {', '.join(match.group().strip() for match in found)[:80]}")
    return values[0]


def _value(match: re.Match) -> Parsed:
    number = float(match["number"])
    of = 100.0 if match["percent"] else float(match["of"] or 1.0)
    written = match.group().strip()
    if of < 1.0 or number > of:
        return Parsed(None, f"{written!r} is outside 0 to 1")
    if of > 1.0 and 0.0 < number < 1.0:
        return Parsed(None, f"{written!r} may mean {number:g} or {number / of:g}")
    return Parsed(number / of, scaled=of != 1.0)
