"""Synthetic preference pairs in the Kaggle schema, with the true probabilities of their votes."""

import csv
import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from demo.texts import Prompt, Style, generate_prompt, vary_prompt, write_answer
from demo.utility import divide_ties, overlap, read_traits, utility, vote_probabilities
from metrics.scores import log_loss
from votes.schema import PROBABILITIES, TEXTS, WINNERS

_BLOCK: Final = 1000  # records that share a random generator
_MODELS: Final = (
    *("quartz-7b-chat", "quartz-34b-chat", "heron-1.5", "heron-2-turbo", "maple-instruct", "maple-instruct-xl"),
    *("tundra-13b", "tundra-70b", "orchid-mini", "orchid-pro-0314", "basalt-2", "lumen-8x7b", "corvid-large"),
)
_REPEATED: Final = 0.09  # share of records whose prompt comes from the stream's popular ones
_POPULAR: Final = 150

_TEXT_COLUMNS: Final = ("id", "model_a", "model_b", *TEXTS)


@dataclass(frozen=True)
class SyntheticPairs:
    """Records in the Kaggle schema and the truth behind their votes, row for row."""

    table: pa.Table  # id, model_a, model_b, the texts as JSON lists of turns, one-hot votes (int64)
    truth: pa.Table  # id and the probabilities that the votes were drawn from

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The true probabilities (n, k) of the outcomes."""
        return np.stack([self.truth[name].to_numpy() for name in self.truth.column_names[1:]], axis=1)

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """The votes (n,) as indices into votes.schema.LABELS."""
        winners = [name for name in WINNERS if name in self.table.column_names]
        one_hot = np.stack([self.table[name].to_numpy() for name in winners], axis=1)
        labels: npt.NDArray[np.int8] = one_hot.argmax(axis=1).astype(np.int8)
        return labels

    @property
    def best_log_loss(self) -> float:
        """The lowest log loss to be expected of any prediction from these texts: the truth's mean entropy, in nats."""
        probabilities = self.probabilities
        return float(-(probabilities * np.log(probabilities)).sum(axis=1).mean())

    @property
    def truth_log_loss(self) -> float:
        """The log loss that the true probabilities reach on the votes as drawn; it scatters around `best_log_loss`."""
        return log_loss(self.probabilities, self.labels)


class _Pair(NamedTuple):
    models: tuple[str, str]
    prompt: tuple[str | None, ...]
    responses: tuple[list[str | None], list[str | None]]


def generate_pairs(rows: int, seed: int, stream: str = "train", classes: int = 3) -> SyntheticPairs:
    """Draw `rows` records; the same arguments give the same bytes. `classes` is the number of outcomes, 2 to 4.

    Streams of different names, and the same stream with different seeds, are independent and share no id. A shorter
    draw is the beginning of a longer one. Votes follow the model in demo.utility. About 9% of the prompts repeat
    popular prompts of the stream, half of them with other case, white space or punctuation.

    Raises ValueError if `rows` or `seed` is negative.
    """
    if rows < 0 or seed < 0:
        raise ValueError(f"rows and seed must not be negative, got {rows} and {seed}")
    name = int.from_bytes(hashlib.blake2b(f"{stream}\0{seed}".encode(), digest_size=8).digest(), "big")
    popular = _popular_prompts(_random(np.random.SeedSequence(seed, spawn_key=(name, 0))))
    winners = WINNERS[: max(classes, 3)]  # the Kaggle schema always has a column of ties
    columns: dict[str, list[object]] = {column: [] for column in (*_TEXT_COLUMNS, *winners)}
    truths = []
    for block, start in enumerate(range(0, rows, _BLOCK)):
        seeds = np.random.SeedSequence(seed, spawn_key=(name, 1 + block))
        pairs = list(_draw_pairs(_random(seeds), popular, min(_BLOCK, rows - start)))
        truth = _true_probabilities(pairs, classes)
        uniforms = np.random.default_rng(seeds).random(len(pairs))
        votes = (uniforms[:, None] > truth.cumsum(axis=1)[:, : classes - 1]).sum(axis=1)
        truths.append(truth)
        # 53 bits, so that an id survives a conversion to float: 29 for the stream, 24 for the row.
        columns["id"] += [str((name >> 35 << 24) + start + row) for row in range(len(pairs))]
        for side, suffix in enumerate("ab"):
            columns[f"model_{suffix}"] += [pair.models[side] for pair in pairs]
            columns[f"response_{suffix}"] += [encode_turns(pair.responses[side]) for pair in pairs]
        columns["prompt"] += [encode_turns(pair.prompt) for pair in pairs]
        for label, winner in enumerate(winners):
            columns[winner] += (votes == label).astype(int).tolist()
    probabilities = np.concatenate([np.empty((0, classes)), *truths])
    table = pa.schema([*((column, pa.string()) for column in _TEXT_COLUMNS), *((name, pa.int64()) for name in winners)])
    truth_schema = pa.schema([("id", pa.string()), *((name, pa.float64()) for name in PROBABILITIES[:classes])])
    truth_columns = [columns["id"], *probabilities.T]
    return SyntheticPairs(pa.table(columns, schema=table), pa.table(truth_columns, schema=truth_schema))


