"""Which device a worker trains on, and in which precision: asked once, stated in every record.

bf16 is bfloat16 under autocast: half the bytes, the range of float32. A processor that multiplies in it trains two to
three times as fast; one that has to emulate it is slower than in float32, so it is asked first.
"""

import os
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch

from mixlab.checks import check_choice

DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


def find_device(wanted: str | None = None) -> torch.device:
    """The device called `wanted`, or else this worker's GPU (by LOCAL_RANK), or else the CPU; made the current one."""
    try:
        device = torch.device(wanted or default_device())
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("nothing else is tested")
    except RuntimeError as problem:
        raise ValueError(f"device must be cpu, cuda or cuda:N, not {wanted!r} ({problem})") from None
    if device.type == "cuda":
        _select(device)
    return device


def default_device() -> str:
    """This worker's GPU if there is a usable one; a GPU that is there and not usable is said out loud."""
    if torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}"
    if problem := gpu_problem():
        warnings.warn(problem, stacklevel=2)
    return "cpu"


def gpu_problem() -> str | None:
    """A sentence if this machine has an NVIDIA GPU that PyTorch cannot use; None if all is well or there is none."""
    seen = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available() or not seen:
        return None
    built = torch.version.cuda
    why = f"its driver is too old for CUDA {built}" if built else "this PyTorch is a build for CPUs"
    return f"there is a GPU here that PyTorch cannot use: probably {why}. Training on the CPU instead"


def best_precision(device: torch.device | str = "cpu") -> str:
    """bf16 where the device multiplies in it: GPUs from Ampere on, CPUs with AVX512-BF16 or AMX; else float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16" if any(ask() for ask in asked if ask) else "float32"


def check_precision(precision: str | None, device: torch.device | str) -> str:
    """The precision that was asked for, or the best one of the device."""
    return best_precision(device) if precision is None else check_choice("precision", precision, DTYPES)


def autocast(device: torch.device, precision: str):
    """Within it, convolutions and products run in that precision; weights and losses stay in float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def _select(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but {gpu_problem() or 'PyTorch finds no GPU here'}")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"device is {device}, but this machine has {count} GPUs: start at most {count} processes here")
    torch.cuda.set_device(device)  # what a method allocates by itself then lies on this worker's GPU
    torch.backends.cudnn.benchmark = True
