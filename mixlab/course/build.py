"""The notebooks as a course: execute them in order, write browsable pages, keep the committed outputs clean.

build/notebooks/   executed copies        build/html/   a page each, and index.html
"""

import base64
import io
import json
import os
import re
import time
from pathlib import Path

from mixlab.course.cut import cut
from mixlab.course.scales import scale
from mixlab.data.downloads import whole
from mixlab.places import ROOT

NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
TIMEOUT = {"quick": 600, "full": None}  # seconds a cell may take
SHOWN = ("image/png", "text/plain", "text/markdown", "text/html")  # output types that are committed


def find(names: list[str] = ()) -> list[Path]:
    """The notebooks in the order of the course, each followed by its solutions; or those of the given names."""
    paths = [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")]
    paths.sort(key=lambda path: (path.stem, len(path.parts)))
    known = {_label(path): path for path in paths}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no notebook is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else paths


def run(names: list[str] = (), save: bool = False) -> int:
    """Execute, one line per notebook; 0 if all of them ran to the end, 1 if not."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see the Makefile
    paths, failures, start = find(names), [], time.perf_counter()
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {_label(path):24}", end=" ", flush=True)
        began = time.perf_counter()
        notebook, problem = _execute(path)
        _write_copies(path, notebook)
        print(f"{'failed' if problem else 'ok':6} {time.perf_counter() - began:6.1f} s", flush=True)
        if problem:
            failures.append((path, problem))
        elif save:
            _save(path, notebook)
    _write_index()
    for path, problem in failures:
        print(f"\n{_label(path)}:\n{problem}")
    print(f"{len(paths) - len(failures)} of {len(paths)} notebooks in {time.perf_counter() - start:.0f} s; ", end="")
    print("pages: build/html/index.html")
    return int(bool(failures))


def clean(notebook: dict) -> dict:
    """What is committed: pictures, text and tables; no widgets, progress bars, timings or traces of a machine."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        if cell["cell_type"] == "code":
            cell["outputs"] = [_clean_output(out) for out in cell["outputs"] if _is_shown(out)]
    return notebook


def _execute(path: Path):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT[scale("quick")],
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--log-level=40"],  # errors only: the lines of progress stay together
    )
    try:
        client.execute()
    except (CellExecutionError, TimeoutError, RuntimeError) as problem:  # a cell failed, hung, or its kernel died
        return notebook, re.sub(r"\x1b\[[0-9;]*m", "", str(problem))
    return notebook, None


def _write_copies(path: Path, notebook) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    inside = path.relative_to(NOTEBOOKS)
    copy, page = BUILD / "notebooks" / inside, (BUILD / "html" / inside).with_suffix(".html")
    copy.parent.mkdir(parents=True, exist_ok=True)
    page.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)
    linked = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for cell in linked.cells:  # pages link to pages
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(([\w./-]+)\.ipynb\)", r"](\1.html)", cell.source)
    html, _ = HTMLExporter().from_notebook_node(linked, resources={"metadata": {"name": path.stem}})
    page.write_text(html, encoding="utf-8")


def _write_index() -> None:
    pages = sorted((BUILD / "html").rglob("[0-9]*.html"), key=lambda p: (p.stem, len(p.parts)))
    links = [p.relative_to(BUILD / "html") for p in pages]
    items = "\n".join(f'<li><a href="{link.as_posix()}">{link.with_suffix("").as_posix()}</a></li>' for link in links)
    style = "<style>body{font:16px/1.7 system-ui;max-width:40em;margin:3em auto;padding:0 1em}</style>"
    text = f'<!doctype html><meta charset="utf-8"><title>mixlab</title>{style}<h1>mixlab</h1>\n<ul>\n{items}\n</ul>\n'
    (BUILD / "html" / "index.html").write_text(text, encoding="utf-8")


def _save(path: Path, notebook) -> None:
    cleaned = clean(json.loads(json.dumps(notebook)))
    _write_notebook(path, cleaned)
    if path.parent.name == "solutions":
        _write_notebook(NOTEBOOKS / "exercises" / path.name, cut(cleaned))


def _write_notebook(path: Path, notebook: dict) -> None:
    import nbformat

    text = nbformat.writes(nbformat.from_dict(notebook))
    path.parent.mkdir(exist_ok=True)
    with whole(path) as temporary:
        Path(temporary).write_text(text + "\n", encoding="utf-8")


def _is_shown(output: dict) -> bool:
    if output["output_type"] == "stream":
        return output["name"] == "stdout"
    data = output.get("data", {})
    return bool(set(data) & set(SHOWN)) and not any("widget" in kind for kind in data)


def _clean_output(output: dict) -> dict:
    if "data" in output:
        output["data"] = {kind: value for kind, value in output["data"].items() if kind in SHOWN}
        output["metadata"] = {}
        if "image/png" in output["data"]:
            output["data"].pop("text/plain", None)  # "<Figure size …>"
            output["data"]["image/png"] = _small_png(output["data"]["image/png"])
    return output


def _small_png(encoded: str | list[str]) -> str:
    """The picture in 255 colours: a third of the size, and no difference that an eye would find."""
    from PIL import Image

    encoded = encoded if isinstance(encoded, str) else "".join(encoded)
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "P":  # made small before
        return encoded
    file = io.BytesIO()
    picture.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode() + "\n"


def _label(path: Path) -> str:
    return path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
