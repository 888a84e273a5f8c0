"""More about networks that were kept: where they look, and whether what fools another network fools them.

    mixlab look data/runs/twentieth      adds "looks" to the record of every kept network in the folder

What is kept is a copy in bfloat16, so "looks" has a clean error of its own, on the same pictures.
"""

import json
from pathlib import Path

from mixlab.results import records
from mixlab.results.runs import load_data, load_network
from mixlab.training.measures import FGSM, PixelModel, error_under, fgsm, map_area, spread_evenly

SOURCE = "twentieth/ERM__-quick_resnet-0-082be617.json"  # the network that the pictures are attacked by way of


def look(folder: Path | str, source: str = SOURCE) -> int:
    """Measure every kept network of a folder of records and write it down there; how many there were comes back."""
    paths = [path for path in sorted(Path(folder).glob("*.json")) if path.with_suffix(".pt").exists()]
    if not paths:
        raise ValueError(f"folder {folder} holds no record with its weights: run --keep weights stores them")
    attacked, _, other = _open(records.FOLDER / source)
    for path in paths:
        record, data, network = _open(path)
        if record["dataset"] != attacked["dataset"]:
            raise ValueError(
                f"folder {folder}: {path.name} is of {record['dataset']}, {source} of {attacked['dataset']}"
            )
        looks = measure(network, spread_evenly(data, 2000), other)
        records.write({**record, "looks": {**looks, "through": source}}, path)
    return len(paths)


def measure(network, data, source) -> dict:
    """The clean error, the area of the activation maps, and the errors on pictures made by attacking `source`."""
    found = {"images": len(data.test_y), "error": error_under(network, data, lambda net, x, y: x)}
    found["map_area"], attacked = map_area(network, data), PixelModel(source, data).eval()
    for eps in FGSM:
        through = error_under(network, data, lambda net, x, y, e=eps: fgsm(attacked, x, y, e / 255))
        found[f"through_{eps:g}"] = through
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def _open(path: Path):
    """The record of that file, its data set, and its network."""
    record = json.loads(path.read_text(encoding="utf-8"))
    data = load_data(record["data"])
    return record, data, load_network({**record, "file": path.name}, data, path.parent)
