"""Many runs in a row: what a run is, doing what is missing, sharing the work.

    make_run("cifar10(fraction=0.1)", "quick_resnet", "Mixup(1)", "tenth", seed=0)

The same words stand on the command line, in the grid, in the record and in the checkpoint.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from mixlab.checks import check_whole
from mixlab.data.downloads import atomic_write
from mixlab.places import checkpoints_folder
from mixlab.results import papers, records
from mixlab.results.expressions import (  # noqa: F401
    as_recorded,
    build_method,
    describe,
    describe_data,
    is_folder,
    load_data,
    parameters,
    read_model,
    spell,
    usual_methods,
)
from mixlab.results.tables import plan_row, trainings
from mixlab.training.device import check_precision, default_device, find_device
from mixlab.training.loop import Unusable, epochs_saved, fit
from mixlab.training.measures import final_measures
from mixlab.training.models import build
from mixlab.training.recipes import recipe

AXES = ("data", "model", "method", "recipe")
FAILURES = (ValueError, RuntimeError, TypeError, MemoryError, FloatingPointError)  # of one run, not of the list


@dataclass(frozen=True)
class Run:
    """data, model, method and recipe as expressions in canonical form; precision "bf16" or "float32"."""

    data: str
    model: str
    method: str
    recipe: str
    seed: int
    precision: str = "float32"
    compile: bool = False

    def identity(self) -> dict:
        """All that its result depends on; the recipe by its content, so that a changed recipe is another run."""
        content = {k: v for k, v in asdict(recipe(self.recipe)).items() if k not in ("note", "test_every")}
        return {**asdict(self), "recipe": content}

    @property
    def key(self) -> str:
        """A readable name that no other run shares: for files."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]
        words = "".join(c if c.isalnum() or c in ".=-" else "_" for c in f"{self.method}-{self.model}")
        return f"{words[:70].strip('_')}-{self.seed}-{digest}"

    def path(self, folder: Path | str = records.FOLDER) -> Path:
        """Where its record stands once it is done."""
        return Path(folder) / f"{self.key}.json"


def make_run(
    data: str, model: str, method: str, recipe_name: str, seed: int, precision: str | None = None, compile: bool = False
) -> Run:
    """A run with every word checked and in its canonical form, so that equal runs have equal keys.

    precision: None stands for the best one of the CPU or GPU that is here.
    """
    recipe(recipe_name)
    seed = check_whole("seed", seed, least=0)
    precision = check_precision(precision, default_device())
    words = describe_data(data), spell(*read_model(model)), describe(build_method(method, seed=0)), recipe_name.strip()
    return Run(*words, seed, precision, compile)


def from_grid(path: Path | str) -> list[Run]:
    """The runs of a JSON file {"data": […], "model": […], "method": […], "recipe": […], "seeds": 5}: every combination.

    The file may also hold a list of such blocks. Seeds come first: all runs of seed 0, then all of seed 1, so that a
    list that is cut short is a small whole table. precision and compile may be given too.
    """
    path = Path(path)
    try:
        blocks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ValueError(f"grid {path} cannot be read: {problem}") from None
    found = [_block(block, path.name) for block in (blocks if isinstance(blocks, list) else [blocks])]
    seeds = sorted({seed for block in found for seed in block})
    return list(dict.fromkeys(run for seed in seeds for block in found for run in block.get(seed, [])))


def _block(block, name: str) -> dict[int, list[Run]]:
    """The runs of every seed of a block."""
    given = block if isinstance(block, dict) else {}
    if lacking := sorted({*AXES, "seeds"} - set(given)):
        raise ValueError(f"grid {name} lacks {', '.join(lacking)}")
    if unknown := sorted(set(given) - {*AXES, "seeds", "precision", "compile", "note"}):
        raise ValueError(f"grid {name}: {', '.join(unknown)} is not known")
    if not all(isinstance(block[axis], list) and all(isinstance(word, str) for word in block[axis]) for axis in AXES):
        raise ValueError(f"grid {name}: {', '.join(AXES)} must be lists of words")
    seeds = block["seeds"]
    if not isinstance(seeds, list) or not seeds:
        seeds = list(range(check_whole(f"grid {name}: seeds", seeds)))
    how = (block.get("precision"), block.get("compile", False))
    words = list(product(*(block[axis] for axis in AXES)))
    return {seed: [make_run(*each, seed, *how) for each in words] for seed in seeds}


