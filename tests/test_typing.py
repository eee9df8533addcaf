"""What an editor sees: the public names are ordinary and typed."""

import inspect
import pathlib
import subprocess
import sys

import pytest

import tf_mwnet

pytestmark = pytest.mark.xdist_group("typing")  # which start mypy once
ROOT = pathlib.Path(__file__).resolve().parents[1]

REVEALED = {
    "tf_mwnet.ReweightedModel": "tf_mwnet.model.reweighted.ReweightedModel",
    "tf_mwnet.WeightFunction": "tf_mwnet.networks.weight_function.WeightFunction",
    "tf_mwnet.run(tf_mwnet.Experiment())": "tf_mwnet.experiment.runner.Result",
    "tf_mwnet.run(tf_mwnet.Experiment()).methods": "dict[str, dict[str, Any]]",
    "tf_mwnet.methods.MWNet()": "tf_mwnet.methods.mwnet.MWNet",
    "tf_mwnet.audit": "def (run:",
    "tf_mwnet.optimizers.SGD": "tf_mwnet.optimizers.SGD",
    "tf_mwnet.data.from_arrays": "tf_mwnet.types.Source",
    "tf_mwnet.export.export_weight_net": "pathlib.Path",
}


@pytest.fixture(scope="module")
def revealed(tmp_path_factory):
    """Expression -> type, as mypy shows it to the user of an installed package."""
    file = tmp_path_factory.mktemp("user") / "script.py"
    lines = [f"reveal_type({expression})" for expression in REVEALED]
    file.write_text("\n".join(["import tf_mwnet", *lines]) + "\n")
    command = [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", str(file)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    types = [line.partition("Revealed type is ")[2] for line in shown if "Revealed type" in line]
    return dict(zip(REVEALED, types, strict=True))


@pytest.mark.parametrize("expression", REVEALED)
def test_types_of_public_names(expression, revealed):
    assert REVEALED[expression] in revealed[expression]


def test_all_public_names_are_there():
    for name in tf_mwnet.__all__:
        assert getattr(tf_mwnet, name) is not None
    assert set(tf_mwnet.__all__) == set(dir(tf_mwnet))
    with pytest.raises(AttributeError, match="has no attribute 'magic'"):
        tf_mwnet.magic  # noqa: B018


def test_audit_is_a_function():
    import tf_mwnet.audit.evidence  # importing parts of the package does not hide the function

    assert inspect.isfunction(tf_mwnet.audit)
    assert "most suspicious first" in inspect.getdoc(tf_mwnet.audit)


def test_importing_the_package_is_quick():
    """It imports neither TensorFlow nor pandas, and defines no flags."""
    heavy = ("tensorflow", "keras", "pandas", "absl")
    check = f"import sys, tf_mwnet; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
