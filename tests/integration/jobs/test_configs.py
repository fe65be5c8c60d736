"""The configurations that the project ships, and what keeps the best of them honest."""

import json

import numpy as np
import pytest

from demo.generator import generate_pairs
from tests.helpers.commands import run_here
from votes.schema import WINNERS

HANDMADE = "[length, vocabulary, entities, style, tone, language, opening, overlap, similarity]"
# Sentence embeddings take longer than all the rest.
WITHOUT_EMBEDDINGS = [
    "featurize.families.embeddings=null",
    f"boosters.forest.features={HANDMADE}",
    f"boosters.boosted.features={HANDMADE}",
]


@pytest.mark.slow
def test_the_published_recipes_run(tmp_path, ray_cluster):
    few = ["data.synthetic={train_rows: 120, test_rows: 20}", "data.folds=3", "featurize.families.word2vec.epochs=1"]
    rounds = ["boosters.lightgbm.rounds=5", "boosters.xgboost.rounds=5", "boosters.lightgbm.params.min_child_samples=5"]
    done = run_here("pipeline", tmp_path / "run", *few, *rounds, config="configs/seed.yaml")
    assert done.returncode == 0, done.stderr
    models = tmp_path / "run/models"
    manifest = json.loads((models / "xgboost/manifest.json").read_text())
    assert manifest["settings"]["swap"] == "none"
    fold = json.loads((models / "lightgbm/fold-0/manifest.json").read_text())
    assert fold["metrics"]["rounds"] == 5  # all of them: no early stopping


@pytest.mark.slow
def test_votes_without_meaning_teach_nothing(tmp_path, ray_cluster):
    """Shuffled votes: any score better than the prior's would come from a label outside its fold."""
    votes = generate_pairs(500, seed=4).table.to_pandas()
    winners = list(WINNERS[:3])
    votes[winners] = votes[winners].to_numpy()[np.random.default_rng(5).permutation(len(votes))]
    votes.to_csv(tmp_path / "votes.csv", index=False)
    few = ["data.folds=5", "boosters.forest.rounds=40", "boosters.boosted.rounds=100"]
    overrides = [f"data.train={tmp_path}/votes.csv", *few, *WITHOUT_EMBEDDINGS]
    done = run_here("pipeline", tmp_path / "run", *overrides, config="configs/best.yaml")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/report/metrics.json").read_text())
    prior = metrics["baselines"]["class prior"]["oof_log_loss"]
    for values in [*metrics["models"].values(), *metrics["blend"]["variants"].values()]:
        assert values["oof_log_loss"] > prior - 0.002
    assert set(metrics["importance"]) == {"forest", "boosted", "linear"}
