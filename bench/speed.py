"""python -m bench: speed, ours beside others, in one process and in turn: a slow moment hits all alike.

Absolute times drift with the machine, ratios hardly: each line gives the median over rounds of a per-round ratio.
"""

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from bench import peers
from mixlab.plans import Pairs, one_hot
from mixlab.training.timing import in_turn

# glibc hands batch-sized blocks back to the kernel and faults them in again, which can cost more than the mixing.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
WARM = 5e-3  # seconds: see in_turn


def run(what: str) -> int:
    """Start again with the allocator held still, then measure."""
    if what not in ("all", *PARTS):
        raise ValueError(f"bench has the parts {', '.join(PARTS)}, not {what!r}")
    if sys.platform == "linux" and any(key not in os.environ for key in MALLOC):
        os.execve(sys.executable, [sys.executable, "-m", "bench", what], {**os.environ, **MALLOC})
    from mixlab.results.records import circumstances

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


def cutmix(batch: int = 128, rounds: int = 60) -> None:
    """CutMix of a batch of 32 x 32 images and its labels: one box for the batch, and a box for every image."""
    from torchvision.transforms import v2

    from mixlab.cutmix import CutMix

    x, labels = torch.rand(batch, 3, 32, 32), torch.arange(batch) % 10
    theirs = v2.CutMix(alpha=1.0, num_classes=10)
    variants = {
        "mixlab": _ours(CutMix(1.0, rng=0), x, labels),
        "mixlab, per sample": _ours(CutMix(1.0, per_sample=True, rng=0), x, labels),
        "torchvision": lambda: theirs(x, labels),
        **peers.timm_mixing(x, labels, mixup_alpha=0.0, cutmix_alpha=1.0),
    }
    print(f"\nCutMix, batch {batch} of 3x32x32 float32, median of {rounds} rounds")
    _print(in_turn(variants, rounds, least=WARM), "torchvision", ["timm, batch", "timm, per sample"])


def sweep(epochs: int = 200, alone: int = 5) -> None:
    """125 networks 2-130-120-2 for 200 epochs of 512 points at once, against some of them trained one by one."""
    from mixlab.data.toys import one_ring
    from mixlab.mixup import Mixup
    from mixlab.training.sweeps import fit_many

    data, grid = one_ring(), [(alpha, seed) for alpha in np.geomspace(0.05, 64, 25) for seed in range(5)]
    start = time.perf_counter()
    fit_many(data, [Mixup(a, rng=s) for a, s in grid], [s for _, s in grid], epochs=epochs, progress=False)
    together = time.perf_counter() - start
    start = time.perf_counter()
    for alpha, seed in grid[:alone]:
        peers.train_alone(data, Mixup(alpha, rng=seed), seed, epochs)
    each = (time.perf_counter() - start) / alone
    print(f"125 networks at once: {together:.1f} s")
    print(f"one by one: {each:.2f} s each (n = {alone}), {125 * each:.0f} s for 125; ratio {125 * each / together:.1f}")


def pipeline(images: int = 10_000, batch: int = 128, rounds: int = 5) -> None:
    """Random crop, flip, normalise: images of 32 x 32 a second, ours beside a torchvision DataLoader of two workers."""
    from mixlab.data.batches import Batches

    x = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moments = {"mean": [0.5] * 3, "std": [0.25] * 3}
    ours = Batches(x, torch.zeros(images, dtype=torch.int64), batch, 0, **moments)
    theirs = peers.loader(x, batch, **moments)
    variants = {"mixlab.Batches": lambda: [None for _ in ours], "torchvision": lambda: [None for _ in theirs]}
    times = in_turn(variants, rounds, warm=1)
    print(f"\ninput pipeline, one pass over {images:,} images, batch {batch}, median of {rounds} rounds")
    for name, seconds in times.items():
        print(f"{name:22}{images / statistics.median(seconds):12,.0f} images/s")
    print(f"ratio {_ratio(times['torchvision'], times['mixlab.Batches']):.1f}")


