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
two fifths to each answer, and what one of them leaves unused goes to the others; see featurize.tokens.truncation for other
ways to cut. A judge's record stands between the instruction and the question of infer.scoring.judge_prompt, in its chat
template. Nothing here treats A and B differently, so packing a record with its answers exchanged is the packing with
its answers exchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from core.errors import InputError
from featurize.tokens.truncation import STRATEGIES, Ids, Truncation, admission, share, shorten, windows

if TYPE_CHECKING:
    from infer.scoring.mode import Frame

# Raised whenever the ids of any record change: a checkpoint is never scored with a packing it was not trained on.
VERSION: Final = 2

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
    unk_token_id: int | None
    all_special_ids: list[int]
    all_special_tokens: list[str]

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

    def swapped(self) -> Round:
        """The round with A and B exchanged."""
        return Round(self.prompt, self.response_b, self.response_a)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What of a record is packed. Where rounds are left out, that is before the round with the number `gap`."""

    rounds: list[Round]
    gap: int | None

    def swapped(self) -> Fitted:
        """The same with A and B exchanged."""
        return Fitted([one.swapped() for one in self.rounds], self.gap)


class Packer:
    """Turns records into at most `max_tokens` token ids each.

    A judge's record stands in a `frame`. Raises InputError if `max_tokens` is too few for the headings and a little of
    each text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        layout: Layout = "decoder",
        truncation: Truncation = "right",
        frame: Frame | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.layout: Layout = layout
        self.truncation: Truncation = truncation
        self.frame = frame
        self._tokenizer = tokenizer
        self._control = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        # Between the first character of a control token's spelling and the others.
        self._spelt = re.compile(
            "|".join(f"(?<={re.escape(each[0])})(?={re.escape(each[1:])})" for each in tokenizer.all_special_tokens)
        )
        self._start: Ids = []
        self._end: Ids = []
        if frame is not None:
            self._start, self._cue = (self._framing(text) for text in (frame.before, frame.behind))
        else:
            self._cue = self._tokens(CUE)
            first = tokenizer.cls_token_id if layout == "encoder" else tokenizer.bos_token_id
            last = tokenizer.sep_token_id if layout == "encoder" else None
            self._start = [] if first is None else [int(first)]
            self._end = [] if last is None else [int(last)]
        self._cut = self._tokens(CUT)
        self._headings = [self._tokens(heading) for heading in HEADINGS]
        self._null, self._empty, self._missing = (self._tokens(mark) for mark in (NULL, EMPTY, MISSING))
        # The last mark says that rounds were left out; its place is kept free whether it is needed or not.
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
        return packing_fingerprint(self.max_tokens, self.layout, self.truncation, self.frame)

    def pack(self, prompt: Turns, response_a: Turns, response_b: Turns) -> Ids:
        """Token ids, never more than `max_tokens`, of a record: the turns of its prompt and of its answers."""
        return self._assemble(self.fit(prompt, response_a, response_b))[0]

    def pack_both(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[Ids, Ids]:
        """The packing of a record and of the record with A and B exchanged, for the price of tokenising once."""
        (ab, _), (ba, _) = self.pack_both_marked(prompt, response_a, response_b)
        return ab, ba

    def pack_both_marked(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[Marked, Marked]:
        """As `pack_both`, with the part that each id belongs to: 1 the prompt, 2 A, 3 B, and 0 what frames them."""
        fitted = self.fit(prompt, response_a, response_b)
        return self._assemble(fitted), self._assemble(fitted.swapped())

    def fit(self, prompt: Turns, response_a: Turns, response_b: Turns) -> Fitted:
        """The rounds that fit, at least one, in their order; no text of a round is without tokens."""
        kept: dict[int, Round] = {}
        left = self._budget
        parts = (prompt, response_a, response_b)
        total = max(1, *map(len, parts))
        for number in admission(total, self.truncation):
            room = left - sum(map(len, self._headings))
            if kept and room < 3:  # each text takes a token or more
                break
            texts = (part[number] if number < len(part) else MISSING_TURN for part in parts)
            ids = [self._text(text, room) for text in texts]
            size = sum(map(len, ids))
            if size > room:
                if kept and (left < MIN_ROUND or room < self._least_room):
                    break
                shares = share(room, *map(len, ids))
                kept[number] = Round(
                    *(shorten(part, most, self._cut, self.truncation) for part, most in zip(ids, shares, strict=True))
                )
                break
            kept[number] = Round(*ids)
            left = room - size
        gap = None if len(kept) == total else next(n for n in itertools.count() if n not in kept)
        return Fitted([kept[number] for number in sorted(kept)], gap)

    def _assemble(self, fitted: Fitted) -> Marked:
        pieces = [(self._start, 0)]
        for number, one in enumerate(fitted.rounds):
            if number == fitted.gap:
                pieces.append((self._cut, 0))
            texts = (one.prompt, one.response_a, one.response_b)
            for part, (heading, text) in enumerate(zip(self._headings, texts, strict=True), start=1):
                pieces += [(heading, 0), (text, part)]
        if fitted.gap == len(fitted.rounds):
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
            parts = windows(text, window * room, self.truncation)
            pieces = [self._tokens(part) for part in parts]
            if parts == [text]:
                return pieces[0] or self._empty  # some tokenizers give no tokens for white space
            if all(len(piece) > room for piece in pieces):
                return [each for piece in pieces for each in piece]
        # Few tokens for very many characters: what was looked at stands for the text, marked as cut.
        before, behind = ([], pieces[0]) if self.truncation == "left" else (pieces[0], pieces[1] if pieces[1:] else [])
        return [*before, *self._cut, *behind]

    def _framing(self, text: str) -> Ids:
        """Ids of a chat template's text, whose control tokens are control tokens."""
        ids: Ids = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=False, truncation=False, verbose=False
        )
        return ids

    def _tokens(self, text: str) -> Ids:
        """Ids without special tokens: a control token spelt out in a text stays text."""
        text = without_surrogates(text)
        ids = self._encode(text)
        if self._control.isdisjoint(ids):
            return ids
        # A Unigram model, such as DeBERTaV3's, has control tokens among its pieces: it gets their spellings in parts.
        return [each for part in self._spelt.split(text) for each in self._encode(part)]

    def _encode(self, text: str) -> Ids:
        ids: Ids = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True, truncation=False, verbose=False
        )
        return ids


