import numpy as np

from votes.duplicates import cluster_records, minhash_signature, near_duplicate_pairs, text_hash

WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in ("a", "ei", "o") for c in ("ck", "nd", "ll", "sh")]


def essay(rng, words=300):
    return [WORDS[n] for n in rng.integers(0, len(WORDS), words)]


def signatures(*documents):
    """Of documents given as words, all in the first answer."""
    return np.stack([minhash_signature([["What is it?"], [" ".join(words)], [""]]) for words in documents])


def jaccard(one, other):
    """The measure itself, on what the signatures see: stretches of 9 letters."""
    texts = ["".join(words) for words in (one, other)]
    first, second = ({text[n : n + 9] for n in range(len(text) - 8)} for text in texts)
    return len(first & second) / len(first | second)


def test_the_share_of_equal_minima_estimates_the_jaccard_similarity():
    rng = np.random.default_rng(0)
    whole = essay(rng)
    for kept in (290, 250, 150, 0):
        changed = whole[:kept] + essay(rng, 300 - kept)
        one, other = signatures(whole, changed)
        assert abs((one == other).mean() - jaccard(whole, changed)) < 0.1, kept


def test_near_duplicates_are_found_among_others_and_only_they():
    rng = np.random.default_rng(1)
    documents = [essay(rng) for _ in range(200)]
    slightly = [*documents[7][:140], "mended", *documents[7][141:]]
    assert jaccard(documents[7], slightly) > 0.9
    mostly = [documents[n][:240] + essay(rng, 60) for n in range(9, 19)]
    assert all(0.6 < jaccard(documents[9 + n], mostly[n]) < 0.72 for n in range(10))
    found = near_duplicate_pairs(signatures(*documents, slightly, documents[3], *mostly))
    assert found.tolist() == [[3, 201], [7, 200]]


def test_every_member_of_a_large_cluster_is_found():
    rng = np.random.default_rng(2)
    whole = essay(rng)
    copies = [[*whole[:n], "mended", *whole[n + 1 :]] for n in range(0, 300, 3)]
    pairs = near_duplicate_pairs(signatures(*copies, essay(rng)))
    assert len(pairs) < 100 * 40  # far from all of them
    cluster = cluster_records(101, pairs)
    assert (cluster[:100] == 0).all()
    assert cluster[100] == 100


def test_what_the_normalised_texts_and_the_order_of_the_answers_do_not_change():
    one = minhash_signature([["Why?"], ["Because it   RAINS, mostly."], ["No idea at all."]])
    assert np.array_equal(one, minhash_signature([["why"], ["no idea at all"], ["because it rains mostly"]]))
    assert text_hash(["q"], [["a"], ["b"]]) == text_hash(["q"], [["b"], ["a"]])
    assert (
        len({text_hash(["q"], [["a"], ["b"]]), text_hash(["q"], [["a"], ["b "]]), text_hash(["a"], [["q"], ["b"]])})
        == 3
    )


def test_texts_without_letters_and_of_other_scripts_have_signatures():
    assert np.array_equal(minhash_signature([[None], [""], []]), minhash_signature([[], [""], [""]]))
    chinese = "今天天气很好我们去公园散步吧然后一起吃午饭"
    one, other = (minhash_signature([["问"], [text], [""]]) for text in (chinese * 3, chinese * 2 + chinese[:-4]))
    assert 0.8 < (one == other).mean() <= 1
    assert minhash_signature([["q"], ["\ud800"]]).shape == (128,)


def test_long_texts_are_hashed_to_their_ends():
    rng = np.random.default_rng(4)
    one, other = " ".join(essay(rng, 3000)), " ".join(essay(rng, 3000))
    assert np.array_equal(minhash_signature([[one], [other]]), minhash_signature([[other], [one]]))
    assert abs((minhash_signature([[one]]) == minhash_signature([[one], [other]])).mean() - 0.5) < 0.15


def test_clusters_follow_chains():
    assert cluster_records(6, np.array([[1, 2], [4, 5], [2, 4]])).tolist() == [0, 1, 1, 3, 1, 1]
    assert cluster_records(4, np.array([[1, 3], [2, 3]])).tolist() == [0, 1, 1, 1]
    assert cluster_records(2, np.empty((0, 2), np.int64)).tolist() == [0, 1]
