"""python -m mixlab bench: speed, ours beside others, in one process and in turn: a slow moment hits all alike.

Absolute times drift with the machine, ratios hardly: each line gives the median over rounds of a per-round ratio.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

# glibc hands batch-sized blocks back to the kernel and faults them in again, which can cost more than the mixing.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def run(what: str) -> int:
    """Start again with the allocator held still, then measure."""
    if sys.platform == "linux" and any(key not in os.environ for key in MALLOC):
        os.execve(sys.executable, [sys.executable, "-m", "mixlab", "bench", what], {**os.environ, **MALLOC})
    from mixlab.records import circumstances

    facts = circumstances()
    print(f"{facts['device']}, {facts['threads']} threads, torch {facts['versions']['torch']}")
    for name in PARTS if what == "all" else [what]:
        PARTS[name]()
    return 0


def mixing(batch: int = 128, rounds: int = 60) -> None:
    """mixup of a batch of 32 x 32 images and its labels: draw, mix inputs, mix labels."""
    for title, layout in (("channels first", torch.contiguous_format), ("channels_last", torch.channels_last)):
        x = torch.rand(batch, 3, 32, 32).to(memory_format=layout)
        variants = _mixing_variants(x, torch.arange(batch) % 10)
        print(f"\nmixup, batch {batch} of 3x32x32 float32, {title}, median of {rounds} rounds")
        _print(in_turn(variants, rounds), "copy", ["torchvision", "timm, batch"])


def sweep(epochs: int = 200, alone: int = 5) -> None:
    """125 networks 2-130-120-2 for 200 epochs of 512 points at once, against some of them trained one by one."""
    from mixlab.mixup import Mixup
    from mixlab.sweeps import fit_many
    from mixlab.toys import one_ring

    data, grid = one_ring(), [(alpha, seed) for alpha in np.geomspace(0.05, 64, 25) for seed in range(5)]
    start = time.perf_counter()
    fit_many(data, [Mixup(a, rng=s) for a, s in grid], [s for _, s in grid], epochs=epochs, progress=False)
    together = time.perf_counter() - start
    start = time.perf_counter()
    for alpha, seed in grid[:alone]:
        _train_alone(data, Mixup(alpha, rng=seed), seed, epochs)
    each = (time.perf_counter() - start) / alone
    print(f"125 networks at once: {together:.1f} s")
    print(f"one by one: {each:.2f} s each (n = {alone}), {125 * each:.0f} s for 125; ratio {125 * each / together:.1f}")


def pipeline(images: int = 10_000, batch: int = 128, rounds: int = 5) -> None:
    """Random crop, flip, normalise: images of 32 x 32 a second, ours beside a torchvision DataLoader of two workers."""
    from mixlab.batches import Batches

    x = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moments = {"mean": [0.5] * 3, "std": [0.25] * 3}
    ours = Batches(x, torch.zeros(images, dtype=torch.int64), batch, 0, **moments)
    theirs = _loader(x, batch, **moments)
    variants = {"mixlab.Batches": lambda: [None for _ in ours], "torchvision": lambda: [None for _ in theirs]}
    times = in_turn(variants, rounds, warm=1)
    print(f"\ninput pipeline, one pass over {images:,} images, batch {batch}, median of {rounds} rounds")
    for name, seconds in times.items():
        print(f"{name:22}{images / statistics.median(seconds):12,.0f} images/s")
    print(f"ratio {_ratio(times['torchvision'], times['mixlab.Batches']):.1f}")


def steps(batch: int = 128, rounds: int = 15) -> None:
    """A training step of every method of the module on the quick network, beside plain ERM in the same rounds."""
    from mixlab import runs
    from mixlab.models import build

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    variants = {}
    for expression in runs.usual_methods():
        net, method = build("quick_resnet", 10, seed=0), runs.build_method(expression, seed=0)
        method.prepare(net, labels)
        optimiser = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01, momentum=0.9)
        variants[expression] = _step(net, method, optimiser, x, labels)
    times = in_turn(variants, rounds)
    print(f"\ntraining step of quick_resnet, batch {batch} of 3x32x32, median of {rounds} rounds")
    for expression, seconds in times.items():
        speed = batch / statistics.median(seconds)
        print(f"{expression:50}{speed:8,.0f} images/s   / ERM {_ratio(seconds, times['ERM()']):.3f}")


def matching(batches=(128, 512), ks=(2, 4, 16, 32), rounds: int = 15) -> None:
    """k-mixup's partners for images, beside the loop of the paper's pseudocode, which must find the same ones."""
    from mixlab.kmixup import match

    for batch in batches:
        generator = torch.Generator().manual_seed(0)
        x, z = torch.randn(2, batch, 3, 32, 32, generator=generator)
        print(f"\nmatching, batch {batch} of 3x32x32 float32, median of {rounds} rounds")
        print(f"{'k':>4}{'ours, ms':>12}{'pseudocode, ms':>18}{'ratio':>8}")
        for k in ks:
            same = torch.equal(match(x, z, k, "euclidean"), _pseudocode(x, z, k))
            variants = {"ours": partial(match, x, z, k), "theirs": partial(_pseudocode, x, z, k)}
            times = in_turn(variants, rounds)
            ours, theirs = (1e3 * statistics.median(times[name]) for name in ("ours", "theirs"))
            print(
                f"{k:4}{ours:12.2f}{theirs:18.2f}{_ratio(times['theirs'], times['ours']):8.1f}"
                + " (differs)" * (not same)
            )


def _pseudocode(x: torch.Tensor, z: torch.Tensor, k: int) -> torch.Tensor:
    """Figure 5 of the k-mixup paper, one block after the other, plain distances."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial import distance_matrix

    a, b = x.flatten(1).numpy(), z.flatten(1).numpy()
    partner = np.zeros(len(a), np.int64)
    for start in range(0, len(a), k):
        block = slice(start, start + k)
        partner[block] = linear_sum_assignment(distance_matrix(a[block], b[block]))[1] + start
    return torch.from_numpy(partner)


