"""Scales that an answer of a judge speaks of: `on a scale of 1 to 10`, `满分5分`, `十分制`, `5 = best`.

They are looked for to refuse a score, never to convert one: a scale that is found too often costs a
judgement, one that is missed turns the worst answer into the best.
"""

import re

_WORDS = dict(zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True))
_WORDS |= {"twenty": 20, "hundred": 100, "a hundred": 100, "one hundred": 100}
_WORDS |= dict(zip("一二三四五六七八九十", range(1, 11), strict=True)) | {"百": 100, "一百": 100}
_NUMBER = "(?:{}|{})".format(r"\d+(?:\.\d+)?", "|".join(sorted(_WORDS, key=len, reverse=True)))
_TOP = f"(?<![\\d.])(?P<top>{_NUMBER})(?![\\d.]*\\d|[a-z])"
_TO = r"\s{0,3}(?:-|–|—|~|/|to|through|and|到|至|和)\s{0,3}"
_UP_TO = rf"(?:{_NUMBER}\s{{0,3}}分?{_TO})?{_TOP}"
_FILLING = r"[\s_\"':=,(*]{0,6}"
_IS = "of|from|is|are|was|be|being|between|score|possible|points?|marks?|value|为|是|在|从|得分|可得|分|大|小"
_LINK = rf"{_FILLING}(?:(?:{_IS}){_FILLING}){{0,6}}"
_BEST = r"(?:best|max(?:imum)?|highest|perfect|excellent|full|top|满分|最高|最好|最优|最佳)"
_MARKS = "(?:scores?|marks?|points?|rating|possible)"

# In the whole answer.
_STRONG = (
    rf"(?:scale|评分范围|分值范围|分数范围|评分标准){_LINK}{_UP_TO}",
    rf"range{_LINK}{_NUMBER}{_TO}{_TOP}",
    rf"scale[^\n.]{{0,40}}?(?:to|-|–|到|至)\s{{0,3}}{_TOP}",
    rf"{_UP_TO}[\s-]{{0,3}}(?:points?|stars?|marks?|level)?[\s-]{{0,3}}scale",
    rf"{_TOP}\s{{0,3}}[分级点]?(?:制|量表)",
    rf"满分{_LINK}{_TOP}",
    rf"{_TOP}\s{{0,3}}分(?:为|是)?满分",
    rf"(?:max(?:imum)?|full|total|highest|top|possible|best)[\s_-]{{1,3}}{_MARKS}{_LINK}{_TOP}",
    rf"{_TOP}\s{{0,3}}分?\s{{0,3}}(?:is|being|means|would be|[为是=:]|代表|表示)\s{{0,3}}(?:the\s)?{_BEST}",
)
# On the line of the score alone: elsewhere these are said of other things.
_WEAK = (
    rf"(?<!\d)(?<!\d\s)out[\s_]of{_LINK}{_TOP}",
    rf"(?:总共|共计?){_LINK}{_TOP}\s{{0,3}}分",
    rf"(?:总[分计]|合计|全部|最高分?|上限|分值|范围){_LINK}{_UP_TO}",
    rf"(?<![a-z])(?:max(?:imum)?|total|highest|best|limit|top){_LINK}{_TOP}",
    rf"{_TOP}\s{{0,3}}分?\s{{0,3}}(?:the\s)?{_BEST}(?![a-z])",
    rf"[(\[【][^()\d]{{0,20}}{_NUMBER}\s{{0,3}}分?(?:{_TO}|,\s?){_TOP}\s{{0,3}}分?\s{{0,3}}[)\]】]",
    rf"(?<![\d.])(?:0|1)\s{{0,3}}分?{_TO}{_TOP}\s{{0,3}}(?:分|points?|stars?|marks?|scale)",
)
_STRONG_FOUND = [re.compile(one, re.IGNORECASE) for one in _STRONG]
_WEAK_FOUND = [re.compile(one, re.IGNORECASE) for one in _WEAK]
# 1..10 and 1…10
_DOTS = re.compile(r"(?<=\d)\s?(?:\.{2,3}|…)\s?(?=\d)")
# Beside the number: what is lowest is no 1.
_LOWEST = re.compile(
    r"\W{0,3}(?:(?:the|is|which|it|这|是|即|为)\W*)*(?:lowest|worst|minimum|最低|最差)", re.IGNORECASE
)


def other_scale(text: str, span: tuple[int, int], top: float, number: float) -> str:
    """The words by which a text says that its score is on another scale than 0 to `top`, or "".

    Args:
        text: the judge's answer.
        span: where the score is in it, mark and number.
        top: of the scale that the score was read on.
        number: that was read.
    """
    begin, end = text.rfind("\n", 0, span[0]) + 1, text.find("\n", span[1])
    line = text[begin : end if end >= 0 else len(text)]
    for patterns, where in ((_STRONG_FOUND, text), (_WEAK_FOUND, line)):
        where = _DOTS.sub("-", where)
        for pattern in patterns:
            for found in pattern.finditer(where):
                if _value(found["top"]) not in (1.0, top):
                    return found.group().strip()
    lowest = _LOWEST.match(text, span[1])
    return lowest.group().strip() if lowest and number > 0 else ""


def _value(written: str) -> float:
    return float(_WORDS.get(written.lower(), 0) or written)