def steps(batch: int = 128, rounds: int = 15) -> None:
    """A training step of every method of the module on the quick network, beside plain ERM in the same rounds."""
    from mixlab.results import runs
    from mixlab.training.models import build

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    variants = {}
    for expression in runs.usual_methods():
        net, method = build("quick_resnet", 10, seed=0), runs.build_method(expression, seed=0)
        method.prepare(net, labels.repeat(1000))  # of a training set that these few steps do not go through
        optimiser = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01, momentum=0.9)
        variants[expression] = _step(net, method, optimiser, x, labels)
    times = in_turn(variants, rounds)
    print(f"\ntraining step of quick_resnet, batch {batch} of 3x32x32, median of {rounds} rounds")
    for expression, seconds in times.items():
        speed = batch / statistics.median(seconds)
        print(f"{expression:50}{speed:8,.0f} images/s   / ERM {_ratio(seconds, times['ERM()']):.3f}")


def training(images: int = 5120, batch: int = 128, rounds: int = 3) -> None:
    """Whole epochs of 32 x 32 pictures with crop, flip and mixup: the loop that people write, and ours.

    A step of the network alone, one thread: float32 and channels first, as PyTorch comes, beside what the loop does.
    """
    from mixlab.data import load
    from mixlab.training.device import best_precision
    from mixlab.training.models import build

    data, precision = load("shapes", n_train=images, n_test=100), best_precision()
    for name in ("quick_resnet", "laptop_resnet"):
        ours, theirs = _our_epoch(name, images, batch), peers.written_by_hand(data, build(name, 10, seed=0), batch)
        times = in_turn({"mixlab": ours, "DataLoader, v2.MixUp": theirs}, rounds, warm=1)
        print(f"\n{name}, {images:,} images an epoch, {torch.get_num_threads()} threads, {precision}, {rounds} rounds")
        for variant, seconds in times.items():
            ratio = _ratio(times["DataLoader, v2.MixUp"], seconds)
            print(f"{variant:36}{images / statistics.median(seconds):8,.0f} images/s   {ratio:.2f} times")
        both = _two_workers(name, images, batch, rounds)
        ratio = both * statistics.median(times["DataLoader, v2.MixUp"]) / images
        print(f"{'mixlab, two workers of one thread':36}{both:8,.0f} images/s   {ratio:.2f} times")
        _one_thread(name, data, batch, precision, 4 * rounds)


def _our_epoch(name: str, images: int, batch: int) -> Callable:
    from mixlab.data import load
    from mixlab.mixup import Mixup
    from mixlab.training.loop import Training
    from mixlab.training.models import build
    from mixlab.training.recipes import Recipe

    data, recipe = load("shapes", n_train=images, n_test=100), Recipe(10**6, 0.01, batch, test_every=10**6)
    return Training(data, build(name, 10, seed=0), Mixup(1.0, rng=0), recipe).epoch


def _two_workers(name: str, images: int, batch: int, rounds: int) -> float:
    """Images a second of two processes together, each with one thread and a run of its own."""
    spawn = multiprocessing.get_context("spawn")
    together, rates = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=_work, args=(name, images, batch, rounds, together, rates)) for _ in range(2)]
    for worker in workers:
        worker.start()
    total = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def _work(name: str, images: int, batch: int, rounds: int, together, rates) -> None:
    torch.set_num_threads(1)
    epoch = _our_epoch(name, images, batch)
    epoch()
    together.wait()
    start = time.perf_counter()
    for _ in range(rounds):
        epoch()
    rates.put(images * rounds / (time.perf_counter() - start))


