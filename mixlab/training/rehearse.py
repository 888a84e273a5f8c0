"""A rehearsal before the long runs: does every method train on this device, and how fast?

For each method and for the combinations that the papers use: twenty steps with a finite loss, a checkpoint that goes on
as if nothing had happened, images a second, and on a GPU how often a step waits for it. First of all what the device
can do, since a GPU that is there and not used is found out about an hour later otherwise.
"""

import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from mixlab.data import load
from mixlab.method import Method
from mixlab.training.device import check_precision, find_device, gpu_problem
from mixlab.training.loop import Training
from mixlab.training.models import build
from mixlab.training.recipes import Recipe

COMBINED = (
    "RegMixup(InfiniteClass(Mixup(alpha=20.0)))",
    "InfiniteClass(Remix(alpha=0.2))",
    "ManifoldMixup(KMixup(alpha=1.0, k=16))",
    "LaMix(beta=1.0, mixing=PuzzleMix(alpha=1.0))",
    "LabelSmoothing(eps=0.1, method=Mixup(alpha=1.0))",
    "InfiniteClass(ConfusionMixup(alpha=1.0, gamma=0.25))",
)


def rehearse(
    expressions: list[str],
    build_method: Callable[[str, int], Method],
    device: str | None = None,
    precision: str | None = None,
    minutes: float = 3.0,
    model: str | None = None,
    steps: int = 20,
    batch: int = 128,
) -> int:
    """Print a line for each method; 0 if all of them train, 1 if one does not or the GPU here cannot be used.

    expressions, build_method: the methods in words, and what makes one of them with a seed. minutes: methods that there
    is no time for are named at the end.
    """
    place = find_device(device)
    precision = check_precision(precision, place)
    print(describe_device(place, precision), flush=True)
    problem = gpu_problem()
    model = model or ("preact_resnet18" if place.type == "cuda" else "quick_resnet")
    data, end = load("shapes", n_train=steps * batch, n_test=batch), time.monotonic() + 60 * minutes
    failed, left = [], list(expressions)
    while left and time.monotonic() < end:
        expression = left.pop(0)
        try:
            found = rehearse_one(data, model, lambda seed, e=expression: build_method(e, seed), batch, place, precision)
            print(f"{expression[:52]:52} {found}", flush=True)
        except (ValueError, RuntimeError, TypeError) as trouble:
            failed.append(expression)
            print(f"{expression[:52]:52} FAILED: {type(trouble).__name__}: {trouble}", flush=True)
    print(f"{len(expressions) - len(failed) - len(left)} of {len(expressions)} methods train on {model}", flush=True)
    if left:
        print(f"no time for {', '.join(left)}")
    if problem:
        print(f"NOT WELL: {problem}")
    return int(bool(failed or problem))


def describe_device(device: torch.device, precision: str) -> str:
    """Name, memory, driver and precision in a line."""
    if device.type != "cuda":
        return f"CPU {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {precision}"
    facts = torch.cuda.get_device_properties(device)
    memory = f"{facts.total_memory / 2**30:.0f} GiB, compute {facts.major}.{facts.minor}"
    return f"{facts.name}, {memory}, CUDA {torch.version.cuda}, torch {torch.__version__}, {precision}"


def rehearse_one(data, model: str, method_of, batch: int, device: torch.device, precision: str) -> str:
    """Train an epoch, save it, go on from there and from memory, and compare; how fast it was, in words."""
    recipe = Recipe(epochs=3, lr=0.01, batch_size=batch)

    def training(seed: int) -> Training:
        net = build(model, len(data.classes), seed=seed)
        return Training(data, net, method_of(seed), recipe, seed, device, precision)

    first, second = training(0), training(1)
    first.epoch()
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "rehearsal.pt", "rehearsal")
        second.resume(Path(folder) / "rehearsal.pt", "rehearsal")
    line, again = first.epoch(), second.epoch()
    close = 0.0 if device.type == "cpu" else 0.05  # a GPU adds up in any order
    if not abs(line["loss"] - again["loss"]) <= close:
        raise RuntimeError(f"from its checkpoint it went on to a loss of {again['loss']}, not {line['loss']}")
    waits = f", waits {count_waits(first):.1f} times a step" if device.type == "cuda" else ""
    return f"{len(data.train_x) / line['seconds']:8,.0f} images/s, loss {line['loss']:.3f}{waits}"


def count_waits(training: Training) -> float:
    """How often a step stops until the GPU has caught up, on average."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for batch in training.batches:
                training.step(*batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen) / len(training.batches)
