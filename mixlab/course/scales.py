"""How big a notebook runs: "quick" in minutes on two cores, "full" longer, up to the papers' size."""

import os

SCALES = ("quick", "full")


def scale(wanted: str = "quick") -> str:
    """The scale in force: MIXLAB_SCALE if it is set, else what the notebook's knob cell says."""
    chosen = os.environ.get("MIXLAB_SCALE") or wanted
    if chosen not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, not {chosen!r} (MIXLAB_SCALE overrides all)")
    return chosen
