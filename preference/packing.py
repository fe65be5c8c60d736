"""One record as the token ids a model sees: the same for training and for scoring.

    <bos>              <cls> for an encoder
    Prompt:            per round of the conversation
    ...
    Response A:
    ...
    Response B:
    ...
    Better response:   the cue: always the last tokens, so that a head that reads the last token sees the same one
                       (<sep> behind it for an encoder, whose head reads the first token)

Rounds go in from the first as long as they fit. The round that does not fit shares what is left: a fifth to the prompt,
two fifths to each answer, and what one of them leaves unused goes to the others. Nothing here treats A and B
differently, so packing a record with its answers exchanged is the packing with its answers exchanged.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from preference.errors import InputError

# Raised whenever the ids of any record change: a checkpoint is never scored with a packing it was not trained on.
VERSION: Final = 1
STRATEGY: Final = "rounds-from-first, heads of texts, 20/40/40"

HEADINGS: Final = ("\n\nPrompt:\n", "\n\nResponse A:\n", "\n\nResponse B:\n")
CUE: Final = "\n\nBetter response:"
CUT: Final = " […]"
NULL: Final = "(null)"
EMPTY: Final = "(empty)"
MISSING: Final = "(missing)"

MIN_ROUND: Final = 80  # tokens; a round that would be cut to fewer, headings included, is dropped
FILE_NAME: Final = "packing.json"

# Characters tokenised per token that fits: most texts are settled by the first window, those that are not (long runs of
# spaces, repeated words) get the second. What lies beyond the second is cut whatever its tokens are.
WINDOWS: Final = (8, 64)

Ids = list[int]
Turns = Sequence[str | None]
Marked = tuple[Ids, list[int]]  # ids, and the part of the record that each belongs to
Layout = Literal["decoder", "encoder"]  # whether the ids are framed as a causal model's or as an encoder's


class _Missing:
    """The turn of a text that has fewer turns than another."""


MISSING_TURN: Final = _Missing()


class Tokenizer(Protocol):
    """What packing needs of a Hugging Face fast tokenizer."""

    bos_token_id: int | None
    cls_token_id: int | None
    sep_token_id: int | None

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool, truncation: bool, verbose: bool
    ) -> Ids:
        """Token ids of the text."""


@dataclasses.dataclass(frozen=True)
class Round:
    """Token ids of one round's texts, cut to what fits."""

    prompt: Ids
    response_a: Ids
    response_b: Ids

    def swapped(self) -> "Round":
        """The round with A and B exchanged."""
        return Round(self.prompt, self.response_b, self.response_a)


