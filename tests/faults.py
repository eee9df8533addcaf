"""Faults in each component of the digits pipeline in turn, and whether the same command then ends well.

    python tests/faults.py <an empty folder> [component ...]

For each component: its process is killed as it puts its first output in place; the files it may write
are limited to two kilobytes; and each file of its input is cut in half. After each fault all that was
pushed must be whole, and in the end the command must end well, and push nothing when it is repeated.
"""

import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A split on which the model beats its baseline by several points, so that it is pushed on any machine.
SHORT = ["--epochs=12", "--lr_drops=8,10", "--meta_size=50", "--data_seed=1"]
KINDS = ("killed", "full", "damaged")

# Runs in each component's process before anything else, through Python's own hook for that.
HOOK = """
import importlib.abc, importlib.util, os, pathlib, resource, signal, sys

TARGET, KIND = os.environ.get("FAULT", ":").split(":")

def damage(arguments):
    for name, artifact in arguments.items():
        if hasattr(artifact, "path") and name not in sys.modules["pipelines.work"].OUTPUTS[TARGET]:
            root = pathlib.Path(artifact.path)
            for path in [root] if root.is_file() else root.rglob("*"):
                if path.is_file():
                    os.truncate(path, path.stat().st_size // 2)

def wrap(work):
    def faulty(**arguments):
        if KIND == "killed":
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        elif KIND == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        else:
            damage(arguments)
        return work(**arguments)
    faulty.__wrapped__ = work
    return faulty

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "pipelines.work":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.WORK[TARGET] = wrap(module.WORK[TARGET])
        spec.loader.exec_module = exec_module
        return spec

if KIND:
    sys.meta_path.insert(0, Finder())
"""


def run(folder: pathlib.Path, fault: str = "") -> subprocess.CompletedProcess:
    hooks = folder / "hooks"
    hooks.mkdir(parents=True, exist_ok=True)
    (hooks / "sitecustomize.py").write_text(HOOK)
    environment = os.environ | {"FAULT": fault or ":", "PYTHONPATH": f"{hooks}{os.pathsep}{ROOT}"}
    environment["PYTHONHASHSEED"] = "0"  # the engine takes components in the order of a set
    command = [sys.executable, "-m", "pipelines.run", "--name=digits", *SHORT]
    command += [f"--home={folder / 'home'}", f"--push_to={folder / 'saved_models'}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def check_pushed(folder: pathlib.Path) -> list[str]:
    """Every version that is there is whole."""
    sys.path.insert(0, str(ROOT))
    from tf_mwnet.export.serving import model_digest

    # A name that begins with a dot is no version: a lock, or what a push that was killed has left.
    found = [p for p in (folder / "saved_models").glob("*/*") if not p.name.startswith(".")]
    for path in found:
        said = json.loads((path / "pushed.json").read_text())["digest"]
        assert said == model_digest(path), f"{path} is half-written"
    return sorted(str(path.relative_to(folder / "saved_models")) for path in found)


def components(folder: pathlib.Path) -> list[str]:
    with sqlite3.connect(folder / "home" / "lineage.sqlite") as store:
        rows = store.execute("SELECT component FROM tasks WHERE state = 'done' ORDER BY id").fetchall()
    return list(dict.fromkeys(name for (name,) in rows))


def main(folder: pathlib.Path, only: list[str]) -> None:
    first = run(folder / "whole")
    assert first.returncode == 0, first.stderr
    assert check_pushed(folder / "whole") == ["digits-classifier/1", "digits/1"], first.stdout
    order, place = components(folder / "whole"), folder / "faults"
    order = [name for name in order if name in only or not only]
    for component in order:
        for kind in KINDS:
            if (component, kind) == ("example_gen", "damaged"):  # it has no input of the pipeline's
                continue
            if component == "pusher":  # an equal model is not pushed again
                shutil.rmtree(place / "saved_models", ignore_errors=True)
            done = run(place, f"{component}:{kind}")
            lines = done.stderr.strip().splitlines()
            assert done.returncode == 2, (component, kind, done.stdout, done.stderr)
            assert lines[-1].startswith(f"tf_mwnet: {component}: "), (component, kind, done.stderr)
            pushed = check_pushed(place)
            print(f"{component} {kind}: {lines[-1][:110]}; pushed: {pushed}", flush=True)
    pushed = []
    for _ in range(2):  # the second time there is nothing to push
        last = run(place)
        assert last.returncode == 0, last.stderr
        pushed.append(check_pushed(place))
    assert pushed[0] == pushed[1], pushed
    assert {"digits-classifier/1", "digits/1"} <= set(pushed[0])
    left = [path for path in (place / "saved_models").glob("*/.*") if path.is_dir()]
    assert not left, left
    print(f"{len(order)} components, {len(KINDS)} faults each: the last run ended well", flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:])
