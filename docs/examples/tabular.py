"""Finding wrong labels in a table: scikit-learn's breast cancer data with 30 % of the labels flipped."""

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import tf_mwnet

x, true = load_breast_cancer(return_X_y=True)
x = StandardScaler().fit_transform(x).astype(np.float32)
x, x_test, true, y_test = train_test_split(x, true, test_size=0.25, random_state=0, stratify=true)
flipped = np.random.default_rng(0).random(len(true)) < 0.3
y = np.where(flipped, 1 - true, true)

# Features, given labels, and the true labels, which only the last lines use to see how well it went.
source = tf_mwnet.data.from_arrays(x, y, x_test, y_test, true_y_train=true, name="breast_cancer",
                                   class_names=("malignant", "benign"))  # fmt: skip


def network(spec):
    layers = [keras.Input(spec.shape), keras.layers.Dense(32, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Dense(spec.num_classes)])


# No label is trusted: a loss that is robust to noise, as in an audit that trains by itself.
experiment = tf_mwnet.Experiment(
    method="gce", meta_size=0, compare="erm",
    epochs=30, batch_size=32, lr=0.02, lr_drops=(20,), run_dir="runs/breast_cancer", overwrite=True,
)  # fmt: skip
result = tf_mwnet.run(experiment, source, network)
labels = tf_mwnet.audit(result)

wrong = int((~labels.is_correct).sum())
hits = (~labels.is_correct[:wrong]).mean()
print(labels.head(10).to_string(index=False))
print(f"{wrong} labels are wrong; of the {wrong} that look worst, {100 * hits:.0f} % are")
for name in ("erm", "gce"):
    print(f"{name}: {100 * result.methods[name]['last']:.1f} % test accuracy")
