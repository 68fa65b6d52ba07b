"""The score in a judge's answer.

Accepted, in Chinese or English, with half- or full-width digits and signs, bold or quoted:

    得分: 0.8      评分：０．８分      Score: 0.8      {"score": 0.8}      得分是：0.8
    0.8            alone, or alone on the first line with reasons below
    得分: 8/10     Score: 80%          Score: 8 out of 10      8 points of 10      8分（满分10分）

The last row states its scale and is brought to 0 to 1. Refused, since any number would be a guess: `8分` (of
how many?), a range (`0.6-0.8`), a sum, a value outside 0 to 1, `0,8`, `1e-1`, `0.8/10` (0.8 or 0.08?), an
answer that gives two different scores, and one that speaks of another scale than 0 to 1 in words that are not
those of the last row (`Score: 1 on a scale of 1-10`, `得分：1，总分10`, `1 star`): what is best on one scale
is worst on another. What is refused is not a score of 0: the caller keeps the answer and leaves it out of the
average.
"""

import dataclasses
import re

from scaling_jax.evaluation.judge import scales

# NFKC would also turn the Chinese comma into one that may be a decimal comma.
_WIDE = str.maketrans("０１２３４５６７８９：＝／％．（）－～⁄∕", "0123456789:=/%.()-~//")
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

