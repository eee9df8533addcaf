"""``python -m pipelines.benchmark``: speed and memory of reading data into a pipeline.

Creates folders of small synthetic images, a tenth of them for testing, and runs ExampleGen and
StatisticsGen on each folder, as the pipeline does, each in a separate process.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

import numpy as np  # noqa: E402
from absl import flags, logging  # noqa: E402

from pipelines import beam_jobs, work  # noqa: E402
from pipelines.settings import beam_options  # noqa: E402
from tf_mwnet.benchmark.measure import resident_peak  # noqa: E402
from tf_mwnet.cli import outputs  # noqa: E402
from tf_mwnet.data.progress import progress  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose, integers  # noqa: E402
from tf_mwnet.figures import tables  # noqa: E402
from tf_mwnet.files import new_folder, write_csv  # noqa: E402

COMPONENTS = ("example_gen", "statistics_gen")
COLUMNS = ["images", "component", "seconds", "images_per_second", "peak_mb"]
CLASSES = 10
TILE = 4  # side in pixels of a square of one random colour; gives the files the size of photographs


def make_images(folder: pathlib.Path, count: int, size: int) -> None:
    """Writes ``count`` different RGB images of ``size`` x ``size`` pixels, unless ``folder`` exists."""
    if folder.is_dir():
        return
    from PIL import Image

    rng = np.random.default_rng(0)
    with new_folder(folder) as temporary:
        for split in ("train", "test"):
            for label in range(CLASSES):
                (temporary / split / str(label)).mkdir(parents=True)
        with progress(count, f"making {count:,} images", "images") as advance:
            for number in range(count):
                tiles = rng.integers(0, 256, (-(-size // TILE),) * 2 + (3,), np.uint8)
                image = tiles.repeat(TILE, 0).repeat(TILE, 1)[:size, :size]
                split = "test" if number // CLASSES % 10 == 0 else "train"
                path = temporary / split / str(number % CLASSES) / f"{number:07d}.png"
                Image.fromarray(image).save(path, compress_level=1)
                advance()


def own_work(
    component: str, images: pathlib.Path, out: pathlib.Path, beam: Sequence[str]
) -> dict[str, float]:
    """Runs a component's work in this process and measures it.

    Args:
        component: a name in `COMPONENTS`; the second needs the output of the first.
        images: the folder of images, see `make_images`.
        out: folder of the component's outputs.
        beam: options of Beam's runner, as ``name=value``.

    Returns:
        "seconds", and the peak memory "peak_mb" in MB.
    """
    from kfp import dsl

    out.mkdir(parents=True, exist_ok=True)
    made = {
        name: dsl.Artifact(name=name, uri=str(out / name))
        for name in ("examples", *work.OUTPUTS["statistics_gen"])
    }
    given: dict[str, Any] = {"runner": "DirectRunner", "beam_options": beam_options(beam)}
    given |= {name: made[name] for name in work.OUTPUTS[component]}
    if component == "example_gen":
        given["flags"] = ["--dataset=folder", f"--data_dir={images}", "--noise=none", "--method=rmnw"]
    else:
        given["examples"] = made["examples"]
    start = time.perf_counter()
    work.WORK[component](**given)
    return {"seconds": time.perf_counter() - start, "peak_mb": resident_peak() / 1e6}


def measure(count: int, size: int, out: pathlib.Path, beam: Sequence[str]) -> list[dict[str, Any]]:
    """Measures each component on a folder of images, in a new process.

    Args:
        count: number of images.
        size: side of an image in pixels.
        out: folder of images and outputs.
        beam: see `own_work`.

    Returns:
        A row per component with the fields in `COLUMNS`.

    Raises:
        UserError: a component fails.
    """
    images, place = out / f"images-{count}-{size}", out / f"work-{count}-{size}-{time.time_ns()}"
    make_images(images, count, size)
    rows = []
    for component in COMPONENTS:
        line = [sys.executable, "-m", "pipelines.benchmark", f"--measure={component}"]
        line += [f"--images={images}", f"--out={place}", *(f"--beam={option}" for option in beam)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{component} cannot be measured: {last}")
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        speed = count / measured["seconds"]
        rows.append({"images": count, "component": component, "images_per_second": speed} | measured)
        logging.info("%d images, %s: %.0f a second", count, component, speed)
    return rows


def define_flags() -> flags.FlagValues:
    """Returns the command's flags, separate from absl's global ones."""
    values = command_flags.new_flags()
    flags.DEFINE_list("sizes", ["10000", "100000"], "numbers of images", flag_values=values)
    flags.DEFINE_integer("pixels", 32, "side of an image in pixels", flag_values=values)
    flags.DEFINE_string("out", "runs/beam", "folder of images and results", flag_values=values)
    flags.DEFINE_multi_string(
        "beam", [], "an option of Beam's local runner, as name=value", flag_values=values
    )
    flags.DEFINE_string("csv", "", "file to write a row per size and component to", flag_values=values)
    outputs.define_overwrite(values)
    flags.DEFINE_string(
        "measure", "", "only measure this component, in this process", flag_values=values
    )
    flags.DEFINE_string("images", "", "folder of images for --measure", flag_values=values)
    return values


def run(values: flags.FlagValues) -> str:
    """Measures what the flags ask for; returns the table to print.

    Raises:
        UserError: the value of a flag is not allowed, or a component fails.
    """
    out = pathlib.Path(values.out)
    if values.measure:
        choose("component", values.measure, dict.fromkeys(COMPONENTS))
        return json.dumps(own_work(values.measure, pathlib.Path(values.images), out, values.beam))
    outputs.check(values, csv=COLUMNS)
    sizes = integers("sizes", values.sizes)
    for size in sizes:
        check_range("a size in sizes", size, 20 * CLASSES)
    check_range("pixels", values.pixels, 8)
    beam_jobs.options("DirectRunner", beam_options(values.beam))
    rows = [row for size in sizes for row in measure(size, values.pixels, out, values.beam)]
    if values.csv:
        write_csv(pathlib.Path(values.csv), rows, COLUMNS)
    cells = [
        [f"{r['images']:,}", r["component"], f"{r['seconds']:.0f}", f"{r['images_per_second']:.0f}",
         f"{r['peak_mb']:.0f}"]
        for r in rows
    ]  # fmt: skip
    header = ["images", "component", "seconds", "images a second", "peak memory, MB"]
    return "\n" + tables.text(header, cells, numbers=(0, 2, 3, 4))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