def without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def packing_settings(
    max_tokens: int, layout: Layout = "decoder", truncation: Truncation = "right", frame: Frame | None = None
) -> dict[str, object]:
    """All that decides the packing of a record apart from the tokenizer."""
    settings: dict[str, object] = {
        "version": VERSION,
        "strategy": STRATEGIES[truncation],
        "template": [*HEADINGS, CUE, CUT, NULL, EMPTY, MISSING],
        "min_round": MIN_ROUND,
        "max_tokens": max_tokens,
        "layout": layout,
    }
    return settings if frame is None else {**settings, "frame": [frame.before, frame.behind]}


def packing_fingerprint(
    max_tokens: int, layout: Layout = "decoder", truncation: Truncation = "right", frame: Frame | None = None
) -> str:
    """Hash of `packing_settings`."""
    settings = packing_settings(max_tokens, layout, truncation, frame)
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def save_packing(packer: Packer, folder: Path) -> None:
    """Write the packing beside the model trained on it."""
    settings = packing_settings(packer.max_tokens, packer.layout, packer.truncation, packer.frame)
    text = json.dumps(settings, indent=2, ensure_ascii=False)
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


def check_packing(folder: Path, max_tokens: int, truncation: Truncation = "right") -> None:
    """Raise InputError, naming what differs, unless the checkpoint in `folder` was trained on this packing."""
    trained, ours = load_packing(folder), packing_settings(max_tokens, truncation=truncation)
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
