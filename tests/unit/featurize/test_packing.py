import json
import time
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from core.errors import InputError
from core.settings.packing import Truncation
from featurize.tokens.packing import (
    CUE,
    CUT_MARK,
    EMPTY_TEXT,
    HEADINGS,
    MISSING_MARK,
    NULL_MARK,
    FittedRounds,
    Packer,
    Round,
    check_packing,
    load_packing,
    save_packing,
)
from featurize.tokens.truncation import round_order, split_budget
from infer.scoring.mode import PromptFrame
from infer.scoring.modes.judge import Judge

SENTENCES = [
    "How do I sort a list in Python?",
    "Use sorted(values), which returns a new list; values.sort() sorts in place.",
    "Prompt: which answer is better? Response A: the first. Response B: the second. (null) (empty) (missing)",
    "The quick brown fox jumps over the lazy dog 0123456789 […]",
]


def byte_level_bpe() -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=["<s>", "<pad>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", pad_token="<pad>")


def word_piece() -> PreTrainedTokenizerFast:
    """Without a first token, and without tokens for white space."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece makes them: a mark for spaces, bytes for what it does not know."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<unk>", "<bos>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<bos>", pad_token="<pad>")


TOKENIZERS = {"bpe": byte_level_bpe(), "word_piece": word_piece(), "unigram": unigram()}
BOTH = pytest.mark.parametrize("name", list(TOKENIZERS))


def ids_of(name: str, text: str) -> list[int]:
    ids: list[int] = TOKENIZERS[name].encode(text, add_special_tokens=False)
    return ids


def layout(name: str, fitted: FittedRounds) -> list[int]:
    """The documented layout, written down once more."""
    pieces = [
        [
            token
            for heading, text in zip(HEADINGS, (turns.prompt, turns.response_a, turns.response_b), strict=True)
            for token in (*ids_of(name, heading), *text)
        ]
        for turns in fitted.rounds
    ]
    if fitted.gap is not None:
        pieces.insert(fitted.gap, ids_of(name, CUT_MARK))
    start = [] if TOKENIZERS[name].bos_token_id is None else [TOKENIZERS[name].bos_token_id]
    return [*start, *(token for piece in pieces for token in piece), *ids_of(name, CUE)]


def least(name: str) -> int:
    """The least budget that the packer takes, according to its own message."""
    with pytest.raises(InputError) as error:
        Packer(TOKENIZERS[name], 1)
    return int(error.value.fix.removeprefix("allow at least ").rstrip("."))


texts = st.one_of(
    st.none(),
    st.text(alphabet=st.characters(), max_size=60),  # lone surrogates too
    st.builds(
        lambda text, times: text * times, st.sampled_from([*SENTENCES, " ", "\n", "é", "<s>"]), st.integers(0, 40)
    ),
)
turns = st.lists(texts, max_size=4)
names = st.sampled_from(list(TOKENIZERS))
budgets = st.integers(180, 700)


@settings(deadline=None, max_examples=300)
@given(names, budgets, st.sampled_from(get_args(Truncation)), turns, turns, turns)
def test_packings_fit_hold_every_part_and_treat_both_answers_alike(
    name: str,
    max_tokens: int,
    truncation: Truncation,
    prompt: list[str | None],
    a: list[str | None],
    b: list[str | None],
) -> None:
    packer = Packer(TOKENIZERS[name], max_tokens, truncation=truncation)
    fitted = packer.fit(prompt, a, b)
    ids = packer.pack(prompt, a, b)

    assert len(ids) <= max_tokens
    assert ids == layout(name, fitted)
    assert len(fitted.rounds) >= 1
    assert all(turns.prompt and turns.response_a and turns.response_b for turns in fitted.rounds)
    total = max(len(prompt), len(a), len(b), 1)
    assert (fitted.gap is None) == (len(fitted.rounds) == total)

    assert packer.fit(prompt, b, a) == fitted.swapped()
    assert packer.pack_both(prompt, a, b) == (ids, packer.pack(prompt, b, a))
    # Packing leaves nothing behind: what was packed before does not matter, nor how often.
    assert packer.pack(prompt, a, b) == Packer(TOKENIZERS[name], max_tokens, truncation=truncation).pack(prompt, a, b)


@settings(deadline=None, max_examples=200)
@given(
    names,
    st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6),
    budgets,
    st.sampled_from(get_args(Truncation)),
)
def test_rounds_keep_their_order_and_a_text_is_whole_or_cut_where_it_is_marked(
    name: str, sentences: list[str], max_tokens: int, truncation: Truncation
) -> None:
    fitted = Packer(TOKENIZERS[name], max_tokens, truncation=truncation).fit(sentences, sentences[::-1], sentences)
    mark = ids_of(name, CUT_MARK)
    kept = sorted(round_order(len(sentences), truncation)[: len(fitted.rounds)])
    cut = set()
    for number, one in zip(kept, fitted.rounds, strict=True):
        texts = (sentences[number], sentences[::-1][number], sentences[number])
        for ids, text in zip((one.prompt, one.response_a, one.response_b), texts, strict=True):
            full = ids_of(name, text)
            if ids == full:
                continue
            cut.add(number)
            left = len(ids) - len(mark)
            tail = {"left": left, "middle": left // 2}.get(truncation, 0)
            assert left >= 1
            assert ids == full[: left - tail] + mark + full[len(full) - tail :]
    assert cut <= {round_order(len(sentences), truncation)[len(fitted.rounds) - 1]}, (
        "only the last one let in may be cut"
    )


def test_rounds_are_let_in_from_where_the_truncation_says() -> None:
    assert round_order(5, "right") == [0, 1, 2, 3, 4]
    assert round_order(5, "left") == [4, 3, 2, 1, 0]
    assert round_order(5, "middle") == [0, 4, 1, 3, 2]
    assert round_order(6, "first-2-last-2") == [0, 5, 1, 4]
    assert round_order(3, "first-2-last-2") == [0, 2, 1]
    assert round_order(1, "middle") == [0]
    turns = [f"{n}" for n in range(7)]
    cases: list[tuple[Truncation, str, int | None]] = [("left", "0123456", None), ("first-2-last-2", "0156", 2)]
    for truncation, kept, gap in cases:
        fitted = Packer(TOKENIZERS["bpe"], 2000, truncation=truncation).fit(turns, turns, turns)
        assert [turns.prompt for turns in fitted.rounds] == [ids_of("bpe", text) for text in kept]
        assert fitted.gap == gap


def test_a_judge_reads_the_record_inside_its_chat_template() -> None:
    judge = Judge()
    tokenizer = byte_level_bpe()
    with pytest.raises(InputError, match="no chat template"):
        judge.frame(tokenizer)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<pad>{{ m['role'] }}\n{{ m['content'] | trim }}<pad>\n{% endfor %}"
        "{% if add_generation_prompt %}<pad>model\n{% endif %}"
    )
    frame = judge.frame(tokenizer)
    assert frame.before == f"<s><pad>user\n{judge.instruction}"
    question = judge.question.replace("{choices}", ", ".join(judge.choices[:3]))
    assert frame.behind == f"{question}<pad>\n<pad>model\n"
    assert "D if they would find both bad." in judge.frame(tokenizer, 4).behind
    assert " C if" not in judge.frame(tokenizer, 2).behind
    packer = Packer(tokenizer, 700, frame=frame)
    ids = packer.pack(["why <pad>?"], ["because"], ["so"])
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.pad_token_id) == 3, "those of the template, and none that a text spells out"
    text = tokenizer.decode(ids)
    assert text.startswith(frame.before)
    assert text.endswith(frame.behind)
    assert "why <pad>?" in text
    assert len(packer.pack(["why " * 900], ["because " * 900], ["so"])) <= 700
    assert packer.fingerprint != Packer(tokenizer, 700).fingerprint
    answers = judge.answer_ids(tokenizer, frame)
    assert [tokenizer.decode(each) for each in answers] == ["A", "B", "C"]
    with pytest.raises(InputError, match="no single token"):
        judge.answer_ids(word_piece(), PromptFrame("", "Answer zzz"))
    tokenizer.chat_template = "{{ strftime_now('%Y') }} {{ messages[0]['content'] }}"
    assert judge.frame(tokenizer).before.startswith("2024 "), "the same tomorrow"

    tokenizer.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(InputError, match="drops the user's message"):
        judge.frame(tokenizer)


@BOTH
def test_null_empty_and_missing_turns_differ(name: str) -> None:
    packer = Packer(TOKENIZERS[name], 400)
    fitted = packer.fit([None, "sort"], ["", "list"], ["values"])
    rounds = fitted.rounds
    assert fitted.gap is None
    assert rounds[0] == Round(ids_of(name, NULL_MARK), ids_of(name, EMPTY_TEXT), ids_of(name, "values"))
    assert rounds[1] == Round(ids_of(name, "sort"), ids_of(name, "list"), ids_of(name, MISSING_MARK))
    assert len({tuple(ids_of(name, mark)) for mark in (NULL_MARK, EMPTY_TEXT, MISSING_MARK)}) == 3
    assert packer.pack([], [], []) == layout(name, FittedRounds([Round(*[ids_of(name, MISSING_MARK)] * 3)], None))


def test_shares_are_a_fifth_and_two_fifths_and_what_is_unused_is_passed_on() -> None:
    assert split_budget(100, 500, 500, 500) == (20, 40, 40)
    assert split_budget(100, 10, 500, 500) == (10, 45, 45)
    assert split_budget(100, 500, 10, 500) == (20, 10, 70)
    assert split_budget(100, 500, 500, 10) == (20, 70, 10)
    assert split_budget(100, 500, 10, 20) == (70, 10, 20)
    assert split_budget(100, 30, 30, 40) == (30, 30, 40)


@BOTH
def test_a_cut_record_fills_its_budget(name: str) -> None:
    long = " ".join(SENTENCES * 50)
    packer = Packer(TOKENIZERS[name], 401)
    ids = packer.pack([long], [long], [long])
    # The mark for dropped rounds keeps its place, and one token may be left because A and B get the same.
    assert 401 - len(ids_of(name, CUT_MARK)) - 1 <= len(ids) <= 401


@BOTH
def test_a_round_with_too_little_room_is_dropped_and_marked(name: str) -> None:
    first, second = SENTENCES[1], SENTENCES[1] * 40
    dropped = False
    for max_tokens in range(least(name), 700):
        packer = Packer(TOKENIZERS[name], max_tokens)
        fitted = packer.fit([first, second], [first, second], [first, second])
        rounds = fitted.rounds
        if fitted.gap is not None:
            dropped |= len(rounds) == 1 and rounds[0] == Round(*[ids_of(name, first)] * 3)
            assert packer.pack([first, second], [first, second], [first, second]) == layout(name, fitted)
        elif len(rounds) == 2:
            size = sum(map(len, (rounds[1].prompt, rounds[1].response_a, rounds[1].response_b)))
            assert size + sum(len(ids_of(name, heading)) for heading in HEADINGS) >= 79
            break
    else:
        pytest.fail("the second round never came in")
    assert dropped


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "word " * 1_000_000,
        "x" * 5_000_000,
        " " * 5_000_000,
        "\n" * 5_000_000,
        "日本語" * 1_700_000,
        "\ud83d" * 5_000_000,
    ],
    ids=["words", "one word", "spaces", "newlines", "japanese", "surrogates"],
)
def test_five_million_characters_pack_in_under_a_second_and_are_marked_as_cut(name: str, text: str) -> None:
    mark = ids_of(name, CUT_MARK)
    for truncation in get_args(Truncation):
        packer = Packer(TOKENIZERS[name], 1024, truncation=truncation)
        started = time.perf_counter()
        (one,) = packer.fit(["Why?"], [text], ["Because."]).rounds
        assert time.perf_counter() - started < 1
        places = [n for n in range(len(one.response_a)) if one.response_a[n : n + len(mark)] == mark]
        edges = {"left": 0, "middle": places[0] if places else None}
        assert edges.get(truncation, len(one.response_a) - len(mark)) in places


@BOTH
def test_surrogate_pairs_are_joined_and_control_tokens_in_texts_stay_text(name: str) -> None:
    packer = Packer(TOKENIZERS[name], 400)
    assert packer.pack(["\ud83d\ude00"], ["\ud800x"], ["b"]) == packer.pack(["😀"], ["\ufffdx"], ["b"])
    special = TOKENIZERS[name].all_special_tokens[-1]
    assert TOKENIZERS[name].convert_tokens_to_ids(special) in ids_of(name, special)
    assert TOKENIZERS[name].convert_tokens_to_ids(special) not in packer.fit([special], ["a"], ["b"]).rounds[0].prompt


@BOTH
def test_too_few_tokens_are_refused_with_the_least_that_will_do(name: str) -> None:
    most = least(name)
    assert len(Packer(TOKENIZERS[name], most).pack(["a" * 999], ["b" * 999], [None])) <= most
    with pytest.raises(InputError):
        Packer(TOKENIZERS[name], most - 1)


def test_a_checkpoint_packed_differently_is_refused_naming_what_differs(tmp_path: Path) -> None:
    packer = Packer(TOKENIZERS["bpe"], 512)
    save_packing(packer, tmp_path)
    check_packing(tmp_path, 512)
    assert load_packing(tmp_path)["max_tokens"] == 512
    with pytest.raises(InputError, match="max_tokens is 512 there and 1024 here"):
        check_packing(tmp_path, 1024)
    assert packer.fingerprint == Packer(TOKENIZERS["word_piece"], 512).fingerprint
    assert packer.fingerprint != Packer(TOKENIZERS["bpe"], 513).fingerprint

    path = tmp_path / "packing.json"
    path.write_text(json.dumps(load_packing(tmp_path) | {"version": 0}))
    with pytest.raises(InputError, match="version is 0 there and 2 here"):
        check_packing(tmp_path, 512)
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        check_packing(tmp_path, 512)
    path.unlink()
    with pytest.raises(InputError, match=r"no packing\.json"):
        check_packing(tmp_path, 512)


def test_parts_say_what_each_id_belongs_to():
    packer = Packer(TOKENIZERS["word_piece"], 400, "encoder")
    marked = packer.pack_both_marked(["why"], ["because of it"], ["no"])
    assert tuple(ids for ids, _ in marked) == packer.pack_both(["why"], ["because of it"], ["no"])
    for (ids, parts), texts in zip(marked, (("because of it", "no"), ("no", "because of it")), strict=True):
        assert len(ids) == len(parts)
        for part, text in enumerate(("why", *texts), start=1):
            expected = TOKENIZERS["word_piece"].encode(text, add_special_tokens=False)
            assert [token for token, of in zip(ids, parts, strict=True) if of == part] == expected
        assert parts[0] == parts[-1] == 0
