"""One loop for every method: SGD, the set on the device, a checkpoint after every epoch.

A run killed at any moment goes on from its last whole epoch and, on the CPU, ends bit for bit where it would have
ended: the checkpoint holds weights, optimiser, the method's state and every generator.
"""

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mixlab.data.batches import Batches
from mixlab.data.downloads import bar, whole
from mixlab.mixup import Method
from mixlab.training.recipes import Recipe

NOT_MIRRORED = ("digits", "mnist", "svhn", "speech-commands", "free-spoken-digits")


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Training:
    """A network in training: what moves (network, optimiser, method, generators, curve) and how far it is.

    data: an object with train_x, train_y, test_x, test_y (images uint8), mean, std. seed: orders, crops and flips.
    compile: run the network through torch.compile; methods that reach into its stages run those parts as they are.
    `epoch()` trains one epoch and tests; `save` and `resume` keep it all in one file.
    """

    def __init__(self, data, model, method: Method, recipe: Recipe, seed: int = 0, device="cpu", compile: bool = False):
        self.data, self.recipe, self.device = data, recipe, torch.device(device)
        method.prepare(model, data.train_y)
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.model, self.method = model.to(self.device, memory_format=layout), method.to(self.device)
        self.network = torch.compile(self.model) if compile else self.model  # one set of weights, two ways to run
        parameters = [*model.parameters(), *method.parameters()]
        options = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay, "nesterov": recipe.nesterov}
        self.optimizer = torch.optim.SGD(parameters, lr=recipe.lr, fused=self.device.type == "cuda", **options)
        self.rng = np.random.default_rng([seed, 2])
        self.batches = training_batches(data, recipe, self.rng, self.device)
        self.held = held_batches(data, self.device)
        self.curve: list[dict] = []

    @property
    def epochs_done(self) -> int:
        return len(self.curve)

    def epoch(self) -> dict:
        """Train one epoch, test, and add a line to the curve."""
        start, done, steps = time.perf_counter(), self.epochs_done, len(self.batches)
        self.model.train()
        total = torch.zeros((), device=self.device)
        for step, (x, labels) in enumerate(one_ahead(self.batches, self.method)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate(done + step / steps)
            with autocast(self.device):
                loss = self.method.loss(self.network, x, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()  # read once an epoch: reading it here would stop a GPU's queue at every step
        self.method.end_epoch()
        mean_loss = float(total) / steps
        if not math.isfinite(mean_loss):
            raise Diverged(f"the loss is {mean_loss} in epoch {done + 1}: try a smaller learning rate or alpha")
        seconds = time.perf_counter() - start
        error = measure_error(self.network, self.held)
        line = {"epoch": done + 1, "loss": round(mean_loss, 5), "error": round(error, 4), "seconds": round(seconds, 3)}
        self.curve.append(line)
        return line

    def state(self) -> dict:
        """Everything that the next epoch depends on; tensors, numbers and text only."""
        generators = {"batches": json.dumps(self.rng.bit_generator.state), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": generators,
            "curve": self.curve,
        }

    def save(self, path: Path | str, run: str = "") -> None:
        """Write the checkpoint whole or not at all; run says whose it is."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            torch.save({"run": run, **self.state()}, temporary)

    def resume(self, path: Path | str, run: str = "") -> bool:
        """Go on from a checkpoint if there is one; False if there is none."""
        if not Path(path).exists():
            return False
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as problem:  # torch raises many kinds for a damaged file
            raise ValueError(
                f"checkpoint {Path(path).name} cannot be read ({problem}): delete it to start anew"
            ) from None
        if saved["run"] != run:
            raise ValueError(f"checkpoint {Path(path).name} belongs to another run: {saved['run']}, not {run}")
        self.model.load_state_dict(saved["model"])
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.rng.bit_generator.state = json.loads(saved["generators"]["batches"])
        torch.set_rng_state(saved["generators"]["torch"].cpu())
        if "cuda" in saved["generators"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["generators"]["cuda"].cpu(), self.device)
        self.curve = saved["curve"]
        return True


def fit(
    data,
    model: nn.Module,
    method: Method,
    recipe: Recipe,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: Path | str | None = None,
    run: str = "",
    deadline: float | None = None,
    progress: bool = True,
    compile: bool = False,
) -> dict | None:
    """Train to the end of the recipe, resuming from `checkpoint` if there is one, and say how it went.

    deadline: a time.monotonic() by which to stop at the end of an epoch; None comes back, the rest is for next time.
    """
    training = Training(data, model, method, recipe, seed, device, compile)
    if checkpoint:
        training.resume(checkpoint, run)
    with bar(recipe.epochs, "training", not progress, initial=training.epochs_done, unit="epoch") as shown:
        while training.epochs_done < recipe.epochs:
            start = time.monotonic()
            line = training.epoch()
            if checkpoint:
                training.save(checkpoint, run)
            speed = len(data.train_x) / line["seconds"]
            shown.set_postfix_str(f"error {line['error']:.2f} %, loss {line['loss']:.3f}, {speed:,.0f} images/s")
            shown.update()
            now = time.monotonic()
            if deadline and now + 1.1 * (now - start) > deadline and training.epochs_done < recipe.epochs:
                return None
    return summary(training)


def summary(training: Training) -> dict:
    """What a record says of a finished run: the last epoch's error, and the best one labelled as such."""
    curve = training.curve
    best = min(curve, key=lambda line: line["error"])
    seconds = sum(line["seconds"] for line in curve)
    return {
        "error": curve[-1]["error"],
        "error_best": best["error"],
        "best_epoch": best["epoch"],
        "seconds": round(seconds, 2),
        "images_per_second": round(len(training.data.train_x) * len(curve) / seconds),
        "curve": curve,
    }


def one_ahead(batches: Batches, method: Method):
    """The batches, each announced to the method one batch early: what a GPU then works out for it, nobody waits for."""
    waiting: list[tuple] = []
    for batch in batches:
        method.ahead(batch[0])
        yield from waiting
        waiting = [batch]
    yield from waiting


def training_batches(data, recipe: Recipe, rng: np.random.Generator, device: torch.device) -> Batches:
    """The training set on the device, cropped, flipped and normalised there, in the recipe's order."""
    order = "stratified" if recipe.stratified else "shuffled"
    flip = not data.name.startswith(NOT_MIRRORED)  # a mirrored 2 is not a 2, nor a word backwards a word
    how = {"augment": recipe.augment, "flip": flip, "order": order, "compact": device.type == "cuda"}
    return Batches(
        data.train_x, data.train_y, recipe.batch_size, rng, mean=data.mean, std=data.std, device=device, **how
    )


def held_batches(data, device: torch.device, batch_size: int = 1000) -> Batches:
    """The test set on the device, as it is and in its own order."""
    how = {"augment": False, "order": "fixed", "compact": device.type == "cuda"}
    return Batches(data.test_x, data.test_y, batch_size, 0, mean=data.mean, std=data.std, device=device, **how)


@torch.no_grad()
def measure_error(model: nn.Module, batches: Batches) -> float:
    """Percent wrong; one value is read from the device, at the end."""
    model.eval()
    wrong = torch.zeros((), device=batches.labels.device)
    for x, labels in batches:
        with autocast(x.device):
            wrong += (model(x).argmax(1) != labels).sum()
    return 100 * float(wrong) / len(batches.labels)


def autocast(device: torch.device):
    """bfloat16 on a GPU; plain float32 elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
