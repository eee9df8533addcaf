"""Many runs in one command, ``python -m tf_mwnet.sweep``."""
