"""One loop for every method: SGD, the set on the device, a checkpoint about once a minute.

A run killed at any moment goes on from its last checkpoint and, on the CPU, ends bit for bit where it would have
ended: the checkpoint holds weights, optimiser, the method's state and every generator.
"""

import hashlib
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixlab.data.batches import Batches
from mixlab.data.downloads import atomic_write, bar
from mixlab.method import Method
from mixlab.training.device import DTYPES, autocast, check_precision
from mixlab.training.recipes import Recipe

NOT_MIRRORED = ("digits", "mnist", "svhn", "speech-commands", "free-spoken-digits")
SAVE_EVERY = 60  # seconds from one checkpoint to the next
DIGEST = 32  # bytes of a checkpoint's checksum


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Unusable(ValueError):
    """A checkpoint is there and cannot be gone on from: for the user to decide."""


class Training:
    """A network in training: what moves (network, optimiser, method, generators, curve) and how far it is.

    data: an object with train_x, train_y, test_x, test_y (images uint8), mean, std. seed: orders, crops and flips.
    precision: "bf16", "float32" or None for what the device does best. compile: run the network through torch.compile;
    methods that reach into its stages run those parts as they are.
    `epoch()` trains one epoch and tests; `save` and `resume` keep it all in one file.
    """

    def __init__(
        self, data, model, method: Method, recipe: Recipe, seed=0, device="cpu", precision=None, compile: bool = False
    ):
        self.data, self.recipe, self.device = data, recipe, torch.device(device)
        self.precision = check_precision(precision, self.device)
        method.prepare(model, data.train_y)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.method = method.to(self.device)
        on_gpu = self.device.type == "cuda"
        mode = "reduce-overhead" if on_gpu else "default"  # one graph of launches, since on a GPU they cost the most
        self.network = torch.compile(model, dynamic=False, mode=mode) if compile else model  # of the same weights
        parameters = [*model.parameters(), *method.parameters()]
        options = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay, "nesterov": recipe.nesterov}
        self.optimizer = torch.optim.SGD(parameters, lr=recipe.lr, fused=on_gpu, **options)
        self.rng = np.random.default_rng([seed, 2])
        self.batches = training_batches(data, recipe, self.rng, self.device, self.precision)
        self.held = held_batches(data, self.device, precision=self.precision)
        self.curve: list[dict] = []

    @property
    def epochs_done(self) -> int:
        return len(self.curve)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch, and its loss before the step."""
        with autocast(self.device, self.precision):
            loss = self.method.loss(self.network, x, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def epoch(self) -> dict:
        """Train one epoch, test if the recipe says so, and add a line to the curve."""
        start, done, steps = time.perf_counter(), self.epochs_done, len(self.batches)
        self.model.train()
        total = torch.zeros((), device=self.device)
        for step, batch in enumerate(self.batches):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate(done + (step + 0.5) / steps)
            total += self.step(*batch)  # read once an epoch: reading it here would stop a GPU's queue at every step
        self.method.end_epoch()
        loss = float(total) / steps
        weights = float(sum(parameter.detach().sum() for parameter in self.model.parameters()))
        if not math.isfinite(loss) or not math.isfinite(weights):  # the last step can ruin them after its loss is known
            raise Diverged(f"the loss is {loss} in epoch {done + 1}: try a smaller learning rate or alpha")
        line = {"epoch": done + 1, "loss": round(loss, 5), "seconds": round(time.perf_counter() - start, 3)}
        if self.recipe.is_tested(done + 1):
            line["error"] = round(measure_error(self.network, self.held, self.precision), 4)
        self.curve.append(line)
        return line

    def state(self) -> dict:
        """Everything that the next epoch depends on; tensors, numbers and text only."""
        generators = {"batches": json.dumps(self.rng.bit_generator.state), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        parts = {"model": self.model, "method": self.method, "optimizer": self.optimizer}
        states = {name: part.state_dict() for name, part in parts.items()}
        return {**states, "generators": generators, "curve": self.curve}

    def save(self, path: Path | str, run: str = "") -> None:
        """Write the checkpoint, checksum first, whole or not at all; run says whose it is."""
        file = io.BytesIO()
        torch.save({"run": run, "data": self.data.key, **self.state()}, file)
        with atomic_write(path) as temporary:
            Path(temporary).write_bytes(hashlib.sha256(file.getbuffer()).digest() + file.getbuffer())

    def resume(self, path: Path | str, run: str = "") -> bool:
        """Go on from a checkpoint if there is one; False if there is none."""
        path = Path(path)
        if not path.exists():
            return False
        saved = _load(path, self.device)
        if saved["run"] != run:
            raise Unusable(f"checkpoint {path.name} belongs to another run: {saved['run']}, not {run}")
        if saved["data"] != self.data.key:
            raise Unusable(f"checkpoint {path.name} was trained on other images than {self.data.name} holds now")
        epochs = [line["epoch"] for line in saved["curve"]]
        if epochs != list(range(1, len(epochs) + 1)) or len(epochs) > self.recipe.epochs:
            raise Unusable(f"checkpoint {path.name} has a curve of epochs {epochs}, not 1 to {self.recipe.epochs}")
        for part in ("model", "method", "optimizer"):
            getattr(self, part).load_state_dict(saved[part])
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
    device: str | torch.device = "cpu",
    checkpoint: Path | str | None = None,
    run: str = "",
    deadline: float | None = None,
    progress: bool = True,
    precision: str | None = None,
    compile: bool = False,
) -> dict | None:
    """Train to the end of the recipe, resuming from `checkpoint` if there is one, and say how it went.

    deadline: a time.monotonic() by which to stop at the end of an epoch; None comes back, the rest is for next time.
    """
    training = Training(data, model, method, recipe, seed, device, precision, compile)
    if checkpoint:
        training.resume(checkpoint, run)
    saved = time.monotonic()
    with bar(recipe.epochs, "epochs", not progress, initial=training.epochs_done) as shown:
        while training.epochs_done < recipe.epochs:
            start = time.monotonic()
            line = training.epoch()
            error = f"error {line['error']:.1f}%, " if "error" in line else ""
            told = f"{error}{len(data.train_x) / line['seconds']:,.0f} images/s"
            shown.set_postfix_str(told)
            shown.update()
            now, last = time.monotonic(), line["epoch"] == recipe.epochs
            late = deadline is not None and now + 1.1 * (now - start) > deadline
            if checkpoint and (late or last or now - saved > SAVE_EVERY):
                training.save(checkpoint, run)
                saved = now
                if progress and shown.disable:  # no terminal to draw a bar on: a line a minute for the log
                    print(f"  epoch {line['epoch']} of {recipe.epochs}: {told}", flush=True)
            if late and not last:
                return None
    return summary(training.curve, len(data.train_x))


def summary(curve: list[dict], images: int) -> dict:
    """What a record says of a finished run: the last epoch's error, and the best one labelled as such."""
    best = min((line for line in curve if "error" in line), key=lambda line: line["error"])
    seconds = sum(line["seconds"] for line in curve)
    found = {"error": curve[-1]["error"], "error_best": best["error"], "best_epoch": best["epoch"]}
    found |= {"seconds": round(seconds, 2), "images_per_second": round(images * len(curve) / seconds)}
    return {**found, "curve": curve}


