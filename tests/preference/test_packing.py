import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from preference.errors import InputError
from preference.packing import (
    CUE,
    CUT,
    EMPTY,
    HEADINGS,
    MISSING,
    NULL,
    Packer,
    Round,
    check_packing,
    load_packing,
    save_packing,
    share,
)

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


TOKENIZERS = {"bpe": byte_level_bpe(), "word_piece": word_piece()}
BOTH = pytest.mark.parametrize("name", list(TOKENIZERS))


def ids_of(name: str, text: str) -> list[int]:
    ids: list[int] = TOKENIZERS[name].encode(text, add_special_tokens=False)
    return ids


def layout(name: str, rounds: list[Round], complete: bool) -> list[int]:
    """The documented layout, written down once more."""
    ids = [] if TOKENIZERS[name].bos_token_id is None else [TOKENIZERS[name].bos_token_id]
    for one in rounds:
        for heading, text in zip(HEADINGS, (one.prompt, one.response_a, one.response_b), strict=True):
            ids += ids_of(name, heading) + text
    return ids + ([] if complete else ids_of(name, CUT)) + ids_of(name, CUE)


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
@given(names, budgets, turns, turns, turns)
def test_packings_fit_hold_every_part_and_treat_both_answers_alike(
    name: str, max_tokens: int, prompt: list[str | None], a: list[str | None], b: list[str | None]
) -> None:
    packer = Packer(TOKENIZERS[name], max_tokens)
    rounds, complete = packer.fit(prompt, a, b)
    ids = packer.pack(prompt, a, b)

    assert len(ids) <= max_tokens
    assert ids == layout(name, rounds, complete)
    assert len(rounds) >= 1
    assert all(one.prompt and one.response_a and one.response_b for one in rounds)
    assert complete == (len(rounds) == max(len(prompt), len(a), len(b), 1))

    swapped = [one.swapped() for one in rounds]
    assert packer.fit(prompt, b, a) == (swapped, complete)
    assert packer.pack_both(prompt, a, b) == (ids, packer.pack(prompt, b, a))
    assert Packer(TOKENIZERS[name], max_tokens).pack(prompt, a, b) == ids


@settings(deadline=None, max_examples=100)
@given(names, st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6), budgets)
def test_rounds_keep_their_order_and_a_text_is_whole_or_a_marked_head(
    name: str, sentences: list[str], max_tokens: int
) -> None:
    rounds, _ = Packer(TOKENIZERS[name], max_tokens).fit(sentences, sentences[::-1], sentences)
    mark = ids_of(name, CUT)
    whole = True
    for one, prompt, a in zip(rounds, sentences, sentences[::-1], strict=False):
        assert whole, "only the last round may be cut"
        for ids, text in ((one.prompt, prompt), (one.response_a, a), (one.response_b, prompt)):
            full = ids_of(name, text)
            if ids != full:
                whole = False
                head = len(ids) - len(mark)
                assert head >= 1
                assert ids[:head] == full[:head]
                assert ids[head:] == mark


@BOTH
def test_null_empty_and_missing_turns_differ(name: str) -> None:
    packer = Packer(TOKENIZERS[name], 400)
    rounds, complete = packer.fit([None, "sort"], ["", "list"], ["values"])
    assert complete
    assert rounds[0] == Round(ids_of(name, NULL), ids_of(name, EMPTY), ids_of(name, "values"))
    assert rounds[1] == Round(ids_of(name, "sort"), ids_of(name, "list"), ids_of(name, MISSING))
    assert len({tuple(ids_of(name, mark)) for mark in (NULL, EMPTY, MISSING)}) == 3
    assert packer.pack([], [], []) == layout(name, [Round(*[ids_of(name, MISSING)] * 3)], True)


def test_shares_are_a_fifth_and_two_fifths_and_what_is_unused_is_passed_on() -> None:
    assert share(100, 500, 500, 500) == (20, 40, 40)
    assert share(100, 10, 500, 500) == (10, 45, 45)
    assert share(100, 500, 10, 500) == (20, 10, 70)
    assert share(100, 500, 500, 10) == (20, 70, 10)
    assert share(100, 500, 10, 20) == (70, 10, 20)
    assert share(100, 30, 30, 40) == (30, 30, 40)


@BOTH
def test_a_cut_record_fills_its_budget(name: str) -> None:
    long = " ".join(SENTENCES * 50)
    packer = Packer(TOKENIZERS[name], 401)
    ids = packer.pack([long], [long], [long])
    # The mark for dropped rounds keeps its place, and one token may be left because A and B get the same.
    assert 401 - len(ids_of(name, CUT)) - 1 <= len(ids) <= 401


@BOTH
def test_a_round_with_too_little_room_is_dropped_and_marked(name: str) -> None:
    first, second = SENTENCES[1], SENTENCES[1] * 40
    dropped = False
    for max_tokens in range(least(name), 700):
        packer = Packer(TOKENIZERS[name], max_tokens)
        rounds, complete = packer.fit([first, second], [first, second], [first, second])
        if not complete:
            dropped |= len(rounds) == 1 and rounds[0] == Round(*[ids_of(name, first)] * 3)
            assert packer.pack([first, second], [first, second], [first, second]) == layout(name, rounds, False)
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
    packer = Packer(TOKENIZERS[name], 1024)
    started = time.perf_counter()
    rounds, _ = packer.fit(["Why?"], [text], ["Because."])
    assert time.perf_counter() - started < 1
    mark = ids_of(name, CUT)
    assert rounds[0].response_a[-len(mark) :] == mark


@BOTH
def test_surrogate_pairs_are_joined_and_control_tokens_in_texts_stay_text(name: str) -> None:
    packer = Packer(TOKENIZERS[name], 400)
    assert packer.pack(["\ud83d\ude00"], ["\ud800x"], ["b"]) == packer.pack(["😀"], ["\ufffdx"], ["b"])
    special = TOKENIZERS[name].all_special_tokens[-1]
    assert TOKENIZERS[name].convert_tokens_to_ids(special) in ids_of(name, special)
    assert TOKENIZERS[name].convert_tokens_to_ids(special) not in packer.fit([special], ["a"], ["b"])[0][0].prompt


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
    with pytest.raises(InputError, match="version is 0 there and 1 here"):
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
