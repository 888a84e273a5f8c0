"""Manifold mixup (Verma et al., 2019): mix inside the network, where it thinks, and not only where it looks."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from mixlab.checks import check_batch, check_wholes
from mixlab.method import Around, Method, check_method
from mixlab.mixup import Mixup

PLACES = "0 is the input, s what part s gives: of model.stages (an nn.ModuleList), or of its children but the last"


class ManifoldMixup(Around):
    """Manifold mixup: one place of the network is drawn for each batch, and what comes out there is mixed.

        h = the output of part s of the network,    h'_i = lam h_i + (1 - lam) h_pi(i),    s uniform over `stages`

    The parts are net.stages if the network has them (training/models.py), else its children but the last, which gives
    the scores. 0 is the input: plain mixup. The plan is drawn from h, so that a method that matches its inputs matches
    features; labels mix as ever. What lies before sees clean images, also in its BatchNorms. In PreActResNets 1 comes
    after a lone convolution, so that mixing there is mixing images: (0, 2) is the coin flip between the input and the
    output of the first group of blocks. The released code of manifold mixup draws from what is (0, 2, 3) here.
    """

    defaults: ClassVar[dict[str, Any]] = {"mixing": Mixup(1.0)}

    def __init__(self, mixing: Method, stages: Sequence[int] = (0, 2), rng: Any = None):
        check_method("mixing", mixing, "put it around ManifoldMixup instead", own_loss=False, cross_entropy=True)
        check_method("mixing", mixing, "it cannot mix hidden features", mixes_inputs=True, asks_model=False)
        super().__init__(mixing, rng)
        self.stages, self.mixes_inputs = check_wholes("stages", stages, 0), False

    @property
    def mixing(self) -> Method:
        """The method that says who is mixed with whom."""
        return self.method

    def run(self, model, x, labels):
        check_batch(x, labels)
        stage = self.stages[self.rng.integers(len(self.stages))]
        if stage == 0:
            return self.mixing.run(model, x, labels)
        model = getattr(model, "_orig_mod", model)  # a network under torch.compile hears no hooks
        stages = getattr(model, "stages", None)
        parts = stages if isinstance(stages, nn.ModuleList | nn.Sequential) else list(model.children())[:-1]
        plans = []

        def mix(_, inputs, hidden):
            if plans or not isinstance(hidden, Tensor):  # a part that is used again mixes at its first use alone
                return None
            plans.append(self.mixing.draw(hidden, labels))
            return plans[0].mix(hidden)

        if stage > len(parts):
            raise ValueError(f"stages: {type(model).__name__} has places 0 to {len(parts)}, not {stage}; {PLACES}")
        handle = parts[stage - 1].register_forward_hook(mix)
        try:
            logits = model(x)
        finally:
            handle.remove()
        if not plans:
            raise ValueError(f"stages: part {stage} of {type(model).__name__} gave no tensor to mix; {PLACES}")
        return plans[0], logits
