"""The loop: killed and resumed equals uninterrupted; recipes; what goes wrong says so."""

import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from mixlab import ERM, LabelSmoothing, Mixup
from mixlab.data.sets import load
from mixlab.places import ROOT
from mixlab.training.loop import (
    Diverged,
    Training,
    Unusable,
    epochs_saved,
    fit,
    held_batches,
    measure_error,
    training_batches,
)
from mixlab.training.models import build
from mixlab.training.recipes import RECIPES, Recipe, recipe

DATA = load("shapes", n_train=120, n_test=60)
SMALL = Recipe(epochs=4, lr=0.05, batch_size=32, augment=True)


def start(method=None, seed=0, changes=None, precision="float32"):
    method = Mixup(1.0, rng=seed) if method is None else method
    recipe = replace(SMALL, **(changes or {}))
    return Training(DATA, build("lenet", 10, seed=seed), method, recipe, seed, precision=precision)


def flat(state, path=""):
    """Every leaf of a nested state, by its path."""
    if isinstance(state, dict | list):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in pairs for k, v in flat(value, f"{path}/{key}").items()}
    return {path: state}


def same(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys() and len(one) > 10
    for path, value in one.items():
        if not path.endswith("/seconds"):
            equal = torch.equal(value, other[path]) if torch.is_tensor(value) else value == other[path]
            assert equal, path


@pytest.mark.parametrize(
    "changes, precision",
    [({}, "float32"), ({"stratified": True, "milestones": (2,), "test_every": 3}, "float32"), ({}, "bf16")],
    ids=str,
)
def test_resumed_ends_bit_for_bit_where_uninterrupted_ends(tmp_path, changes, precision):
    whole, first = (start(changes=changes, precision=precision) for _ in range(2))
    for training, epochs in ((whole, 4), (first, 2)):
        for _ in range(epochs):
            training.epoch()
    first.save(tmp_path / "a.pt", "run")
    torch.manual_seed(12345)  # whatever else happened in between
    second = start(Mixup(1.0, rng=99), changes=changes, precision=precision)
    assert second.resume(tmp_path / "a.pt", "run") and second.epochs_done == 2
    second.epoch()
    second.epoch()
    same(whole.state(), second.state())
    assert not torch.equal(start(changes=changes).model.head.weight, second.model.head.weight)


@pytest.mark.slow
def test_killed_by_the_system_and_resumed_ends_where_uninterrupted_ends(tmp_path):
    """kill -9 at three different moments, some of them in the middle of a write."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "torch.set_num_threads(1)\n"
        "from mixlab.training import loop\n"
        "loop.SAVE_EVERY = -1\n"
        "from tests.test_training import start, SMALL, fit, DATA, build, Mixup\n"
        "from dataclasses import replace\n"
        "recipe = replace(SMALL, epochs=12)\n"
        "model, method = build('lenet', 10, seed=0), Mixup(1.0, rng=0)\n"
        "result = fit(DATA, model, method, recipe, 0, 'cpu', sys.argv[1], 'run', progress=False)\n"
        "state = {'model': model.state_dict(), 'method': method.state_dict(), 'error': result['error']}\n"
        "torch.save(state, sys.argv[2])\n"
    )
    command = [sys.executable, str(script)]
    subprocess.run([*command, str(tmp_path / "a.pt"), str(tmp_path / "whole.pt")], check=True)
    checkpoint, last = tmp_path / "b.pt", 0.0
    for pause in (0.0, 0.05, 0.11):
        process = subprocess.Popen([*command, str(checkpoint), str(tmp_path / "killed.pt")])
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime > last):
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = checkpoint.stat().st_mtime
    assert not (tmp_path / "killed.pt").exists(), "it was never killed"
    subprocess.run([*command, str(checkpoint), str(tmp_path / "killed.pt")], check=True)
    same(*(torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed")))


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    training = start()
    training.save(tmp_path / "a.pt", "run")
    before = (tmp_path / "a.pt").read_bytes()
    monkeypatch.setattr(
        "pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError("No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        training.save(tmp_path / "a.pt", "run")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"] and (tmp_path / "a.pt").read_bytes() == before


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path, training, turned = tmp_path / "a.pt", start(), start()
    assert not training.resume(path)
    training.epoch()
    training.save(path, "run")
    turned.data = replace(DATA, train_x=DATA.train_x.flip(-1))
    for other, run, word in ((start(), "another", "run"), (turned, "run", "images")):
        with pytest.raises(Unusable, match=word):
            other.resume(path, run)
    for epochs in (range(1, 6), (1, 3), (2, 3)):  # longer than the recipe, or with gaps
        training.curve = [{"epoch": epoch} for epoch in epochs]
        training.save(path, "run")
        with pytest.raises(Unusable, match="curve"):
            start().resume(path, "run")
    written = path.read_bytes()
    flipped = bytearray(written)
    flipped[len(written) // 2] ^= 1  # one bit, somewhere in the weights
    for damaged in (written[:2000], bytes(flipped), b""):
        path.write_bytes(damaged)
        with pytest.raises(Unusable, match="damaged"):
            start().resume(path, "run")


def test_the_same_seed_gives_the_same_run_and_another_does_not():
    first, again, other = (start(seed=seed).epoch()["loss"] for seed in (3, 3, 4))
    assert first == again != other


def test_training_learns_is_tested_as_the_recipe_says_and_labels_last_and_best():
    data, net = load("digits", size=16), build("lenet", 10, in_channels=1, image_size=16, seed=0)
    result = fit(data, net, ERM(), Recipe(epochs=10, lr=0.05, augment=False, test_every=4), progress=False)
    errors = {line["epoch"]: line["error"] for line in result["curve"] if "error" in line}
    assert list(errors) == [4, 8, 10] and result["error"] == errors[10] < 20
    assert result["error_best"] == errors[result["best_epoch"]] == min(errors.values())


def test_a_method_hears_of_epochs_has_its_weights_trained_and_sees_no_rate_of_zero():
    class Shift(ERM):
        def __init__(self):
            super().__init__()
            self.shift, self.epochs, self.rates = torch.nn.Parameter(torch.zeros(10)), 0, []

        def loss(self, model, x, labels):
            self.rates.append(training.optimizer.param_groups[0]["lr"])
            return super().loss(lambda x: model(x) + self.shift, x, labels)

        def end_epoch(self):
            self.epochs += 1

    method = Shift()
    training = start(method, changes={"epochs": 2})
    training.epoch()
    training.epoch()
    assert method.epochs == 2 and method.shift.detach().abs().max() > 0
    assert len(method.rates) == 8 and min(method.rates) > 0


@pytest.mark.filterwarnings("ignore")  # overflow is the point
def test_divergence_is_noticed_even_in_the_very_last_step():
    """The loss of a step is counted before the step is made: the last one can ruin the network in silence."""

    class Ruined(ERM):
        def end_epoch(self):
            with torch.no_grad():
                training.model.head.weight[0, 0] = float("nan")

    with pytest.raises(Diverged):
        fit(DATA, build("lenet", 10, seed=0), ERM(), replace(SMALL, lr=1e12), progress=False)
    training = start(Ruined())
    with pytest.raises(Diverged):
        training.epoch()


def test_measured_error_counts_every_test_image_once_and_no_number_as_wrong():
    net = build("lenet", 10, seed=0)
    x = (DATA.test_x.float() / 255 - DATA.mean.view(-1, 1, 1)) / DATA.std.view(-1, 1, 1)
    expected = 100 * (net.eval()(x).argmax(1) != DATA.test_y).double().mean().item()
    for batch_size in (7, 60, 1000):
        assert measure_error(net, held_batches(DATA, torch.device("cpu"), batch_size)) == pytest.approx(expected)
    torch.nn.init.constant_(net.head.weight, float("nan"))
    all_zero = replace(DATA, test_y=torch.zeros_like(DATA.test_y))  # argmax of NaN is class 0
    assert measure_error(net, held_batches(all_zero, torch.device("cpu"))) == 100


def test_a_deadline_stops_after_an_epoch_and_the_rest_is_for_next_time(tmp_path):
    arguments = (DATA, build("lenet", 10, seed=0), LabelSmoothing(0.1, Mixup(1.0, rng=0)), SMALL)
    path = tmp_path / "a.pt"
    assert fit(*arguments, checkpoint=path, deadline=time.monotonic(), progress=False) is None
    assert epochs_saved(path) == 1
    assert len(fit(*arguments, checkpoint=path, progress=False)["curve"]) == 4


@pytest.mark.slow
def test_a_compiled_network_is_the_same_network(monkeypatch):
    """With the backend that changes nothing, every weight ends bit for bit the same, under its own name."""
    asked, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: asked.append(model) or real(model, backend="eager"))
    nets = [build("lenet", 10, seed=0) for _ in range(2)]
    for net, compile in zip(nets, (False, True), strict=True):
        fit(DATA, net, Mixup(1.0, rng=0), replace(SMALL, epochs=2), progress=False, compile=compile)
    assert asked == [nets[1]]
    for (name, a), (other, b) in zip(nets[0].state_dict().items(), nets[1].state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)


def test_pictures_of_digits_are_never_mirrored():
    for name, flips in [("digits", False), ("mnist (25%)", False), ("svhn", False), ("shapes", True)]:
        batches = training_batches(replace(DATA, name=name), SMALL, 0, torch.device("cpu"))
        assert bool(batches.draw()[3].any()) == flips, name


def test_learning_rates_of_the_recipes():
    kmixup = recipe("kmixup")
    assert [kmixup.learning_rate(e) for e in (0, 99.9, 100, 150)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert [recipe("infinite").learning_rate(e) for e in (49, 50, 199)] == pytest.approx([0.1, 0.02, 0.0008])
    cosine = [recipe("short15").learning_rate(e / 10) for e in range(151)]
    assert max(cosine) == cosine[15] == pytest.approx(0.1) and cosine[-1] == pytest.approx(0)
    assert all(math.isfinite(r.learning_rate(r.epochs)) for r in RECIPES.values())


def test_a_recipe_can_be_changed_in_words():
    assert recipe(" quick(epochs=3, lr=0.2)") == replace(RECIPES["quick"], epochs=3, lr=0.2)
    words = {"nothing": "recipe", "quick(": "recipe", "quick(3)": "recipe", "quick(colour=1)": "colour"}
    words |= {"quick(epochs=0)": "epochs", "quick(epochs=1.5)": "epochs", "quick(lr='a')": "lr"}
    for text, name in words.items():
        with pytest.raises(ValueError, match=name):
            recipe(text)