def zeta(batch: int = 128, gamma: float = 2.8, rounds: int = 60) -> None:
    """zeta-mixup of a batch, by our weights and by rows that a Fourier transform rolls into place."""
    from mixlab.plans import Weights
    from mixlab.zeta import p_series, weights

    x, rng = torch.rand(batch, 3, 32, 32), np.random.default_rng(0)
    series = torch.from_numpy(p_series(batch, gamma))

    def mix(matrix: torch.Tensor) -> torch.Tensor:
        return Weights.unchecked(matrix.float()).mix(x)

    variants = {
        "mixlab": lambda: mix(weights(batch, gamma, rng)),
        "Fourier": lambda: mix(_rolled(series)),
        "product alone": partial(mix, weights(batch, gamma, rng)),
    }
    print(f"\nzeta-mixup, batch {batch} of 3x32x32 float32, median of {rounds} rounds")
    _print(in_turn(variants, rounds), "Fourier", ["product alone"])


def _rolled(series: torch.Tensor) -> torch.Tensor:
    """Row i: the first weight, then the others in random order, rolled i places to the right."""
    n = len(series)
    others = series[1:][torch.rand(n, n - 1).argsort(1)]
    rows = torch.cat([series[:1].expand(n, 1), others], 1)
    turn = torch.outer(torch.arange(n), torch.fft.fftfreq(n, 1 / n)) / n
    return torch.fft.ifft(torch.fft.fft(rows) * torch.exp(-2j * torch.pi * turn)).real


def confusion(rounds: int = 9) -> None:
    """Pairs from a confusion matrix, by Birkhoff and one class after the other; and the increment of the counts."""
    from mixlab.confusion import birkhoff, increment, pair_birkhoff, pair_sequential, pairing_matrix

    rng = np.random.default_rng(0)
    for batch, classes in ((250, 10), (1000, 100)):
        labels = torch.arange(batch) % classes
        matrix = pairing_matrix(torch.from_numpy(rng.dirichlet(np.ones(classes), classes)), 0.5)
        start = time.perf_counter()
        layers = birkhoff(matrix)
        seconds = time.perf_counter() - start
        print(f"\nbatch {batch}, {classes} classes: {len(layers[0])} permutations, made in {seconds:.2f} s")
        probabilities = torch.from_numpy(rng.dirichlet(np.ones(classes), batch)).float()
        pairs = {
            "Birkhoff": lambda labels=labels, layers=layers: pair_birkhoff(labels, *layers, rng),
            "sequential": lambda labels=labels, matrix=matrix: pair_sequential(labels, matrix, rng),
        }
        _print(in_turn(pairs, rounds), "sequential", [])
        counts = {
            "increment": partial(increment, probabilities, labels),
            "loop": partial(_counted, probabilities, labels),
        }
        _print(in_turn(counts, rounds), "loop", [])


