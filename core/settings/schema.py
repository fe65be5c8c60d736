"""Define the schema of settings: one strict model for every job. Its sections are in other files of this folder."""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from pydantic import Field, PrivateAttr, model_validator

from core.errors import InputError
from core.settings.base import StrictModel, check_unique
from core.settings.blend import Blend
from core.settings.boosters import Booster
from core.settings.cluster import Plan, RayCluster
from core.settings.convert import Convert
from core.settings.data import Data
from core.settings.features import ALL_FAMILIES, EXTERNAL, FeatureTable, Featurize
from core.settings.finetune import Finetune
from core.settings.judges import JudgeTable
from core.settings.leaderboard import Leaderboard
from core.settings.llm import Llm
from core.settings.tune import Search

PANEL: Final = "panel"  # the model of all judges together


class Settings(StrictModel):
    """All settings of a run."""

    renamed: ClassVar[dict[str, str]] = {"encoders": "finetune.encoders", "trained_llms": "finetune.llms"}

    run: str = Field(min_length=1, description="Folder of the run: a path, or a URI of an object store.")
    seed: int = Field(default=1, ge=0, lt=2**31, description="Seed of every random choice: folds, models, searches.")
    data: Data = Field(default=Data(), description="Votes and pairs, and how they are split into folds and shards.")
    featurize: Featurize = Field(default_factory=Featurize, description="Features of the boosters.")
    features: list[FeatureTable] = Field(
        default=[],
        description="Tables of numbers that were computed elsewhere. They are columns of the family `external`.",
    )
    boosters: list[Booster] = Field(default=[], description="Models on features: gradient boosting and linear.")
    tune: list[Search] = Field(default=[], description="Searches for boosters' parameters.")
    finetune: Finetune = Field(default=Finetune(), description="Models to fine-tune: encoders, and LLMs with LoRA.")
    llms: list[Llm] = Field(default=[], description="Language models that score pairs with vLLM.")
    judges: list[JudgeTable] = Field(default=[], description="Tables of verdicts that judges gave elsewhere.")
    blend: Blend = Field(default=Blend(), description="How models are blended and calibrated.")
    leaderboard: Leaderboard = Field(default=Leaderboard(), description="How models are rated.")
    convert: Convert = Field(default=Convert(), description="Votes in another tool's shape, for the job convert.")
    plan: Plan = Field(default=Plan(), description="Figures of the hardware, from which `--dry-run` estimates times.")
    ray: RayCluster = Field(default=RayCluster(), description="The local Ray cluster that a job starts.")
    _judge_models: tuple[str, ...] = PrivateAttr(default=())

    @property
    def models(self) -> list[str]:
        """Return the names of all models, in the order in which the report shows them."""
        boosters, encoders = (
            (booster.name for booster in self.boosters),
            (encoder.name for encoder in self.finetune.encoders),
        )
        return [*boosters, *encoders, *(llm.name for llm in self.llms), *self._judge_models]

    @property
    def judge_models(self) -> tuple[str, ...]:
        """Return the names of the judges' models, the panel's the last one. They are known once tables are read."""
        return self._judge_models

    def with_judges(self, names: Sequence[str]) -> "Settings":
        """Return the settings with the judges of its tables among the models, and the panel of several judges.

        Raises InputError if names of models clash, or if the blend names an unknown model.
        """
        models = (*names, PANEL) if len(names) > 1 else tuple(names)
        known = {*self.models, *(model.name for model in self.finetune.llms), "blend"} - {*self._judge_models}
        for name in models:
            if name in known or (name == PANEL and name in names):
                raise InputError(
                    f"a judge and a model share the name {name!r}", "judges", "rename the model, or the judge."
                )
        settings = self.model_copy()
        settings._judge_models = models
        unknown = [name for name in self.blend.models or [] if name not in settings.models]
        if unknown:
            raise InputError(
                f"the blend names an unknown model {unknown[0]!r}",
                "blend.models",
                f"the models are {', '.join(settings.models)}.",
            )
        if self.blend.submission == "preset" and not any(self.blend.preset.get(name, 0) for name in settings.blended):
            raise InputError(
                "the submitted preset names none of the models",
                "blend.preset",
                f"the models are {', '.join(settings.blended)}.",
            )
        return settings

    @property
    def partial(self) -> dict[str, list[int]]:
        """Return the folds of each model that was trained on a subset of folds."""
        trained = {model.name: model.folds for model in self.finetune.llms}
        folds = {encoder.name: encoder.folds for encoder in self.finetune.encoders}
        folds |= {llm.name: trained[llm.finetuned] for llm in self.llms if llm.finetuned is not None}
        return {
            name: sorted(some) for name, some in folds.items() if some is not None and len(set(some)) < self.data.folds
        }

    @property
    def blended(self) -> list[str]:
        """Return the names of the models whose predictions are blended."""
        return self.blend.models or [name for name in self.models if name not in self.partial]

    @property
    def possibly_contaminated(self) -> list[str]:
        """Return the models that may have seen the votes they are scored on.

        These are external checkpoints, their students, and models whose cascade falls back on them.
        """
        teachers = {model.name: model.teacher.model for model in self.finetune.models if model.teacher}
        sources_of = {name: {teacher} for name, teacher in teachers.items()}
        for llm in self.llms:
            sources_of[llm.name] = {llm.cascade.model if llm.cascade else "", teachers.get(llm.finetuned or "", "")}
        names = {llm.name for llm in self.llms if llm.checkpoint is not None}
        for _ in self.models:  # chains are as long as there are models, at most
            names |= {name for name, sources in sources_of.items() if names & sources}
        return [name for name in self.models if name in names]

    @model_validator(mode="before")
    @classmethod
    def _offer_external_features(cls, values: Any) -> Any:  # noqa: ANN401 - raw YAML
        """Name the family of the tables in `features`, where `featurize.families` does not."""
        if not isinstance(values, dict) or not values.get("features"):
            return values
        featurize = values.get("featurize", {})
        families = featurize.get("families", ALL_FAMILIES) if isinstance(featurize, dict) else None
        entries = [ALL_FAMILIES] if families == ALL_FAMILIES else families
        if not isinstance(entries, list) or EXTERNAL in entries or {"family": EXTERNAL} in entries:
            return values
        return {**values, "featurize": {**featurize, "families": [*entries, EXTERNAL]}}

    @model_validator(mode="after")
    def _model_names_differ(self) -> "Settings":
        check_unique([*self.models, *(model.name for model in self.finetune.llms)], "models")
        if "blend" in self.models:
            raise ValueError("no model can be called 'blend': the columns of blend/predictions.parquet are")
        return self

    @model_validator(mode="after")
    def _folds_are_there(self) -> "Settings":
        for model in self.finetune.models:
            wrong = [fold for fold in model.folds or [] if fold >= self.data.folds]
            if wrong:
                raise ValueError(f"{model.name!r} names fold {wrong[0]}; folds are 0 to {self.data.folds - 1}")
            check_unique([str(fold) for fold in model.folds or []], "folds")
        return self

    @model_validator(mode="after")
    def _models_are_there(self) -> "Settings":
        trained = [model.name for model in self.finetune.llms]
        for llm in self.llms:
            if llm.finetuned is not None and llm.finetuned not in trained:
                raise ValueError(f"{llm.name!r} scores with {llm.finetuned!r}; finetune.llms has {trained or 'none'}")
            if llm.cascade is not None:
                after = {model.name for model in self.llms[self.llms.index(llm) :]}
                names = [name for name in self.models if name not in after and name not in self.partial]
                if llm.cascade.model not in names:
                    raise ValueError(
                        f"{llm.name!r} cannot cascade from {llm.cascade.model!r}; it takes a booster, an encoder or an "
                        f"earlier language model that predicts all folds: {', '.join(names) or 'none'}"
                    )
        for name in self.blend.models or []:
            if name not in self.models and not self.judges:  # with_judges checks it once the judges are known
                raise ValueError(
                    f"the blend names an unknown model {name!r}; models: {', '.join(self.models) or 'none'}"
                )
            if name in self.partial:
                raise ValueError(
                    f"the blend needs predictions for all folds, but {name!r} has only those of {self.partial[name]}"
                )
        preset = self.blend.preset
        if (
            self.blend.submission == "preset"
            and self.blended
            and not self.judges
            and not any(preset.get(name, 0) for name in self.blended)
        ):
            raise ValueError(f"the submitted preset names none of the models {', '.join(self.blended)}")
        encoders, llms = [model.name for model in self.finetune.encoders], [model.name for model in self.llms]
        taught = {model.name: model.teacher.model for model in self.finetune.models if model.teacher}
        by_llm = [name for name in encoders if taught.get(name) in llms]
        by_encoder = [name for name in trained if taught.get(name) in encoders]
        if by_llm and by_encoder:
            raise ValueError(f"{by_llm[0]!r} learns from a language model and {by_encoder[0]!r} from an encoder")
        behind = [llm.name for llm in self.llms if llm.cascade is not None and llm.cascade.model in encoders]
        if by_llm and behind:
            raise ValueError(f"{by_llm[0]!r} learns from a language model, but {behind[0]!r} waits for an encoder")
        for model in self.finetune.models:
            teacher = None if model.teacher is None else model.teacher.model
            if teacher is None:
                continue
            if teacher in self.models and teacher not in self._before(model.name):
                raise ValueError(
                    f"{model.name!r} cannot learn from {teacher!r}, which predicts only after {model.name!r} is trained"
                )
            others = [name for name in self._before(model.name) if name not in self.partial]
            if teacher not in others:
                raise ValueError(
                    f"{model.name!r} cannot have the teacher {teacher!r}; valid teachers: {', '.join(others) or 'none'}"
                )
        return self

    def _before(self, student: str) -> list[str]:
        """Return the models whose predictions exist when `student` is trained; see ray_jobs.pipeline.jobs."""
        boosters, encoders = [model.name for model in self.boosters], [model.name for model in self.finetune.encoders]
        if student not in encoders:
            return [*boosters, *encoders]
        return [*boosters, *encoders[: encoders.index(student)], *(llm.name for llm in self.llms)]

    @model_validator(mode="after")
    def _searches_fit(self) -> "Settings":
        check_unique([search.booster for search in self.tune], "searches")
        boosters = {booster.name: booster for booster in self.boosters}
        for search in self.tune:
            if search.booster not in boosters:
                raise ValueError(
                    f"tune names an unknown booster {search.booster!r}; boosters: {', '.join(boosters) or 'none'}"
                )
            search.check_booster(boosters[search.booster])
            if search.folds > self.data.folds:
                raise ValueError(f"tune.folds is at most data.folds, {self.data.folds}")
        return self

    @model_validator(mode="after")
    def _features_are_made(self) -> "Settings":
        names = self.featurize.names
        for booster in self.boosters:
            for name in booster.features or []:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"the features are {', '.join(names)}"
                    hint = "name its tables in the setting `features`" if name == EXTERNAL else hint
                    raise ValueError(
                        f"booster {booster.name!r} uses features {name!r}, which featurize does not make; {hint}"
                    )
        return self
