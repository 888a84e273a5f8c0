"""Label smoothing (Szegedy et al., 2016): no label is quite certain."""

from typing import Any, ClassVar

from mixlab.checks import check_number
from mixlab.method import Around, Method, check_method
from mixlab.mixup import ERM


class LabelSmoothing(Around):
    """Label smoothing: y' = (1 - eps) y + eps / c, on top of any method that is scored by cross-entropy.

    The rows of W sum to one, so it makes no difference whether labels are smoothed before or after they are mixed.
    """

    defaults: ClassVar[dict[str, Any]] = {"eps": 0.1}

    def __init__(self, eps: float, method: Method | None = None):
        super().__init__(ERM() if method is None else method)
        check_method("method", self.method, "smooth inside it", own_loss=False, cross_entropy=True)
        self.eps = check_number("eps", eps, high=1)

    def targets(self, plan, labels, num_classes):
        return (1 - self.eps) * self.method.targets(plan, labels, num_classes) + self.eps / num_classes
