"""The default job does what the README says."""

import numpy as np
import pytest

import tf_mwnet
from tf_mwnet import Experiment, run

# One worker, which shares what its fixture makes.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("digits")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return [
        run(Experiment(compare="erm", seed=s, data_seed=s, run_dir=str(folder / str(s))))
        for s in (0, 1, 2)
    ]


def test_mwnet_is_at_least_eight_points_above_plain_training(results):
    gain = [r.methods["mwnet"]["last"] - r.methods["erm"]["last"] for r in results]
    assert np.mean(gain) >= 0.08, gain


def test_weights_tell_clean_from_wrong_labels(results):
    assert np.mean([r.methods["mwnet"]["auc_weight"] for r in results]) > 0.8


def test_audit_finds_wrong_labels(results):
    tables = [tf_mwnet.audit(result) for result in results]
    wrong = [int((~table.is_correct).sum()) for table in tables]
    precision = [(~t.is_correct[:n]).mean() for t, n in zip(tables, wrong, strict=True)]
    assert np.mean(precision) > 0.88, precision
    share = [t.is_label_issue.sum() / n for t, n in zip(tables, wrong, strict=True)]
    assert 0.7 < np.mean(share) < 1.2, share
