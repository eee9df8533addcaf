"""Benchmarks: the time of a training step, wrong labels found, weight nets on other data.

* ``python -m tf_mwnet.benchmark`` times a training step.
* ``python -m tf_mwnet.benchmark.labels`` and ``.label_scores`` measure how well wrong labels are found.
* ``python -m tf_mwnet.benchmark.transfer`` and ``.zoo`` try weight nets on other data and publish them.
"""
