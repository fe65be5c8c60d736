"""A table with one verdict a row: id, judge, and a verdict, probabilities, scores or a preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from core.registry import VERDICT_FORMATS
from votes.comparison import InvalidRow, soft_vote
from votes.format import ID_COLUMNS, identifier, number, preference
from votes.verdicts.verdict import RowVerdictFormat, Verdict, verdict_order, verdict_shares

if TYPE_CHECKING:
    from core.settings.data import Outcome
    from votes.format import Row

_JUDGES: Final = ("judge", "judge_model", "evaluator", "annotator", "voter")
_VERDICTS: Final = ("verdict", "winner", "choice", "judgment")
_PROBABILITIES: Final[Mapping[str, Outcome]] = {"p_a": "a", "p_b": "b", "p_tie": "tie", "p_both_bad": "both_bad"}
_TEXTS: Final = frozenset({"response_a", "response_b", "output_1", "output_2", "conversation_a", "games"})


@VERDICT_FORMATS.register
class LongTableFormat(RowVerdictFormat):
    """Names of columns: an id, and one of verdict, p_a and p_b, score_a and score_b, or preference."""

    name = "long_table"
    summary = "one verdict a row: id, judge, order, and verdict, or p_a and p_b, or score_a and score_b, or preference"

    def fits(self, names: frozenset[str], rows: Sequence[Row]) -> bool:
        """Return whether there are an id and a verdict, and no texts: by texts, other formats join verdicts."""
        return bool(names & {*ID_COLUMNS}) and _kind(names) is not None and not names & _TEXTS

    def verdicts(self, row: Row) -> Sequence[Verdict]:
        """Return the verdict of a row."""
        record_id = identifier(_first(row, ID_COLUMNS))
        if record_id is None:
            raise InvalidRow("missing id")
        judge = _first(row, _JUDGES)
        models = row.get("model_a"), row.get("model_b")
        shares, scores = _content(row)
        return [
            Verdict(
                None if judge is None else str(judge),
                shares,
                scores,
                verdict_order(row.get("order")),
                record_id,
                model_a=None if models[0] is None else str(models[0]),
                model_b=None if models[1] is None else str(models[1]),
                cost=_amount(row, "cost"),
                seconds=_amount(row, "seconds"),
            )
        ]


def _kind(names: frozenset[str]) -> str | None:
    """Return which columns hold the verdict."""
    if names & {*_VERDICTS}:
        return "verdict"
    if names >= {"p_a", "p_b"}:
        return "probabilities"
    if names >= {"score_a", "score_b"}:
        return "scores"
    return "preference" if "preference" in names else None


def _content(row: Row) -> tuple[Mapping[Outcome, float] | None, tuple[float, float] | None]:
    """Return the shares of the outcomes, or the scores of the two answers. Raises InvalidRow."""
    kind = _kind(frozenset(row))
    if kind == "verdict":
        return verdict_shares(_first(row, _VERDICTS), row), None
    if kind == "probabilities":
        if all(row.get(name) in (None, "") for name in ("p_a", "p_b")):
            raise InvalidRow("no verdict")
        given = {_PROBABILITIES[name]: number(row, name) for name in _PROBABILITIES if row.get(name) not in (None, "")}
        return soft_vote(given)[0].shares, None
    if kind == "scores":
        return None, (finite_score(row, "score_a"), finite_score(row, "score_b"))
    return preference(row)[0].shares, None


def finite_score(row: Row, name: str) -> float:
    """Return a score. Raises InvalidRow if the cell holds no finite number."""
    score = number(row, name)
    if score in (float("inf"), float("-inf")):
        raise InvalidRow(f"{name} is not a finite number")
    return score


def _amount(row: Row, name: str) -> float | None:
    """Return a cost or a time; None where the cell is empty. Raises InvalidRow for a negative one."""
    if row.get(name) in (None, ""):
        return None
    amount = finite_score(row, name)
    if amount < 0:
        raise InvalidRow(f"{name} is negative")
    return amount


def _first(row: Row, names: Sequence[str]) -> Any:  # noqa: ANN401 - a cell of any format
    """Return the first of these cells that is there."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
