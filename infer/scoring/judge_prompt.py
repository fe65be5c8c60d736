"""The question that a judge, a language model without a head of ours, is asked about a record."""

import datetime
from dataclasses import dataclass
from typing import Any, Final

from core.errors import InputError

INSTRUCTION: Final = (
    "Below are a person's messages to two assistants and the responses of both. Judge which response that person would "
    "prefer. The order of the responses means nothing, and neither does their length in itself."
)
QUESTION: Final = (
    "\n\nWhich response would the person prefer? Answer with one letter only: A for Response A, B for Response B, C if "
    "they would call it a tie."
)
DATE: Final = datetime.date(2024, 7, 26)  # the one that Llama 3's template falls back on
ANSWERS: Final = ("A", "B", "C")  # in the order of votes.schema.LABELS
_PLACE: Final = "\u2063record\u2063"  # stands for the record while the template is applied; no template trims inside


@dataclass(frozen=True)
class Frame:
    """The texts before and behind a record, control tokens written out, as the model's chat template sets them."""

    before: str
    behind: str


def chat_frame(tokenizer: Any) -> Frame:  # noqa: ANN401 - a tokenizer of transformers, which has no types
    """The instruction and the question as one turn of a chat, up to where the model's answer starts.

    Raises InputError if the tokenizer has no chat template, or one that does not take a single turn of the user.
    """
    where = str(getattr(tokenizer, "name_or_path", "tokenizer"))
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the model has no chat template, so it cannot be asked as a judge",
            where,
            "name an instruct model, or one with a 3-way head and mode: classify.",
        )
    turn = [{"role": "user", "content": f"{INSTRUCTION}{_PLACE}{QUESTION}"}]
    try:
        # Some templates tell the date, and a record's packing shall be the same tomorrow.
        fixed = {"strftime_now": lambda form: DATE.strftime(form), "date_string": DATE.strftime("%d %b %Y")}
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **fixed))
    except Exception as error:  # templates are programs of the model's makers
        raise InputError(f"its chat template fails: {error}", where, "use another checkpoint.") from error
    before, place, behind = text.partition(_PLACE)
    if not place:
        raise InputError("its chat template leaves out what the user says", where, "use another checkpoint.")
    return Frame(before, behind)


def answer_ids(tokenizer: Any, frame: Frame) -> tuple[int, int, int]:  # noqa: ANN401 - of transformers
    """The token ids of the answers A, B and C where they follow the question.

    Raises InputError unless each is one token there: what comes before must not be tokenised otherwise because of it.
    """
    behind = tokenizer.encode(frame.behind, add_special_tokens=False)
    found = [tokenizer.encode(frame.behind + answer, add_special_tokens=False) for answer in ANSWERS]
    ids = [each[-1] for each in found]
    if any(each[:-1] != behind for each in found) or len(set(ids)) != len(ANSWERS):
        raise InputError(
            "its tokenizer has no single token for each of the answers A, B and C",
            str(getattr(tokenizer, "name_or_path", "tokenizer")),
            "use a model with a 3-way head and mode: classify.",
        )
    a, b, c = ids
    return a, b, c
