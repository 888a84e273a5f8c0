"""RegMixup (Pinto et al., 2022): mixup as a regulariser beside the plain loss, and not in place of it."""

from typing import Any, ClassVar

import torch

from mixlab.checks import check_batch, check_number
from mixlab.method import Around, Method, check_method, soft_cross_entropy
from mixlab.mixup import Mixup
from mixlab.plans import soft_labels


class RegMixup(Around):
    """RegMixup: the loss of the clean batch plus eta times that of the mix.

        loss = CE(net(x), y) + eta * (the method's loss on its mix)

    Clean and mixed images go through the network together, in one batch of 2n, so BatchNorm sees both. The released
    code takes the mean over all 2n rows, which is half of this at eta = 1. Labels of the clean half stay as they are,
    whatever is inside. eta = 0 is ERM, and mixes nothing.
    """

    defaults: ClassVar[dict[str, Any]] = {"method": Mixup(20.0)}

    def __init__(self, method: Method, eta: float = 1.0, rng: Any = None):
        super().__init__(method, rng)
        hint = "RegMixup sends clean and mixed inputs through together, and adds its loss to the clean one"
        check_method("method", method, hint, mixes_inputs=True, own_loss=False)
        self.eta, self.own_loss = check_number("eta", eta, hint="0: no mixing"), True

    def loss(self, model, x, labels):
        check_batch(x, labels)
        if self.eta == 0:
            logits = model(x)
            return soft_cross_entropy(logits, soft_labels(labels, logits.shape[1]))
        plan = self.method.draw_with_model(model, x, labels)
        clean, mixed = model(torch.cat([x, plan.mix(x)])).split(len(x))
        self.method.observe(mixed, plan, labels)
        loss = soft_cross_entropy(clean, soft_labels(labels, clean.shape[1]))
        return loss + self.eta * self.method.score(mixed, plan, labels)
