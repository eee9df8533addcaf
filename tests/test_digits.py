"""The default job does what the README says."""

import numpy as np
import pytest

from tf_mwnet import Experiment, run

pytestmark = pytest.mark.xdist_group("digits")  # one worker: what its fixture makes is shared


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return [
        run(Experiment(compare="erm", seed=s, data_seed=s, run_dir=str(folder / str(s)))).methods
        for s in (0, 1, 2)
    ]


def test_mwnet_is_at_least_eight_points_above_plain_training(results):
    gain = [r["mwnet"]["last"] - r["erm"]["last"] for r in results]
    assert np.mean(gain) >= 0.08, gain


def test_weights_tell_clean_from_wrong_labels(results):
    assert np.mean([r["mwnet"]["auc_weight"] for r in results]) > 0.8
