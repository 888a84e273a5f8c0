"""The course as pages that open from a file: lessons as executed, the code, the results; by Sphinx.

build/site/    the sources, put together anew each time        build/html/    the pages, index.html first

Equations become MathML here, which browsers draw by themselves; nothing on a page is fetched from anywhere.
"""

import json
import os
import re
import shutil
import tomllib
from base64 import b64decode
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from mixlab.course import build
from mixlab.course.build import find, pictures_of
from mixlab.course.reference import METHODS, ROOMS, code_pages, results_pages, toctree
from mixlab.places import ROOT

NEEDED = ("sphinx", "myst_nb", "furo", "math_core", "ziamath")
CODE = r"```.*?```|`[^`\n]*`"  # where brackets are no link
LINK = re.compile(CODE + r"|(?<!!)\[([^\[\]]*)\]\((?!https?:|mailto:|attachment:|#)([^)#\s]+)(#[^)\s]*)?\)", re.S)
STYLE = Path(__file__).with_name("site.css")
ABOUT = {
    "data/README.md": "about/data.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "CHANGELOG.md": "about/changes.md",
}
FOLDERS = {"microscope": "Under the microscope", "solutions": "Solutions", "guides": "Guides"}
HOMES = {
    "README.md": "index.md",
    "notebooks": "index.md",
    "data/runs": "results/index.md",
    "data/papers": "results/index.md",
}
SHARP = 0.75  # the size of a figure's pixel on a page: below one, so that figures are sharp on fine screens too
SLIDER = "*In Jupyter a slider stands here. On this page, pictures nearby show some of its positions.*"
CONFIG = {
    "project": "mixlab",
    "html_title": "mixlab",
    "extensions": ["myst_nb", "mixlab.course.site"],
    "html_theme": "furo",
    "html_theme_options": {"top_of_page_buttons": []},
    "html_css_files": ["site.css"],
    "html_math_renderer": "mathml",
    "html_show_search_summary": False,  # it fetches pages, which browsers forbid where they are files
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_use_index": False,
    "html_domain_indices": False,
    "add_module_names": False,
    "highlight_language": "none",  # of what names no language: the equations of docstrings, results of cells
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "gfm",
    "myst_enable_extensions": ["dollarmath", "colon_fence"],
    "myst_heading_anchors": 4,
    "myst_heading_slug_func": "mixlab.course.site.slug",
    "suppress_warnings": ["myst.xref_missing", "myst.header"],  # links to <a id=…>; the browser test follows every link
}


