"""Sound to pictures: the spectrogram against a pure tone, the two sets' files and splits."""

import wave

import numpy as np
import pytest
import torch

from mixlab.data import speech
from mixlab.data.sets import load
from mixlab.results import runs
from mixlab.training.loop import training_batches


def record(path, samples, rate, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(samples) * 20000).astype("<i2").tobytes())


def tone(rate, hertz, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("rate, shape", [(16000, (160, 101)), (8000, (80, 101))])
def test_a_tone_is_a_line_at_its_frequency(rate, shape):
    clips = torch.from_numpy(np.stack([tone(rate, 1000), tone(rate, 2500)])).float()
    x = speech.spectrogram(clips, rate)
    assert x.shape == (2, 1, *shape) and x.dtype == torch.uint8
    middle = x[:, 0, :, 20:80].float()
    assert (middle.argmax(1) == torch.tensor([[20], [50]])).all(), "50 Hz a row"
    assert (middle.amax(1) > 240).all() and float(middle[0, 60].max()) < 60


def test_loudness_is_relative_to_the_clip():
    clip = torch.from_numpy(tone(8000, 440)).float()[None]
    assert torch.equal(speech.spectrogram(clip, 8000), speech.spectrogram(1000 * clip, 8000))
    assert (speech.spectrogram(torch.zeros(1, 8000), 8000) == 255).all()  # silence: all equally loud


@pytest.fixture
def spoken(tmp_path):
    for digit in range(3):
        for take in range(8):
            record(
                tmp_path / "free-spoken-digits" / f"{digit}_ann_{take}.wav", tone(8000, 300 * (digit + 1), 0.4), 8000
            )
    return tmp_path


def test_free_spoken_digits(spoken):
    data = load("free-spoken-digits", spoken)
    assert len(data.train_x) == 3 * 3 and len(data.test_x) == 3 * 5 and data.train_x.shape[1:] == (1, 80, 101)
    assert data.train_y.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (data.train_x[..., 60:] == 0).all(), "after the word there is silence"
    batches = training_batches(data, runs.recipe("kmixup-speech"), np.random.default_rng(0), torch.device("cpu"))
    assert not batches.flip and not batches.padding
    with pytest.raises(ValueError, match="git clone"):
        load("free-spoken-digits", spoken / "free-spoken-digits")


def test_speech_commands_use_the_published_test_list(tmp_path):
    folder = tmp_path / "speech-commands"
    for word in ("yes", "no", "_background_noise_"):
        for take in range(3):
            record(folder / word / f"{take}.wav", tone(16000, 500), 16000)
    (folder / "testing_list.txt").write_text("yes/0.wav\nno/2.wav\n")
    data = load("speech-commands", tmp_path)
    assert data.classes == ("no", "yes") and len(data.train_x) == 4 and data.test_y.tolist() == [0, 1]
    assert data.train_x.shape[1:] == (1, 160, 101)


def test_what_cannot_be_heard_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no recordings"):
        speech.digits(tmp_path)
    record(tmp_path / "0_ann_9.wav", tone(16000, 500), 16000)
    with pytest.raises(ValueError, match=r"0_ann_9[.]wav must be mono at 8000 Hz, it has 1 axes and 16000 Hz"):
        speech.digits(tmp_path)
    (tmp_path / "0_ann_9.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"0_ann_9[.]wav cannot be read"):
        speech.digits(tmp_path)
    (tmp_path / "testing_list.txt").write_text("")
    with pytest.raises(ValueError, match=r"testing_list[.]txt names none"):
        speech.commands(tmp_path)
