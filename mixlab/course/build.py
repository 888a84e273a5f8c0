"""The notebooks as a course: execute them in order, keep the committed outputs clean.

Executed copies lie in build/notebooks; the pages are made by site.py, of what is committed.
"""

import asyncio
import atexit
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from mixlab.course.scales import scale
from mixlab.data.downloads import atomic_write
from mixlab.places import ROOT

NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
FOLDERS = ("", "microscope", "solutions")  # the order in which a lesson's notebooks follow each other
TIMEOUT = {"quick": 600, "full": None}  # seconds a cell may take
SHOWN = ("image/png", "text/plain", "text/markdown", "text/html")  # output types that are committed


def find(names: list[str] = ()) -> list[Path]:
    """The notebooks in the order of the course, each lesson followed by its microscope and its solutions."""
    paths = [path for folder in FOLDERS for path in sorted((NOTEBOOKS / folder).glob("*.ipynb"))]
    paths.sort(key=lambda path: path.stem[:2])
    if not paths:
        raise ValueError(f"names: there are no notebooks in {NOTEBOOKS}; they come with the repository, so clone it")
    known = {_label(path): path for path in paths}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"names: no notebook is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else paths


def run(names: list[str] = (), save: bool = False) -> int:
    """Execute, one line per notebook; 0 if all of them ran to the end, 1 if not, 130 if Ctrl-C stopped it."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see the Makefile
    paths, failures, start = find(names), [], time.perf_counter()
    try:
        for number, path in enumerate(paths, 1):
            print(f"[{number}/{len(paths)}] {_label(path):24}", end=" ", flush=True)
            began, problem = time.perf_counter(), _run_one(path, save)
            print(f"{'failed' if problem else 'ok':6} {time.perf_counter() - began:6.1f} s", flush=True)
            failures += [(path, problem)] if problem else []
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 130
    for path, problem in failures:
        print(f"\n{_label(path)}:\n{problem}")
    done, seconds = len(paths) - len(failures), time.perf_counter() - start
    print(f"{done} of {len(paths)} notebooks in {seconds:.0f} s; executed copies: build/notebooks")
    return int(bool(failures))


def clean(notebook: dict) -> dict:
    """What is committed: pictures with their alternative text, text and tables; no widgets, timings or progress."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        if cell["cell_type"] == "code":
            cell["outputs"] = [_clean_output(out) for out in cell["outputs"] if _is_shown(out)]
    return notebook


def pictures_of(notebook: dict) -> list[tuple[str | None, str]]:
    """Every picture among the outputs: its alternative text, None where there is none, and its file in base 64."""
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    return [(_alt(out), out["data"]["image/png"]) for out in outputs if "image/png" in out.get("data", {})]


def _alt(output: dict) -> str | None:
    return output.get("metadata", {}).get("image/png", {}).get("alt")


def _run_one(path: Path, save: bool) -> str | None:
    """Execute a notebook, write its copy; what went wrong, or None."""
    import nbformat
    from nbclient import NotebookClient

    try:
        notebook = nbformat.read(path, as_version=4)
        before = _sources(notebook)
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT[scale("quick")],
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
            extra_arguments=["--log-level=40"],  # errors only: the lines of progress stay together
        )
        problem = _execute(client)
        _write(BUILD / "notebooks" / path.relative_to(NOTEBOOKS), notebook)
        if problem or not save:
            return problem
        if _sources(nbformat.read(path, as_version=4)) != before:
            return "it was edited while it ran, so nothing was saved: run it again"
        _write(path, clean(notebook))
        return None
    except Exception as problem:  # a file may be broken in any way; the others go on
        return f"{type(problem).__name__}: {problem}"


def _execute(client) -> str | None:
    """Run all cells. In a thread, because nbclient takes Ctrl-C for itself where it can, and then goes on."""
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lambda: asyncio.run(client.async_execute()))
        try:
            while not wait([job], timeout=0.5).done:
                pass
        except KeyboardInterrupt:
            while not wait([job], timeout=0.1).done:  # a kernel that is killed ends the thread
                if client.km is not None and client.km.provisioner is not None and client.km.provisioner.process:
                    client.km.provisioner.process.kill()
            atexit.unregister(client._cleanup_kernel)  # nbclient's: it would complain that there is none
            raise
    problem = job.exception()
    return re.sub(r"\x1b\[[0-9;]*m", "", str(problem) or repr(problem)) if problem else None


def _sources(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells]


def _write(path: Path, notebook) -> None:
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        nbformat.write(notebook, temporary)


def _is_shown(output: dict) -> bool:
    if output["output_type"] == "stream":
        return output["name"] == "stdout"
    data = output.get("data", {})
    return bool(set(data) & set(SHOWN)) and not any("widget" in kind for kind in data)


def _clean_output(output: dict) -> dict:
    if "data" in output:
        output["data"] = {kind: value for kind, value in output["data"].items() if kind in SHOWN}
        output["metadata"] = {"image/png": {"alt": alt}} if (alt := _alt(output)) else {}
        if "image/png" in output["data"]:
            output["data"].pop("text/plain", None)  # "<Figure size …>"
    return output


def _label(path: Path) -> str:
    return path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