def run(folder: Path = build.BUILD) -> int:
    """Put the sources together and build the pages under a folder; 0 if Sphinx had nothing to complain about."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"site needs {', '.join(missing)}: make site installs it, or pip install -e '.[site]'")
    from sphinx.application import Sphinx

    sources, pages, cache = parts = [folder / name for name in ("site", "html", "doctrees")]
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    assemble(sources)
    config = {**CONFIG, "html_static_path": [str(sources / "_static")]}
    app = Sphinx(sources, None, pages, cache, "html", config, status=None, warningiserror=True)
    app.build()
    print(f"{len(app.env.found_docs)} pages: {pages / 'index.html'}")
    return app.statuscode


def assemble(folder: Path) -> None:
    """All sources of the site, under a folder: notebooks as they lie, and pages made of code and records."""
    places = _places()
    shutil.copytree(build.NOTEBOOKS, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*", "__pycache__"))  # pictures
    for path, place in places.items():
        if path.endswith((".ipynb", ".md")) and place != "index.md":
            _write(folder / place, _copied(ROOT / path, places))
    for place, text in {**code_pages(), **results_pages()}.items():
        _write(folder / place, text)
    for name, title in FOLDERS.items():
        pages = sorted(p.stem for p in (folder / name).glob("*.*"))
        if pages:
            _write(folder / name / "index.md", f"# {title}\n\n{toctree(pages)}")
    _write(folder / "index.md", _index(folder))
    _write(folder / "_static" / "site.css", STYLE.read_text(encoding="utf-8"))
    font = files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    (folder / "_static" / font.name).write_bytes(font.read_bytes())


def slug(heading: str) -> str:
    """The anchor of a heading, as Jupyter makes it."""
    return heading.replace(" ", "-")


def setup(app) -> dict:
    """Sphinx asks this of an extension: how equations are written, and pictures named."""
    app.add_html_math_renderer("mathml", (_writer(False), None), (_writer(True), None))
    app.connect("doctree-read", _name_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _places() -> dict[str, str]:
    """Every file or folder of the repository that has a page, and the page: this is how links are led."""
    places = {path.relative_to(ROOT).as_posix(): path.relative_to(build.NOTEBOOKS).as_posix() for path in find()}
    guides = sorted((build.NOTEBOOKS / "guides").glob("*.md"))
    places |= {path.relative_to(ROOT).as_posix(): f"guides/{path.name}" for path in guides}
    places |= {f"notebooks/{name}": f"{name}/index.md" for name in FOLDERS if (build.NOTEBOOKS / name).is_dir()}
    places |= {f"mixlab/{name}.py": f"code/{name}.md" for name in METHODS}
    for room in ROOMS:
        files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "mixlab" / room).glob("*.py")]
        places |= dict.fromkeys([f"mixlab/{room}", *files], f"code/{room}.md")
    return {**places, **ABOUT, **HOMES}


def _copied(path: Path, places: dict[str, str]) -> str:
    """A notebook or a Markdown file as the site has it: links lead to pages, and a word stands where a slider was."""
    relink = _relinker(path, places)
    if path.suffix == ".md":
        return relink(path.read_text(encoding="utf-8"))
    notebook, cells = json.loads(path.read_text(encoding="utf-8")), []
    for cell in notebook["cells"]:
        cells.append(cell)
        if cell["cell_type"] == "markdown":
            cell["source"] = relink("".join(cell["source"]))
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/markdown" in data:
                shown = relink("".join(data["text/markdown"]))  # Sphinx leads links of cells to pages, not of outputs
                data["text/markdown"] = re.sub(r"(?<=\w)\.(ipynb|md)(?=[#)])", ".html", shown)
        if "slider" in cell["metadata"].get("tags", []):
            cells.append({"cell_type": "markdown", "id": f"slider-{len(cells)}", "metadata": {}, "source": SLIDER})
    return json.dumps({**notebook, "cells": cells})


def _relinker(path: Path, places: dict[str, str]):
    """What turns links in the text of a file into links between pages; what has no page keeps its words only."""
    here = places[path.relative_to(ROOT).as_posix()]

    def led(link: re.Match) -> str:
        words, target, anchor = link.groups("")
        if not target:
            return link[0]  # code
        file = Path(os.path.relpath(path.parent / target, ROOT)).as_posix()
        if file not in places:
            return words
        page = Path(os.path.relpath(places[file], Path(here).parent)).as_posix()
        return f"[{words}]({page}{anchor if file.endswith(('.md', '.ipynb')) else ''})"

    return lambda text: LINK.sub(led, text)


def _index(folder: Path) -> str:
    """The first page: what this is and what it shows, and the contents, in the order of next and previous."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lessons = [path.stem for path in find() if path.parent == build.NOTEBOOKS]
    rest = [f"{name}/index" for name in (*FOLDERS, "results", "code") if (folder / name / "index.md").exists()]
    about = [place.removesuffix(".md") for place in ABOUT.values()]
    head = f"{project['description']}. You see every lesson here as it was executed, with its pictures and numbers."
    ways = f"To run it and to solve its exercises, clone <{project['urls']['Repository']}> and type `make lab`."
    trees = (toctree(lessons, "Lessons"), toctree(rest, "Further"), toctree(about, "About"))
    return "\n\n".join(["# mixlab", head, _cover(folder), ways, *trees])


def _cover(folder: Path) -> str:
    """The README's picture and the words for who does not see it: what mixing buys."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    alt, file = re.search(r"!\[(.+?)\]\((.+?\.png)\)", readme).groups()
    shutil.copy(ROOT / file, folder / "cover.png")
    return f"![{alt}](cover.png)"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mathml(equation: str, block: bool) -> str:
    """An equation in TeX as MathML."""
    from math_core import LatexToMathML

    within = re.compile(r"\\text\{[^{}]*\}")  # \text{of $k$ points}: mathematics within text
    equation = within.sub(lambda text: re.sub(r"\$([^$]*)\$", r"}\1\\text{", text[0]), equation)
    return LatexToMathML(fancy_error=False).convert_with_local_state(equation, displaystyle=block)


def _writer(block: bool):
    """What writes a node of mathematics to a page; an equation that is none is a warning, which fails the build."""

    def visit(page, node):
        from docutils.nodes import SkipNode
        from math_core import LatexError
        from sphinx.util.logging import getLogger

        try:
            equation = mathml(node.astext(), block)
        except LatexError as problem:
            getLogger(__name__).warning("%s in %s", problem, node.astext(), location=node)
            raise SkipNode from None
        page.body.append(f'<div class="math">{equation}</div>' if block else equation)
        raise SkipNode

    return visit


def _name_pictures(app, doctree) -> None:
    """Give every picture its alternative text, from its cell or else the heading above it, and a size at which it is
    sharp; what has a size is also a link to the picture alone, which a phone can show larger."""
    from docutils import nodes

    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix != ".ipynb":
        return
    notebook = json.loads(source.read_text(encoding="utf-8"))
    shown = [node for node in doctree.findall(nodes.container) if "cell_output" in node["classes"]]
    pictures = [picture for node in shown for picture in node.findall(nodes.image)]
    for picture, (alt, data) in zip(pictures, pictures_of(notebook), strict=True):
        picture["alt"] = alt or f"A figure of: {_heading(picture, nodes)}"
        picture["width"] = f"{int.from_bytes(b64decode(data[:40])[16:20], 'big') * SHARP:.0f}px"


def _heading(node, nodes) -> str:
    while not isinstance(node, nodes.section):
        node = node.parent
    return node.next_node(nodes.title).astext()
