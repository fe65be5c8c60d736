"""Rate battles with arena-rank: the other side of benchmarks.leaderboard, in an environment of its own.

Run as: python arena_rank_side.py BATTLES.npz OUT.npz. It imports nothing of this project.
"""

import sys
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.models.contextual_bradley_terry import ContextualBradleyTerry
from arena_rank.utils.data_utils import ContextualPairDataset, PairDataset

# Converged to the last digits. The ridge on the Hessian is arena-rank's default.
_TIGHT = {"ftol": 0.0, "gtol": 1e-13, "max_iter": 3000}


def main() -> None:
    """Read one row for each vote; write ratings and intervals without and with style control."""
    import pandas as pd

    given = np.load(sys.argv[1])
    style = [f"style_{n}" for n in range(given["style"].shape[1])]
    table = pd.DataFrame({"model_a": given["first"], "model_b": given["second"], "winner": given["outcome"]})
    table = pd.concat([table, pd.DataFrame(given["style"], columns=style)], axis=1)
    outcomes = {0: "model_a", 1: "model_b", 2: "tie"}
    table["winner"] = table["winner"].map(outcomes)
    written: dict[str, Any] = {}
    for name, reweighted in (("votes", False), ("pairs", True)):
        started = time.perf_counter()
        pairs = PairDataset.from_pandas(table, reweighted=reweighted)
        model = BradleyTerry(n_competitors=len(pairs.competitors), **_TIGHT)
        written |= _columns(name, model.compute_ratings_and_cis(pairs), time.perf_counter() - started)
    started = time.perf_counter()
    context = ContextualPairDataset.from_pandas(table, feature_cols=style, reweighted=False, normalize_features=False)
    styled = ContextualBradleyTerry(
        n_competitors=len(context.competitors), n_features=len(style), reg=float(given["reg"]), **_TIGHT
    )
    written |= _columns("style", styled.compute_ratings_and_cis(context), time.perf_counter() - started)
    np.savez(sys.argv[2], **written)


def _columns(name: str, result: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        f"{name}_rating": np.asarray(result["ratings"]),
        f"{name}_lower": np.asarray(result["rating_lower"]),
        f"{name}_upper": np.asarray(result["rating_upper"]),
        f"{name}_coefficients": np.asarray(result.get("coeffs", jnp.zeros(0))),
        f"{name}_seconds": np.array(seconds),
    }


if __name__ == "__main__":
    main()
