"""The claims: every field is there, every place exists, every comparison has its runs, and verdicts follow the rule."""

import json

import pytest

from mixlab.places import ROOT
from mixlab.results import claims, papers, records
from mixlab.results.runs import from_grid

CLAIMS = claims.stated()["claims"]
FIELDS = ["id", "claim", "source", "printed", "experiment", "control", "decides", *claims.PARTS]
FIELDS += ["where", "verdict", "sentence", "code"]
TOLD = ["id", "claim", "source", "experiment", "control", "decides", "sentence"]
COMPARISONS = [(claim["id"], c) for claim in CLAIMS for part in claims.PARTS for c in claim[part]]


def test_every_claim_says_all_there_is_to_say():
    assert len(CLAIMS) == 33 == len({claim["id"] for claim in CLAIMS}) and claims.stated()["rule"]
    for claim in CLAIMS:
        assert list(claim) == FIELDS and all(claim[field] for field in TOLD), claim["id"]
        assert claim["verdict"] in (None, *claims.VERDICTS), claim["id"]
        assert claim["evidence"] or claim["verdict"] or claim["code"], f"{claim['id']}: nothing could ever decide it"
        assert claim["where"] or claim["verdict"] not in ("holds here", "does not"), f"{claim['id']}: decided where?"


def test_claims_are_not_taken_for_a_papers_numbers():
    assert "claims" not in papers.names()
    with pytest.raises(ValueError, match="paper must be one of"):
        papers.rows("claims")


def headings(notebook):
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


@pytest.mark.parametrize("where", sorted({where for claim in CLAIMS for where in claim["where"]}))
def test_the_place_that_a_claim_points_to_exists(where):
    notebook, _, heading = where.partition("#")
    assert heading in headings(notebook)


def known_runs(folder):
    """All that a folder holds or plans, in the words of a comparison."""
    grid = records.FOLDER / folder / "grid.json"
    planned = {(r.data, r.model, r.recipe, r.method) for r in from_grid(grid)} if grid.exists() else set()
    held = records.experiment(folder)
    return planned | {(r.get("data", r["dataset"]), r["model"], r["budget"], m) for m in held for r in held[m]}


def test_every_comparison_has_its_runs_or_a_list_that_makes_them():
    known, listed = {}, claims._listed
    for name, comparison in COMPARISONS:
        for c in (comparison, {**comparison, **comparison["minus"]}) if "minus" in comparison else (comparison,):
            runs = set().union(*(known.setdefault(f, known_runs(f)) for f in listed(c["folder"])))
            for side in ("method", "against"):
                recipe = c.get("against_recipe", c["recipe"]) if side == "against" else c["recipe"]
                for method in map(claims.canonical, listed(c[side])):
                    assert (c["data"], c["model"], recipe, method) in runs, f"{name}: {method}, {recipe}"


BASE = {"folder": "made", "data": "d", "model": "m", "recipe": "r", "method": "Mixup(1.0)", "against": "ERM()"}


@pytest.fixture
def made(tmp_path):
    """A folder to which a test adds runs: made("Mixup(1.0)", [errors, a seed each], …)."""

    def add(method, errors, data="d", recipe="r", **measures):
        shared = {"dataset": data, "data": data, "model": "m", "method": "x", "params": {}, "budget": recipe}
        shared |= {"expression": claims.canonical(method)}
        runs = [
            {"seed": s, "error": e, "measures": {k: v[s] for k, v in measures.items()}} for s, e in enumerate(errors)
        ]
        path = tmp_path / "made" / f"{len(list(tmp_path.rglob('*.json')))}.json"
        records.write({**shared, "runs": runs}, path)
        claims._experiment.cache_clear()

    claims._experiment.cache_clear()
    add.folder = tmp_path
    yield add
    claims._experiment.cache_clear()


