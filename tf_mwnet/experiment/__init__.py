"""A run: `resolve` what "auto" means, `build` the parts, `training`, and `runner` for the whole."""
