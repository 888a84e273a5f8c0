"""mixlab: a course on mixup that you can run. Start with notebooks/00_start_here.ipynb.

What needs matplotlib, scipy, torchvision or Jupyter is imported by name (`from mixlab import plotting`), so that
`import mixlab` costs little more than `import torch`.
"""

__version__ = "0.1.0"

from mixlab.confusion import ConfusionMixup
from mixlab.course.scales import scale
from mixlab.cutmix import CutMix
from mixlab.infinite import InfiniteClass, infinite_class_loss
from mixlab.kmixup import KMixup
from mixlab.lamix import LaMix, lamix_loss
from mixlab.manifold import ManifoldMixup
from mixlab.method import Method, draw_lambda, soft_cross_entropy
from mixlab.mixup import ERM, Mixup
from mixlab.plans import Pairs, Split, Weights, one_hot, soft_labels
from mixlab.puzzlemix import PuzzleMix
from mixlab.regmixup import RegMixup
from mixlab.remix import Remix
from mixlab.smoothing import LabelSmoothing
from mixlab.zeta import ZetaMixup

__all__ = [
    "ERM",
    "ConfusionMixup",
    "CutMix",
    "InfiniteClass",
    "KMixup",
    "LaMix",
    "LabelSmoothing",
    "ManifoldMixup",
    "Method",
    "Mixup",
    "Pairs",
    "PuzzleMix",
    "RegMixup",
    "Remix",
    "Split",
    "Weights",
    "ZetaMixup",
    "draw_lambda",
    "infinite_class_loss",
    "lamix_loss",
    "one_hot",
    "scale",
    "soft_cross_entropy",
    "soft_labels",
]
