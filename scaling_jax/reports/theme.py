"""How figures look: one set of colours for light and dark, and one way to write a figure out.

A figure is drawn once, in the light colours below. In the page it is inline SVG whose colours are
replaced by CSS variables, so that it follows the reader's light or dark scheme; beside the page it is
written as SVG and PNG in the light colours. Text stays text (`svg.fonttype: none`): it can be selected,
read aloud, and takes the font of the page.
"""

import io
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaling_jax import files

# The light colours are also the keys that `inline` replaces, so no two roles may share a value.
INK = "#1c2330"
MUTED = "#5b6577"
GRID = "#dfe3ea"
PAPER = "#fffffe"
TRUTH = "#8a2be3"
_DARK_ROLES = {INK: "#e6e9ef", MUTED: "#9aa5b6", GRID: "#313947", PAPER: "#14181f", TRUTH: "#c79bff"}
_ROLE_NAMES = {INK: "ink", MUTED: "muted", GRID: "rule", PAPER: "paper", TRUTH: "truth"}

# Light and dark of each categorical colour; told apart by lightness too, for colour-blind readers.
_CATEGORIES = (
    ("#2463a8", "#79b4f2"),
    ("#bd540d", "#f2a25c"),
    ("#2d7d56", "#74cfa2"),
    ("#a03a78", "#ee95c9"),
    ("#6f5a1e", "#d3bb70"),
    ("#3d3f9e", "#a5a7f7"),
)
# One hue from pale to deep, for ordered values such as model sizes (deep = large, also in the dark).
_ORDERED = (
    ("#7fb3c9", "#547889"),
    ("#4f99b8", "#5f93ab"),
    ("#2a7899", "#6fb0cc"),
    ("#175872", "#93d0ea"),
    ("#0b3a4e", "#c4ebfb"),
)

_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: file name without ending, and the prefix of the ids inside the inline SVG.
        title: what it shows, in a few words.
        description: what a reader who cannot see it should know; becomes the SVG's <desc>.
        svg: the figure in light colours.
        png: the same, 200 dots per inch.
        width: natural width in CSS pixels.
    """

    name: str
    title: str
    description: str
    svg: str
    png: bytes
    width: int

    def save(self, folder: Path) -> None:
        """Writes NAME.svg and NAME.png."""
        files.write_text(folder / f"{self.name}.svg", self.svg)
        files.write_bytes(folder / f"{self.name}.png", self.png)


def pyplot():
    """matplotlib's pyplot without a window system, with our style; imported on first use."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    matplotlib.rcParams.update(_RC)
    return matplotlib.pyplot


def category(position: int) -> str:
    """The light colour of the method at `position`; colours repeat after six."""
    return _CATEGORIES[position % len(_CATEGORIES)][0]


def ordered(position: int, count: int) -> str:
    """The light colour of the value at `position` of `count` ordered ones, pale to deep."""
    if count <= 1:
        return _ORDERED[-2][0]
    return _ORDERED[round(position * (len(_ORDERED) - 1) / (count - 1))][0]


def finish(figure, name: str, title: str, description: str) -> Drawing:
    """Writes a matplotlib figure into a `Drawing` and closes it."""
    import matplotlib

    name = re.sub(r"[^\w.-]+", "-", name)  # task and method names are free text; this names a file and ids
    vector, raster = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # laid out already; laying out is half of the time
    figure.savefig(raster, format="png", dpi=200, metadata={"Software": None})
    width = round(figure.get_size_inches()[0] * 96)
    pyplot().close(figure)
    text = vector.getvalue().replace("font-family: 'DejaVu Sans'", "font-family: 'DejaVu Sans', sans-serif")
    return Drawing(name, title, description, text, raster.getvalue(), width)


def inline(drawing: Drawing) -> str:
    """The drawing as an <svg> element: colours as CSS variables, ids made unique, with title and desc."""
    from markupsafe import escape

    text = drawing.svg[drawing.svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for light, variable in _variables().items():
        text = re.sub(rf"{light}\b", f"var(--{variable}, {light})", text, flags=re.I)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{drawing.name}-\1"', text)
    text = re.sub(r'(href="|url\()#([^")]+)', rf"\1#{drawing.name}-\2", text)
    text = re.sub(r" font-family: [^;\"]*;", "", text)  # the page's own font
    head = re.match(r"<svg[^>]*>", text).group(0)
    box = re.search(r'viewBox="[^"]+"', head).group(0)
    label, about = f"{drawing.name}-title", f"{drawing.name}-desc"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box} '
        f'role="img" aria-labelledby="{label} {about}" style="max-width:{round(drawing.width * 1.25)}px">'
        f'<title id="{label}">{escape(drawing.title)}</title><desc id="{about}">{escape(drawing.description)}'
        "</desc>"
    )
    return opening + text[len(head) :]


def css_variables(scheme: str) -> str:
    """The colour declarations of `scheme` ('light' or 'dark') for the page's style sheet."""
    position = ("light", "dark").index(scheme)
    roles = {name: (light, _DARK_ROLES[light])[position] for light, name in _ROLE_NAMES.items()}
    colours = roles | {
        f"{kind}-{index}": pair[position]
        for kind, pairs in (("category", _CATEGORIES), ("ordered", _ORDERED))
        for index, pair in enumerate(pairs)
    }
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def _variables() -> dict[str, str]:
    found = dict(_ROLE_NAMES)
    for kind, pairs in (("category", _CATEGORIES), ("ordered", _ORDERED)):
        found.update({light: f"{kind}-{index}" for index, (light, _) in enumerate(pairs)})
    return found


def count_text(value: float) -> str:
    """A count as people say it: 250, 1.5k, 16k, 2M, 3B, 1.2T."""
    if value == 0:
        return "0"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def log_ticks(low: float, high: float, preferred: Sequence[float] = (), most: int = 7) -> list[float]:
    """Tick positions for a logarithmic axis: the study's own values if they fit, else 1, 2, 5, 10."""
    inside = sorted({value for value in preferred if low <= value <= high})
    for stride in range(1, max(2, len(inside) // 2)):
        ticks = inside[::-1][::stride][::-1]
        if 2 <= len(ticks) <= most and _apart(ticks, low, high, 0.6 / most):
            return ticks
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            step * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if len(ticks) <= most:
            break
    return ticks if len(ticks) >= 2 else [low, high]


def _apart(values: Sequence[float], low: float, high: float, share: float) -> bool:
    width = math.log(high / low)
    return all(math.log(after / before) >= share * width for before, after in itertools.pairwise(values))


def log_axis(axis, low: float, high: float, preferred: Sequence[float] = (), most: int = 7) -> None:
    """Makes a matplotlib x or y axis logarithmic from `low` to `high` with readable ticks."""
    from matplotlib import ticker

    axes = axis.axes
    (axes.set_xscale if axis.axis_name == "x" else axes.set_yscale)("log")
    axis.set_major_locator(ticker.FixedLocator(log_ticks(low, high, preferred, most)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: count_text(value)))
    axis.set_minor_locator(ticker.NullLocator())
    (axes.set_xlim if axis.axis_name == "x" else axes.set_ylim)(low, high)


def css_colour(light: str) -> str:
    """A light colour as the CSS variable that follows the scheme."""
    return f"var(--{_variables()[light]})"
