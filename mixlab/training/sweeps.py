"""Many small networks at once: a whole published table on a laptop.

Training 125 networks of 16,000 weights one by one leaves the machine idle between thousands of tiny operations. Stacked
into tensors with a leading axis m (one slice per network), each operation does all of them, and nothing else changes:
every network has its own initial weights, data order, method and draws, and ends where it would end if trained alone.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.checks import check_whole
from mixlab.data.downloads import bar
from mixlab.data.toys import ToySet
from mixlab.kmixup import KMixup
from mixlab.method import Method, check_method
from mixlab.mixup import ERM, Mixup
from mixlab.plans import Pairs, Plan, one_hot

PAIRED = (ERM, Mixup, KMixup)  # they learn nothing from the answers, and their targets are those of their pairs


class Nets(nn.Module):
    """m fully connected ReLU networks side by side; layer l has weights (m, in, out) and biases (m, out).

    seeds: one per network. Weights and biases are uniform in ±1/sqrt(in), which is what nn.Linear does.
    """

    def __init__(self, widths: Sequence[int], seeds: Sequence[int]):
        super().__init__()
        generators = [np.random.default_rng([seed, 0]) for seed in seeds]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            bound = fan_in**-0.5
            for parameters, shape in ((self.weights, (fan_in, fan_out)), (self.biases, (fan_out,))):
                drawn = np.stack([rng.uniform(-bound, bound, shape) for rng in generators])
                parameters.append(nn.Parameter(torch.from_numpy(drawn).float()))

    def __len__(self) -> int:
        return len(self.weights[0])

    def forward(self, x: Tensor) -> Tensor:
        """x (m, n, d) a batch per network, or (n, d) the same for all -> logits (m, n, c)."""
        x = x.expand(len(self), *x.shape[-2:])
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias[:, None], x, weight)
            x = x if layer == last else x.relu()
        return x

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """x (n, d), or (m, n, d) -> probabilities (m, n, c)."""
        return self(x).softmax(-1)

    @torch.no_grad()
    def error(self, x: Tensor, labels: Tensor) -> Tensor:
        """Percent wrong of each network, (m,) float64; labels (n,) or (m, n)."""
        return 100 * (self(x).argmax(-1) != labels).double().mean(-1)

    def alone(self, i: int) -> nn.Sequential:
        """Network i as an ordinary torch network with its own copy of the weights."""
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[2], device=weight.device)
            linear.weight.data, linear.bias.data = weight[i].detach().T.clone(), bias[i].detach().clone()
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def adam(parameters) -> torch.optim.Optimizer:
    """The optimiser of the toy sweeps: Adam at 0.001, all steps in one fused operation."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def fit_many(
    data: ToySet | Sequence[ToySet],
    methods: Sequence[Method],
    seeds: Sequence[int],
    hidden: Sequence[int] = (130, 120),
    epochs: int = 200,
    batch_size: int = 32,
    optimizer: Callable = adam,
    milestones: Sequence[int] = (),
    device: str = "cpu",
    progress: bool = True,
    watch: Callable[[Nets], None] | None = None,
) -> Nets:
    """Train one network per method, all at once, each as if it were alone.

    data: one set for all networks, or one per network, all of the same size. methods, seeds: one per network; the seed
    gives the initial weights and the order of the data, the method brings its own generator. optimizer: called once
    with all parameters; its update must be elementwise, as those of SGD and Adam are. milestones: epochs after which
    the learning rate is divided by ten. watch: called with the networks before the first epoch and after each one.
    """
    _check(data, methods, seeds, epochs, batch_size)
    x, labels = _training_set(data, len(methods), device)
    classes = len(data.classes if isinstance(data, ToySet) else data[0].classes)
    nets = Nets((x.shape[-1], *hidden, classes), seeds).to(device)
    optimiser = optimizer(nets.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(milestones), gamma=0.1)
    for i, method in enumerate(methods):
        method.prepare(nets.alone(i), labels[i])
    orders = [np.random.default_rng([seed, 1]) for seed in seeds]
    watch = watch or (lambda nets: None)
    watch(nets)
    with bar(epochs, f"{len(methods)} networks", not progress, unit="epoch") as shown:
        for _ in range(epochs):
            order = torch.from_numpy(np.stack([rng.permutation(x.shape[1]) for rng in orders])).to(device)
            for rows in order.split(batch_size, dim=1):
                batch = x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))
                _step(nets, optimiser, methods, batch, labels.gather(1, rows))
            schedule.step()
            for method in methods:
                method.end_epoch()
            watch(nets)
            shown.update()
    return nets


