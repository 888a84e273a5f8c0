import os

os.environ.setdefault("MPLBACKEND", "agg")

import torch
from hypothesis import settings

torch.set_num_threads(min(2, torch.get_num_threads()))
settings.register_profile("mixlab", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("mixlab")
