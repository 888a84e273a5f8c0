"""Every printed number has runs that answer it, or a word why not; a run answers the rows it should, and no other."""

import json
import warnings
from collections import Counter, defaultdict
from dataclasses import asdict

import pytest

from mixlab.kmixup import expected_min_square, mean_square
from mixlab.results import papers, report, tables
from mixlab.results.expressions import as_recorded, build_method, load_data
from mixlab.results.runs import from_table, make_run
from mixlab.results.tables import plan_row
from mixlab.training.recipes import recipe

ROWS = papers.rows_of(None)
DISTANCES = {str(k): 6000.0 * 0.97 ** (k.bit_length() - 1) for k in (1, 2, 4, 8, 16, 32, 64)}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """As if the distances of all sets had been measured."""
    sets = ("cifar10", "cifar100", "svhn", "mnist", "tiny-imagenet", "speech-commands")
    for name in sets:
        (tmp_path / f"{name}.json").write_text(json.dumps(DISTANCES))
    monkeypatch.setattr(tables, "DISTANCES", tmp_path)


def row(paper, table, **wanted):
    """The one row of a table whose params (or other keys) are these."""
    found = [r for r in papers.rows(paper, table) if all({**r, **r["params"]}.get(k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def record_of(plan, seed=0, error=10.0):
    """What `runs.do` would write of a plan."""
    run = make_run(plan.data, plan.model, plan.trained(), plan.recipe, seed)
    measures = {f"noise_{eps}": error for eps in (8, 10, 12, 14)}
    measures |= {f"fgsm_{eps}": error for eps in ("0.5", 1, 2, 4, 8, 16)}
    record = {"dataset": run.data, "data": run.data, "model": run.model, **as_recorded(build_method(run.method, 0))}
    record |= {"budget": run.recipe, "recipe": asdict(recipe(run.recipe)), "seed": seed}
    return json.loads(json.dumps({**record, "error": error, "device": "a CPU", "measures": measures}))


def key(line):
    return json.dumps([line[k] for k in ("paper", "table", "dataset", "model", "method", "params")])


def test_every_row_has_runs_or_a_word():
    words = Counter(plan for plan in map(plan_row, ROWS) if isinstance(plan, str))
    assert len(ROWS) == 765
    assert words == {
        "small networks, many at once: the k-mixup notebook trains them": 155,
        "medical images: no access": 24,
        "no protocol printed": 6,
        "no such method here": 1,
    }


def test_the_runs_of_a_row_answer_it_and_no_row_with_other_runs(measured):
    """All 579 rows that can be run: each run is recorded on a device of its own, by which the report tells it again."""
    planned = {key(r): plan_row(r) for r in ROWS if not isinstance(plan_row(r), str)}
    assert len(planned) == 579
    runs = {}
    for plan in (plan for plans in planned.values() for plan in plans):
        runs.setdefault((plan.data, plan.model, plan.trained(), recipe(plan.recipe).batch_size), plan)
    names = {f"device {i}": run for i, run in enumerate(runs)}
    records = [{**record_of(runs[run]), "device": device} for device, run in names.items()]
    answered = defaultdict(list)
    for line in report.compare(ROWS, records):
        if line["n"]:
            answered[key(line)].append(names[line["device"]])
    for cell, plans in planned.items():
        if len(plans) > 1:  # the best of a sweep, whose runs are on one device
            (line,) = report.compare([r for r in ROWS if key(r) == cell], [record_of(plan) for plan in plans])
            assert line["n"] == 1 and cell not in answered
            continue
        (plan,) = plans
        assert answered[cell], cell
        for data, model, method, batch_size in answered[cell]:
            free_model = json.loads(cell)[3] is None  # the paper names no network: any of them answers
            assert (data, method) == (plan.data, plan.trained()) and (free_model or model == plan.model)
            assert plan.batch_size in (None, batch_size)
    strangers = {json.loads(cell)[1] for cell in set(answered) - set(planned)}
    assert strangers == {"natural_resnet18"}  # ERM, whose protocol the poster does not state, goes by its name


@pytest.mark.slow
def test_every_plan_is_a_run(measured):
    for found in {plan for r in ROWS for plan in plan_row(r) if not isinstance(plan_row(r), str)}:
        run = make_run(found.data, found.model, found.trained(), found.recipe, 0)
        assert (run.data, run.model, run.recipe) == (found.data, found.model, found.recipe)
        if not found.held:
            assert run.method == found.method


def test_each_row_at_its_own_data_network_and_protocol():
    resnet = {"dataset": "CIFAR-10", "model": "ResNet-50"}
    for paper, table, wanted, words in [
        ("infinite", "table1_left", {"batch_size": 64, "axis": "pair"}, ("cifar100", "infinite(batch_size=64)")),
        ("infinite", "table1_right", {"fraction": 0.25, "method": "ERM"}, ("cifar100(fraction=0.25)", "infinite")),
        ("infinite", "table2_middle_from_text", {"alpha": 20}, ("cifar10(per_class=50)", "infinite")),
        ("infinite", "table2_right_from_text", {"method": "Remix"}, ("cifar100(long_tailed=0.01)", "infinite")),
        (
            "lamix",
            "table1",
            {**resnet, "dataset": "MNIST", "method": "mixup"},
            ("mnist(size=32)", "lamix(augment=False)"),
        ),
        ("lamix", "table3", {**resnet, "method": "PuzzleMix"}, ("cifar10", "lamix-puzzlemix")),
        ("lamix", "table3", {**resnet, "method": "ERM"}, ("cifar10", "lamix")),
        ("kmixup", "table8", {"alpha": 0.1, "k": 4}, ("cifar10", "kmixup-manifold")),
        ("kmixup", "table5", {"method": "ERM"}, ("speech-commands", "kmixup-speech")),
        ("confusion", "table1", {"dataset": "CIFAR-100", "method": "mixup"}, ("cifar100", "confusion-cifar100")),
    ]:
        (plan,) = plan_row(row(paper, table, **wanted))
        assert (plan.data, plan.recipe) == words
    assert plan_row(row("lamix", "table4", model="ResNet-50", method="PuzzleMix"))[0].model == "resnet50(stem_stride=2)"
    assert plan_row(row("kmixup", "table3", method="ERM"))[0].model == "preact_resnet18"
    assert plan_row(row("kmixup", "table7b", k=1, fgsm_eps=2))[0].model == "lenet"
    assert "ciFAIR" in plan_row(row("infinite", "table2_middle_from_text", alpha=20))[0].note


def test_recipes_are_the_protocols_that_the_papers_state():
    for paper, names in {
        "kmixup": ("image_default", "speech"),
        "confusion": ("cifar10", "cifar100"),
        "lamix": ("random_mixing", "puzzlemix"),
        "infinite": ("default",),
    }.items():
        for name in names:
            stated, ours = papers.read(paper)["protocols"][name], recipe(tables.RECIPES[name])
            for field in ("epochs", "lr", "batch_size", "weight_decay", "momentum"):
                assert stated[field] in (None, getattr(ours, field)), (name, field)
    assert recipe("lamix-puzzlemix").epochs == 600


def test_methods_in_the_words_of_the_module():
    found = defaultdict(set)
    for paper in papers.names():
        for r in papers.rows(paper):
            found[paper, r["method"]].add(tables.method_of(r))
    mixing = "mixing=Mixup(alpha=1.0, per_sample=True)"
    assert found["zeta", "mixup"] == found["zeta", "zeta-mixup"] == {None}  # the poster states neither alpha nor gamma
    assert found["lamix", "mixup"] == {"Mixup(alpha=1.0)"} and found["lamix", "CutMix"] == {"CutMix(alpha=1.0)"}
    assert found["lamix", "LaMix"] == {f"LaMix({mixing})", "LaMix(beta=1.0, mixing=PuzzleMix(alpha=1.0))"}
    assert found["lamix", "LaMix without global soft label"] == {f"LaMix(beta=1.0, {mixing})"}
    assert found["lamix", "LaMix without original samples"] == {f"LaMix({mixing}, originals=False)"}
    smoothed = {f"LabelSmoothing(eps={eps}, method=Mixup(alpha=1.0))" for eps in (0.1, 0.2, 0.3, 0.4)}
    assert found["lamix", "mixup + uniform label smoothing"] == smoothed
    assert found["infinite", "IC-Mixup (pair axis)"] == {"InfiniteClass(method=Mixup(alpha=0.2), axes='pair')"}
    assert found["infinite", "IC-RegMixup"] == {"RegMixup(method=InfiniteClass(method=Mixup(alpha=20.0)))"}
    assert found["infinite", "IC-Remix"] == {"InfiniteClass(method=Remix(alpha=0.2))"}
    manifold = found["kmixup", "k-manifold-mixup"]
    assert {"ManifoldMixup(mixing=KMixup(alpha=0.1, k=4))", "ManifoldMixup(mixing=Mixup(alpha=0.1))"} <= manifold
    assert "ConfusionMixup(alpha=1.0, gamma=0.25)" in found["confusion", "confusion-mixup"]


def test_a_held_perturbation_is_held(tmp_path, monkeypatch):
    """Algorithm 1 on images: alpha_k so that the mean squared move is that of mixup; measured once, then remembered."""
    monkeypatch.setattr(tables, "DISTANCES", tmp_path / "deep")
    data = "shapes(size=16, n_train=300, n_test=20)"
    (plan,) = plan_row(row("kmixup", "table10", alpha=0.2, k=4), data_as=data)
    held = {k: plan_row(row("kmixup", "table10", alpha=0.2, k=k))[0].held for k in (1, 2, 4, 8, 16, 32)}
    assert held == {k: k > 1 for k in held}
    assert plan.held and plan.trained() is None, "nothing is measured unless it is asked for"
    method = build_method(plan.trained(measure=True), seed=0)
    assert method.k == 4 and method.alpha > 0.2
    loaded = load_data(data)
    x = (loaded.train_x.float() / 255 - loaded.mean[:, None, None]) / loaded.std[:, None, None]
    ours, mixups = (mean_square(x, k, 1) * expected_min_square(a) for k, a in ((4, method.alpha), (1, 0.2)))
    assert ours == pytest.approx(mixups, rel=0.03)
    monkeypatch.setattr(tables, "load_data", None)
    assert plan.trained() == f"KMixup(alpha={method.alpha}, k=4)"
    (far,) = plan_row(row("kmixup", "table10", alpha=100.0, k=4), data_as=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert far.trained() == "KMixup(alpha=100.0, k=4)"


def test_alpha_as_printed_is_not_an_answer_where_xi_is_held(measured):
    (plan,) = plan_row(row("kmixup", "table10", alpha=1.0, k=4))
    printed = record_of(plan) | {"params": {"alpha": 1.0, "k": 4}}
    assert plan.trained() != "KMixup(alpha=1.0, k=4)"
    rows = papers.rows("kmixup", "table10")
    assert not any(line["n"] for line in report.compare(rows, [printed]))
    stood_for = {**printed, "row": {"alpha": 0.5, "k": 4}}
    (line,) = (line for line in report.compare(rows, [stood_for]) if line["n"])
    assert line["params"]["alpha"] == 0.5


def test_the_best_of_a_sweep_is_the_least_of_its_means(measured):
    best = row("kmixup", "table1", dataset="CIFAR-10", model="WideResNet-101", k=16)
    plans = plan_row(best)
    assert len(plans) == 7 and {plan.method for plan in plans} > {"ERM()"}  # six alphas, and alpha = 0
    (every,) = [r for r in papers.rows("kmixup", "table1") if r["params"] == {"selection": "best over k and xi"}][1:2]
    assert len(plan_row(every)) == len(papers.rows("kmixup", "table10"))
    records = [record_of(plan, seed, 20.0 - i + seed) for i, plan in enumerate(plans) for seed in (0, 1)]
    (line,) = report.compare([best], records)
    assert (line["ours"], line["n"]) == (14.5, 2)
    (line,) = report.compare([best], records[2:])
    assert line["n"] == 0 and line["missing"] == [plans[0]]


def test_batch_sizes_are_told_apart_and_outlive_another_budget():
    cells = papers.rows("infinite", "table1_left")
    lines = report.compare(cells, [record_of(plan_row(r)[0]) for r in cells])
    assert [line["n"] for line in lines] == [1] * 9
    short = from_table("infinite/table1_left", "quick(epochs=3)")
    assert {run.recipe.replace(" ", "") for run in short} == {
        "quick(epochs=3)",
        "quick(epochs=3,batch_size=64)",
        "quick(epochs=3,batch_size=512)",
    }


def test_a_published_table_becomes_runs(measured):
    table = from_table("kmixup/table10", seeds=[3, 5])
    assert len(table) == len(set(table)) and {run.seed for run in table} == {3, 5}
    assert {(run.data, run.model, run.recipe) for run in table} == {("cifar10", "preact_resnet18", "kmixup")}
    assert {run.method for run in table} >= {"ERM()", "Mixup(alpha=0.05)", "Mixup(alpha=100.0)"}
    assert {run.recipe for run in from_table("kmixup/table10", "quick")} == {"quick"}
    assert len(from_table("kmixup/table6")) == 10, "one network for all strengths of the noise"
    assert {run.data for run in from_table("lamix/table1", data_as="shapes")} == {"shapes"}
    fractions = {run.data for run in from_table("infinite/table1_right", data_as="shapes(size=16)")}
    assert "shapes(size=16, fraction=0.5)" in fractions and len(fractions) == 4
    assert {run.compile for run in from_table("lamix/table2", compile=True)} == {True}
    with pytest.raises(ValueError, match="table 'kmixup/table4' has no row"):
        from_table("kmixup/table4")
    with pytest.raises(ValueError, match="table must be one of"):
        from_table("kmixup/table10/k")
