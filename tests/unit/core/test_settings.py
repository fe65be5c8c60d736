import pytest
import yaml

from core.errors import InputError
from core.settings.loader import load_settings
from core.settings.schema import Settings

BASE = "run: somewhere\nboosters: [{name: small, engine: lightgbm, rounds: 5}]\n"


def test_precedence_is_set_then_file_then_defaults():
    settings = load_settings(BASE, "c.yaml", ["boosters.small.rounds=7", "data.folds=3", "run=s3://bucket/x"])
    assert (settings.boosters[0].rounds, settings.data.folds, settings.run) == (7, 3, "s3://bucket/x")
    assert settings.boosters[0].early_stopping_rounds == 30


def test_saved_settings_load_again_as_they_were():
    settings = load_settings(
        BASE + "featurize: {families: [length, {family: ngrams, name: w, ngram_range: [1, 3]}]}", "c.yaml"
    )
    again = load_settings(yaml.safe_dump(settings.model_dump(mode="json")), "saved.yaml")
    assert again == settings


@pytest.mark.parametrize(
    ("text", "override", "key", "hint"),
    [
        ("seeed: 3", "", "'seeed'", "did you mean 'seed'"),
        ("", "data.trian=x", "'data.trian'", "did you mean 'train'"),
        ("", "boosters.small.roundss=9", "'boosters.small.roundss'", "did you mean 'rounds'"),
        (
            "",
            "boosters.small.both_orders=true",
            "'boosters.small.both_orders' has a new name",
            "write swap: both (was true) or swap: none (was false).",
        ),
        ("seeed: 3\ndatta: {}", "", "'seeed' (also unknown: 'datta')", "did you mean 'seed'"),
        # What is "missing" may be there, misspelt.
        ("finetune: {encoders: [{name: e, modle: m}]}", "", "'finetune.encoders.e.modle'", "did you mean 'model'"),
        ("data: {folds: 1}\ndatta: {}", "", "'data.folds'", "(and unknown: 'datta')"),
        ("data: {trian: x}", "boosters.small.roundss=9", "--set boosters.small.roundss=9: unknown", "'data.trian'"),
        # The --set that the mistake stands in.
        ("", "dat.folds=5", "c.yaml with --set dat.folds=5: unknown setting 'dat'", "'data'"),
        ("", "finetune.encoders=[{name: e, modle: x}]", "--set finetune.encoders=", "'finetune.encoders.e.modle'"),
        ("", "boosters.0.features=[length, 3]", "--set boosters.0.features=", "string"),
        ("seed: abc", "boosters.small.rounds=9", "c.yaml: setting 'seed'", "integer"),
        ("llms: []", "llms.gemma.swap=both", "'gemma' in this list, which is empty", "whole list"),
        # A name that would be taken for an index.
        ("llms: [{name: '1', checkpoint: c}, {name: '0', checkpoint: c, swapp: x}]", "", "'llms.1.swapp'", "'swap'"),
        ("", "seed=abc", "'seed'", "valid integer"),
        ("", "data.folds=1", "'data.folds'", "greater than or equal to 2"),
        ("", "data.folds='10'", "'data.folds'", "valid integer"),
        ("", "boosters.other.rounds=9", "'other'", "one of: small"),
        ("", "run.x=1", "'x'", "single value"),
        ("", "seed", "--set seed", "key=value"),
        ("", "data.train=", "--set data.train=: no value", "data.train=null for none"),
        ("", "run=2024", "--set run=2024: setting 'run'", "--set 'run=\"2024\"'"),
        ("", "boosters.small.name=../up", "'boosters.0.name'", "pattern"),
        ("llms: [{name: small, checkpoint: x}]", "", "c.yaml", "share the name 'small'"),
        ("llms: [{name: l}]", "", "'llms.l'", "one of checkpoint"),
        ("? [a]\n: 1", "", "c.yaml", "is not a name"),
        ("blend: {preset: {gemma: .inf}}", "", "'blend.preset.gemma'", "finite"),
        (
            "blend: {submission: best}",
            "",
            "'blend.submission'",
            "'learned', 'linear', 'log', 'greedy', 'equal' or 'preset'",
        ),
        ("blend: {calibration: platt}", "", "'blend.calibration'", "'auto', 'none'"),
        ("blend: {models: [small, small]}", "", "'blend'", "share the name 'small'"),
        ("blend: {submission: preset}", "", "c.yaml", "names none of the models small"),
        ("blend: {submission: preset, calibration: vector}", "", "'blend'", "calibration cannot change it"),
        ("blend: {submission: preset, length_debias: true}", "", "'blend'", "length_debias cannot change it"),
        ("llms: [{name: blend, checkpoint: x}]", "", "c.yaml", "called 'blend'"),
        ("featurize: {families: [length, length]}", "", "'featurize'", "share the name 'length'"),
        (
            "finetune: {llms: [{name: l, stages: [{train: head, learning_rate: 1}]}]}",
            "",
            "'finetune.llms.l'",
            "leave `train` out",
        ),
        ("finetune: {llms: [{name: l, base_4bit: true}]}", "", "'finetune.llms.l'", "add gpus_per_worker: 1"),
        ("run: again", "", "c.yaml", "given twice"),
        ("x: [", "", "c.yaml", "not valid YAML"),
        ("x: !!python/object/apply:os.getcwd []", "", "c.yaml", "not valid YAML"),
    ],
)
def test_impossible_settings_name_key_reason_and_fix(text, override, key, hint):
    with pytest.raises(InputError) as caught:
        load_settings(BASE + text, "c.yaml", [override] if override else [])
    message = str(caught.value)
    assert key in message
    assert hint in message
    assert "Fix: " in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "boosters.small.params.num_leavs=3",
            "--set boosters.small.params.num_leavs=3: boosters.small.params.num_leavs",
        ),
        ("boosters.0.params.num_leavs=3", "--set boosters.0.params.num_leavs=3: boosters.small.params.num_leavs"),
        ("boosters.small.engine=two_part", "'boosters.small.engine' .* Fix: write 'linear', its new name"),
        ("tune=[{booster: small, space: ours}]", "'tune.small.space' .* Fix: write 'default', its new name"),
        (
            "tune=[{booster: small, space: {num_leaves: {low: 2, high: 8, whole: true}}}]",
            "'tune.small.space.num_leaves.whole' has a new name. Fix: write integer",
        ),
        (
            "featurize.families=[length, {family: embeddings, max_tokens: 0}]",
            "'featurize.families.embeddings.max_tokens'",
        ),
        ("seed=3", "^c.yaml: boosters.small.params.rate: "),
    ],
)
def test_a_setting_is_named_with_the_line_that_gives_it(override, message):
    text = BASE.replace("engine: lightgbm", "engine: lightgbm, params: {rate: 1}") if override == "seed=3" else BASE
    with pytest.raises(InputError, match=message):
        load_settings(text, "c.yaml", [override])


