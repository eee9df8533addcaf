"""Finding wrong labels of texts: 240 messages to a shop, by what they are about, 25 % mislabelled."""

import csv
import pathlib

import keras
import numpy as np
import tensorflow as tf

import tf_mwnet

with open(pathlib.Path(__file__).with_name("messages.csv"), newline="") as file:
    rows = list(csv.DictReader(file))
texts = np.array([row["text"] for row in rows])
topics = tuple(sorted({row["topic"] for row in rows}))
true = np.array([topics.index(row["topic"]) for row in rows])
rng = np.random.default_rng(0)
other = (true + rng.integers(1, len(topics), len(true))) % len(topics)
y = np.where(rng.random(len(true)) < 0.25, other, true)

# Each text becomes a vector with a number per word; the text itself is its id.
vectorize = keras.layers.TextVectorization(output_mode="tf_idf", max_tokens=500)
vectorize.adapt(tf.constant(texts))
x = vectorize(tf.constant(texts)).numpy()
source = tf_mwnet.data.from_arrays(
    x, y, true_y_train=true, class_names=topics, ids=texts, name="messages"
)


def network(spec):
    layers = [keras.Input(spec.shape), keras.layers.Dropout(0.5, seed=0)]
    return keras.Sequential([*layers, keras.layers.Dense(spec.num_classes)])


# No label is trusted. For so few texts a loss that is robust to noise does better than learned weights.
experiment = tf_mwnet.Experiment(
    method="gce", meta_size=0, test_fraction=0.1, epochs=40, batch_size=32, lr=0.02, lr_drops=(30,),
    run_dir="runs/messages", overwrite=True,
)  # fmt: skip
result = tf_mwnet.run(experiment, source, network)
labels = tf_mwnet.audit(result)

for row in labels.head(8).itertuples():
    print(f"{row.given_label:>9} -> {row.predicted_label:<9} {row.label_quality:.2f}  {row.id}")
wrong = int((~labels.is_correct).sum())
hits = (~labels.is_correct[:wrong]).mean()
print(f"{wrong} labels are wrong; of the {wrong} that look worst, {100 * hits:.0f} % are")
