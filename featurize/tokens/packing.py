"""Pack one record into the token ids that a model sees, in training as in scoring.

    <bos>              <cls> for an encoder
    Prompt:            per round of the conversation
    ...
    Response A:
    ...
    Response B:
    ...
    Better response:   the cue: always the last tokens, so that a head that reads the last token sees the same one
                       (<sep> behind it for an encoder, whose head reads the first token)

Rounds are added from the first while they fit. The round that does not fit is truncated. The remaining tokens are split
20/40/40 between prompt, A and B. Tokens that one text leaves unused go to the others. Other ways to truncate are in
featurize.tokens.truncation. A judge's record stands between an instruction and a question, in the model's chat
template. Nothing here treats A and B differently: packing a swapped record gives the swapped packing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from core.errors import InputError
from featurize.tokens.truncation import STRATEGIES, TokenIds, round_order, split_budget, text_windows, truncate_ids

if TYPE_CHECKING:
    from core.settings.packing import TokenLayout, Truncation

# Raise it whenever the ids of any record change: a checkpoint never scores records packed in another way.
VERSION: Final = 2

HEADINGS: Final = ("\n\nPrompt:\n", "\n\nResponse A:\n", "\n\nResponse B:\n")
CUE: Final = "\n\nBetter response:"
CUT_MARK: Final = " […]"
NULL_MARK: Final = "(null)"
EMPTY_TEXT: Final = "(empty)"
MISSING_MARK: Final = "(missing)"
# All texts that are not the record's own.
TEMPLATE: Final = (*HEADINGS, CUE, CUT_MARK, NULL_MARK, EMPTY_TEXT, MISSING_MARK)

MIN_ROUND_TOKENS: Final = 80  # tokens; a round that would be cut to fewer, headings included, is dropped
PACKING_FILE: Final = "packing.json"

# Characters tokenized for each token that fits. The first window settles most texts. The others (long runs of spaces,
# repeated words) get the second window, and text beyond it is always cut.
WINDOW_FACTORS: Final = (8, 64)

Turns = Sequence[str | None]
MarkedIds = tuple[TokenIds, list[int]]  # ids, and the part of the record that each belongs to


class _Missing:
    """Stands for a turn of a text that has fewer turns than another."""


MISSING_TURN: Final = _Missing()


class TextFrame(Protocol):
    """Texts around a judge's record, with control tokens spelled out, as the model's chat template sets them."""

    @property
    def before(self) -> str:
        """The text before the record."""

    @property
    def behind(self) -> str:
        """The text after the record, up to the model's answer."""


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that packing uses."""

    bos_token_id: int | None
    cls_token_id: int | None
    sep_token_id: int | None
    unk_token_id: int | None
    all_special_ids: list[int]
    all_special_tokens: list[str]

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool, truncation: bool, verbose: bool
    ) -> TokenIds:
        """Return the token ids of the text."""


@dataclasses.dataclass(frozen=True)
class Round:
    """Token ids of one round's texts, truncated to what fits."""

    prompt: TokenIds
    response_a: TokenIds
    response_b: TokenIds

    def swapped(self) -> Round:
        """Return the round with A and B swapped."""
        return Round(self.prompt, self.response_b, self.response_a)


@dataclasses.dataclass(frozen=True)
class FittedRounds:
    """The rounds of a record that are packed. Omitted rounds stood before the round with the number `gap`."""

    rounds: list[Round]
    gap: int | None

    def swapped(self) -> FittedRounds:
        """Return the same with A and B swapped."""
        return FittedRounds([part.swapped() for part in self.rounds], self.gap)


