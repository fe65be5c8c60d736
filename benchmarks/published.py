"""The published recipes: ours beside scikit-learn, gensim, lightgbm and xgboost called directly, on the same folds.

Run as: python -m benchmarks.published --votes votes.csv
(1,000 votes take about 15 minutes on 2 cores)

Ours is the pipeline with configs/seed.yaml; the other side takes nothing from it but the records with their folds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import yaml

from benchmarks.featurize import NGRAM_KINDS, ROOT
from benchmarks.featurize_alone import PARTS
from benchmarks.search import VOTES
from featurize.text import Text
from preference.metrics import log_loss

CONFIG = ROOT / "configs/seed.yaml"
CLOSE = 0.01


def main() -> None:
    """Run both sides and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", default=str(VOTES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", str(CONFIG), "--set", f"run={run}"]
        subprocess.run([*line, "--set", f"data.train={options.votes}"], check=True, cwd=ROOT)
        scores = json.loads((run / "report/metrics.json").read_text("utf-8"))
        records = pd.read_parquet(run / "records/train").sort_values("position")
    print(f"{len(records)} votes; class prior {scores['baselines']['class prior']['oof_log_loss']:.4f}")
    for model, direct in (("lightgbm", _lightgbm), ("xgboost", _xgboost)):
        settings = next(each for each in yaml.safe_load(CONFIG.read_text("utf-8"))["boosters"] if each["name"] == model)
        theirs = _out_of_fold_loss(records, direct, settings)
        ours = scores["models"][model]["oof_log_loss"]
        verdict = "agree" if abs(ours - theirs) <= CLOSE else "DIFFER"
        print(f"{model:<9} ours {ours:.4f}, called directly {theirs:.4f}: {verdict} within {CLOSE}", flush=True)


def _out_of_fold_loss(records: pd.DataFrame, direct: Any, settings: dict[str, Any]) -> float:  # noqa: ANN401
    folds, labels = records["fold"].to_numpy(), records["label"].to_numpy()
    features, train = direct(records, settings)
    predicted = np.empty((len(records), 3))
    for fold in np.unique(folds):
        held = folds == fold
        predicted[held] = train(features[~held], labels[~held], features[held])
    return log_loss(predicted, labels)


def _texts(records: pd.DataFrame, part: str) -> list[str]:
    return [Text(list(turns)).full for turns in records[part]]


def _lightgbm(records: pd.DataFrame, settings: dict[str, Any]) -> tuple[Any, Any]:
    """N-gram counts and tf-idf by scikit-learn; LightGBM without early stopping."""
    import lightgbm
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    blocks = []
    for part, analyzer, features in NGRAM_KINDS:
        parts = ["prompt"] if part == "prompt" else ["response_a", "response_b"]
        for kind in (TfidfVectorizer, CountVectorizer):
            vectorizer = kind(analyzer=analyzer, ngram_range=(1, 3), min_df=0.002, max_features=features)
            vectorizer.fit([text for each in parts for text in _texts(records, each)])
            blocks += [vectorizer.transform(_texts(records, each)) for each in parts]
    params = {**settings["params"], "objective": "multiclass", "num_class": 3, "seed": 42, "verbosity": -1}

    def train(x: Any, y: Any, held: Any) -> Any:  # noqa: ANN401
        booster = lightgbm.train(params, lightgbm.Dataset(x, y), settings["rounds"])
        return booster.predict(held)

    return scipy.sparse.hstack(blocks, format="csr").astype(np.float32), train


def _xgboost(records: pd.DataFrame, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Mean word vectors by gensim; XGBoost without early stopping."""
    import xgboost
    from gensim.models import Word2Vec

    words = {part: [Text(list(turns)).words for turns in records[part]] for part in PARTS}
    sentences = [each for part in PARTS for each in words[part]]
    model = Word2Vec(sentences, vector_size=300, window=5, min_count=1, epochs=10, seed=42, workers=1)
    means = [
        [model.wv[each].mean(axis=0) if each else np.zeros(300, np.float32) for each in words[part]] for part in PARTS
    ]
    params = {**settings["params"], "objective": "multi:softprob", "num_class": 3, "seed": 42, "tree_method": "hist"}

    def train(x: Any, y: Any, held: Any) -> Any:  # noqa: ANN401
        booster = xgboost.train(params, xgboost.DMatrix(x, y), settings["rounds"])
        return booster.predict(xgboost.DMatrix(held)).astype(np.float64)

    return np.concatenate([np.array(each, np.float32) for each in means], axis=1), train


if __name__ == "__main__":
    main()
