"""Sound to pictures: the spectrogram against a pure tone, the two sets' files and splits."""

import wave

import numpy as np
import pytest
import torch

from mixlab.data import speech
from mixlab.data.sets import load
from mixlab.results import runs
from mixlab.training.loop import training_batches


def record(path, samples, rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(samples) * 20000).astype("<i2").tobytes())


def tone(rate, hertz, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def test_a_tone_is_a_line_at_its_frequency_and_loudness_is_relative():
    for rate in (16000, 8000):
        clips = torch.from_numpy(np.stack([tone(rate, 1000), tone(rate, 2500)])).float()
        x = speech.spectrogram(clips, rate)
        assert x.shape == (2, 1, rate // 100, 101) and x.dtype == torch.uint8
        middle = x[:, 0, :, 20:80].float()
        assert (middle.argmax(1) == torch.tensor([[20], [50]])).all(), "50 Hz a row"
        assert (middle.amax(1) > 240).all() and float(middle[0, 60].max()) < 60
        assert torch.equal(x, speech.spectrogram(1000 * clips, rate))
        assert (speech.spectrogram(torch.zeros(1, rate), rate) == 255).all()  # silence: all equally loud


def test_free_spoken_digits(tmp_path):
    folder = tmp_path / "free-spoken-digits"
    for digit in range(3):
        for take in range(8):
            record(folder / f"{digit}_ann_{take}.wav", tone(8000, 300 * (digit + 1), 0.4), 8000)
    data = load("free-spoken-digits", tmp_path)
    assert len(data.train_x) == 3 * 3 and len(data.test_x) == 3 * 5 and data.train_x.shape[1:] == (1, 80, 101)
    assert data.train_y.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (data.train_x[..., 60:] == 0).all(), "after the word there is silence"
    batches = training_batches(data, runs.recipe("kmixup-speech"), np.random.default_rng(0), torch.device("cpu"))
    assert not batches.flip and not batches.padding
    with pytest.raises(ValueError, match="free-spoken-digits"):
        load("free-spoken-digits", folder)


def test_speech_commands_use_the_published_test_list(tmp_path):
    folder = tmp_path / "speech-commands"
    for word in ("yes", "no", "_background_noise_"):
        for take in range(3):
            record(folder / word / f"{take}.wav", tone(16000, 500), 16000)
    (folder / "testing_list.txt").write_text("yes/0.wav\nno/2.wav\n")
    data = load("speech-commands", tmp_path)
    assert data.classes == ("no", "yes") and len(data.train_x) == 4 and data.test_y.tolist() == [0, 1]
    assert data.train_x.shape[1:] == (1, 160, 101)
    (folder / "testing_list.txt").write_text("")
    with pytest.raises(ValueError, match="testing_list"):
        speech.commands(folder)


def test_what_cannot_be_heard_is_named(tmp_path):
    file = tmp_path / "0_ann_9.wav"
    for spoil in (
        lambda: record(file, tone(16000, 500), 16000),  # another rate
        lambda: file.write_bytes(b"no sound"),
    ):
        spoil()
        with pytest.raises(ValueError, match="0_ann_9"):
            speech.digits(tmp_path)
