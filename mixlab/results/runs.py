"""Many runs in a row: what a run is, doing what is missing, sharing the work.

    make_run("cifar10(fraction=0.1)", "quick_resnet", "Mixup(1)", "tenth", seed=0)

The same words stand on the command line, in the grid, in the record and in the checkpoint.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from mixlab.data.downloads import atomic_write
from mixlab.places import checkpoints_folder
from mixlab.results import records
from mixlab.results.expressions import (
    build_method,
    describe,
    describe_data,
    describe_model,
    is_folder,
    load_data,
    parameters,
    read_model,
    usual_methods,  # noqa: F401
)
from mixlab.results.tables import from_table  # noqa: F401
from mixlab.training.device import best_precision, check_precision, default_device, find_device
from mixlab.training.models import build
from mixlab.training.recipes import recipe

AXES = ("data", "model", "method", "recipe")


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
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, not {seed!r}")
    precision = check_precision(precision, default_device()) if precision else best_precision(default_device())
    method = describe(build_method(method, seed=0))
    return Run(describe_data(data), describe_model(model), method, recipe_name.strip(), seed, precision, compile)


def from_grid(path: Path | str) -> list[Run]:
    """The runs of a JSON file {"data": […], "model": […], "method": […], "recipe": […], "seeds": 5}: every combination.

    The file may also hold a list of such blocks. Seeds come first: all runs of seed 0, then all of seed 1, so that a
    list that is cut short is a small whole table. precision and compile may be given too.
    """
    path = Path(path)
    try:
        blocks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ValueError(f"grid {path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise ValueError(f"grid {path.name} is not JSON: {problem}") from None
    found = [_block(block, path.name) for block in (blocks if isinstance(blocks, list) else [blocks])]
    seeds = sorted({seed for block in found for seed in block})
    return list(dict.fromkeys(run for seed in seeds for block in found for run in block.get(seed, [])))


def _block(block: dict, name: str) -> dict[int, list[Run]]:
    if not isinstance(block, dict) or {*AXES, "seeds"} - set(block):
        lacking = sorted({*AXES, "seeds"} - set(block)) if isinstance(block, dict) else [*AXES, "seeds"]
        raise ValueError(f"grid {name} lacks {', '.join(lacking)}")
    unknown = set(block) - {*AXES, "seeds", "precision", "compile", "note"}
    lists = all(isinstance(block[axis], list) and all(isinstance(word, str) for word in block[axis]) for axis in AXES)
    if unknown:
        raise ValueError(f"grid {name}: {', '.join(sorted(unknown))} is not known")
    if not lists:
        raise ValueError(f"grid {name}: {', '.join(AXES)} must be lists of words")
    seeds = block["seeds"]
    seeds = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    if not isinstance(seeds, list) or not seeds:
        raise ValueError(f"grid {name}: seeds must be how many, or a list of whole numbers, not {block['seeds']!r}")
    how = (block.get("precision"), block.get("compile", False))
    words = list(product(*(block[axis] for axis in AXES)))
    return {seed: [make_run(*each, seed, *how) for each in words] for seed in seeds}


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
    place, rank = find_device(device), int(os.environ.get("RANK", 0))
    _check_writable(Path(folder))
    missing = [run for run in runs if not _is_done(run, folder, retry)]
    missing = missing[rank % max(1, len(missing)) :] + missing[: rank % max(1, len(missing))]
    late = False
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


def _do_one(run: Run, folder, device: torch.device, deadline, progress: bool, keep: bool) -> bool:
    """Train, measure, write the record and drop the checkpoint. True if the time was up before."""
    from mixlab.training.loop import Unusable, epochs_saved

    checkpoint = checkpoints_folder() / f"{run.key}.pt"
    if progress:
        print(f"{run.method}, seed {run.seed}: {run.model} on {run.data}, {run.recipe}", flush=True)
    started = time.monotonic()
    try:
        record, model = _train(run, device, checkpoint, deadline, progress)
    except Unusable as problem:
        print(f"  left out: {problem}", flush=True)
        return False
    except KeyboardInterrupt:
        saved = f"from epoch {epochs_saved(checkpoint) + 1}" if checkpoint.exists() else "anew"
        raise KeyboardInterrupt(f"stopped; the same command goes on {saved}") from None
    except (ValueError, RuntimeError, TypeError, MemoryError, FloatingPointError) as problem:
        sentence = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else 'no word why'}"
        failed = {**_facts(run), **records.circumstances(device), "failed": sentence[:500]}
        records.write({**failed, "seconds": round(time.monotonic() - started, 2)}, run.path(folder))
        checkpoint.unlink(missing_ok=True)
        print(f"  failed: {sentence}", flush=True)
        return False
    if record is None:
        return True
    if keep:
        record["weights"] = f"{run.key}.pt"
        save_weights(model, Path(folder) / record["weights"])
    path = records.write(record, run.path(folder))
    checkpoint.unlink(missing_ok=True)
    if progress:
        print(f"  {told(record)}, saved to {path}", flush=True)
    return False


def _train(run: Run, device: torch.device, checkpoint: Path, deadline, progress: bool):
    """The record of a finished run and its network; None for the record if the time was up."""
    from mixlab.training.loop import fit
    from mixlab.training.measures import final_measures

    data = load_data(run.data)
    model = build_model(run.model, data, run.seed)
    method = build_method(run.method, run.seed)
    how = {"checkpoint": checkpoint, "run": run.key, "deadline": deadline, "progress": progress}
    how |= {"precision": run.precision, "compile": run.compile}
    result = fit(data, model, method, recipe(run.recipe), run.seed, device, **how)
    if result is None:
        return None, None
    sizes = {"dataset": data.name, "data_key": data.key}
    sizes |= {"train_images": len(data.train_x), "test_images": len(data.test_x)}
    measures = final_measures(model, data, run.precision)
    return {**_facts(run), **sizes, **records.circumstances(device), **result, "measures": measures}, model


def _facts(run: Run) -> dict:
    """What a record says of the run itself, before anything is known of its data."""
    method = build_method(run.method, 0)
    stated = {k: describe(v) if hasattr(v, "draw") else v for k, v in parameters(method).items()}
    facts = {"dataset": run.data, "data": run.data, "model": run.model, "method": type(method).__name__}
    facts |= {"params": stated, "expression": run.method, "budget": run.recipe, "recipe": asdict(recipe(run.recipe))}
    facts |= {"seed": run.seed, "precision": run.precision}
    return facts | ({"compiled": True} if run.compile else {})


def told(record: dict) -> str:
    """A record in half a line."""
    best = f"best {record['error_best']:.1f}%, epoch {record['best_epoch']}"
    return f"error {record['error']:.1f}% ({best}), {record['seconds']:.0f} s"


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
        checkpoints_folder().mkdir(parents=True, exist_ok=True)
        for place in (folder, checkpoints_folder()):
            with atomic_write(place / f".try-{os.getpid()}") as temporary:
                Path(temporary).write_bytes(b"")
            (place / f".try-{os.getpid()}").unlink()
    except OSError as problem:
        raise ValueError(f"folder {problem.filename or folder} cannot be written to: {problem.strerror}") from None


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
