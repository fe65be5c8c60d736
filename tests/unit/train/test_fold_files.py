"""The folds of a booster, combined."""

import numpy as np

from train.boosters.data import EXPLAIN_ROWS
from train.boosters.fold_files import average_position_effects
from train.boosters.fold_predictions import sample_rows_to_explain
from votes.swap import PositionEffect


def test_the_effect_of_position_is_weighed_by_the_folds_records():
    folds: list[PositionEffect] = [
        {"records": 10, "flip_rate": 0.5, "first_share": 0.4},
        {"records": 30, "flip_rate": 0.1, "first_share": 0.6},
    ]
    effect = average_position_effects(folds)
    assert effect is not None
    assert effect["records"] == 40
    assert np.isclose([effect["flip_rate"], effect["first_share"]], [0.2, 0.55]).all()
    assert average_position_effects([*folds, None]) is None  # a fold of an older version


def test_explained_records_are_drawn_from_all_of_a_fold():
    rows = np.arange(0, 20000, 2)
    drawn = sample_rows_to_explain(rows, seed=3)
    assert len(drawn) == len(set(drawn.tolist())) == EXPLAIN_ROWS
    assert set(drawn.tolist()) <= set(rows.tolist())
    assert drawn.max() > 15000
    assert (drawn == sample_rows_to_explain(rows, seed=3)).all()
    assert (sample_rows_to_explain(rows[:7], seed=3) == rows[:7]).all()