def _step(nets: Nets, optimiser, methods: Sequence[Method], x: Tensor, labels: Tensor) -> None:
    """One step of all networks, each on its own batch: x (m, n, d), labels (m, n)."""
    mix = _mix_pairs if all(type(method) in PAIRED for method in methods) else _mix
    plans, mixed, y = mix(methods, x, labels, nets.biases[-1].shape[1])
    logits = nets(mixed)
    for plan, method, answers, own in zip(plans, methods, logits.detach(), labels, strict=False):
        method.observe(answers, plan, own)
    loss = _score(methods, plans, logits, labels, y)
    optimiser.zero_grad()
    loss.backward()  # a sum over networks: each gets the gradient of its own mean loss
    optimiser.step()


def measure(
    data_of: Callable[[int], ToySet],
    cells: Sequence[dict],
    method_of: Callable[[dict, int], Method],
    seeds: Sequence[int],
    at_once: int = 60,
    **how,
) -> list[dict]:
    """A table: for every cell and seed one network, trained on data_of(seed) by method_of(cell, seed), and its error.

    cells: a dict each, which comes back with "seed" and "error" (percent of the test points) added, in the same order.
    at_once: networks to stack; more of them than fit the processor's cache gain nothing. how: passed to `fit_many`.
    """
    data = {seed: data_of(seed) for seed in seeds}
    runs = [(cell, seed) for cell in cells for seed in seeds]
    rows: list[dict] = []
    for first in range(0, len(runs), at_once):
        part = runs[first : first + at_once]
        sets = [data[seed] for _, seed in part]
        nets = fit_many(sets, [method_of(*run) for run in part], [seed for _, seed in part], **how)
        x, y = torch.stack([each.test_x for each in sets]), torch.stack([each.test_y for each in sets])
        errors = nets.error(x.to(nets.biases[0].device), y.to(nets.biases[0].device)).tolist()
        rows += [{**cell, "seed": seed, "error": round(e, 3)} for (cell, seed), e in zip(part, errors, strict=True)]
    return rows


def _mix(methods: Sequence[Method], x: Tensor, labels: Tensor, classes: int) -> tuple[list[Plan], Tensor, Tensor]:
    """x (m, n, d), labels (m, n) -> plans, mixed inputs (m, n, d) and targets (m * n, c), each slice by its method."""
    host = zip(methods, x.cpu(), labels.cpu(), strict=True)  # a GPU would be asked once for every network
    plans = [method.draw(own, own_labels).to(x.device) for method, own, own_labels in host]
    y = [method.targets(plan, own, classes) for method, plan, own in zip(methods, plans, labels, strict=True)]
    return plans, torch.stack([plan.mix(own) for plan, own in zip(plans, x, strict=True)]), torch.cat(y)


def _mix_pairs(methods: Sequence[Method], x: Tensor, labels: Tensor, classes: int) -> tuple[list[Plan], Tensor, Tensor]:
    """The same for PAIRED methods, which need no plan of their own: one gather and one lerp for all networks."""
    plan = pair_many(methods, x.cpu(), labels.cpu()).to(x.device)
    return [], plan.mix(x.flatten(0, 1)).view_as(x), plan.mix_labels(one_hot(labels.flatten(), classes))


