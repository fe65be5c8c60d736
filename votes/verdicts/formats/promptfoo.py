"""Results of promptfoo: tests with two outputs each, graded by `select-best`, or scored by other graders."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from core.registry import VERDICT_FORMATS
from votes.comparison import InvalidRow
from votes.digests import clean_turns, pair_digest
from votes.format import compare_answers
from votes.verdicts.verdict import NumberedVerdict, Verdict, VerdictFormat

if TYPE_CHECKING:
    from core.settings.data import Outcome
    from votes.format import Row

_COMPARING: Final = frozenset({"select-best"})  # graders that pick one of the outputs of a test
_JUDGING: Final = frozenset({"llm-rubric", "g-eval", "model-graded-closedqa", "factuality", "answer-relevance", "pi"})


@VERDICT_FORMATS.register
class PromptfooFormat(VerdictFormat):
    """The outputs of one test and prompt are A and B, in the order of the providers.

    A grader that picks one output gives a verdict, and one that grades an output alone gives scores. The judge is the
    grader's provider, else its type.
    """

    name = "promptfoo"
    summary = "promptfoo results: testIdx, provider, prompt, response, gradingResult with componentResults"
    has_texts = True

    def fits(self, names: frozenset[str], rows: Sequence[Row]) -> bool:
        """Return whether the keys are these."""
        return names >= {"testIdx", "response", "gradingResult"}

    def read(self, rows: Iterator[tuple[int, Row]], outer: Mapping[str, Any]) -> Iterator[NumberedVerdict]:
        """Yield the verdicts of each test with two outputs."""
        tests: dict[tuple[Any, str], list[tuple[int, Row]]] = collections.defaultdict(list)
        for number, row in rows:
            prompt = row.get("prompt")
            text = prompt.get("raw") if isinstance(prompt, dict) else prompt
            response = row.get("response")
            output = response.get("output") if isinstance(response, dict) else None
            if not isinstance(text, str) or not isinstance(output, str):
                yield number, InvalidRow("the result has no prompt, or no output")
            else:
                tests[row["testIdx"], text].append((number, row))
        for (_, prompt), outputs in tests.items():
            if len(outputs) != 2:
                reason = InvalidRow(f"the test has {len(outputs)} outputs of one prompt, not two")
                yield from ((number, reason) for number, _ in outputs)
                continue
            try:
                yield from list(_of_test(prompt, outputs))
            except (TypeError, ValueError, AttributeError) as error:
                yield outputs[0][0], InvalidRow(f"the test is not as promptfoo writes it: {error!r}")


def _of_test(prompt: str, outputs: Sequence[tuple[int, Row]]) -> Iterator[NumberedVerdict]:
    (number, a), (_, b) = outputs
    comparison = compare_answers(prompt, a["response"]["output"], b["response"]["output"])
    texts = (comparison.prompt, comparison.response_a, comparison.response_b)
    digest, exchanged = pair_digest(*map(clean_turns, texts))
    grades = [_grades(row) for row in (a, b)]
    graders = [grader for grader in grades[0] if grader in grades[1]]
    if not graders:
        yield number, InvalidRow("no language model has graded both outputs")
    for kind, judge in graders:
        of_a, of_b = (of_side[kind, judge] for of_side in grades)
        verdict = Verdict(judge, scores=(of_a[1], of_b[1]), digest=digest, exchanged=exchanged)
        if kind not in _COMPARING:
            yield number, verdict
        elif of_a[0] == of_b[0]:
            yield number, InvalidRow(f"select-best has picked {'both outputs' if of_a[0] else 'no output'}")
        else:
            shares: Mapping[Outcome, float] = {"a" if of_a[0] else "b": 1.0}
            yield number, dataclasses.replace(verdict, shares=shares, scores=None)


def _grades(row: Row) -> dict[tuple[str, str], tuple[bool, float]]:
    """Return whether each grader passed an output, and its mean score over its assertions, by type and judge."""
    passed: dict[tuple[str, str], list[bool]] = collections.defaultdict(list)
    scores: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for component in (row.get("gradingResult") or {}).get("componentResults") or ():
        assertion = component.get("assertion") or {}
        kind = str(assertion.get("type"))
        if kind in _COMPARING | _JUDGING:
            provider = assertion.get("provider")
            judge = provider.get("id") if isinstance(provider, dict) else provider
            passed[kind, str(judge or kind)].append(bool(component.get("pass")))
            scores[kind, str(judge or kind)].append(float(component.get("score")))
    return {grader: (all(passed[grader]), statistics.fmean(scores[grader])) for grader in passed}
