"""Compare the published recipes in our pipeline with direct library calls on the same folds.

Run as: python -m benchmarks.published --votes votes.csv
(1,000 votes take more than an hour on 2 cores, most of it for LightGBM's recipe; --models xgboost runs one alone)

The libraries are scikit-learn, gensim, lightgbm and xgboost. Our side is the pipeline with configs/seed.yaml. The other
side uses only its records and their folds.
"""

import argparse
import functools
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
import yaml

from benchmarks.featurize import NGRAM_KINDS, ROOT
from benchmarks.featurize_alone import PARTS
from benchmarks.search import VOTES
from featurize.text import Text
from metrics.scores import log_loss

CONFIG = ROOT / "configs/seed.yaml"
CLOSE = 0.01
Rows = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]  # of a fold: to train on, and held out


def main() -> None:
    """Run both sides and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", default=str(VOTES))
    parser.add_argument("--models", nargs="+", default=list(DIRECT), choices=list(DIRECT))
    options = parser.parse_args()
    published = yaml.safe_load(CONFIG.read_text("utf-8"))["boosters"]
    recipes = {booster["name"]: booster for booster in published if booster["name"] in options.models}
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", str(CONFIG), "--set", f"run={run}"]
        line += ["--set", f"data.train={options.votes}", "--set", f"boosters={json.dumps(list(recipes.values()))}"]
        subprocess.run(line, check=True, cwd=ROOT)
        scores = json.loads((run / "report/metrics.json").read_text("utf-8"))
        records = pd.read_parquet(run / "records/train").sort_values("position")
    print(f"{len(records)} votes; class prior {scores['baselines']['class prior']['oof_log_loss']:.4f}")
    for model, settings in recipes.items():
        direct = _out_of_fold_loss(records, DIRECT[model], settings)
        ours = scores["models"][model]["oof_log_loss"]
        verdict = "agree" if abs(ours - direct) <= CLOSE else "DIFFER"
        print(f"{model:<9} ours {ours:.4f}, called directly {direct:.4f}: {verdict} within {CLOSE}", flush=True)


def _out_of_fold_loss(records: pd.DataFrame, direct: Any, settings: dict[str, Any]) -> float:  # noqa: ANN401
    folds, labels = records["fold"].to_numpy(), records["label"].to_numpy()
    features, predict = direct(records, settings)
    rows = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    predicted = np.empty((len(records), 3))
    for (_, held_out), values in zip(rows, predict(features, labels, rows), strict=True):
        predicted[held_out] = values
    return log_loss(predicted, labels)


def _texts(records: pd.DataFrame, part: str) -> list[str]:
    return [Text(list(turns)).full for turns in records[part]]


def _lightgbm(records: pd.DataFrame, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return n-gram counts and TF-IDF by scikit-learn, and a function that trains LightGBM without early stopping."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    blocks = []
    for part, analyzer, features in NGRAM_KINDS:
        parts = ["prompt"] if part == "prompt" else ["response_a", "response_b"]
        for vectorizer_class in (TfidfVectorizer, CountVectorizer):
            vectorizer = vectorizer_class(analyzer=analyzer, ngram_range=(1, 3), min_df=0.002, max_features=features)
            vectorizer.fit([text for name in parts for text in _texts(records, name)])
            blocks += [vectorizer.transform(_texts(records, name)) for name in parts]
    params = {**settings["params"], "objective": "multiclass", "num_class": 3, "seed": 42, "verbosity": -1}
    # As on our side. Otherwise LightGBM chooses how to sum by timing, and trees magnify the different last digits.
    params |= {"deterministic": True, "force_row_wise": True}

    def predict(x: Any, y: Any, rows: list[Rows]) -> Any:  # noqa: ANN401
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            work = functools.partial(_lightgbm_fold, x, y, params, settings["rounds"])
            return list(pool.map(work, rows))

    return scipy.sparse.hstack(blocks, format="csr").astype(np.float32), predict


def _lightgbm_fold(x: Any, y: Any, params: dict[str, Any], rounds: int, rows: Rows) -> Any:  # noqa: ANN401
    """Return the predictions of one fold of LightGBM's own cross-validation, on one thread: folds run in parallel.

    It bins the columns of all rows, as our side does. A thousand trees on few votes would magnify the effect of other
    bins.
    """
    import lightgbm

    data = lightgbm.Dataset(x, y, free_raw_data=False)
    result = lightgbm.cv({**params, "num_threads": 1}, data, rounds, folds=[rows], return_cvbooster=True)
    return result["cvbooster"].boosters[0].predict(x[rows[1]])


def _xgboost(records: pd.DataFrame, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return mean word vectors by gensim, and a function that trains XGBoost without early stopping.

    gensim reads its sentences from a file of lines, as on our side. With lists it would draw other random numbers.
    """
    import xgboost
    from gensim.models import Word2Vec

    words = {part: [Text(list(turns)).words for turns in records[part]] for part in PARTS}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as corpus:
        corpus.writelines(" ".join(text) + "\n" for part in PARTS for text in words[part] if text)
        corpus.flush()
        model = Word2Vec(corpus_file=corpus.name, vector_size=300, window=5, min_count=1, epochs=10, seed=42, workers=1)
    means = [
        [model.wv[text].mean(axis=0) if text else np.zeros(300, np.float32) for text in words[part]] for part in PARTS
    ]
    params = {**settings["params"], "objective": "multi:softprob", "num_class": 3, "seed": 42, "tree_method": "hist"}

    def predict(x: Any, y: Any, rows: list[Rows]) -> Iterator[Any]:  # noqa: ANN401
        for train, held_out in rows:
            booster = xgboost.train(params, xgboost.DMatrix(x[train], y[train]), settings["rounds"])
            yield booster.predict(xgboost.DMatrix(x[held_out])).astype(np.float64)

    return np.concatenate([np.array(part, np.float32) for part in means], axis=1), predict


DIRECT = {"lightgbm": _lightgbm, "xgboost": _xgboost}

if __name__ == "__main__":
    main()
