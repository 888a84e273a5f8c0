"""Exercises of 08 Tiny-ImageNet."""

from mixlab.course.exercises import check


@check(
    judge=lambda answer: None if answer == "C" else f"{answer}: how many folders does the test set have?",
    mistakes={
        "guessing gives 0.5% too, but this network makes few errors on the pictures it was trained on": lambda: "A",
        "shuffled labels give 0.5% on average as well; here nobody shuffled anything": lambda: "B",
    },
)
def trap():
    return "C"


def _lines(rng):
    words = [f"n{number:08}" for number in rng.integers(10**7, size=6)]
    yield (["val_0.JPEG\tn03444034\t0\t32\t44\t62", "val_1.JPEG\tn04067472\t52\t55\t57\t59"],)
    yield ([f"val_{i}.JPEG\t{word}\t0\t0\t{i}\t63" for i, word in enumerate(words)],)


def _columns(lines, *wanted):
    return [tuple(line.split("\t")[i] for i in wanted) for line in lines]


@check(
    cases=_lines,
    mistakes={
        "the class is the second column; the last four say where the object lies": lambda lines: _columns(lines, 0, -1),
        "the picture comes first, then its class": lambda lines: _columns(lines, 1, 0),
    },
)
def read_val(lines):
    return _columns(lines, 0, 1)


@check(
    cases=lambda rng: [(64, 3, 32, 1), (64, 3, 32, 2), (int(2 * rng.integers(4, 20)), 16, 32, 2)],
    mistakes={
        "a stride of two halves height and width": lambda size, a, b, stride: size * size // stride * 9 * a * b,
        "every place of the output looks at 3 x 3 pixels": lambda size, a, b, stride: (size // stride) ** 2 * a * b,
        "with a stride there are fewer places": lambda size, a, b, stride: size**2 * 9 * a * b,
    },
)
def conv_cost(size, channels_in, channels_out, stride):
    return (size // stride) ** 2 * 9 * channels_in * channels_out


@check(
    cases=lambda rng: [(200, 128), (10, 128), (2, 1), (int(rng.integers(20, 1000)), int(rng.integers(16, 512)))],
    mistakes={
        "that is the share that is missing": lambda classes, batch: (1 - 1 / classes) ** batch,
        "some classes come twice, so others do not come": lambda classes, batch: min(1.0, batch / classes),
    },
)
def seen(classes, batch):
    return 1 - (1 - 1 / classes) ** batch


def _smallest(answer):
    if not 0 < answer < 10**6:
        return "a batch size is wanted"
    share = seen(200, answer)
    if share < 0.9:
        return f"a batch of {answer} sees {share:.1%} of the classes: a larger one"
    return None if seen(200, answer - 1) < 0.9 else f"a batch of {answer} sees {share:.1%}: a smaller one will do"


@check(
    judge=_smallest,
    mistakes={
        "nine tenths of 200 is what a batch without a class twice would have": lambda: 180,
        "twice as many pictures as classes: some classes come often, so others are missing": lambda: 400,
    },
)
def batch():
    return 460
