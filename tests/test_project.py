"""What holds the repository together: one list of dependencies, a light import, honest tests, true documents."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mixlab.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
SETUP = {"tags": ["remove-cell"]}  # of the cell that fetches the course where it is missing: not all Python


def python(*arguments, **environment):
    """A fresh interpreter at the root of the repository."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_environment_yml_installs_what_pyproject_lists_and_nothing_else():
    text = re.sub(r"#.*", "", (ROOT / "environment.yml").read_text(encoding="utf-8"))
    items = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("- ")]
    assert items == ["conda-forge", "python>=3.11,<3.15", "pip", "pip:", "-e .[jupyter,test]"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"jupyter", "test"} <= set(PROJECT["optional-dependencies"])


def test_the_module_needs_seven_packages_and_every_bound_is_a_lower_bound():
    listed = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", r) for r in listed if not r.startswith("ruff"))
    needed = {requirement.split(">=")[0] for requirement in PROJECT["dependencies"]}
    assert needed == {"torch", "torchvision", "scipy", "matplotlib", "scikit-learn", "tqdm", "filelock"}


def test_ruff_is_the_same_everywhere():
    (pin,) = [r for r in PROJECT["optional-dependencies"]["test"] if r.startswith("ruff")]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.fullmatch(r"ruff==[\d.]+", pin) and re.findall(r"rev: v([\d.]+)", hooks) == [pin.removeprefix("ruff==")]


def test_every_folder_of_the_package_is_in_the_wheel():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "mixlab").rglob("__init__.py")}
    assert set(packages) == folders | {"mixlab.papers"}


@pytest.mark.slow
def test_import_needs_no_extra_and_pulls_in_nothing_heavy():
    """With Jupyter and the test tools made impossible to import, every module still imports."""
    extras = "IPython ipywidgets nbformat nbclient nbconvert jupyter_client pytest hypothesis ot".split()
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "mixlab").rglob("*.py")]
    modules = [".".join(path.parts) for path in paths if path.name not in ("__main__", "__init__")]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({[*extras, "timm"]}))
import mixlab
assert not {{"matplotlib", "scipy", "sklearn", "torchvision"}} & set(sys.modules), "import mixlab is heavy"
for name in {modules}:
    importlib.import_module(name)
"""
    result = python("-W", "error", "-c", code)
    assert result.returncode == 0, result.stderr


def test_every_module_is_small():
    for path in (ROOT / "mixlab").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path.name


def test_the_changelog_has_the_version_and_ci_runs_the_readmes_test_command():
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8") and "make test" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_in_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *(ROOT / "notebooks" / "guides").glob("*.md")]
    sources = {path: path.read_text(encoding="utf-8") for path in documents}
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for path, text in sources.items():
        for link in re.findall(r"\]\((?!https?://|#|attachment:)([^)#\s]+)", text):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def python_sources():
    """(name, source) of every test file and every notebook's code."""
    for path in sorted((ROOT / "tests").glob("*.py")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and cell["metadata"] != SETUP]
        yield path.name, "\n\n".join(re.sub(r"^[%!].*", "", cell, flags=re.M) for cell in code)


def called(node):
    """The names of all functions called inside a node."""
    calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def asserts(node, helpers=()):
    """Does a function assert, expect an exception, or call one that does?"""
    names = called(node)
    by_call = names & {"raises", "warns", "refuses", *helpers} or any(name.startswith("assert") for name in names)
    return bool(by_call) or any(isinstance(inner, ast.Assert) for inner in ast.walk(node))


def complaints(source):
    """Comparisons thrown away, and tests that assert nothing."""
    nodes = list(ast.walk(ast.parse(source)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    helpers = {function.name for function in functions if not function.name.startswith("test_") and asserts(function)}
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare):
            yield f"line {node.lineno}: a comparison thrown away"
    for function in functions:
        if function.name.startswith("test_") and not asserts(function, helpers):
            yield f"{function.name} asserts nothing"


def test_no_test_or_notebook_throws_a_comparison_away_or_asserts_nothing():
    for name, source in python_sources():
        assert list(complaints(source)) == [], name


def test_the_walk_of_the_syntax_tree_sees_what_it_looks_for():
    assert list(complaints("x = 1\nx == 2")) == ["line 2: a comparison thrown away"]
    assert list(complaints("def test_a():\n    f(1)")) == ["test_a asserts nothing"]
    assert list(complaints("def test_a():\n    with pytest.raises(ValueError):\n        f()")) == []
    assert list(complaints("def g():\n    assert 1\ndef h():\n    1\ndef test_a():\n    g()")) == []
    assert list(complaints("def g():\n    assert 1\ndef h():\n    1\ndef test_a():\n    h()")) == [
        "test_a asserts nothing"
    ]


def test_no_word_of_where_it_was_made():
    for pattern in ("*.md", "*.toml", "*.yml", "mixlab/**/*.py", "bench/*.py", "tests/*.py"):
        for path in ROOT.glob(pattern):
            assert not re.search(r"/(home|root|work|Users)/\w", path.read_text(encoding="utf-8")), path.name


def test_python_paths_are_the_repositorys():
    assert Path(__import__("mixlab").__file__).parents[1] == ROOT
