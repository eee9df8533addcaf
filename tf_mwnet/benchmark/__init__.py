"""The time of a training step; ``python -m tf_mwnet.benchmark`` measures it."""
