"""How long calls take, one after another in one process: a slow moment of the machine hits all of them alike."""

import time
from collections.abc import Callable


def in_turn(variants: dict[str, Callable], rounds: int, warm: int = 3, least: float = 0.0) -> dict[str, list[float]]:
    """Seconds per call of each variant, each once per round, after a few rounds that do not count.

    least: call a variant again until so many seconds are over, and take the mean. For work on a batch that in training
    has just been made: its second call finds it as near to the processor as there, not where the others left it.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + warm):
        for name, call in variants.items():
            start, calls, seconds = time.perf_counter(), 0, 0.0
            while not calls or seconds < least:
                call()
                calls += 1
                seconds = time.perf_counter() - start
            if number >= warm:
                times[name].append(seconds / calls)
    return times
