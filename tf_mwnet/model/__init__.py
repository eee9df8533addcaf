"""The model: `reweighted.ReweightedModel`, its one train step, and what the step needs."""