_MARK = r"(?:得分|评分|打分|分数|(?<![a-z])(?:score|rating)(?![a-z]))"
_SPACE = r"[^\S\n]"
# Between mark and number: quotes, brackets and bold, the scale where it is 0 to 1, one sign of "is".
_DRESS = r"(?:[^\S\n]|[\"'`*_“”‘’「」【\[(<])*+"
_ZERO_TO_ONE = rf"(?:\({_SPACE}*(?:0{_SPACE}*(?:[-–~到至]|to){_SPACE}*1分?|满分1分?|out of 1){_SPACE}*\))?+"
_IS = rf"{_SPACE}*+{_ZERO_TO_ONE}{_DRESS}(?:是|为|is|of)?{_DRESS}[:=]?{_DRESS}"
_NUMBER = r"(?<![\d.\-+])(?P<number>\d+(?:\.\d+)?|\.\d+)(?![a-z½¼¾⅐-⅟²³])"
_UNIT = rf"(?:{_SPACE}*+(?:分|points?\b|marks?\b))?"
_OF = rf"(?:out{_SPACE}+)?of{_SPACE}+(?:(?:a|the|total|maximum|possible|of){_SPACE}+)*"
_FULL = rf"(?:满分|总共|共计?){_SPACE}*(?:为|是|:)?"
_OUT_OF = rf"(?:/|{_OF}|[(,，]?{_SPACE}*{_FULL}){_SPACE}*(?P<of>\d+(?:\.\d+)?)(?![\d%])(?:{_SPACE}*stars?\b)?"
_SCALE = rf"{_UNIT}(?:{_DRESS}(?:{_OUT_OF}|(?P<percent>%|per{_SPACE}?cent\b)))?+"
# What may not stand behind: further digits, an exponent, a decimal comma, a range, a choice, a sum, a unit of
# another kind, a number of a list ("Score 1: ..."), a scale that was not read above.
_JOINED = r"[-–—~+*×÷=±≈<>、]|->|→|到至|到|至|或|和|加|减|to|or|and|plus|minus|on|in|over|per|from|\\"
_END = (
    rf"(?![\d%‰成折级星颗档★⭐☆]|\.\d|,\d|{_SPACE}*(?:{_JOINED}){_SPACE}*\.?\d|{_SPACE}*:"
    rf"|[\])}}】」”’\"'*_` ]*:{_SPACE}*\.?\d|{_UNIT}{_SPACE}*+[(,，]?{_SPACE}*+(?:out{_SPACE}+)?of\b"
    rf"|{_SPACE}*(?:stars?\b|\(?[★⭐☆]|[星颗‰/]))"
)
_SCORE = rf"{_IS}{_NUMBER}{_SCALE}{_END}"
_MARKED = re.compile(rf"{_MARK}{_SCORE}", re.IGNORECASE)
_LINE = re.compile(rf"^(?:{_SPACE}|[\"'`*_#>\-{{【\[(])*+{_MARK}{_SCORE}", re.IGNORECASE | re.MULTILINE)
_ALONE = re.compile(rf"[\s\"'`*_]*{_NUMBER}{_SCALE}{_UNIT}\)?[\s\"'`*_。.]*", re.IGNORECASE)
# A whole number with a full stop on a line of its own may begin a list.
_LIST = re.compile(r"\s*\d+\.\s*")
# A mark with its number alone on the line below; a list may begin there too ("1. ..."), which is no score.
_BELOW = re.compile(
    rf"({_MARK}{_IS})\n\s*(?=[*_]*(?:\d+(?:\.\d+)?|\.\d+){_SPACE}*(?:分|/{_SPACE}*\d+|%)?[*_\s]*?$)",
    re.IGNORECASE | re.MULTILINE,
)
# Behind a first score, "a score of 1 would need more" is talk; these are scores again.
_AGAIN = re.compile(rf"{_MARK}{_SPACE}*[\"'*_]*{_SPACE}*(?:[:=]|是|为|is\b)", re.IGNORECASE)
_LAST = re.compile(r"(?:final|overall|total|revised|corrected|最终|最后|综合|总)\s*$", re.IGNORECASE)
# What follows on its line are scores of parts.
_PARTS = re.compile(r"其中[^\n]*$")


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A score from 0 to 1, or None with the reason; `scaled` where the answer stated another scale."""

    score: float | None
    reason: str = ""
    scaled: bool = False


def parse_score(answer: str) -> Parsed:
    """The score that an answer gives; see the module for what is accepted.

    Scores at the beginning of a line are taken before others. All that are taken have to agree, with each
    other and with the scores that further text gives as such.
    """
    text = _BELOW.sub(r"\1 ", _THOUGHTS.sub(" ", answer).translate(_WIDE))
    found = _found(text)
    if not found:
        return Parsed(None, "no score" if text.strip() else "an empty answer")
    values = [_value(match, text) for match in found]
    if len({value.score for value in values}) > 1:
        return Parsed(None, f"different scores: {', '.join(match.group().strip() for match in found)[:80]}")
    return values[0]


def _found(text: str) -> list[re.Match]:
    if alone := _ALONE.fullmatch(text):
        return [alone]
    marked = list(_MARKED.finditer(text))
    first = [*_alone_on_lines(text), *_LINE.finditer(text)]
    if not first:
        return marked
    ends = {match.end() for match in first}
    return [*first, *(match for match in marked if match.end() not in ends and _contradicts(match, text))]


def _alone_on_lines(text: str) -> list[re.Match]:
    """Numbers alone on the first line that has text, and on later ones if there is such a first line."""
    begin = len(text) - len(text.lstrip())
    found = []
    for line in re.finditer(r"[^\n]+", text[begin:]):
        alone = _ALONE.fullmatch(text, begin + line.start(), begin + line.end())
        if alone and not _LIST.fullmatch(line.group()):
            found.append(alone)
        elif not found:
            break
    return found


def _contradicts(match: re.Match, text: str) -> bool:
    before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    if _PARTS.search(before):
        return False
    return bool(_AGAIN.match(match.group()) or _LAST.search(before))


def _value(match: re.Match, text: str) -> Parsed:
    number = float(match["number"])
    of = 100.0 if match["percent"] else float(match["of"] or 1.0)
    written = match.group().strip()
    if of < 1.0 or number > of:
        return Parsed(None, f"{written!r} is outside 0 to 1")
    if of > 1.0 and 0.0 < number < 1.0:
        return Parsed(None, f"{written!r} may mean {number:g} or {number / of:g}")
    if "<" in written[: match.start("number")] and text[match.end("number") :].lstrip()[:1] != ">":
        return Parsed(None, f"{written!r} is a bound, no score")
    if stated := scales.other_scale(text, match.span(), of, number):
        return Parsed(None, f"{written!r}, but {stated!r} speaks of another scale")
    return Parsed(number / of, scaled=of != 1.0)