def _one_thread(name: str, data, batch: int, precision: str, rounds: int) -> None:
    """A step of ERM on one thread: the layout and the type are all that differs."""
    threads, variants = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    x, labels = data.train_x[:batch].float() / 255, data.train_y[:batch]
    kinds = {"float32, channels first": (torch.contiguous_format, "float32")}
    kinds |= {"float32, channels_last": (torch.channels_last, "float32")}
    kinds |= {f"{precision}, channels_last": (torch.channels_last, precision)}
    for kind, (layout, type_) in kinds.items():
        variants[f"one thread, {kind}"] = _plain_step(name, x, labels, layout, type_)
    times = in_turn(variants, rounds)
    torch.set_num_threads(threads)
    for kind, seconds in times.items():
        ratio = _ratio(times["one thread, float32, channels first"], seconds)
        print(f"{kind:36}{batch / statistics.median(seconds):8,.0f} images/s   {ratio:.2f} times")


def _plain_step(name: str, x, labels, layout, precision: str) -> Callable:
    from mixlab.training.device import DTYPES, autocast
    from mixlab.training.models import build

    net = build(name, 10, seed=0).to(memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = x.to(memory_format=layout, dtype=DTYPES[precision])

    def call():
        with autocast(x.device, precision):
            loss = torch.nn.functional.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return call


def matching(batches=(128, 512), ks=(2, 4, 16, 32), rounds: int = 15) -> None:
    """k-mixup's partners for images, beside the loop of the paper's pseudocode, which must find the same ones."""
    from mixlab.kmixup import match

    for batch in batches:
        generator = torch.Generator().manual_seed(0)
        x, z = torch.randn(2, batch, 3, 32, 32, generator=generator)
        print(f"\nmatching, batch {batch} of 3x32x32 float32, median of {rounds} rounds")
        print(f"{'k':>4}{'ours, ms':>12}{'pseudocode, ms':>18}{'ratio':>8}")
        for k in ks:
            same = torch.equal(match(x, z, k, "euclidean"), peers.match_as_printed(x, z, k))
            variants = {"ours": partial(match, x, z, k), "theirs": partial(peers.match_as_printed, x, z, k)}
            times = in_turn(variants, rounds, least=WARM)
            ours, theirs = (1e3 * statistics.median(times[name]) for name in ("ours", "theirs"))
            print(
                f"{k:4}{ours:12.2f}{theirs:18.2f}{_ratio(times['theirs'], times['ours']):8.1f}"
                + " (differs)" * (not same)
            )


def zeta(batch: int = 128, gamma: float = 2.8, rounds: int = 60) -> None:
    """zeta-mixup of a batch, by our weights and by rows that a Fourier transform rolls into place."""
    from mixlab.plans import Weights
    from mixlab.zeta import p_series, weights

    x, rng = torch.rand(batch, 3, 32, 32), np.random.default_rng(0)
    series = torch.from_numpy(p_series(batch, gamma))

    def mix(matrix: torch.Tensor) -> torch.Tensor:
        return Weights(matrix.float()).mix(x)

    variants = {
        "mixlab": lambda: mix(weights(batch, gamma, rng)),
        "Fourier": lambda: mix(peers.zeta_rolled(series)),
        "product alone": partial(mix, weights(batch, gamma, rng)),
    }
    print(f"\nzeta-mixup, batch {batch} of 3x32x32 float32, median of {rounds} rounds")
    _print(in_turn(variants, rounds), "Fourier", ["product alone"])


def confusion(rounds: int = 9) -> None:
    """Pairs from a confusion matrix, by Birkhoff and one class after the other; and the increment of the counts."""
    from mixlab.birkhoff import birkhoff, pair_birkhoff, pair_sequential
    from mixlab.confusion import increment, pairing_matrix

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
            "Birkhoff": partial(pair_birkhoff, labels, *layers, rng),
            "sequential": partial(pair_sequential, labels, matrix, rng),
            "as released": partial(peers.pair_as_released, labels, matrix, rng),
        }
        _print(in_turn(pairs, rounds, least=WARM), "as released", [])
        mixed = Pairs(rng.permutation(batch), 0.7).mix_labels(one_hot(labels, classes))
        counts = {
            "increment, unmixed": partial(increment, probabilities, labels),
            "loop, unmixed": partial(peers.count_one_by_one, probabilities, one_hot(labels, classes)),
            "increment, pairs": partial(increment, probabilities, mixed),
            "loop, pairs": partial(peers.count_one_by_one, probabilities, mixed),
        }
        _print(in_turn(counts, rounds, least=WARM), "loop, unmixed", ["loop, pairs"])