def test_a_comparison_is_taken_seed_by_seed_and_below_zero_is_as_claimed(made):
    made("ERM()", [10.0, 20.0, 30.0, 99.0], noise=[1.0, 2.0, 4.0, 0.0])
    made("Mixup(1.0)", [8.0, 19.0, 27.0], noise=[3.0, 3.0, 3.0])
    found = claims.measure(BASE, made.folder)
    assert (found["difference"], found["n"]) == (-2.0, 3) and found["error"] == pytest.approx(1 / 3**0.5)
    assert claims.gaps({**BASE, "of": "noise"}, made.folder) == {0: 2.0, 1: 1.0, 2: -1.0}
    assert claims.gaps({**BASE, "of": "noise - error"}, made.folder) == {0: 4.0, 1: 2.0, 2: 2.0}
    assert claims.gaps({**BASE, "against_of": "noise"}, made.folder) == {0: 7.0, 1: 17.0, 2: 23.0}
    made("Mixup(1.0)", [9.0, 9.0], recipe="long")
    made("ERM()", [5.0, 5.0], data="e")
    made("Mixup(1.0)", [1.0, 3.0], data="e")
    assert claims.gaps({**BASE, "against_recipe": "long", "against": "Mixup(1.0)"}, made.folder) == {0: -1.0, 1: 10.0}
    assert claims.gaps({**BASE, "minus": {"data": "e"}}, made.folder) == {0: 2.0, 1: 1.0}
    assert claims.measure({**BASE, "data": "nowhere"}, made.folder)["n"] == 0


def test_a_setting_is_chosen_by_the_other_seeds(made):
    made("ERM()", [0.0, 0.0, 0.0])
    made("Mixup(1.0)", [1.0, 1.0, 1.0])
    made("Mixup(2.0)", [9.0, 0.0, 0.0])
    assert claims.gaps({**BASE, "method": ["Mixup(1.0)", "Mixup(2.0)"]}, made.folder) == {0: 9.0, 1: 1.0, 2: 1.0}


def compared(difference, error, n=3, **more):
    return {**BASE, "difference": difference, "error": error, "n": n, **more}


CLEAR, NONE, UNSURE, ABSENT = compared(-2, 0.5), compared(0, 0.2), compared(-2, 1.5), compared(None, None, 0)


@pytest.mark.parametrize(
    "evidence, controls, code, stored, verdict",
    [
        ([CLEAR], [CLEAR], "", None, "holds here"),
        ([CLEAR], [CLEAR], "", "does not", "holds here"),
        ([CLEAR], [CLEAR], "a control", None, "not decided"),
        ([CLEAR], [], "", None, "not decided"),
        ([CLEAR], [UNSURE], "", None, "not decided"),
        ([CLEAR], [ABSENT], "", None, "not decided"),
        ([compared(-2, 0.5, n=2)], [CLEAR], "", None, "not decided"),
        ([CLEAR, compared(3, 1)], [CLEAR], "", None, "does not"),
        ([CLEAR], [NONE], "", None, "does not"),
        ([compared(0, 0.2, n=2)], [CLEAR], "", None, "not decided"),
        ([compared(0.1, 0.1, margin=0.5)], [CLEAR], "", None, "holds here"),
        ([compared(0.4, 0.1, margin=0.5)], [CLEAR], "", None, "does not"),
        ([ABSENT], [ABSENT], "", None, "not tried"),
        ([ABSENT], [], "", "does not", "does not"),
        ([], [], "", "holds here", "holds here"),
    ],
)
def test_the_verdict_follows_the_rule(evidence, controls, code, stored, verdict):
    claim = {"evidence": evidence, "controls": controls, "beside": [], "code": code, "verdict": stored}
    assert claims.decide(claim) == verdict
    if verdict == "not tried":
        assert claims.decide({**claim, "beside": [UNSURE]}) == "not decided"


def test_what_is_stored_gives_every_claim_a_verdict():
    found = claims.read()
    assert [claim["id"] for claim in found] == [claim["id"] for claim in CLAIMS]
    assert {claim["verdict"] for claim in found} <= set(claims.VERDICTS)
