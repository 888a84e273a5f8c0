"""Exercises of 08 Tiny-ImageNet."""

from mixlab.course.exercises import Check


def _trap():
    return "C"


trap = Check(
    _trap,
    cases=lambda rng: [()],
    judge=lambda answer: None if answer == "C" else f"{answer}: how many folders does the test set have?",
    mistakes={
        "guessing gives 0.5% too, but this network makes few errors on the pictures it was trained on": lambda: "A",
        "shuffled labels give 0.5% on average as well; here nobody shuffled anything": lambda: "B",
    },
)


def _read_val(lines):
    return [tuple(line.split("\t")[:2]) for line in lines]


def _lines(rng):
    words = [f"n{number:08}" for number in rng.integers(10**7, size=6)]
    yield (["val_0.JPEG\tn03444034\t0\t32\t44\t62", "val_1.JPEG\tn04067472\t52\t55\t57\t59"],)
    yield ([f"val_{i}.JPEG\t{word}\t0\t0\t{i}\t63" for i, word in enumerate(words)],)


read_val = Check(
    _read_val,
    cases=_lines,
    mistakes={
        "the class is the second column; the last four say where the object lies": lambda lines: [
            (line.split("\t")[0], line.split("\t")[-1]) for line in lines
        ],
        "the picture comes first, then its class": lambda lines: [
            (line.split("\t")[1], line.split("\t")[0]) for line in lines
        ],
    },
)


def _conv_cost(size, channels_in, channels_out, stride):
    return (size // stride) ** 2 * 9 * channels_in * channels_out


conv_cost = Check(
    _conv_cost,
    cases=lambda rng: [(64, 3, 32, 1), (64, 3, 32, 2), (int(2 * rng.integers(4, 20)), 16, 32, 2)],
    mistakes={
        "a stride of two halves height and width": lambda size, a, b, stride: size * size // stride * 9 * a * b,
        "every place of the output looks at 3 x 3 pixels": lambda size, a, b, stride: (size // stride) ** 2 * a * b,
        "with a stride there are fewer places": lambda size, a, b, stride: size**2 * 9 * a * b,
    },
)


def _seen(classes, batch):
    return 1 - (1 - 1 / classes) ** batch


seen = Check(
    _seen,
    cases=lambda rng: [(200, 128), (10, 128), (2, 1), (int(rng.integers(20, 1000)), int(rng.integers(16, 512)))],
    mistakes={
        "that is the share that is missing": lambda classes, batch: (1 - 1 / classes) ** batch,
        "some classes come twice, so others do not come": lambda classes, batch: min(1.0, batch / classes),
    },
)


def _batch():
    return 460


def _judge_batch(answer):
    if not 0 < answer < 10**6:
        return "a batch size is wanted"
    share = _seen(200, answer)
    if share < 0.9:
        return f"a batch of {answer} sees {share:.1%} of the classes: a larger one"
    return None if _seen(200, answer - 1) < 0.9 else f"a batch of {answer} sees {share:.1%}: a smaller one will do"


batch = Check(
    _batch,
    cases=lambda rng: [()],
    judge=_judge_batch,
    mistakes={
        "nine tenths of 200 is what a batch without a class twice would have": lambda: 180,
        "twice as many pictures as classes: some classes come often, so others are missing": lambda: 400,
    },
)