def from_table(
    table: str, recipe_name: str | None = None, seeds: Iterable[int] = (0,), data_as: str | None = None, **how
) -> list[Run]:
    """The runs that answer a published table such as "kmixup/table10", each at its row's own protocol.

    recipe_name: another budget. data_as: the set to train on in place of the printed one (a JPEG copy; shapes for a
    rehearsal). how: precision, compile. Where the perturbation is held, distances between images are measured, once.
    """
    plans = [plan_row(row, data_as) for row in papers.rows_of(table)]
    planned = trainings((p for found in plans if not isinstance(found, str) for p in found), recipe_name)
    if not planned:
        raise ValueError(f"table {table!r} has no row that can be run: {', '.join(sorted(set(plans)))}")
    words = [(p.data, p.model, p.trained(measure=True), p.recipe) for p in planned]
    return list(dict.fromkeys(make_run(*each, seed, **how) for seed in seeds for each in words))


def do(
    runs: list[Run],
    folder: Path | str = records.FOLDER,
    device: str | None = None,
    minutes: float | None = None,
    progress: bool = True,
    keep: bool = False,
    retry: bool = False,
) -> int:
    """Do what has no record yet, and return how many are still without one.

    Workers that share `folder` never do a run twice: each holds a lock while it trains, which the system lets go when
    it dies, so that another takes up its checkpoint. Each begins at its own place in the list (RANK). minutes: stop at
    the end of an epoch before that time is up. keep: store the final weights beside the record. A run that fails is
    recorded as failed, and not tried again unless with `retry`; the list goes on.
    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be a number above 0, not {minutes}")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    place, folder = find_device(device), Path(folder)
    for each in (folder, checkpoints_folder()):
        _check_writable(each)
    missing = [run for run in runs if not _is_done(run, folder, retry)]
    first = int(os.environ.get("RANK", 0)) % max(1, len(missing))
    missing, late = missing[first:] + missing[:first], False
    while missing and not late:
        others: list[Run] = []
        for run in missing:
            with _claim(run) as mine:
                if not mine:
                    others.append(run)
                elif not _is_done(run, folder, retry):
                    late = _do_one(run, folder, place, deadline, progress, keep)
            late = late or (deadline is not None and time.monotonic() > deadline)
            if late:
                break
        missing = [run for run in others if not run.path(folder).exists()]
        if missing and not late:
            time.sleep(0.5)  # another worker has them; should it die, they are taken up here
    return sum(not run.path(folder).exists() for run in runs)


def _do_one(run: Run, folder: Path, device: torch.device, deadline, progress: bool, keep: bool) -> bool:
    """Train, measure, write the record and drop the checkpoint. True if the time was up before."""
    checkpoint, started = checkpoints_folder() / f"{run.key}.pt", time.monotonic()
    if progress:
        print(f"{run.method}, seed {run.seed}: {run.model} on {run.data}, {run.recipe}", flush=True)
    try:
        record, model = _train(run, device, checkpoint, deadline, progress)
    except Unusable as problem:
        print(f"  left out: {problem}", flush=True)
        return False
    except KeyboardInterrupt as stop:
        saved = f"from epoch {epochs_saved(checkpoint) + 1}" if checkpoint.exists() else "anew"
        raise type(stop)(f"stopped; the same command goes on {saved}") from None
    except FAILURES as problem:
        why = f"{type(problem).__name__}: {(str(problem) or 'no word why').splitlines()[0]}"
        record, model = {"failed": why[:500], "seconds": round(time.monotonic() - started, 2)}, None
        print(f"  failed: {why}", flush=True)
    if record is None:
        return True
    record = {**_facts(run), **records.circumstances(device), **record}
    if keep and model is not None:
        record["weights"] = f"{run.key}.pt"
        save_weights(model, folder / record["weights"])
    path = records.write(record, run.path(folder))
    checkpoint.unlink(missing_ok=True)
    if progress and model is not None:
        best = f"best {record['error_best']:.1f}%, epoch {record['best_epoch']}"
        print(f"  error {record['error']:.1f}% ({best}), {record['seconds']:.0f} s, saved to {path}", flush=True)
    return False


def _train(run: Run, device: torch.device, checkpoint: Path, deadline, progress: bool):
    """What a finished run found, and its network; None twice if the time was up."""
    data = load_data(run.data)
    model = build_model(run.model, data, run.seed)
    how = {"checkpoint": checkpoint, "run": run.key, "deadline": deadline, "progress": progress}
    how |= {"precision": run.precision, "compile": run.compile}
    result = fit(data, model, build_method(run.method, run.seed), recipe(run.recipe), run.seed, device, **how)
    if result is None:
        return None, None
    sizes = {"train_images": len(data.train_x), "test_images": len(data.test_x)}
    found = {"dataset": data.name, "data_key": data.key, **sizes, **result}
    return {**found, "measures": final_measures(model, data, run.precision)}, model


def _facts(run: Run) -> dict:
    """What a record says of the run itself, before anything is known of its data."""
    facts = {"dataset": run.data, "data": run.data, "model": run.model, **as_recorded(build_method(run.method, 0))}
    facts |= {"expression": run.method, "budget": run.recipe, "recipe": asdict(recipe(run.recipe))}
    facts |= {"seed": run.seed, "precision": run.precision}
    return facts | ({"compiled": True} if run.compile else {})


def build_model(expression: str, data, seed: int):
    """The network of that name for a data set, with the weights of that seed."""
    name, options = read_model(expression)
    channels, *size = data.train_x.shape[1:]
    return build(name, len(data.classes), in_channels=channels, image_size=tuple(size), seed=seed, **options)


def save_weights(model, path: Path) -> None:
    """The state of a network in bfloat16: half the size, and as good to look at."""
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic_write(path) as temporary:
        torch.save({"weights": state}, temporary)


def load_network(record: dict, data, folder: Path | str = records.FOLDER):
    """The trained network of a record that was kept, in evaluation mode; record as `records.read` gives it."""
    if "weights" not in record:
        raise ValueError(f"record {record.get('file', '')} kept no weights: run it again with --keep weights")
    path = (Path(folder) / record["file"]).with_name(record["weights"])
    state = torch.load(path, weights_only=True)["weights"]
    model = build_model(record["model"], data, record["seed"])
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval()


def estimate(run: Run, measured: list[dict], device: str) -> float | None:
    """About how many seconds a run takes, by records of the same data and network on that device; None if none."""
    alike = [r for r in measured if (r.get("data"), r["model"], r.get("device")) == (run.data, run.model, device)]
    speeds = sorted(r["seconds"] / len(r["curve"]) for r in alike if r.get("curve"))
    return speeds[len(speeds) // 2] * recipe(run.recipe).epochs if speeds else None


def _is_done(run: Run, folder, retry: bool) -> bool:
    """Is there a record, of the same images? With retry a failed one does not count."""
    path = run.path(folder)
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    if "failed" in record:
        return not retry
    if is_folder(run.data) and record.get("data_key") not in (None, load_data(run.data).key):  # it may have changed
        raise ValueError(f"data {run.data!r} holds other images than those of {path.name}: move that record away first")
    return True


def _check_writable(folder: Path) -> None:
    """Find out before training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise ValueError(f"folder {folder} cannot be written to: {problem.strerror}") from None


@contextmanager
def _claim(run: Run) -> Iterator[bool]:
    """Hold the run's lock, or learn that another worker does. The system frees the lock of a process that dies."""
    path = checkpoints_folder() / f"{run.key}.lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()
