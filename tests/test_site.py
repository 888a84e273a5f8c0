"""The pages as a reader has them: opened from their files, in a browser, wide and on a phone."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

from mixlab.course import site
from mixlab.places import ROOT

MISSING = [name for name in (*site.NEEDED, "playwright") if find_spec(name) is None]
WHY = f"without {', '.join(MISSING)}: pip install -e '.[site,browser]'"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=WHY)]
PATIENCE = 300_000  # milliseconds: long, for a machine that does other things too
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
MARGIN = 16  # pixels beside the text on a phone, into which headings and tables may reach
LOOK = """() => {
    const article = document.querySelector("article"), words = article.cloneNode(true);
    words.querySelectorAll("pre, code, math, .toctree-wrapper").forEach(part => part.remove());
    return {
        links: [...document.querySelectorAll("a[href]")].map(a => a.href),
        ids: [...document.querySelectorAll("[id]")].map(part => part.id),
        pictures: [...article.querySelectorAll("img")].map(
            i => [i.alt, i.naturalWidth, i.getBoundingClientRect().right]),
        equations: article.querySelectorAll("math[display=block]").length,
        inline: article.querySelectorAll("math").length,
        words: words.textContent,
        ways: ["prev", "next"].filter(way => document.querySelector(`.related-pages .${way}-page`)),
        home: Boolean(document.querySelector(".sidebar-brand, .header-center a")),
        contents: document.querySelectorAll(".sidebar-tree a").length,
        sideways: article.scrollWidth - article.clientWidth,
        phone: document.documentElement.scrollWidth,
    };
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of the pages, built as `mixlab site` builds them, without one word of complaint."""
    folder = tmp_path_factory.mktemp("build")
    code = f"import pathlib, sys; from mixlab.course import site; sys.exit(site.run(pathlib.Path({str(folder)!r})))"
    built = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def browser():
    """A browser's window; `new_page` opens a tab."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            chromium = playwright.chromium.launch(executable_path=path)
        except Error as problem:
            pytest.skip(
                f"no Chromium to open the pages in: playwright install chromium ({str(problem).splitlines()[0]})"
            )
        context = chromium.new_context()
        context.set_default_timeout(PATIENCE)
        yield context
        chromium.close()


@pytest.fixture(scope="module")
def seen(browser, pages):
    """What every page shows at the width of a phone, then its width at a desk; what it asked for and complained of."""
    tab, found = browser.new_page(), {}
    complaints, requests = [], []
    tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda problem: complaints.append(str(problem)))
    tab.on("request", lambda request: requests.append(request.url))
    for page in sorted(pages.rglob("*.html")):
        complaints.clear(), requests.clear()
        tab.set_viewport_size(PHONE)
        tab.goto(page.as_uri(), wait_until="load")
        look = tab.evaluate(LOOK)
        tab.set_viewport_size(DESK)
        look["desk"] = tab.evaluate("document.documentElement.scrollWidth")
        found[page] = {**look, "complaints": [*complaints], "requests": [*requests]}
    return found


def named(seen, broken):
    """The pages for which something is wrong, and what: readable when a test fails."""
    return {page.name: wrong for page, look in seen.items() if (wrong := broken(look))}


def test_nothing_is_asked_for_outside_and_no_page_complains(seen):
    assert len(seen) > 40
    assert named(seen, lambda look: look["complaints"]) == {}
    assert named(seen, lambda look: [url for url in look["requests"] if not url.startswith(("file:", "data:"))]) == {}


def test_every_link_leads_to_a_page_and_a_place_that_are_there(seen):
    ids = {page: set(look["ids"]) for page, look in seen.items()}

    def dead(link):
        file, _, anchor = link.removeprefix("file://").partition("#")
        page, anchor = Path(unquote(file)), unquote(anchor)
        return not page.is_file() or (anchor not in ("", "top") and page in ids and anchor not in ids[page])

    assert named(seen, lambda look: [url for url in look["links"] if url.startswith("file:") and dead(url)]) == {}
    assert named(seen, lambda look: [url for url in look["links"] if not re.match("https?:|file:|mailto:", url)]) == {}


def test_equations_stand_where_the_notebook_has_them_and_no_tex_is_left(seen, pages):
    assert named(seen, lambda look: re.findall(r"\$\$|\\[a-zA-Z]{2,}", look["words"])) == {}
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        page = (pages / path.relative_to(ROOT / "notebooks")).with_suffix(".html")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        words = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        words = re.sub(r"```.*?```|`[^`\n]*`", "", words, flags=re.S)
        blocks = len(re.findall(r"\$\$.*?\$\$", words, re.S))
        dollars = re.sub(r"\$\$.*?\$\$", "", words, flags=re.S).count("$")
        assert seen[page]["equations"] == blocks and seen[page]["inline"] >= blocks + dollars // 2, path


def test_an_equation_becomes_mathml_and_what_is_none_is_refused():
    from math_core import LatexError

    assert "<mfrac" in site.mathml(r"\tfrac12", block=False) and "display=" in site.mathml("x", block=True)
    assert "$" not in site.mathml(r"x \text{ (of $k$ points)}", block=True)
    with pytest.raises(LatexError):
        site.mathml(r"\nosuchword", block=False)


def test_pictures_are_there_described_and_fit_a_phone(seen):
    assert sum(len(look["pictures"]) for look in seen.values()) > 100

    def wrong(look):
        return [
            alt for alt, width, right in look["pictures"] if len(alt.split()) < 3 or not width or right > PHONE["width"]
        ]

    assert named(seen, wrong) == {}


def test_no_page_is_wider_than_the_screen(seen):
    assert named(seen, lambda look: look["phone"] > PHONE["width"] and look["phone"]) == {}
    assert named(seen, lambda look: look["sideways"] > MARGIN and look["sideways"]) == {}, "something is cut off"
    assert named(seen, lambda look: look["desk"] > DESK["width"] and look["desk"]) == {}


def test_every_page_leads_on_back_and_home(seen, pages):
    assert named(seen, lambda look: not look["home"] or look["contents"] < 15) == {}
    assert seen[pages / "index.html"]["ways"] == ["next"] and seen[pages / "index.html"]["pictures"]
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        page = (pages / path.relative_to(ROOT / "notebooks")).with_suffix(".html")
        assert seen[page]["ways"] == ["prev", "next"], path


def test_search_finds_a_word_and_a_name(browser, pages):
    tab = browser.new_page()
    for word, page in (("clerk", "01_mixup.html"), ("InfiniteClass", "code/infinite.html")):
        tab.goto((pages / "search.html").as_uri() + f"?q={word}")
        tab.wait_for_selector("#search-results li a")
        assert any(
            page in link for link in tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
        )


def test_dark_mode_follows_the_reader_and_the_button(browser, pages):
    tab = browser.new_page()
    tab.emulate_media(color_scheme="dark")
    tab.goto((pages / "index.html").as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(background)
    for _ in range(2):  # from what the system says to light, by the button
        tab.locator(".theme-toggle:visible").first.click()
        if tab.evaluate(background) != dark:
            break
    assert tab.evaluate(background) == "rgb(255, 255, 255)" != dark