STUDENTS = """
finetune:
  encoders:
    - {name: first, model: m}
    - {name: second, model: m}
  llms: [{name: lora}]
llms: [{name: scored, finetuned: lora}, {name: ready, checkpoint: c}]
"""


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        ("finetune.encoders.first", "second", "'first' cannot learn from 'second', which predicts only after"),
        ("finetune.encoders.second", "second", "'second' cannot learn from 'second', which"),
        ("finetune.llms.lora", "scored", "'lora' cannot learn from 'scored', which"),  # which is trained from it
        ("finetune.llms.lora", "ready", "'lora' cannot learn from 'ready', which"),
        ("finetune.llms.lora", "lora", "'lora' cannot have the teacher 'lora'; valid teachers: small, first, second"),
        (
            "finetune.encoders.second",
            "nobody",
            "'second' cannot have the teacher 'nobody'; valid teachers: small, first, scored, ready",
        ),
    ],
)
def test_a_teacher_that_comes_after_its_student_is_refused(student, teacher, reason):
    with pytest.raises(InputError) as caught:
        load_settings(BASE + STUDENTS, "c.yaml", [f"{student}.teacher={{model: {teacher}}}"])
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("finetune.encoders.second", "first"),
        ("finetune.encoders.first", "ready"),
        ("finetune.encoders.first", "scored"),
        ("finetune.llms.lora", "second"),
    ],
)
def test_a_teacher_that_comes_before_its_student_is_taken(student, teacher):
    load_settings(BASE + STUDENTS, "c.yaml", [f"{student}.teacher={{model: {teacher}}}"])


def test_settings_that_do_not_fit_together_are_named_without_their_values():
    with pytest.raises(InputError) as caught:
        load_settings("run: x\nblend: {submission: preset, calibration: vector}", "c.yaml", [])
    assert caught.value.reason.startswith("setting 'blend': the preset")
    assert "--set blend.KEY=VALUE" in caught.value.fix


def test_run_is_required():
    with pytest.raises(InputError, match="'run' is missing"):
        load_settings("seed: 1", "c.yaml")


def test_defaults_hold_together():
    assert Settings(run="x").models == []


def test_what_a_model_learnt_elsewhere_spreads_to_whom_it_teaches_and_whose_records_it_keeps():
    settings = load_settings(
        """
        run: x
        boosters: [{name: own, engine: linear}]
        finetune:
          encoders: [{name: pupil, teacher: {model: borrowed}}, {name: free}, {name: second, teacher: {model: pupil}}]
        llms:
        - {name: borrowed, checkpoint: m/m}
        - {name: behind, demo: {architecture: llama}, cascade: {model: borrowed}}
        - {name: honest, demo: {architecture: llama}}
        """,
        "c.yaml",
    )
    assert settings.possibly_contaminated == ["pupil", "second", "borrowed", "behind"]


@pytest.mark.parametrize("text", ["results/x #2", "a: b", "2024-01-01", "@x", "&a", " x", "{x", "it's"])
def test_a_text_after_set_is_taken_as_it_is(text):
    if text == "{x":
        with pytest.raises(InputError, match="not valid YAML"):
            load_settings(BASE, "c.yaml", [f"run={text}"])
    else:
        assert load_settings(BASE, "c.yaml", [f"run={text}"]).run == text


@pytest.mark.parametrize("names", [["panel"], ["panel", "other"], ["other", "blend"]])
def test_a_judge_cannot_have_a_name_that_the_run_gives(names):
    with pytest.raises(InputError, match="share the name"):
        Settings(run="r").with_judges(names)
