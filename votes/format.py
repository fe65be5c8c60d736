"""Define the interface of vote formats. A format is one class in one file of votes/formats, or in a plugin.

A format recognizes a file by the names of its columns or keys, never by the file's name. `read` turns a row into
comparisons: texts and votes. The base class adds what has a column of its own: id, pair, voter, time, models, language.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from votes.cells import decode_cell, is_broken_messages
from votes.chat import Message, Rounds, read_content, read_messages, read_transcript, to_rounds
from votes.comparison import Comparison, InvalidRow, Vote, one_vote, soft_vote
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.settings.data import Outcome

Row = Mapping[str, Any]
TextKind = Literal["lists", "plain"]
RankedPairs = Literal["all", "adjacent", "best_worst"]

# Values of a column that names the winner, in lower case and without what is not a letter or digit.
_WINNERS: Final[Mapping[str, Outcome]] = {
    **dict.fromkeys(("a", "modela", "responsea", "answera", "assistanta", "left", "leftvote", "first"), "a"),
    **dict.fromkeys(("b", "modelb", "responseb", "answerb", "assistantb", "right", "rightvote", "second"), "b"),
    **dict.fromkeys(("tie", "tied", "tievote", "draw", "equal", "bothequal", "same", "tieinconsistent"), "tie"),
    **dict.fromkeys(("bothbad", "tiebothbad", "bothbadvote", "neither"), "both_bad"),
    **dict.fromkeys(("bothgood", "tiebothgood"), "tie"),
}


@dataclass(frozen=True)
class Reading:
    """How a file is read: with votes or not, its kind of texts, the pairs of a ranked list.

    `outer` holds what surrounds the list of rows in a JSON object, and what the format decides for the whole file.
    """

    labeled: bool = True
    kind: TextKind = "lists"
    strict: bool = False  # a text that is no list is an error where the kind is lists
    pairs: RankedPairs = "all"
    outer: Mapping[str, Any] = field(default_factory=dict)
    weight_column: str | None = None
    judges: bool = False  # whether language models' votes are read, where a format tells them from people's


class VoteFormat(ABC):
    """One shape in which people hold votes."""

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for the documentation
    ranked: ClassVar[bool] = False  # the better answer comes first, so ingest draws the sides
    has_kinds: ClassVar[bool] = False  # texts may be lists of turns or plain, which is decided for a whole file
    texts: ClassVar[frozenset[str]]  # columns that hold prompt and answers, all needed
    votes: ClassVar[frozenset[str]] = frozenset()  # columns that hold the vote, all needed; files to score lack them
    others: ClassVar[frozenset[str]] = frozenset()  # columns that `read` uses where they are there
    # Columns of which the first that is there is used.
    ids: ClassVar[Sequence[str]] = ("id",)
    pairs: ClassVar[Sequence[str]] = ("pair_id",)
    voters: ClassVar[Sequence[str]] = ("voter", "annotator")
    times: ClassVar[Sequence[str]] = ("time", "timestamp", "created_at")
    models_a: ClassVar[Sequence[str]] = ("model_a",)
    models_b: ClassVar[Sequence[str]] = ("model_b",)
    languages: ClassVar[Sequence[str]] = ("language",)

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read; others need not be loaded."""
        named = (self.ids, self.pairs, self.voters, self.times, self.models_a, self.models_b, self.languages)
        return self.texts | self.votes | self.others | frozenset(name for names in named for name in names)

    def needs(self, labeled: bool) -> frozenset[str]:
        """Return the columns without which a file has another format."""
        return self.texts | self.votes if labeled else self.texts

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether a file with these columns, and these first rows, has the format."""
        return self.needs(labeled) <= names

    def has_ids(self, names: frozenset[str]) -> bool:
        """Return whether a file with these columns names its rows."""
        return bool(names & {*self.ids})

    def has_voters(self, names: frozenset[str]) -> bool:
        """Return whether a file with these columns names its voters, one a row."""
        return bool(names & {*self.voters})

    def cells(self, row: Row) -> Sequence[Any]:
        """Return prompt and answers as they are: by them the kind of a file's texts is decided."""
        return [row.get(name) for name in TEXTS]

    def decide(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return what the first rows of a file decide for all of them, to be added to `reading.outer`.

        Raises InvalidRow if they do not decide it.
        """
        return {}

    @abstractmethod
    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparisons of a row, with votes if `reading.labeled`.

        Raises InvalidRow with the reason if it has none.
        """

    def comparisons(self, row: Row, reading: Reading) -> Iterator[Comparison]:
        """Yield the comparisons of a row, with what has a column of its own. Raises InvalidRow."""
        voter, time = _name(_first(row, self.voters)), _name(_first(row, self.times))
        weight = _weight(row, reading)
        for comparison in self.read(row, reading):
            votes = comparison.votes
            if voter is not None or time is not None or weight != 1:
                votes = [Vote(vote.shares, vote.voter or voter, vote.time or time, weight) for vote in votes]
            yield dataclasses.replace(
                comparison,
                votes=votes,
                id=comparison.id or identifier(_first(row, self.ids)),
                pair=comparison.pair or identifier(_first(row, self.pairs)),
                model_a=_name(comparison.model_a) or _name(_first(row, self.models_a)),
                model_b=_name(comparison.model_b) or _name(_first(row, self.models_b)),
                language=_name(comparison.language) or _name(_first(row, self.languages)),
            )


ID_COLUMNS: Final = ("id", "pair_id", "record_id", "question_id", "uid")  # of tables that name records


def identifier(value: Any) -> str | None:  # noqa: ANN401 - a cell of any format
    """Return an id as text, None if there is none. Raises InvalidRow if it cannot name a record exactly."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float):
        raise InvalidRow("id is a floating-point number, which cannot name a record exactly")
    if isinstance(value, bool | list | dict):
        raise InvalidRow("id is neither text nor an integer")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            if len(value) != 16:
                raise InvalidRow("id is neither UTF-8 nor the 16 bytes of a UUID") from None
            return str(uuid.UUID(bytes=value))
    return str(value)


def winner_outcome(value: Any, row: Row | None = None) -> Outcome:  # noqa: ANN401 - a cell of any format
    """Return the outcome that a winner's name says: a side, tie, both bad, or the name of one of the row's models.

    Raises InvalidRow if it is unknown.
    """
    if value is None or value == "":
        raise InvalidRow("no winner")
    outcome = _WINNERS.get("".join(letter for letter in str(value).lower() if letter.isalnum()))
    models = [] if row is None else [row.get("model_a"), row.get("model_b")]
    of_model: Outcome | None = None
    if models.count(value) == 1:
        of_model = "a" if models[0] == value else "b"
    if outcome is not None and of_model not in (None, outcome):
        raise InvalidRow(f"the winner {str(value)[:40]!r} is one side's name and the other side's model")
    chosen = outcome or of_model
    if chosen is None:
        raise InvalidRow(f"unknown winner {str(value)[:40]!r}")
    return chosen


def cell(row: Row, name: str) -> Any:  # noqa: ANN401 - a cell of any format
    """Return a cell, with a list or object that is written as text decoded. Raises InvalidRow if it is missing."""
    value = row.get(name)
    if value is None:
        raise InvalidRow(f"missing {name}")
    return decode_cell(value)


def text(row: Row, name: str) -> Any:  # noqa: ANN401 - text, blocks or messages
    """Return a text as it is; text that holds chat messages is decoded. Raises InvalidRow if the cell is missing."""
    value = row.get(name)
    if value is None:
        raise InvalidRow(f"missing {name}")
    if isinstance(value, str) and value.lstrip().startswith("[") and "{" in value[:20]:
        decoded = decode_cell(value)
        if read_messages(decoded) is not None:
            return decoded
        if is_broken_messages(value):
            raise InvalidRow(f"{name} holds messages that do not parse")
    return value


def number(row: Row, name: str) -> float:
    """Return a number. Raises InvalidRow if the cell holds none."""
    value = row.get(name)
    try:
        result = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # TypeError is caught
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if math.isnan(result):
        raise InvalidRow(f"{name} is not a number" if value not in (None, "") else f"missing {name}")
    return result


def preference(row: Row) -> tuple[Vote, ...]:
    """Return the votes of a preference from 1 (A) to 2 (B), as AlpacaEval has it: 1.5 and 0 are ties.

    Raises InvalidRow for any other number.
    """
    value = number(row, "preference")
    if value and not 1 <= value <= 2:
        raise InvalidRow("preference is neither 0 nor between 1 and 2")
    if value in (0, 1.5):
        return one_vote("tie")
    return tuple(soft_vote({"a": 2 - value, "b": value - 1}))


def choice(row: Row, name: str, outcomes: Mapping[Any, Outcome]) -> tuple[Vote]:
    """Return the vote that a number or word stands for. Raises InvalidRow for any other value."""
    value = row.get(name)
    outcome = mapped_outcome(value, outcomes)
    if outcome is None:
        known = ", ".join(map(str, outcomes))
        raise InvalidRow(
            f"missing {name}" if value in (None, "") else f"{name} is {str(value)[:40]!r}, not one of {known}"
        )
    return one_vote(outcome)


def mapped_outcome(value: Any, outcomes: Mapping[Any, Outcome]) -> Outcome | None:  # noqa: ANN401 - a cell
    """Return the outcome that a map has for a value; 1.0 and 1 are one value, and so are true and True."""
    exact = {str(known): outcome for known, outcome in outcomes.items()}
    folded = {_folded(known): outcome for known, outcome in exact.items()}
    return exact.get(str(value).strip()) or folded.get(_folded(str(value)))


def _folded(value: str) -> str:
    text = value.strip().lower()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text  # as pandas writes integers beside a null


def conversation(row: Row, name: str) -> Rounds:
    """Return the rounds of a conversation. Raises InvalidRow if the cell holds none."""
    messages = read_messages(cell(row, name))
    if messages is None:
        raise InvalidRow(f"{name} is not a list of messages")
    return to_rounds(messages)


def prompt_messages(value: Any) -> list[Message]:  # noqa: ANN401 - a cell of any format
    """Return the messages of a prompt: messages, a transcript, or a text of one turn."""
    messages = read_messages(value)
    if messages is not None:
        return messages
    if isinstance(value, str):
        return read_transcript(value) or [Message("user", value)]
    return [Message("user", *_one_text(value))]


def answer_messages(value: Any) -> list[Message]:  # noqa: ANN401 - a cell of any format
    """Return the messages of an answer: messages, or a text or content blocks of one turn."""
    messages = read_messages(value)
    return [Message("assistant", *_one_text(value))] if messages is None else messages


def _one_text(value: Any) -> tuple[str | None, int]:  # noqa: ANN401 - a cell of any format
    if isinstance(value, list | tuple) and len(value) > 1 and any(isinstance(item, str) for item in value):
        raise InvalidRow("a list of texts is in the place of one text")
    if isinstance(value, list | tuple) and not value:
        raise InvalidRow("an empty list is in the place of a text")
    return read_content(value)


def answered(context: Sequence[Message], answer: Sequence[Message]) -> Rounds:
    """Return the rounds of a context that an answer ends. An empty answer at the context's end is its place.

    An answer may repeat the context. Raises InvalidRow if it begins with other questions.
    """
    if answer and answer[0].role in ("user", "system"):
        if list(answer[: len(context)]) != list(context):
            raise InvalidRow("an answer is a conversation that does not begin with the prompt")
        return to_rounds(answer)
    if context and context[-1].role == "assistant" and not context[-1].text:
        context = context[:-1]
    return to_rounds([*context, *answer])


def compare(a: Rounds, b: Rounds, votes: Sequence[Vote] = (), **others: Any) -> Comparison:  # noqa: ANN401 - fields
    """Return the comparison of two conversations.

    Raises InvalidRow if their prompts differ, or an answer is missing.
    """
    if a.prompts != b.prompts:
        raise InvalidRow("the two conversations have different prompts")
    if not a.prompts:
        raise InvalidRow("the conversation is empty")
    if not len(a.answers) == len(b.answers) == len(a.prompts):
        raise InvalidRow("an answer is missing")
    return Comparison(a.prompts, a.answers, b.answers, votes, attachments=a.attachments + b.attachments, **others)


def compare_answers(prompt: Any, a: Any, b: Any, votes: Sequence[Vote] = (), **others: Any) -> Comparison:  # noqa: ANN401
    """Return the comparison of two answers to one prompt: texts, transcripts, content blocks or messages."""
    context = prompt_messages(prompt)
    return compare(answered(context, answer_messages(a)), answered(context, answer_messages(b)), votes, **others)


def ranked_pairs(ranks: Sequence[float], pairs: RankedPairs) -> list[tuple[int, int]]:
    """Return the numbers of the answers to pair: each two, neighbors by rank, or the two ends."""
    numbers = range(len(ranks))
    by_rank = sorted(numbers, key=lambda n: ranks[n])
    if pairs == "adjacent":
        return list(itertools.pairwise(by_rank))
    return [(by_rank[0], by_rank[-1])] if pairs == "best_worst" else list(itertools.combinations(numbers, 2))


def compare_ranked(
    prompt: Any,  # noqa: ANN401 - a cell of any format
    answers: Sequence[tuple[Any, float, str | None]],
    pairs: RankedPairs,
    name: str | None = None,
) -> Iterator[Comparison]:
    """Yield the pairs of a ranked list of (answer, rank, model); the lowest rank is the best, equal ranks are a tie."""
    if len(answers) < 2:
        raise InvalidRow("fewer than two ranked answers")
    for i, j in ranked_pairs([rank for _, rank, _ in answers], pairs):
        (a, rank_a, model_a), (b, rank_b, model_b) = answers[i], answers[j]
        outcome: Outcome = "a" if rank_a < rank_b else "b" if rank_b < rank_a else "tie"
        identity = None if name is None else f"{name}-{i}-{j}"
        yield compare_answers(prompt, a, b, one_vote(outcome), id=identity, model_a=model_a, model_b=model_b)


def _weight(row: Row, reading: Reading) -> float:
    if reading.weight_column is None or not reading.labeled:
        return 1.0
    weight = number(row, reading.weight_column)
    if not 0 < weight < math.inf:
        raise InvalidRow(f"the weight {reading.weight_column} is not above 0")
    return weight


def _first(row: Row, names: Sequence[str]) -> Any:  # noqa: ANN401 - a cell of any format
    return next((row[name] for name in names if not _is_missing(row.get(name))), None)


def _is_missing(value: Any) -> bool:  # noqa: ANN401 - a cell of any format
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _name(value: Any) -> str | None:  # noqa: ANN401 - a cell of any format
    """Return a name as text; several, such as judges, as one."""
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():  # a column of integers with a null, as pandas writes it
        value = int(value)
    return None if _is_missing(value) or isinstance(value, dict) else str(value)
