"""Spoken words as pictures: one second of sound becomes a spectrogram of uint8, so that all that takes images takes it.

`load("speech-commands")` and `load("free-spoken-digits")` in originals.py end here.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RANGE = 80.0  # decibels below the loudest point of a clip that are still drawn; what is fainter is black
BLOCK = 256


def spectrogram(clips: Tensor, rate: int) -> Tensor:
    """Sound (n, samples) of one second at `rate` -> uint8 (n, 1, rate / 100, 101): loudness in decibels.

    Windows of 20 ms every 10 ms; rows are frequencies of 0, 50, 100 … Hz, columns moments. 16 kHz gives 160 x 101.
    """
    window, hop = rate // 50, rate // 100
    waves = torch.stft(clips, window, hop, window=torch.hann_window(window), return_complex=True)[:, :-1]
    loudness = 20 * waves.abs().clamp(min=1e-10).log10()
    below = loudness - loudness.amax((1, 2), keepdim=True)
    return ((below / RANGE + 1).clamp(0, 1) * 255).round().byte()[:, None]


def digits(folder: Path):
    """Free Spoken Digits: files <digit>_<speaker>_<take>.wav of 8 kHz; takes 0 to 4 are the test set."""
    files = sorted([*folder.glob("?_*_*.wav"), *folder.glob("recordings/?_*_*.wav")])
    if not files:
        raise ValueError(f"{folder} holds no recordings <digit>_<speaker>_<take>.wav")
    held = [int(file.stem.split("_")[2]) < 5 for file in files]
    return _split(files, held, [int(file.name[0]) for file in files], 8000, tuple("0123456789"))


def commands(folder: Path):
    """Google Speech Commands: a folder per word, 16 kHz; the test set is the one that testing_list.txt names."""
    listed = set((folder / "testing_list.txt").read_text().split())
    words = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    files = [file for word in words for file in sorted((folder / word).glob("*.wav"))]
    held = [f"{file.parent.name}/{file.name}" in listed for file in files]
    if not any(held) or all(held):
        raise ValueError(f"{folder}: testing_list.txt names none of its recordings, or all of them")
    return _split(files, held, [words.index(file.parent.name) for file in files], 16000, tuple(words))


def _split(files: list[Path], held: list[bool], labels: list[int], rate: int, classes: tuple[str, ...]):
    held, labels, blocks = np.array(held), np.array(labels), range(0, len(files), BLOCK)
    clips = (torch.from_numpy(np.stack([_second(file, rate) for file in files[b : b + BLOCK]])) for b in blocks)
    x = torch.cat([spectrogram(block, rate) for block in clips]).numpy()
    return x[~held], labels[~held], x[held], labels[held], classes


def _second(file: Path, rate: int) -> np.ndarray:
    """One second of mono sound, float32: the rest cut off, or filled up with silence."""
    from scipy.io import wavfile

    try:
        found, sound = wavfile.read(file)
        if found != rate or sound.ndim != 1:
            raise ValueError(f"it must be mono at {rate} Hz, and has {sound.ndim} axes and {found} Hz")
    except Exception as problem:  # a damaged file fails in many ways
        raise ValueError(f"{file} cannot be read ({problem})") from None
    clip = np.zeros(rate, np.float32)
    clip[: len(sound)] = sound[:rate]
    return clip