def training_batches(data, recipe: Recipe, rng, device: torch.device, precision: str = "float32") -> Batches:
    """The training set on the device, cropped, flipped and normalised there, in the recipe's order."""
    order = "stratified" if recipe.stratified else "shuffled"
    flip = not data.name.startswith(NOT_MIRRORED)  # a mirrored 2 is not a 2, nor a word backwards a word
    how = {"augment": recipe.augment, "flip": flip, "order": order, "dtype": DTYPES[precision]}
    how |= {"mean": data.mean, "std": data.std, "device": device}
    return Batches(data.train_x, data.train_y, recipe.batch_size, rng, **how)


def held_batches(data, device: torch.device, batch_size: int = 250, precision: str = "float32") -> Batches:
    """The test set on the device, as it is and in its own order."""
    how = {"augment": False, "order": "fixed", "dtype": DTYPES[precision]}
    return Batches(data.test_x, data.test_y, batch_size, 0, mean=data.mean, std=data.std, device=device, **how)


@torch.no_grad()
def measure_error(model: nn.Module, batches: Batches, precision: str = "float32") -> float:
    """Percent wrong; one value is read from the device, at the end. A score that is no number is wrong."""
    model.eval()
    wrong = torch.zeros((), device=batches.labels.device)
    for x, labels in batches:
        with autocast(x.device, precision):
            scores = model(x)
        wrong += ((scores.argmax(1) != labels) | scores.isnan().any(1)).sum()
    return 100 * float(wrong) / len(batches.labels)


def epochs_saved(path: Path) -> int:
    """How many epochs a checkpoint has behind it."""
    return len(_load(path, torch.device("cpu"))["curve"])


def _load(path: Path, device: torch.device) -> dict:
    """A checkpoint's content, if every bit of it is as it was written."""
    raw = path.read_bytes()
    if hashlib.sha256(raw[DIGEST:]).digest() != raw[:DIGEST]:
        raise Unusable(f"checkpoint {path.name} is damaged (its checksum does not fit): delete it to start anew")
    return torch.load(io.BytesIO(raw[DIGEST:]), map_location=device, weights_only=True)
