"""The folders of runs: how they are written, and how they are read."""
