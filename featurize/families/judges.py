"""Judges: what their verdicts say of a pair, for boosters that let it interact with the texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from core.errors import InputError
from core.registry import FAMILIES
from core.settings.features import JUDGES
from featurize.blocks import Column, Feature, view_columns
from featurize.joined import JoinedFamily, with_missing
from votes.verdicts.evidence import Scale, evidence_by_judge
from votes.verdicts.joined import open_verdicts, read_verdicts, require_verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Floats
    from core.run import Run
    from votes.records import Records

# In the order of votes.verdicts.evidence.judge_evidence.
_DIFFERENCES = (
    Feature("side", "verdicts", "verdicts for A minus verdicts for B"),
    Feature("shown_first", "verdicts", "verdicts that saw A first minus those that saw B first; ties do not count"),
    Feature("strength", "score", "score of A minus score of B, or probability of A minus that of B"),
    Feature("agreed_side", "-1 to 1", "the side that the judge chose in both orders; 0 if it did not"),
)
_PAIRS = (
    Feature("ties", "verdicts", "verdicts that are ties"),
    Feature("both_bad", "verdicts", "verdicts that both answers are bad"),
    Feature("chose_first", "verdicts", "verdicts for what the judge saw first minus those for what it saw last"),
    Feature("confidence", "score", "size of the strength"),
    Feature("agreement", "0 or 1", "1 if the judge chose the same side in both orders"),
    Feature("disagreement", "0 or 1", "1 if the judge chose another side in each order"),
    Feature("single", "0 or 1", "1 if there is one verdict"),
    Feature("missing", "0 or 1", "1 if there is no verdict"),
)


@FAMILIES.register
class JudgesFamily(JoinedFamily):
    """Verdicts and scores of the judges in `judges`, each judge's in columns of its own."""

    name = JUDGES
    summary = "verdicts and scores of the judges in `judges`: side, strength, ties, position and missing verdicts"
    version = 1

    def manifest(self, run: Run) -> Mapping[str, Any]:
        """Return the manifest of the verdicts. Raises InputError if they are not joined with these settings."""
        return require_verdicts(run)

    def fit_columns(self, run: Run, records: Records) -> dict[str, Any]:
        """Return the judges by the names of their models, with the scales of their scores."""
        verdicts = open_verdicts(run, records)
        if verdicts is None:
            raise InputError("the family judges has no verdicts", "featurize.families", "name tables in `judges`.")
        train = verdicts.read("train")
        scales = {
            name: Scale.of(train.filter(pc.equal(train["judge"], judge))) for name, judge in verdicts.judges.items()
        }
        return {
            "judges": {
                name: {"judge": verdicts.judges[name], "score": scale.score, "is_graded": scale.is_graded}
                for name, scale in scales.items()
            }
        }

    def columns(self, fitted: Mapping[str, Any]) -> list[Column]:
        """Return 4 columns that change their sign under exchange and 8 that do not, for each judge."""
        columns = []
        for name in fitted["judges"]:
            columns += view_columns(self.name, _of_judge(name, _DIFFERENCES), ["difference"])
            columns += view_columns(self.name, _of_judge(name, _PAIRS), ["pair"])
        return columns

    def matrix(self, run: Run, split: str, rows: int, fitted: Mapping[str, Any]) -> Floats:
        """Return the evidence of every judge's verdicts, 0 where there is none."""
        judges = fitted["judges"].values()
        scales = {saved["judge"]: Scale(saved["score"], saved["is_graded"]) for saved in judges}
        evidence = evidence_by_judge(read_verdicts(run, split), rows, scales).values()
        parts = [
            with_missing(np.concatenate([judge.antisymmetric, judge.symmetric], axis=1), ~judge.present)
            for judge in evidence
        ]
        return np.concatenate(parts, axis=1)


def _of_judge(name: str, features: Sequence[Feature]) -> list[Feature]:
    return [Feature(f"{name}_{f.name}", f.unit, f"{name}: {f.description}") for f in features]