def write_csv(pairs: SyntheticPairs, target: str | os.PathLike[str] | TextIO, labeled: bool) -> None:
    """Write the records as Kaggle does: all columns if `labeled`, else id, prompt and responses, like its test.csv.

    `target` is a path or an open text file; a file should be opened with newline="".
    """
    if isinstance(target, str | os.PathLike):
        with open(target, "w", newline="", encoding="utf-8") as file:
            write_csv(pairs, file, labeled)
        return
    names = pairs.table.column_names if labeled else ["id", *TEXTS]
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(pairs.table[name].to_pylist() for name in names), strict=True))


def encode_turns(turns: Sequence[str | None]) -> str:
    r"""Return turns as the Kaggle files hold them: a JSON list without spaces, in ASCII, with `/` written `\/`."""
    return json.dumps(turns, separators=(",", ":")).replace("/", "\\/")


def decode_turns(text: str) -> list[str | None]:
    """Return the turns that `encode_turns` wrote."""
    turns: list[str | None] = json.loads(text)
    return turns


def _random(seeds: np.random.SeedSequence) -> random.Random:
    """Return Python's generator for the texts: for single numbers it is ten times as fast as NumPy's."""
    return random.Random(int.from_bytes(seeds.generate_state(8).tobytes(), "little"))


def _popular_prompts(rng: random.Random) -> list[Prompt]:
    return [generate_prompt(rng) for _ in range(_POPULAR)]


def _draw_pairs(rng: random.Random, popular: list[Prompt], count: int) -> Iterator[_Pair]:
    for _ in range(count):
        if rng.random() < _REPEATED:
            # The square favors the first ones: a few prompts are very common, as in the arena.
            prompt = popular[int(rng.random() ** 2 * len(popular))]
            if rng.random() < 0.5:
                prompt = vary_prompt(rng, prompt)
        else:
            prompt = generate_prompt(rng)
        mean_words = math.log(12 if prompt.kind == "chat" else 80) + 0.45 * _normal(rng)
        first = int(rng.random() * len(_MODELS))
        second = (first + 1 + int(rng.random() * (len(_MODELS) - 1))) % len(_MODELS)
        a = _spoil(rng, write_answer(rng, prompt, _draw_style(rng, prompt, first, mean_words)))
        b = _spoil(rng, write_answer(rng, prompt, _draw_style(rng, prompt, second, mean_words)))
        if rng.random() < 0.004:
            b = list(a)
        turns = prompt.turns
        if rng.random() < 0.001:
            turns = (*turns[:-1], None)
        yield _Pair((_MODELS[first], _MODELS[second]), turns, (a, b))


def _draw_style(rng: random.Random, prompt: Prompt, model: int, mean_words: float) -> Style:
    """Return how one model answers one prompt. Models differ in habits only, which their texts show."""
    wordy, tidy, cautious = (model * 5 % 13) / 12, (model * 7 % 13) / 12, (model * 3 % 13) / 12
    words = math.exp(mean_words + 0.5 * (wordy - 0.5) + 0.65 * _normal(rng))
    listing = {"list": 0.55, "chat": 0.02, "delicate": 0.1}.get(prompt.kind, 0.2) + 0.3 * (tidy - 0.5)
    refusal = (0.45 if prompt.kind == "delicate" else 0.06) * (0.4 + 1.2 * cautious)
    return Style(
        words=min(words, 1500.0),
        listing=listing,
        headers=0.25 * tidy if words > 60 else 0.0,
        code=0.7,
        vocabulary=int(4 + 60 * rng.random() ** 2),
        refuses=rng.random() < refusal,
        hedging=0.35 * cautious * rng.random(),
        helpfulness=0.35 * rng.random() ** 2,
        off_topic=rng.random() < 0.1,
        emoji=0.05,
    )


def _normal(rng: random.Random) -> float:
    """Return a standard normal number from two uniform ones (Box and Muller 1958)."""
    return math.sqrt(-2 * math.log(1 - rng.random())) * math.cos(2 * math.pi * rng.random())


def _spoil(rng: random.Random, answer: list[str | None]) -> list[str | None]:
    """Return the answer, rarely with an empty (0.4%) or null (0.3%) last turn, as in the arena."""
    draw = rng.random()
    if draw < 0.007:
        answer[-1] = "" if draw < 0.004 else None
    return answer


def _true_probabilities(pairs: list[_Pair], classes: int) -> npt.NDArray[np.float64]:
    """Return the probabilities (n, k) of the votes, from the texts alone."""
    seen = [[read_traits(pair.prompt, response) for response in pair.responses] for pair in pairs]
    utilities = np.array([[utility(a), utility(b)] for a, b in seen])
    overlaps = np.array([overlap(a.vocabulary, b.vocabulary) for a, b in seen])
    return divide_ties(vote_probabilities(utilities[:, 0], utilities[:, 1], overlaps), utilities, classes)
