"""``python -m tf_mwnet.features``: applies a pretrained network to a data set, and keeps its features.

    python -m tf_mwnet.features --dataset=cifar10 --backbone=mobilenet.keras --features=cifar10_features

Each example goes through the network once; what is cut off goes on with the same command. Trainings and
audits with the same --dataset and --backbone, or with --features=<folder>, then take seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tf_mwnet.cli import command_flags, console

console.start()

from absl import flags  # noqa: E402

from tf_mwnet import features  # noqa: E402
from tf_mwnet.cli.flags import define_flags as run_flags  # noqa: E402
from tf_mwnet.cli.flags import parse  # noqa: E402
from tf_mwnet.errors import UserError, signals_noted  # noqa: E402
from tf_mwnet.experiment import resolve  # noqa: E402
from tf_mwnet.features import storage  # noqa: E402

OWN = (
    "dataset", "data_dir", "label_key", "clean_label_key", "text_column", "resize", "resize_sides",
    "center_crop", "cache", "cache_dir", "blank_images", "backbone", "backbone_size", "backbone_scaling",
    "backbone_pooling", "backbone_weights", "views", "features", "feature_dtype",
    "strategy", "replicas", "precision",
)  # fmt: skip


def define_flags() -> flags.FlagValues:
    """Returns the flags of a run that matter to its features."""
    values, every = command_flags.new_flags(), run_flags()
    for name in OWN:
        values[name] = every[name]
    return values


def run(values: flags.FlagValues) -> str:
    """Embeds as the flags ask for; returns the text to print.

    Raises:
        UserError: there is no backbone, or the data or the backbone is not usable.
    """
    if not values.backbone:
        raise UserError("backbone is not set; allowed: --backbone=<a network>, see --help")
    start = time.perf_counter()
    config = parse([f"--{name}={values[name].value}" for name in OWN if values[name].present])
    with signals_noted():
        _, source = resolve.read(config)
    backbone: features.Backbone = source.encoder
    folder = config.features or features.folder_of(source, backbone, config.feature_dtype)
    sets = storage.manifest(folder)["sets"]
    counts = ", ".join(f"{part['examples']} {name}" for name, part in sets.items())
    about = f"{backbone.size_text}, {backbone.scaling}, pooling {backbone.pooling}"
    lines = [
        ("features", f"{folder}"),
        ("backbone", f"{backbone.name} ({about})"),
        ("examples", counts),
        ("each", f"{backbone.dim} numbers" + f", {backbone.views} views" * (backbone.views > 1)),
        ("time", f"{time.perf_counter() - start:.0f} s"),
    ]
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
