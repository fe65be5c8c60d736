"""Build the same feature blocks in one process, as a careful script does: the baseline of benchmarks/featurize.py.

pandas holds the records. scikit-learn counts n-grams, once for counts and TF-IDF together. gensim trains Word2Vec on
sentences in memory. sentence-transformers encodes. Hand-made features call the project's own functions record by
record, so for them the benchmark compares only the framework.

Run as: python -m benchmarks.featurize_alone BLOCK RECORDS OUT (benchmarks/featurize.py runs it)
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse

from benchmarks.featurize import EMBEDDING, NGRAM_KINDS, WORD2VEC
from core.registry import FAMILIES
from core.settings.features import default_families
from featurize.family import TextFamily, bounded_difference
from featurize.text import Text

PARTS = ("prompt", "response_a", "response_b")


def handmade(records: pd.DataFrame, out: Path) -> None:
    """Compute every hand-made family, record by record."""
    rows = []
    families = [FAMILIES.get(entry.family) for entry in default_families()]
    handmade_families = [family for family in families if isinstance(family, TextFamily)]
    for turns in zip(*(records[part] for part in PARTS), strict=True):
        prompt, a, b = (Text(list(part)) for part in turns)
        row: list[float] = []
        for family in handmade_families:
            if family.text_features:
                row += [value for text in (prompt, a, b) for value in family.describe(text)]
            if family.answer_features:
                row += [value for text in (a, b) for value in family.describe_answer(prompt, text)]
            if family.pair_features:
                row += family.describe_pair(a, b)
        rows.append(row)
    frame = pd.DataFrame(np.array(rows, np.float32))
    values = frame.to_numpy()
    half = values.shape[1] // 2
    pairs = bounded_difference(values[:, :half], values[:, half : 2 * half])
    frame = pd.concat([frame, pd.DataFrame(pairs)], axis=1)
    frame.columns = [str(n) for n in range(frame.shape[1])]
    frame.to_parquet(out / "handmade.parquet")


def similarity(records: pd.DataFrame, out: Path) -> None:
    """Compute TF-IDF cosines of prompt and answers, and the mean rarity of the answers' words and new words."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    vectorizer = HashingVectorizer(n_features=1 << 18, alternate_sign=False, norm=None, token_pattern=r"\w+")
    counts = {part: vectorizer.transform(_join(records[part])) for part in PARTS}
    weights = TfidfTransformer().fit(scipy.sparse.vstack(list(counts.values())))
    prompt, a, b = (weights.transform(counts[part]) for part in PARTS)
    cosines = [left.multiply(right).sum(axis=1).A1 for left, right in ((prompt, a), (prompt, b), (a, b))]
    frame = pd.DataFrame(dict(zip(("to_a", "to_b", "answers"), cosines, strict=True)))
    for part in PARTS[1:]:
        words, in_prompt = counts[part], counts["prompt"] > 0
        frame[f"{part}_idf"] = words @ weights.idf_ / np.maximum(words.sum(axis=1).A1, 1)
        new = (words > 0).astype(np.float64)
        new = new - new.multiply(in_prompt)
        frame[f"{part}_new_idf"] = new @ weights.idf_ / np.maximum(new.sum(axis=1).A1, 1)
    frame.to_parquet(out / "similarity.parquet")


def ngrams(records: pd.DataFrame, out: Path) -> None:
    """Compute the published recipe's eight blocks. Count n-grams once for each analyzer and part."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    for part, analyzer, features in NGRAM_KINDS:
        columns = ["prompt"] if part == "prompt" else ["response_a", "response_b"]
        texts = [text for column in columns for text in _join(records[column])]
        vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=(1, 3), min_df=0.002, max_features=features)
        counts = vectorizer.fit_transform(texts)
        weights = TfidfTransformer().fit_transform(counts)
        scipy.sparse.save_npz(out / f"{part}-{analyzer}-count.npz", counts.astype(np.float32))
        scipy.sparse.save_npz(out / f"{part}-{analyzer}-tfidf.npz", weights.astype(np.float32))


def together(records: pd.DataFrame, out: Path) -> None:
    """Compute hand-made families, similarity and n-grams."""
    handmade(records, out)
    similarity(records, out)
    ngrams(records, out)


def word2vec(records: pd.DataFrame, out: Path, workers: int = 1) -> None:
    """Train gensim on sentences in memory, and average the vectors of each text."""
    from gensim.models import Word2Vec

    words = {part: [Text(list(turns)).words for turns in records[part]] for part in PARTS}
    model = Word2Vec(
        [sentence for part in PARTS for sentence in words[part]],
        vector_size=WORD2VEC["dimensions"],
        window=WORD2VEC["window"],
        min_count=WORD2VEC["min_count"],
        epochs=WORD2VEC["epochs"],
        seed=1,
        workers=workers,
    )
    for part in PARTS:
        known = [[word for word in sentence if word in model.wv] for sentence in words[part]]
        empty = np.zeros(model.wv.vector_size)
        means = [model.wv[sentence].mean(axis=0) if sentence else empty for sentence in known]
        np.save(out / f"word2vec-{part}.npy", np.array(means, np.float32))


def word2vec_2_threads(records: pd.DataFrame, out: Path) -> None:
    """Train with two threads. The result depends on their timing."""
    word2vec(records, out, workers=2)


def embeddings(records: pd.DataFrame, out: Path) -> None:
    """Compute sentence embeddings and their principal components."""
    from sentence_transformers import SentenceTransformer
    from sklearn.decomposition import PCA

    from featurize.families.embeddings import locate_encoder

    model = SentenceTransformer(locate_encoder(EMBEDDING["model"]))
    model.max_seq_length = EMBEDDING["max_tokens"]
    texts = [text for part in PARTS for text in _join(records[part])]
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
    np.save(out / "embeddings.npy", PCA(EMBEDDING["components"]).fit_transform(vectors))


def _join(turns: "pd.Series[str]") -> list[str]:
    return [Text(list(text)).full for text in turns]


def main() -> None:
    """Compute one block from the records of a folder. Print its seconds, without reading."""
    block, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    records = pd.read_parquet(folder, columns=list(PARTS))
    start = time.monotonic()
    globals()[block](records, out)
    print(f"seconds {time.monotonic() - start:.3f}")


if __name__ == "__main__":
    main()
