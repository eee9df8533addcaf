"""``python -m tf_mwnet.audit``: finds wrong labels.

Audits a finished run, --run_dir=<its folder> (with --data_dir if its data has moved). Or audits data:
with --dataset and any other flags of ``python -m tf_mwnet.main``, it trains first. Settings that are
not given are chosen by the size of the data; no label is trusted (method gce, a loss that is robust to
noise; --method=rmnw learns weights from noisy labels), and only a tenth of the data is held out.
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from tf_mwnet.cli import command_flags, console

console.start()

from absl import flags, logging  # noqa: E402

from tf_mwnet.audit import cleaned, defaults, outputs  # noqa: E402
from tf_mwnet.audit.examine import Audit, examine  # noqa: E402
from tf_mwnet.cli.flags import define_flags as run_flags  # noqa: E402
from tf_mwnet.cli.flags import fields_of  # noqa: E402
from tf_mwnet.config import Experiment  # noqa: E402
from tf_mwnet.errors import UserError, check_range, choose  # noqa: E402
from tf_mwnet.experiment import runner  # noqa: E402
from tf_mwnet.files import check_folder, holds_files  # noqa: E402
from tf_mwnet.runs.saved_run import RESULT  # noqa: E402

OF_A_RUN = {"run_dir", "method", "data_dir"}  # settings with which a finished run is audited
OWN = ("out", "write_cleaned", "cleaned", "worst")
# Flags of a run that say what is audited, and what they are here; {} is their help text.
INPUTS = {
    "run_dir": "folder of the finished run to audit; with dataset, of the run that is trained",
    "dataset": "data to train on and audit: {}",
    "data_dir": "{}",
}


def define_flags() -> flags.FlagValues:
    """Defines the flags of a run, and the command's own."""
    values = run_flags()
    text = "folder of the audit's files; by default in the folder of the run"
    flags.DEFINE_string("out", "", text, flag_values=values)
    flags.DEFINE_string(
        "write_cleaned",
        "",
        "write the data without its issues: a new folder, or a .npz file",
        flag_values=values,
    )
    flags.DEFINE_string(
        "cleaned", "drop", "drop the issues, or relabel them as suggested", flag_values=values
    )
    flags.DEFINE_integer("worst", 64, "images in the picture of the worst labels", flag_values=values)
    return values


def help_text(full: bool = False) -> str:
    """Lists what is audited and the command's own flags; those of a run are in the help of `main`."""
    values = define_flags()
    lines = [__doc__, "What is audited:", ""]
    for name, text in INPUTS.items():
        lines += command_flags.flag_lines(name, "", text.format(values[name].help))
    lines += ["", "Flags of the audit, in addition to those of python -m tf_mwnet.main:", ""]
    for name in OWN:
        lines += command_flags.flag_lines(name, str(values[name].default), values[name].help or "")
    return "\n".join(lines)


def run(values: flags.FlagValues) -> str:
    """Audits as the flags ask for; returns the text to print.

    Raises:
        UserError: a flag is not allowed, or the data or the run is not usable.
    """
    start = time.perf_counter()
    check_range("worst", values.worst, 1)
    target = pathlib.Path(values.write_cleaned) if values.write_cleaned else None
    out = pathlib.Path(values.out) if values.out else None
    if out:
        check_folder("out", out)
    if out and holds_files(out) and not (out / outputs.ISSUES).is_file():
        raise UserError(f"out '{out}' holds files that are no audit; allowed: a new folder")
    choose("cleaned", values.cleaned, dict.fromkeys(cleaned.MODES))
    if target:
        cleaned.check(target, values.cleaned)
    fields = fields_of(values)
    _check_finished(fields)
    schedule = defaults.FEATURES
    on_features = fields.keys() >= schedule.keys() and not any(values[k].present for k in schedule)
    if on_features and not values.resume:
        fields |= schedule
    if fields.get("run_dir") and not set(fields) - OF_A_RUN:
        method, data_dir = fields.get("method", ""), fields.get("data_dir")
        audit = examine(fields["run_dir"], method, data_dir=data_dir)
    elif set(fields) - {"run_dir", "method"}:
        asked = {k for k in fields if values.resume or (k in values and values[k].present)}
        audit = examine(_train(fields, asked, target, values.cleaned))
    else:
        raise UserError(
            "neither run_dir nor dataset is set; allowed: the folder of a finished run, or data to"
            " train on"
        )
    paths, _ = _written(audit, values.worst, out)
    if target:
        size = cleaned.write(audit, target, values.cleaned)
        paths.append(("cleaned data", f"{target} ({size} training examples)"))
    paths.append(("time", f"{time.perf_counter() - start:.0f} s"))
    return outputs.text(audit, paths)


def _check_finished(fields: dict[str, Any]) -> None:
    """Raises ``UserError`` where a finished run is named with settings of a training."""
    folder, more = fields.get("run_dir") or "", [name for name in fields if name not in OF_A_RUN]
    if not (more and folder and (pathlib.Path(folder) / RESULT).is_file()):
        return
    if not (fields.get("resume") or (fields.get("overwrite") and more != ["overwrite"])):
        raise UserError(
            f"{more[0]} is set with run_dir '{folder}', a finished run; allowed: --run_dir alone to"
            " audit it, or a new --run_dir to train"
        )


def _written(audit: Audit, worst: int, out: pathlib.Path | None) -> tuple[list[tuple[str, object]], Any]:
    try:
        return outputs.write(audit, worst, out)
    except PermissionError as error:
        raise UserError(f"{error}; allowed: --out=<a folder that can be written>") from error


def _train(
    fields: dict[str, Any], asked: set[str], target: pathlib.Path | None, mode: str
) -> runner.Result:
    config = Experiment(**fields)
    if target:
        cleaned.check(target, mode, config)
    config, source = defaults.fill(config, asked)
    logging.info(
        "method %s, %d epochs of batches of %d, learning rate %g",
        config.method, config.epochs, config.batch_size, config.lr,
    )  # fmt: skip
    return runner.run(config, source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `console.command`."""
    return console.command(__doc__, define_flags(), run, arguments, help_text)


if __name__ == "__main__":
    sys.exit(main())