def _score(methods: Sequence[Method], plans: list[Plan], logits: Tensor, labels: Tensor, y: Tensor) -> Tensor:
    """The sum of the networks' losses: at once if all are cross-entropies against y, else each by its method."""
    if all(method.cross_entropy for method in methods):
        return F.cross_entropy(logits.flatten(0, 1), y, reduction="sum") / labels.shape[1]
    return torch.stack([m.score(*each) for m, *each in zip(methods, logits, plans, labels, strict=True)]).sum()


def pair_many(methods: Sequence[Method], x: Tensor, labels: Tensor) -> Pairs:
    """One plan for batches x (m, n, d) laid end to end: for each what its method would draw for it alone."""
    m, n = labels.shape
    partner, lam = np.empty((m, n), np.int64), np.empty((m, n), np.float32)
    alike: dict[tuple, list[int]] = {}  # the k-mixup methods, by block size and cost
    for i, (method, *batch) in enumerate(zip(methods, x, labels, strict=True)):
        if isinstance(method, KMixup):
            alike.setdefault((method.k, method.cost), []).append(i)
        else:
            plan = cast(Pairs, method.draw(*batch))
            partner[i], lam[i] = plan.partner.numpy(), plan.lam
    for (_, cost), rows in alike.items():
        dealt = [cast(KMixup, methods[i]).deal(n) for i in rows]
        partner[rows] = match_many(x[rows], torch.stack([order for _, order, _ in dealt]), dealt[0][0], cost)
        for i, (_, _, own) in zip(rows, dealt, strict=True):
            lam[i] = own
    return Pairs((partner + n * np.arange(m)[:, None]).ravel(), lam.ravel())


def match_many(x: Tensor, order: Tensor, k: int, cost: str) -> Tensor:
    """KMixup's partners (m, n) for batches x (m, n, d), each in its own order (m, n): all blocks of a size at once."""
    m, n, d = x.shape
    facing, partner, whole = order.roll(-k, 1), torch.empty_like(order), n - n % k
    own, other = (x.double().gather(1, rows[..., None].expand(m, n, d)) for rows in (order, facing))
    for start, stop, size in ((0, whole, k), (whole, n, n % k)):
        if start < stop:
            a, b = (rows[:, start:stop].reshape(-1, size, d) for rows in (own, other))
            costs = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
            chosen = _cheapest(costs.square() if cost == "squared" else costs)
            met = facing[:, start:stop].reshape(-1, size).gather(1, chosen)
            partner.scatter_(1, order[:, start:stop], met.view(m, -1))
    return partner


def _cheapest(costs: Tensor) -> Tensor:
    """costs (b, k, k) -> the cheapest permutation of every block, (b, k): for small k by trying all of them."""
    k = costs.shape[1]
    if k > 4:
        return torch.from_numpy(np.stack([linear_sum_assignment(block)[1] for block in costs.numpy()]))
    every = torch.tensor(list(permutations(range(k))))
    return every[costs.flatten(1)[:, every + k * torch.arange(k)].sum(-1).argmin(1)]


def _training_set(data, m: int, device: str) -> tuple[Tensor, Tensor]:
    """(m, n, d) inputs and (m, n) labels; a shared set is expanded, not copied."""
    if isinstance(data, ToySet):
        x, y = data.train_x.expand(m, -1, -1), data.train_y.expand(m, -1)
    else:
        x, y = torch.stack([d.train_x for d in data]), torch.stack([d.train_y for d in data])
    return x.to(device), y.to(device)


def _check(data, methods, seeds, epochs: int, batch_size: int) -> None:
    if len(methods) == 0 or len(seeds) != len(methods):
        raise ValueError(f"seeds must have one entry per method: {len(seeds)} seeds, {len(methods)} methods")
    if not isinstance(data, ToySet) and len(data) != len(methods):
        raise ValueError(f"data must be one set, or one per method: {len(data)} sets, {len(methods)} methods")
    if len({id(method) for method in methods}) < len(methods):
        raise ValueError("methods must be distinct objects: each network draws from its own generator")
    check_whole("epochs", epochs, least=0)
    check_whole("batch_size", batch_size)
    for method in methods:
        check_method("methods", method, own_loss=False, mixes_inputs=True, asks_model=False)