class Packer:
    """Turns records into at most `max_tokens` token ids each.

    Raises InputError if `max_tokens` is too few for the headings and a little of each text.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, layout: Layout = "decoder") -> None:
        self.max_tokens = max_tokens
        self.layout: Layout = layout
        self._tokenizer = tokenizer
        first, last = (
            (tokenizer.cls_token_id, tokenizer.sep_token_id) if layout == "encoder" else (tokenizer.bos_token_id, None)
        )
        self._start: Ids = [] if first is None else [int(first)]
        self._end: Ids = [] if last is None else [int(last)]
        self._cue = self._tokens(CUE)
        self._cut = self._tokens(CUT)
        self._headings = [self._tokens(heading) for heading in HEADINGS]
        self._null, self._empty, self._missing = (self._tokens(mark) for mark in (NULL, EMPTY, MISSING))
        # The last mark says that rounds were dropped; its place is kept free whether it is needed or not.
        self._budget = max_tokens - len(self._start) - len(self._cut) - len(self._cue) - len(self._end)
        # With this much room the smallest share, a fifth, holds each mark, or one token of text and the cut mark.
        self._least_room = 5 * max(len(self._cut) + 1, len(self._null), len(self._empty), len(self._missing))
        least = max_tokens - self._budget + sum(map(len, self._headings)) + self._least_room
        if max_tokens < least:
            raise InputError(
                f"{max_tokens} tokens cannot hold a record with this tokenizer",
                "max_tokens",
                f"allow at least {least}.",
            )

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the packing apart from the tokenizer."""
        return packing_fingerprint(self.max_tokens, self.layout)

    def pack(self, prompt: Turns, response_a: Turns, response_b: Turns) -> Ids:
        """Token ids, never more than `max_tokens`, of a record: the turns of its prompt and of its answers."""
        rounds, complete = self.fit(prompt, response_a, response_b)
        return self._assemble(rounds, complete)

    def pack_both(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[Ids, Ids]:
        """The packing of a record and of the record with A and B exchanged, for the price of tokenising once."""
        rounds, complete = self.fit(prompt, response_a, response_b)
        return self._assemble(rounds, complete), self._assemble([one.swapped() for one in rounds], complete)

    def pack_both_marked(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[Marked, Marked]:
        """As `pack_both`, with the part that each id belongs to: 1 the prompt, 2 A, 3 B, and 0 what frames them."""
        rounds, complete = self.fit(prompt, response_a, response_b)
        return self._assemble_marked(rounds, complete), self._assemble_marked([r.swapped() for r in rounds], complete)

    def fit(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[list[Round], bool]:
        """The rounds that fit, in order, and whether they are all there are.

        There is always at least one, and no text of a round is without tokens.
        """
        kept: list[Round] = []
        left = self._budget
        total = max(len(prompt), len(response_a), len(response_b), 1)
        turns = itertools.zip_longest(prompt, response_a, response_b, fillvalue=MISSING_TURN)
        for texts in itertools.islice(itertools.chain(turns, [(MISSING_TURN,) * 3]), total):
            room = left - sum(map(len, self._headings))
            if kept and room < 3:  # each text takes a token or more
                break
            prompt_ids, a_ids, b_ids = (self._text(text, room) for text in texts)
            size = len(prompt_ids) + len(a_ids) + len(b_ids)
            if size > room:
                if kept and (left < MIN_ROUND or room < self._least_room):
                    break
                shares = share(room, len(prompt_ids), len(a_ids), len(b_ids))
                ids = (prompt_ids, a_ids, b_ids)
                kept.append(Round(*(self._shorten(part, most) for part, most in zip(ids, shares, strict=True))))
                break
            kept.append(Round(prompt_ids, a_ids, b_ids))
            left = room - size
        return kept, len(kept) == total

    def _assemble(self, rounds: list[Round], complete: bool) -> Ids:
        return self._assemble_marked(rounds, complete)[0]

    def _assemble_marked(self, rounds: list[Round], complete: bool) -> Marked:
        pieces = [(self._start, 0)]
        for one in rounds:
            texts = (one.prompt, one.response_a, one.response_b)
            for part, (heading, text) in enumerate(zip(self._headings, texts, strict=True), start=1):
                pieces += [(heading, 0), (text, part)]
        if not complete:
            pieces.append((self._cut, 0))
        pieces += [(self._cue, 0), (self._end, 0)]
        ids = [each for piece, _ in pieces for each in piece]
        return ids, [part for piece, part in pieces for _ in piece]

    def _text(self, text: str | _Missing | None, room: int) -> Ids:
        """Token ids of one turn. Those of a turn that is longer than `room` are more than `room`, but not all."""
        if text is None:
            return self._null
        if isinstance(text, _Missing):
            return self._missing
        for window in WINDOWS:
            ids = self._tokens(text[: window * room])
            if len(ids) > room:
                return ids
            if len(text) <= window * room:
                return ids or self._empty  # some tokenizers give no tokens for white space
        return ids + self._cut

    def _shorten(self, ids: Ids, most: int) -> Ids:
        return ids if len(ids) <= most else ids[: most - len(self._cut)] + self._cut

    def _tokens(self, text: str) -> Ids:
        """Ids without special tokens: a control token spelt out in a text stays text."""
        ids: Ids = self._tokenizer.encode(
            without_surrogates(text),
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            verbose=False,
        )
        return ids


def share(room: int, prompt: int, response_a: int, response_b: int) -> tuple[int, int, int]:
    """What each text may keep of `room` tokens, given the tokens it has: 20/40/40, unused shares passed on."""
    prompt = min(prompt, max(room // 5, room - response_a - response_b))
    answers = room - prompt
    half = answers // 2
    a = min(response_a, max(half, answers - response_b))
    b = min(response_b, max(half, answers - response_a))
    return prompt, a, b


def without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def packing_settings(max_tokens: int, layout: Layout = "decoder") -> dict[str, object]:
    """All that decides the packing of a record apart from the tokenizer."""
    return {
        "version": VERSION,
        "strategy": STRATEGY,
        "template": [*HEADINGS, CUE, CUT, NULL, EMPTY, MISSING],
        "min_round": MIN_ROUND,
        "max_tokens": max_tokens,
        "layout": layout,
    }


def packing_fingerprint(max_tokens: int, layout: Layout = "decoder") -> str:
    """Hash of `packing_settings`."""
    return hashlib.blake2b(json.dumps(packing_settings(max_tokens, layout)).encode(), digest_size=16).hexdigest()


def save_packing(packer: Packer, folder: Path) -> None:
    """Write the packing beside the model trained on it."""
    text = json.dumps(packing_settings(packer.max_tokens, packer.layout), indent=2, ensure_ascii=False)
    (Path(folder) / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def load_packing(folder: Path) -> dict[str, object]:
    """The packing that the checkpoint in `folder` was trained on. Raises InputError if it does not say."""
    path = Path(folder) / FILE_NAME
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"the checkpoint has no {FILE_NAME}, so how its records were packed is unknown",
            str(folder),
            "train it with the job train_llm.",
        ) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", str(path), "restore the file or train again.") from None
    if not isinstance(settings, dict):
        raise InputError("not a JSON object", str(path), "restore the file or train again.")
    return settings


def check_packing(folder: Path, max_tokens: int) -> None:
    """Raise InputError, naming what differs, unless the checkpoint in `folder` was trained on this packing."""
    trained, ours = load_packing(folder), packing_settings(max_tokens)
    different = [
        f"{key} is {trained.get(key)!r} there and {ours.get(key)!r} here"
        for key in sorted(trained.keys() | ours.keys())
        if trained.get(key) != ours.get(key)
    ]
    if different:
        raise InputError(
            f"the model was trained on records packed differently: {'; '.join(different)}",
            str(Path(folder) / FILE_NAME),
            "use the packing it was trained on, or train it again.",
        )
