"""Small sets in the published formats, for the tests of `mixlab.data.sets`.

Each maker puts its set on the site under the published names, tells torchvision the checksums of the small files, and
returns train_x, train_y, test_x, test_y.
"""

import functools
import gzip
import hashlib
import io
import pickle
import socket
import tarfile

import numpy as np

rng = np.random.default_rng(0)


def md5(content):
    return hashlib.md5(content).hexdigest()


def nowhere():
    """The address of a server that is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def draw(channels, side, classes, n_train=10, n_test=5):
    x = rng.integers(0, 256, (n_train + n_test, channels, side, side), dtype=np.uint8)
    y = rng.permutation(n_train + n_test) % classes
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def make_cifar(kind, site, patch):
    from torchvision import datasets

    source, fine = getattr(datasets, kind), kind == "CIFAR100"
    train_x, train_y, test_x, test_y = arrays = draw(3, 32, 4)
    files = {}
    for k, (name, _) in enumerate(source.train_list):
        rows = slice(k, None, len(source.train_list))
        files[name] = {"data": train_x[rows].reshape(-1, 3072), "labels": train_y[rows].tolist()}
    files[source.test_list[0][0]] = {"data": test_x.reshape(-1, 3072), "labels": test_y.tolist()}
    if fine:
        files = {name: {"data": f["data"], "fine_labels": f["labels"]} for name, f in files.items()}
    files[source.meta["filename"]] = {source.meta["key"]: ["ape", "bee", "cod", "doe"]}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            files[name] = pickle.dumps(content)
            member = tarfile.TarInfo(f"{source.base_folder}/{name}")
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    site.files[source.filename] = packed.getvalue()
    patch(source, "tgz_md5", md5(packed.getvalue()))
    patch(source, "url", f"{nowhere()}/{source.filename}")
    for split in ("train_list", "test_list"):
        patch(source, split, [[name, md5(files[name])] for name, _ in getattr(source, split)])
    patch(source, "meta", {**source.meta, "md5": md5(files[source.meta["filename"]])})
    order = np.concatenate([np.arange(10)[k :: len(source.train_list)] for k in range(len(source.train_list))])
    return train_x[order], train_y[order], *arrays[2:]


def make_mnist(kind, site, patch):
    from torchvision import datasets

    source, arrays = getattr(datasets, kind), draw(1, 28, 10)
    resources = []
    for (name, _), array in zip(source.resources, arrays, strict=True):
        array = array.astype(np.uint8).squeeze(1) if array.ndim == 4 else array.astype(np.uint8)
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        site.files[f"{kind}/raw/{name}"] = content = gzip.compress(head + array.tobytes())
        resources.append((name, md5(content)))
    patch(source, "resources", resources)
    patch(source, "mirrors", [f"{nowhere()}/"])
    return arrays


def make_svhn(site, patch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    arrays, splits = draw(3, 32, 10), {}
    for split, (x, y) in {"train": arrays[:2], "test": arrays[2:]}.items():
        packed = io.BytesIO()
        savemat(packed, {"X": x.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y)[:, None]})  # SVHN writes 10 for 0
        name = f"{split}_32x32.mat"
        site.files[f"svhn/{name}"] = packed.getvalue()
        splits[split] = [f"{nowhere()}/{name}", name, md5(packed.getvalue())]
    patch(SVHN, "split_list", splits)
    return arrays


MAKERS = {
    "cifar10": functools.partial(make_cifar, "CIFAR10"),
    "cifar100": functools.partial(make_cifar, "CIFAR100"),
    "svhn": make_svhn,
    "mnist": functools.partial(make_mnist, "MNIST"),
    "fashion-mnist": functools.partial(make_mnist, "FashionMNIST"),
}
