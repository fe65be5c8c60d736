"""Make leaderboard/: ratings.csv, ratings_by_slice.csv, win_rates.csv, ratings.json and index.html."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core import logs
from core.run import StageResult
from core.stage import Stage
from leaderboard.inputs import of_slice, read_inputs
from leaderboard.methods import best_method, compare_methods, rate
from leaderboard.predicted import find_predictions
from leaderboard.tables import as_csv, equivalent_votes, mean_interval_width, rating_table, win_rate_intervals

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.run import Run
    from core.settings.leaderboard import Leaderboard
    from leaderboard.inputs import LeaderboardInputs
    from leaderboard.methods import HeldOutScore, MethodName, MethodRatings, RatingInputs
    from leaderboard.predicted import PredictionSource
    from votes.records import Records

RATINGS, RATINGS_JSON, SLICES, WIN_RATES = "ratings.csv", "ratings.json", "ratings_by_slice.csv", "win_rates.csv"
PAGE: Final = "index.html"
# Part of the fingerprint. Raise it when the same votes are rated differently, or the outputs change.
VERSION: Final = 1
_SHOWN: Final = 3  # models in the summary
_NAMED: Final = 5  # models in a remark


def leaderboard_stage(run: Run, records: Records, source: PredictionSource | None) -> Stage:
    """Return the stage of leaderboard/."""
    inputs = {"records": records.fingerprint}
    if source is not None:
        inputs[f"predictions/{source.name}"] = source.fingerprint
    if run.settings.leaderboard.style and run.settings.features:
        inputs["features"] = str(run.require("external", "featurize", records.fingerprint)["fingerprint"])
    return Stage(
        "leaderboard",
        run.folder / "leaderboard",
        settings={
            "version": VERSION,
            "seed": run.settings.seed,
            **run.settings.leaderboard.model_dump(mode="json"),
        },
        inputs=inputs,
    )


def make_leaderboard(run: Run, records: Records, render: Callable[[dict[str, Any]], str]) -> StageResult:
    """Rate the models, unless it is done; `render` makes the page from the numbers.

    Raises InputError if the records name fewer than two models.
    """
    settings = run.settings.leaderboard
    votes_alone = settings.method == "votes" or settings.for_votes_alone
    source = None if votes_alone else find_predictions(run, records)
    stage = leaderboard_stage(run, records, source)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        stage.begin()
        inputs = read_inputs(run, records, source)
        result = _rate_all(inputs, settings, source)
        stage.folder.write_json(RATINGS_JSON, result)
        stage.folder.write_bytes(RATINGS, as_csv(result["models"]))
        stage.folder.write_bytes(WIN_RATES, as_csv(_win_rate_rows(result)))
        stage.folder.write_bytes(PAGE, render(result).encode())
        keep = {RATINGS, RATINGS_JSON, WIN_RATES, PAGE}
        by_slice = [
            {"slice": part["slice"], "value": part["value"], **row}
            for part in result["slices"]
            for row in part["models"]
        ]
        if by_slice:
            stage.folder.write_bytes(SLICES, as_csv(by_slice))
            keep.add(SLICES)
        summary = {key: value for key, value in result.items() if key not in ("slices", "win_rates")}
        rows = {"models": len(result["models"]), "votes": round(result["votes"])}
        manifest = stage.commit(rows=rows, metrics=summary, keep=keep)
    return StageResult("leaderboard", cached, manifest, _notes(stage, manifest["metrics"]))


def _rate_all(inputs: LeaderboardInputs, settings: Leaderboard, source: PredictionSource | None) -> dict[str, Any]:
    """Return ratings.json."""
    rating = inputs.rating
    voted = rating.voted
    logs.info("leaderboard", f"rating {len(voted.models):,} models from {voted.votes.sum():,.0f} votes")
    scores: dict[MethodName, HeldOutScore] = {}
    method: MethodName = "votes"
    if source is not None:
        if settings.method == "auto":
            scores = compare_methods(rating, settings)
            method = best_method(scores)
        else:
            method = settings.method
    alone = rate("votes", rating, settings)
    chosen = alone if method == "votes" else rate(method, rating, settings)
    return {
        "rating_model": settings.model,
        "method": method,
        "predictions": None if source is None else source.name,
        "votes": float(voted.votes.sum()),
        "records": {"voted": len(voted), "all": len(rating.battles)},
        "prompts": len(np.unique(voted.groups)),
        **_numbers(rating, chosen, None if method == "votes" else alone),
        "methods": {
            name: {"log_loss": score.log_loss, "gain": score.gain, "standard_error": score.standard_error}
            for name, score in scores.items()
        },
        "style": dict(zip(settings.style, alone.fit.style.tolist(), strict=True)) if settings.style else {},
        "remarks": [*inputs.remarks, *chosen.remarks, *_remarks(rating, chosen)],
        "slices": _rate_slices(inputs, settings, method),
    }


def _numbers(rating: RatingInputs, chosen: MethodRatings, alone: MethodRatings | None) -> dict[str, Any]:
    """Return the table, the win rates, and what predictions changed."""
    table = rating_table(rating.battles, chosen.fit, None if alone is None else alone.fit, rating.seed)
    rates, (low, high) = chosen.fit.win_rates(), win_rate_intervals(chosen.fit)
    place = np.ix_(table.order, table.order)
    votes = float(rating.battles.votes.sum())
    return {
        "models": table.rows,
        "win_rates": {
            name: [[None if np.isnan(rate) else value for value, rate in zip(*pair, strict=True)] for pair in pairs]
            for name, pairs in (
                ("rate", zip(rates[place].tolist(), rates[place].tolist(), strict=True)),
                ("lower", zip(low[place].tolist(), rates[place].tolist(), strict=True)),
                ("upper", zip(high[place].tolist(), rates[place].tolist(), strict=True)),
            )
        },
        "mean_width": table.mean_width,
        "tie": chosen.fit.tie if chosen.fit.model.has_tie_parameter else None,
        "penalty": chosen.fit.penalty,
        "components": len(np.unique(chosen.fit.components)),
        "details": dict(chosen.details or {}),
        "alone": None
        if alone is None
        else {
            "mean_width": mean_interval_width(alone.fit),
            "equivalent_votes": equivalent_votes(chosen.fit, alone.fit, votes),
        },
    }


def _rate_slices(inputs: LeaderboardInputs, settings: Leaderboard, method: MethodName) -> list[dict[str, Any]]:
    """Return the ratings of each slice with enough votes, by the method of all records."""
    rated = []
    for (dimension, value), mask in inputs.slices.items():
        votes = inputs.rating.battles.votes[mask].sum()
        if votes < settings.least_votes or mask.all():
            continue
        part = of_slice(inputs.rating, mask)
        fit = rate(method, part, settings).fit
        table = rating_table(part.battles, fit, seed=part.seed)
        rated.append({"slice": dimension, "value": value, "votes": float(votes), "models": table.rows})
    return rated


def _remarks(rating: RatingInputs, chosen: MethodRatings) -> list[str]:
    """Return remarks on models that are not comparable, and on those that have no votes."""
    fit, models = chosen.fit, rating.battles.models
    remarks = []
    for component in np.unique(fit.components)[1:]:
        names = [models[n] for n in np.flatnonzero(fit.components == component)]
        remarks.append(f"not comparable with the first models, because no votes connect them: {_names(names)}")
    tallies = rating.battles.tallies()
    unvoted = [models[n] for n in np.flatnonzero(tallies.sum(axis=1) == 0)]
    if unvoted:
        remarks.append(f"rated without a vote of their own: {_names(unvoted)}")
    beaten = [models[n] for n in np.flatnonzero((tallies[:, 0] + tallies[:, 2] == 0) & (tallies[:, 1] > 0))]
    if beaten:
        remarks.append(f"without a win or a tie, rated by shrinkage: {_names(beaten)}")
    return remarks


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _win_rate_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each ordered pair of models."""
    names = [row["model"] for row in result["models"]]
    rates = result["win_rates"]
    return [
        {
            "model": first,
            "other": second,
            "win_rate": rates["rate"][i][j],
            "lower": rates["lower"][i][j],
            "upper": rates["upper"][i][j],
        }
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i != j
    ]


def _notes(stage: Stage, metrics: dict[str, Any]) -> list[str]:
    """Return the summary's lines."""
    rows = metrics["models"]
    top = ", ".join(
        f"{row['rank']}. {row['model']} {row['rating']:.0f} ({row['lower']:.0f} to {row['upper']:.0f})"
        for row in rows[:_SHOWN]
    )
    notes = [f"{len(rows):,} models, {metrics['votes']:,.0f} votes: {top}; all in {stage.folder / RATINGS}"]
    if metrics["alone"] is not None:
        votes = metrics["alone"]["equivalent_votes"]
        notes.append(
            f"{metrics['method']} ratings, with predictions of {metrics['predictions']}: "
            f"as exact as about {votes:,.0f} votes alone"
        )
    elif metrics["predictions"] is not None:
        notes.append(f"votes alone predict held-out votes as well as with predictions of {metrics['predictions']}")
    return notes + list(metrics["remarks"])
