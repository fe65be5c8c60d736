"""Turn judges' verdicts into numbers that keep or change their sign when A and B change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from votes.comparison import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles, Ints, Mask, Rows

_ORDERS: Final = ("ab", "ba")


@dataclass(frozen=True)
class Scale:
    """What is known of all training verdicts of a judge, without their votes: it is the same in every fold."""

    score: float = 1.0  # root mean square of the difference of scores
    is_graded: bool = False  # whether verdicts say how sure the judge is

    @classmethod
    def of(cls, verdicts: pa.Table) -> Scale:
        """Return the scale of a judge's training verdicts."""
        scores, shares = _scores_and_shares(verdicts, 1.0)
        known = scores[~np.isnan(scores)]
        score = float(np.sqrt(np.mean(known**2))) if len(known) and known.any() else 1.0
        graded = bool(len(known)) or bool(((shares > 0) & (shares < 1)).any())
        return cls(score, graded)


@dataclass(frozen=True)
class Evidence:
    """What judges say of n records. Under exchange of A and B, `antisymmetric` changes its sign, the rest stays."""

    antisymmetric: Doubles  # (n, p)
    symmetric: Doubles  # (n, q)
    present: Mask  # (n,) whether there is any verdict

    def take(self, rows: Mask | Rows) -> Evidence:
        """Return the evidence on some records."""
        return Evidence(self.antisymmetric[rows], self.symmetric[rows], self.present[rows])


def judge_evidence(verdicts: pa.Table, records: int, scale: Scale) -> Evidence:
    """Return the evidence of one judge's verdicts (see votes.verdicts.join.VERDICTS) on n records.

    Verdicts in both orders are added up, and whether they agree is told apart. Antisymmetric are: the side, the side by
    whether the judge saw it first, how sure the judge is, and the side on which both orders agree. Symmetric are: ties,
    both bad, the choice of what came first, how sure the judge is, agreement, disagreement, and a single order.
    """
    rows: Ints = verdicts["record"].to_numpy()
    scores, shares = _scores_and_shares(verdicts, scale.score)
    of_scores = ~np.isnan(scores)
    strength = np.where(of_scores, scores, shares[:, 0] - shares[:, 1])
    ties = np.where(of_scores, scores == 0, shares[:, 2]).astype(np.float64)
    side = np.sign(strength)
    first = pc.index_in(verdicts["order"], pa.array(_ORDERS)).fill_null(-1).to_numpy()
    of_first = np.select([first == 0, first == 1], [1.0, -1.0], 0.0) * side  # 1 if the judge chose what it saw first

    def add(values: Doubles) -> Doubles:
        return np.bincount(rows, values, records).astype(np.float64)

    count, sides = np.bincount(rows, minlength=records), add(side)
    ab, ba = add(side * (first == 0)), add(side * (first == 1))
    agreed, disagreed = ab * ba > 0, ab * ba < 0
    graded = float(scale.is_graded)
    return Evidence(
        np.stack([sides, add(side * of_first), add(strength) * graded, agreed * np.sign(ab)], axis=1),
        np.stack(
            [
                add(ties),
                add(shares[:, 3]),
                add(of_first),
                add(np.abs(strength)) * graded,
                agreed,
                disagreed,
                (count == 1).astype(np.float64),
            ],
            axis=1,
        ).astype(np.float64),
        count > 0,
    )


def panel_evidence(judges: Sequence[Evidence]) -> Evidence:
    """Return the evidence of several judges together: each one's, whether it is missing, and their consensus."""
    sides = np.stack([np.sign(judge.antisymmetric[:, 0]) for judge in judges])
    present = np.stack([judge.present for judge in judges])
    consensus = sides.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    return Evidence(
        np.concatenate([*(judge.antisymmetric for judge in judges), (consensus * np.abs(consensus))[:, None]], axis=1),
        np.concatenate(
            [
                *(judge.symmetric for judge in judges),
                (~present).T.astype(np.float64),
                np.abs(consensus)[:, None],
            ],
            axis=1,
        ),
        np.asarray(present.any(axis=0)),
    )


def evidence_by_judge(verdicts: pa.Table, records: int, scales: Mapping[str, Scale]) -> dict[str, Evidence]:
    """Return the evidence of each judge with a scale, by its name."""
    return {
        judge: judge_evidence(verdicts.filter(pc.equal(verdicts["judge"], judge)), records, scale)
        for judge, scale in scales.items()
    }


def _scores_and_shares(verdicts: pa.Table, score: float) -> tuple[Doubles, Doubles]:
    """Return the scaled scores of A minus B (m,), nan where there are none, and the shares (m, 4), 0 where none."""
    columns: list[Any] = [
        verdicts[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("score_a", "score_b")
    ]
    nothing = [0.0] * len(OUTCOMES)
    shares = [nothing if values is None else values for values in verdicts["shares"].to_pylist()]
    return (columns[0] - columns[1]) / score, np.array(shares, np.float64).reshape(-1, len(OUTCOMES))
