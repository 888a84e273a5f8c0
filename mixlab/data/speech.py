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
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    files = sorted(folder.glob("?_*_*.wav"))
    if not files:
        raise ValueError(f"{folder} holds no recordings <digit>_<speaker>_<take>.wav")
    held = np.array([int(file.stem.split("_")[2]) < 5 for file in files])
    labels = np.array([int(file.name[0]) for file in files])
    x = pictures(files, rate=8000)
    return x[~held], labels[~held], x[held], labels[held], tuple("0123456789")


def commands(folder: Path):
    """Google Speech Commands: a folder per word, 16 kHz; the test set is the one that testing_list.txt names."""
    listed = set((folder / "testing_list.txt").read_text().split())
    words = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    files = [file for word in words for file in sorted((folder / word).glob("*.wav"))]
    held = np.array([f"{file.parent.name}/{file.name}" in listed for file in files])
    if not held.any() or held.all():
        raise ValueError(f"{folder}: testing_list.txt names none of its recordings, or all of them")
    labels = np.array([words.index(file.parent.name) for file in files])
    x = pictures(files, rate=16000)
    return x[~held], labels[~held], x[held], labels[held], tuple(words)


def pictures(files: list[Path], rate: int) -> np.ndarray:
    """The spectrograms of WAV files, cut or filled up with silence to one second."""
    blocks = [files[start : start + BLOCK] for start in range(0, len(files), BLOCK)]
    read = [torch.from_numpy(np.stack([_second(file, rate) for file in block])) for block in blocks]
    return torch.cat([spectrogram(clips, rate) for clips in read]).numpy()


def _second(file: Path, rate: int) -> np.ndarray:
    """One second of mono sound, float32."""
    from scipy.io import wavfile

    try:
        if not file.is_file():
            raise ValueError("it is no file")
        found, sound = wavfile.read(file)
    except Exception as problem:  # a damaged file fails in many ways
        raise ValueError(f"{file} cannot be read ({problem})") from None
    if found != rate or sound.ndim != 1:
        raise ValueError(f"{file} must be mono at {rate} Hz, it has {sound.ndim} axes and {found} Hz")
    clip = np.zeros(rate, np.float32)
    clip[: len(sound)] = sound[:rate]
    return clip
