"""One of several workers: trains a model by each method; the chief saves what came out.

TF_CONFIG=... python worker.py <folder> <method> ...
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()

from replicated import plain_network, take_steps  # noqa: E402

from tf_mwnet import strategies  # noqa: E402
from tf_mwnet.files import write_atomically  # noqa: E402

folder, *names = sys.argv[1:]
for name in names:
    (weights, seen), results = take_steps(plain_network, name, strategy)
    if strategies.is_chief(strategy):
        arrays = {f"weight_{i:03d}": w for i, w in enumerate(weights)}
        results = {f"result_{k}": float(v) for k, v in results.items()}
        path = pathlib.Path(folder) / f"{name}.npz"
        write_atomically(path, lambda file: np.savez(file, record=seen, **arrays, **results))  # noqa: B023
strategies.everyone(strategy, 0)  # none ends before the chief has saved
