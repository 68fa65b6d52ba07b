"""Ticks, counts, and the SVG that follows the reader's colours."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from scaling_jax.reports import figures, theme, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (250, "250"),
        (1000, "1k"),
        (1500, "1.5k"),
        (999_999, "1M"),
        (2**21, "2.1M"),
        (1.6e10, "16B"),
        (2.83e11, "283B"),
    ],
)
def test_counts_read_as_people_say_them(value, text):
    assert theme.count_text(value) == text


def test_ticks_are_the_values_of_the_study_when_they_fit():
    levels = [250, 500, 1000, 2000, 4000, 8000, 16000]
    assert theme.log_ticks(200, 20000, levels, most=8) == levels
    assert theme.log_ticks(200, 20000, levels, most=5) == [250, 1000, 4000, 16000]


def test_ticks_without_preferred_values_are_round_and_few():
    ticks = theme.log_ticks(1.0, 33.0, (), most=5)
    assert ticks == [1, 2, 5, 10, 20]
    wide = theme.log_ticks(1.0, 1e12, (), most=7)
    assert 2 <= len(wide) <= 14 and all(np.log10(tick).is_integer() for tick in wide)


def _drawing(name="one", label="LoRA"):
    series = figures.Series(
        label,
        theme.category(1),
        np.array([1.0, 10, 100]),
        np.array([3.0, 2, 1.5]),
        np.array([False, False, True]),
    )
    return figures.curves(
        name, "a title & more", "a <b>description</b>", [series], "examples", "loss", size=(3.0, 2.5)
    )


def test_inline_svg_has_variables_for_colours_and_unique_ids():
    first, second = theme.inline(_drawing("one")), theme.inline(_drawing("two"))
    for text in (first, second):
        ElementTree.fromstring(text)
        assert "var(--category-1, #bd540d)" in text
        assert not re.search(r"(?<!, )#(bd540d|1c2330|5b6577)", text, re.I)
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    for text, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text)) <= known


def test_text_of_a_figure_is_escaped_and_stays_text():
    text = theme.inline(_drawing(label="<script>$x$ & co"))
    assert "<script>" not in text and "&lt;script&gt;$x$ &amp; co" in text
    assert '<desc id="one-desc">a &lt;b&gt;description' in text


def test_a_drawing_is_the_same_bytes_every_time(tmp_path):
    first, second = _drawing(), _drawing()
    assert first.svg == second.svg and first.png == second.png
    first.save(tmp_path)
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    ElementTree.parse(tmp_path / "one.svg")


def test_both_schemes_declare_the_same_variables():
    names = [re.findall(r"--([\w-]+):", theme.css_variables(scheme)) for scheme in ("light", "dark")]
    assert names[0] == names[1] and "paper" in names[0]


def test_every_text_colour_can_be_read_on_its_background():
    for position, paper in enumerate(("#fffffe", "#14181f")):
        for pair in theme._CATEGORIES:
            assert _contrast(pair[position], paper) >= 4.5, pair
    assert _contrast(theme.MUTED, "#fffffe") >= 4.5


def _contrast(first, second):
    def luminance(colour):
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.24, "0.240"),
        (203.4, "203"),
        (1.2e5, "1.20e5"),
        (None, "–"),
        (float("nan"), "–"),
        (0.00051, "0.001"),
        (0.0002, "0.000200"),
    ],
)
def test_parameters_are_printed_with_few_digits(value, text):
    assert words.parameter(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.83, "0.83 s"), (61, "61 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(value, text):
    assert words.seconds(value) == text


def test_an_open_interval_says_so_and_a_missing_one_says_nothing():
    assert words.between(0.1, float("inf"), words.parameter) == "[0.100, ∞]"
    assert words.between(float("nan"), 1.0) == "" and words.between(None, 1.0) == ""
