"""The page in a real browser: widths, colours, keys and paper. Needs playwright and a Chromium."""

import re
import shutil

import pytest

from scaling_jax.reports.build import build_report
from tests.reports import simulated_study
from tests.reports.test_recommended import advise

pytestmark = pytest.mark.slow
api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")

# Of every text: its colour, that of the nearest background below it, its size. A shade that is an image is
# left out, as are hidden texts.
COLOURS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const opaque = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const drawn = element.closest('svg') ? style.fill : style.color;
    found.push([walker.currentNode.data.trim().slice(0, 40), drawn, opaque(element)]);
  }
  return found;
}"""
FOCUSED = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  const key = [...document.querySelectorAll('*')].indexOf(one);
  return {key, tag: one.tagName, text: one.textContent.trim().slice(0, 40), outline: style.outlineStyle,
          seen: box.bottom > 0 && box.top < innerHeight && box.right > 0};
}"""
REACHABLE = """() => {
  const all = [...document.querySelectorAll('*')];
  return all.filter((one) => one.matches('a[href], summary, [tabindex="0"]') && one.checkVisibility())
            .map((one) => all.indexOf(one));
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = simulated_study.write_study(tmp_path_factory.mktemp("study") / "study")
    simulated_study.write_made_fits(folder)
    advise(folder)
    return build_report(folder).as_uri()


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as started:
        try:
            opened = started.chromium.launch(
                executable_path=shutil.which("chromium") or None, args=["--no-sandbox"]
            )
        except api.Error as error:
            pytest.skip(f"no Chromium: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    opened = browser.new_page()
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.goto(address)
    yield opened
    opened.close()


def luminance(colour: str) -> float:
    """Relative luminance of rgb(...), as WCAG 2 has it."""
    shares = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [320, 500, 768, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert paper > 0.8 if scheme == "light" else paper < 0.05
    texts = page.evaluate(COLOURS)
    assert len(texts) > 200
    faint = [
        (text, round(contrast(ink, below), 2)) for text, ink, below in texts if contrast(ink, below) < 4.5
    ]
    assert not faint


def test_the_keyboard_reaches_and_shows_everything(page):
    page.emulate_media(reduced_motion="reduce")  # nothing glides
    page.keyboard.press("Tab")
    first = page.evaluate(FOCUSED)
    assert first["text"] == "Skip to the evidence" and first["seen"]
    reached = {first["key"]}
    for _ in range(1000):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None or focused["key"] in reached:
            break
        reached.add(focused["key"])
        assert focused["seen"] and focused["outline"] != "none", focused
    assert reached == set(page.evaluate(REACHABLE))


def test_keys_skip_open_and_scroll(page):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "evidence"
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    folded = page.locator("details").first
    folded.locator("summary").first.focus()
    was = folded.evaluate("one => one.open")
    page.keyboard.press("Enter")
    assert folded.evaluate("one => one.open") is not was
    page.set_viewport_size({"width": 360, "height": 900})
    table = page.locator(".scroll").first
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("one => one.scrollLeft > 0", arg=table.element_handle())


def test_paper_is_white_and_whole(page, tmp_path):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 680, "height": 1000})  # A4 within its margins
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert not page.locator("nav.contents").is_visible() and not page.locator(".skip").is_visible()
    wide = "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > 681)"
    assert (
        page.evaluate(f"{wide}.map((one) => one.tagName + ' ' + one.textContent.trim().slice(0, 40))") == []
    )
    cut = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > 680).length"
    assert page.evaluate(cut) == 0
    closed = page.locator("details:not([open])")
    assert closed.count() > 0
    shown = "one => one.offsetHeight > 1.5 * one.querySelector('summary').offsetHeight"
    assert all(one.evaluate(shown) for one in closed.all())
    printed = page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1
