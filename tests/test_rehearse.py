"""The rehearsal, on the CPU with a GPU's types: bfloat16 batches, channels_last, autocast."""

import pytest
import torch

from mixlab import Mixup
from mixlab.__main__ import main
from mixlab.results.expressions import build_method, usual_methods
from mixlab.training import rehearse as module
from mixlab.training.device import best_precision, check_precision, find_device
from mixlab.training.rehearse import COMBINED, rehearse


@pytest.mark.slow
def test_every_method_and_combination_trains_in_a_gpus_types(capsys):
    wanted = [*usual_methods(), *COMBINED]
    assert rehearse(wanted, build_method, "cpu", "bf16", minutes=5, steps=2, batch=32) == 0
    said = capsys.readouterr().out
    assert f"{len(wanted)} of {len(wanted)} methods train" in said and said.count("images/s") == len(wanted)


def test_a_method_that_does_not_train_or_resume_is_named_and_the_others_go_on(capsys):
    class Broken(Mixup):
        def loss(self, model, x, labels):
            return super().loss(model, x, labels) / 0

    class Forgetful(Mixup):
        def set_extra_state(self, state):
            pass  # goes on with a generator of its own

    make = {"Broken": Broken, "Forgetful": Forgetful, "Fine": Mixup}
    assert rehearse(list(make), lambda e, seed: make[e](1.0, rng=seed), "cpu", "float32", 5, "lenet", 2, 16) == 1
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "FAILED" in said["Broken"] and "checkpoint" in said["Forgetful"] and "images/s" in said["Fine"]
    assert "1" in said and said["1"].startswith("1 of 3")


def test_a_gpu_that_cannot_be_used_is_loud(monkeypatch, capsys):
    monkeypatch.setattr(module, "gpu_problem", lambda: "its driver is too old")
    assert rehearse([], build_method, "cpu") == 1 and "its driver is too old" in capsys.readouterr().out


def test_devices_and_precisions_that_are_not_there_are_refused(monkeypatch):
    for device in ("foo", "meta", "cuda:-3", *([] if torch.cuda.is_available() else ["cuda", "cuda:1"])):
        with pytest.raises(ValueError, match="device"):
            find_device(device)
    with pytest.raises(ValueError, match="precision"):
        check_precision("fp8", "cpu")
    assert check_precision(None, "cpu") == best_precision("cpu") in ("bf16", "float32")
    assert main(["rehearse", "--device", "foo"]) == 2


def test_more_processes_than_gpus_and_cards_without_bf16(monkeypatch):
    """What can be known of a GPU without one: the arithmetic of ranks and the fallback of a T4."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device() == torch.device("cuda:1") and chosen == [torch.device("cuda:1")]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="2 GPUs"):
        find_device()
    for capability, precision in (((7, 5), "float32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert best_precision("cuda") == precision
