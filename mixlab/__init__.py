"""mixlab: a course on mixup that you can run. Start with notebooks/00_start_here.ipynb.

What needs matplotlib, scipy, torchvision or Jupyter is imported by name (`from mixlab import plotting`), so that
`import mixlab` costs little more than `import torch`.
"""

__version__ = "0.1.0"

from mixlab.confusion import ConfusionMixup
from mixlab.mixup import ERM, LabelSmoothing, Method, Mixup, draw_lambda, soft_cross_entropy
from mixlab.plans import Pairs, Weights, join, one_hot, soft_labels
from mixlab.scales import scale

__all__ = [
    "ERM",
    "ConfusionMixup",
    "LabelSmoothing",
    "Method",
    "Mixup",
    "Pairs",
    "Weights",
    "draw_lambda",
    "join",
    "one_hot",
    "scale",
    "soft_cross_entropy",
    "soft_labels",
]