def _counted(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The increment of unmixed samples, one after the other."""
    counts = torch.zeros(probabilities.shape[1], probabilities.shape[1])
    for p, label in zip(probabilities, labels, strict=True):
        others = p.clone()
        others[label] = 0
        counts[label] += others
    return counts


def in_turn(variants: dict[str, Callable], rounds: int, warm: int = 3) -> dict[str, list[float]]:
    """Seconds per call of each variant, one call of each per round, after a few rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + warm):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if number >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def _mixing_variants(x: torch.Tensor, labels: torch.Tensor) -> dict[str, Callable]:
    from torchvision.transforms import v2

    from mixlab.mixup import Mixup

    target = torch.empty_like(x)
    theirs = v2.MixUp(alpha=1.0, num_classes=10)
    variants = {
        "copy": lambda: target.copy_(x),
        "mixlab": _ours(Mixup(1.0, rng=0), x, labels),
        "mixlab, per sample": _ours(Mixup(1.0, per_sample=True, rng=0), x, labels),
        "torchvision": lambda: theirs(x, labels),
    }
    try:
        from timm.data import Mixup as TimmMixup
    except ImportError:
        print("timm is not installed: pip install -e '.[bench]' to see it beside the others")
        return variants
    own = x.clone()  # timm overwrites the batch it is given: it gets one of its own, and is not charged for the copy
    for mode, name in (("batch", "timm, batch"), ("elem", "timm, per sample")):
        mixer = TimmMixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=10, mode=mode)
        variants[name] = lambda mixer=mixer: mixer(own, labels)
    return variants


def _ours(method, x, labels) -> Callable:
    def call():
        plan = method.draw(x, labels)
        return plan.mix(x), method.targets(plan, labels, 10)

    return call


def _train_alone(data, method, seed: int, epochs: int) -> None:
    from mixlab.sweeps import Nets, adam

    net = Nets((2, 130, 120, 2), [seed]).alone(0)
    optimiser, order = adam(net.parameters()), np.random.default_rng([seed, 1])
    for _ in range(epochs):
        for rows in torch.from_numpy(order.permutation(len(data.train_x))).split(32):
            optimiser.zero_grad()
            method.loss(net, data.train_x[rows], data.train_y[rows]).backward()
            optimiser.step()


def _loader(x: torch.Tensor, batch: int, mean, std):
    """The usual way: PIL images, one at a time, in two worker processes."""
    from PIL import Image
    from torchvision import transforms

    flow = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    flow = transforms.Compose([*flow, transforms.ToTensor(), transforms.Normalize(mean, std)])
    pixels = x.permute(0, 2, 3, 1).numpy()

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            return flow(Image.fromarray(pixels[index])), 0

    return torch.utils.data.DataLoader(Images(), batch, shuffle=True, num_workers=2, persistent_workers=True)


def _step(net, method, optimiser, x, labels) -> Callable:
    def call():
        optimiser.zero_grad()
        method.loss(net, x, labels).backward()
        optimiser.step()

    return call


def _ratio(seconds: list[float], others: list[float]) -> float:
    """Median over rounds of the per-round ratio."""
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def _print(times: dict[str, list[float]], unit: str, others: list[str]) -> None:
    beside = [other for other in others if other in times]
    print(f"{'':22}{'ms':>8}" + "".join(f"{'/ ' + name:>16}" for name in [unit, *beside]))
    for name, seconds in times.items():
        ratios = [_ratio(seconds, times[other]) for other in [unit, *beside]]
        print(f"{name:22}{1e3 * statistics.median(seconds):8.3f}" + "".join(f"{ratio:16.2f}" for ratio in ratios))


PARTS = {
    "mixing": mixing,
    "matching": matching,
    "zeta": zeta,
    "confusion": confusion,
    "sweep": sweep,
    "pipeline": pipeline,
    "steps": steps,
}