class Packer:
    """Turns records into at most `max_tokens` token ids each.

    A judge's record stands in a `frame`. Raises InputError if `max_tokens` cannot hold the headings and a little text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        layout: TokenLayout = "decoder",
        truncation: Truncation = "right",
        frame: TextFrame | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.layout: TokenLayout = layout
        self.truncation: Truncation = truncation
        self.frame = frame
        self._tokenizer = tokenizer
        self._control = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        # Matches between the first character of a control token's spelling and the others.
        self._spelling = re.compile(
            "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in tokenizer.all_special_tokens)
        )
        self._start: TokenIds = []
        self._end: TokenIds = []
        if frame is not None:
            self._start, self._cue = (self._framing(text) for text in (frame.before, frame.behind))
        else:
            self._cue = self._tokens(CUE)
            first = tokenizer.cls_token_id if layout == "encoder" else tokenizer.bos_token_id
            last = tokenizer.sep_token_id if layout == "encoder" else None
            self._start = [] if first is None else [int(first)]
            self._end = [] if last is None else [int(last)]
        self._cut = self._tokens(CUT_MARK)
        self._headings = [self._tokens(heading) for heading in HEADINGS]
        self._null, self._empty, self._missing = (self._tokens(mark) for mark in (NULL_MARK, EMPTY_TEXT, MISSING_MARK))
        # The mark for omitted rounds always has room, whether it is needed or not.
        self._budget = max_tokens - len(self._start) - len(self._cut) - len(self._cue) - len(self._end)
        # With this many tokens the smallest share, a fifth, fits each mark, or one token of text and the cut mark.
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
        """The hash of everything that decides the packing, apart from the tokenizer."""
        return packing_fingerprint(self.max_tokens, self.layout, self.truncation, self.frame)

    def pack(self, prompt: Turns, response_a: Turns, response_b: Turns) -> TokenIds:
        """Return at most `max_tokens` token ids of a record, given the turns of its prompt and of its answers."""
        return self._assemble(self.fit(prompt, response_a, response_b))[0]

    def pack_both(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[TokenIds, TokenIds]:
        """Return the packing of a record and of the swapped record. The texts are tokenized once."""
        (ab, _), (ba, _) = self.pack_both_marked(prompt, response_a, response_b)
        return ab, ba

    def pack_both_marked(self, prompt: Turns, response_a: Turns, response_b: Turns) -> tuple[MarkedIds, MarkedIds]:
        """Return the same with the part of each id: 1 is the prompt, 2 A, 3 B, and 0 everything else."""
        fitted = self.fit(prompt, response_a, response_b)
        return self._assemble(fitted), self._assemble(fitted.swapped())

    def fit(self, prompt: Turns, response_a: Turns, response_b: Turns) -> FittedRounds:
        """Return the rounds that fit, at least one, in their order. Every text of a round has tokens."""
        kept: dict[int, Round] = {}
        left = self._budget
        parts = (prompt, response_a, response_b)
        total = max(1, *map(len, parts))
        for number in round_order(total, self.truncation):
            room = left - sum(map(len, self._headings))
            if kept and room < 3:  # each text takes a token or more
                break
            texts = (part[number] if number < len(part) else MISSING_TURN for part in parts)
            ids = [self._text(text, room) for text in texts]
            size = sum(map(len, ids))
            if size > room:
                if kept and (left < MIN_ROUND_TOKENS or room < self._least_room):
                    break
                shares = split_budget(room, *map(len, ids))
                kept[number] = Round(
                    *(
                        truncate_ids(part, most, self._cut, self.truncation)
                        for part, most in zip(ids, shares, strict=True)
                    )
                )
                break
            kept[number] = Round(*ids)
            left = room - size
        gap = None if len(kept) == total else next(n for n in itertools.count() if n not in kept)
        return FittedRounds([kept[number] for number in sorted(kept)], gap)

    def _assemble(self, fitted: FittedRounds) -> MarkedIds:
        pieces = [(self._start, 0)]
        for number, turns in enumerate(fitted.rounds):
            if number == fitted.gap:
                pieces.append((self._cut, 0))
            texts = (turns.prompt, turns.response_a, turns.response_b)
            for part, (heading, text) in enumerate(zip(self._headings, texts, strict=True), start=1):
                pieces += [(heading, 0), (text, part)]
        if fitted.gap == len(fitted.rounds):
            pieces.append((self._cut, 0))
        pieces += [(self._cue, 0), (self._end, 0)]
        ids = [token for piece, _ in pieces for token in piece]
        return ids, [part for piece, part in pieces for _ in piece]

    def _text(self, text: str | _Missing | None, room: int) -> TokenIds:
        """Return the token ids of one turn. For a turn longer than `room` they are more than `room`, but not all."""
        if text is None:
            return self._null
        if isinstance(text, _Missing):
            return self._missing
        for window in WINDOW_FACTORS:
            parts = text_windows(text, window * room, self.truncation)
            pieces = [self._tokens(part) for part in parts]
            if parts == [text]:
                return pieces[0] or self._empty  # some tokenizers give no tokens for white space
            if all(len(piece) > room for piece in pieces):
                return [token for piece in pieces for token in piece]
        # Few tokens for very many characters: the windows stand for the text, marked as cut.
        before, behind = ([], pieces[0]) if self.truncation == "left" else (pieces[0], pieces[1] if pieces[1:] else [])
        return [*before, *self._cut, *behind]

    def _framing(self, text: str) -> TokenIds:
        """Return the ids of a chat template's text, whose control tokens are control tokens."""
        ids: TokenIds = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=False, truncation=False, verbose=False
        )
        return ids

    def _tokens(self, text: str) -> TokenIds:
        """Return ids without special tokens: a control token spelled out in a text stays text."""
        text = replace_surrogates(text)
        ids = self._encode(text)
        if self._control.isdisjoint(ids):
            return ids
        # A Unigram model, such as DeBERTaV3's, has control tokens among its pieces: it gets their spellings in parts.
        return [token for part in self._spelling.split(text) for token in self._encode(part)]

    def _encode(self, text: str) -> TokenIds:
        ids: TokenIds = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True, truncation=False, verbose=False
        )
        return ids


def replace_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined. Lone surrogates, which no tokenizer takes, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def packing_settings(
    max_tokens: int, layout: TokenLayout = "decoder", truncation: Truncation = "right", frame: TextFrame | None = None
) -> dict[str, object]:
    """Return everything that decides the packing of a record, apart from the tokenizer."""
    settings: dict[str, object] = {
        "version": VERSION,
        "strategy": STRATEGIES[truncation],
        "template": list(TEMPLATE),
        "min_round": MIN_ROUND_TOKENS,
        "max_tokens": max_tokens,
        "layout": layout,
    }
    return settings if frame is None else {**settings, "frame": [frame.before, frame.behind]}


def packing_fingerprint(
    max_tokens: int, layout: TokenLayout = "decoder", truncation: Truncation = "right", frame: TextFrame | None = None
) -> str:
    """Return the hash of `packing_settings`."""
    settings = packing_settings(max_tokens, layout, truncation, frame)
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def save_packing(packer: Packer, folder: Path) -> None:
    """Write the packing to the folder of the model that is trained on it."""
    settings = packing_settings(packer.max_tokens, packer.layout, packer.truncation, packer.frame)
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (Path(folder) / PACKING_FILE).write_text(text + "\n", encoding="utf-8")


def load_packing(folder: Path) -> dict[str, object]:
    """Read the packing that the checkpoint in `folder` was trained on. Raises InputError if there is none."""
    path = Path(folder) / PACKING_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"the checkpoint has no {PACKING_FILE}, so the packing of its training records is unknown",
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
            str(Path(folder) / PACKING_FILE),
            "use the packing it was trained on, or train it again.",
        )