def puzzle(batch: int = 100, blocks: int = 8, rounds: int = 15) -> None:
    """PuzzleMix's work on the host, and its mixing: blocks looked up, beside blocks moved by matrix products."""
    from mixlab.puzzlemix import Puzzle, puzzle_mask, transport

    rng = np.random.default_rng(0)
    x, partner = torch.rand(batch, 3, 32, 32), torch.from_numpy(rng.permutation(batch))
    own = torch.from_numpy(rng.gamma(0.5, size=(batch, blocks, blocks)))
    mask = puzzle_mask(own, own[partner], 0.6)
    moves = transport(own, mask, 0.8), transport(own[partner], 1 - mask, 0.8)
    plan = Puzzle(partner, mask, *moves)
    variants = {
        "mask": lambda: puzzle_mask(own, own[partner], 0.6),
        "transport": lambda: [transport(own, mask, 0.8), transport(own[partner], 1 - mask, 0.8)],
        "mixing": lambda: plan.mix(x),
        "mixing by products": lambda: peers.move_by_products(plan, x),
    }
    assert torch.allclose(variants["mixing"](), variants["mixing by products"](), atol=1e-6)
    print(f"\nPuzzleMix, batch {batch} of 3x32x32 float32, {blocks} x {blocks} blocks, median of {rounds} rounds")
    _print(in_turn(variants, rounds), "mixing by products", [])


def infinite(batch: int = 128, rounds: int = 60) -> None:
    """The scores of a batch against its own mixed classifiers: two columns each, or a product with the mixed labels."""
    for classes in (10, 100, 1000):
        variants = _heads(np.random.default_rng(0), batch, classes)
        print(f"\nInfinite Class head, batch {batch}, {classes} classes, median of {rounds} rounds")
        _print(in_turn(variants, rounds, least=WARM), "scores, product", ["loss, product"])


def _heads(rng: np.random.Generator, batch: int, classes: int) -> dict[str, Callable]:
    from mixlab.infinite import infinite_class_loss

    scores = torch.from_numpy(rng.normal(size=(batch, classes))).float().requires_grad_()
    labels = torch.from_numpy(rng.integers(classes, size=batch))
    plan = Pairs(rng.permutation(batch), rng.uniform(size=batch).astype(np.float32))

    def y():
        return plan.mix_labels(one_hot(labels, classes))

    def gathered():
        by_class = scores.T.contiguous()  # rows are gathered faster than columns
        return by_class[labels[plan.partner]].lerp(by_class[labels], plan.lam[:, None]).T

    def both_axes(s):
        own = torch.arange(batch)
        return torch.nn.functional.cross_entropy(s, own) + torch.nn.functional.cross_entropy(s.T, own)

    return {
        "scores, gathered": gathered,
        "scores, product": lambda: scores @ y().T,
        "loss, gathered": lambda: both_axes(gathered()).backward(),
        "loss, product": lambda: infinite_class_loss(scores, y()).backward(),
    }


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
    return variants | peers.timm_mixing(x, labels, mixup_alpha=1.0)


def _ours(method, x, labels) -> Callable:
    def call():
        plan = method.draw(x, labels)
        return plan.mix(x), method.targets(plan, labels, 10)

    return call


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
        print(f"{name:22}{1e3 * statistics.median(seconds):8.3f}" + "".join(f"{ratio:16.3g}" for ratio in ratios))


PARTS = {
    "mixing": mixing,
    "cutmix": cutmix,
    "matching": matching,
    "zeta": zeta,
    "confusion": confusion,
    "puzzle": puzzle,
    "infinite": infinite,
    "sweep": sweep,
    "pipeline": pipeline,
    "steps": steps,
    "training": training,
}
