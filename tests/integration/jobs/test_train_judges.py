"""Judges of tables as models of a run: from the table to blend, page and new pairs."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.commands import run_here

SETTINGS = {
    "run": "runs/unused",
    "seed": 2,
    "data": {"synthetic": {"train_rows": 300, "test_rows": 40}, "folds": 3, "shard_rows": 150},
    "featurize": {"families": ["length", "style", "judges"]},
    "boosters": [
        {"name": "linear", "engine": "linear", "features": ["length", "style"]},
        {"name": "rewards", "engine": "linear", "features": ["external"]},
    ],
}


def verdict(row, rng, right):
    winners = [row[f"winner_{name}"] for name in ("model_a", "model_b", "tie")]
    return ["A", "B", "tie"][winners.index("1") if rng.random() < right else rng.integers(0, 3)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster):
    """A run on demo votes with three judges: a good one, one asked in both orders, and one that knows nothing.

    Its boosters see a reward of each answer as well, which is better where people vote for the answer.
    """
    folder = tmp_path_factory.mktemp("judges")
    config, run, table = folder / "config.yaml", folder / "run", folder / "verdicts.csv"
    rewards = folder / "rewards.csv"
    config.write_text(yaml.safe_dump({**SETTINGS, "features": [{"path": str(rewards)}]}))
    assert run_here("ingest", run, config=str(config)).returncode == 0
    rng = np.random.default_rng(0)
    with (run / "demo/pairs/train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["id,judge,order,verdict,cost"]
    for number, row in enumerate(rows):
        lines.append(f"{row['id']},good one,,{verdict(row, rng, 0.7)},0.002")
        lines += [f"{row['id']},both,{order},{verdict(row, rng, 0.4)}," for order in ("ab", "ba")]
        if number % 10:
            lines.append(f"{row['id']},noise,,{verdict(row, rng, 0.0)},")
    lines += ["nobody,good one,,A,", f"{rows[0]['id']},good one,,B,", f"{rows[0]['id']},noise,,C,"]
    table.write_text("\n".join(lines))
    judges = f"judges=[{{path: {table}}}]"
    with rewards.open("w") as file:
        print("id,reward_a,reward_b", file=file)
        for row in rows[10:]:
            a, b = (int(row[f"winner_model_{side}"]) + rng.normal() for side in "ab")
            print(row["id"], a, b, sep=",", file=file)
        print("nobody,1,1", file=file)
    done = run_here("pipeline", run, judges, config=str(config))
    assert done.returncode == 0, done.stderr
    return config, run, judges, done


def test_boosters_see_numbers_of_a_table_and_verdicts(finished):
    _, run, _, done = finished
    assert "external: reward for 290 of 300 train records, 0 of 40 test records" in done.stdout
    assert "external: 1 rows quarantined (1 x no record has this id or these texts)" in done.stdout
    numbers = pq.read_table(run / "features/external/train").to_pandas()
    assert (numbers["external_reward_missing_pair"] == [1] * 10 + [0] * 290).all()
    assert np.corrcoef(numbers["external_reward_difference"], numbers["external_reward_a"])[0, 1] > 0.5
    columns = pq.read_table(run / "features/judges/train").to_pandas().filter(like="judges_").abs().max()
    assert {name.split("_")[1] for name in columns[columns > 0].index} == {"good-one", "both", "noise"}


def test_every_judge_and_their_panel_are_models(finished):
    _, run, _, done = finished
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert set(metrics["models"]) == {"linear", "rewards", "good-one", "both", "noise", "panel"}
    losses = {name: model["oof_log_loss"] for name, model in metrics["models"].items()}
    assert losses["good-one"] < losses["both"] < metrics["baselines"]["class prior"]["oof_log_loss"] < losses["noise"]
    assert len(pq.read_table(run / "predictions/noise/train.parquet")) == 270
    assert "verdicts: good one 300, both 600, noise 270" in done.stdout
    assert "3 rows quarantined" in done.stdout
    reasons = set(pq.read_table(run / "judges/quarantine.parquet")["reason"].to_pylist())
    assert reasons == {
        "no record has this id or these texts",
        "another verdict of this judge on this pair, in this order",
        "unknown verdict 'C'",
    }


def test_gains_of_judges_are_nested_and_noise_gains_nothing(finished):
    _, run, _, _ = finished
    without = json.loads((run / "blend/analysis.json").read_text())["without"]
    assert without["good-one"]["gain_ci95"][0] > 0
    assert without["all judges"]["gain_ci95"][0] > without["good-one"]["gain_ci95"][0]
    low, high = without["noise"]["gain_ci95"]
    assert low < 0.005
    assert high > -0.02


def test_the_page_compares_judges_with_people(finished):
    _, run, _, _ = finished
    judges = json.loads((run / "report/metrics.json").read_text())["judges"]
    assert set(judges) == {"good one", "both", "noise", "linear", "rewards", "panel", "blend"}
    assert judges["good one"]["cost_per_1000"] == pytest.approx(2.0)
    assert judges["good one"]["position"] is None
    assert judges["both"]["position"]["records"] == 300
    assert judges["noise"]["kappa_ci95"][0] < 0 < judges["noise"]["kappa_ci95"][1]
    page = (run / "report/index.html").read_text()
    assert 'href="#judges"' in page


def test_new_pairs_are_predicted_with_and_without_verdicts(finished, tmp_path):
    config, run, _, _ = finished
    new = tmp_path / "new.csv"
    with (run / "demo/pairs/test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = tmp_path / "new_verdicts.csv"
    lines = [f"{row['id']},good one,A\n" for row in rows[:30]] + [f"{rows[0]['id']},god one,A\n"]
    table.write_text("id,judge,verdict\n" + "".join(lines))
    rewards = tmp_path / "new_rewards.csv"
    rewards.write_text("id,reward_b,reward_a\n" + "".join(f"{row['id']},-9,9\n" for row in rows[:30]))
    tables = f"judges=[{{path: {table}}}]", f"features=[{{path: {rewards}}}]"
    done = run_here("predict", run, f"data.test={new}", *tables, config=str(config))
    assert done.returncode == 0, done.stderr
    assert "external: reward for 30 of 40 test records" in done.stdout
    assert "10 of 40 pairs have no verdict" in done.stdout
    assert "of 40 new pairs judged: good one 30, both 0, noise 0" in done.stdout
    assert "not used: god one; the run knows no such judge" in done.stdout
    (folder,) = run.glob("predict/*")
    with_some = pq.read_table(folder / "predictions.parquet").to_pandas()
    again = run_here("predict", run, f"data.test={new}", "judges=[]", "features=[]", config=f"{run}/settings.json")
    assert again.returncode == 0, again.stderr
    assert "40 of 40 pairs have no verdict" in again.stdout
    (other,) = set(run.glob("predict/*")) - {folder}  # both are kept
    without = pq.read_table(other / "predictions.parquet").to_pandas()
    assert (with_some["rewards_p_a"][:30] > without["rewards_p_a"][:30]).all()
    assert (with_some["blend_p_a"][:30] > without["blend_p_a"][:30] + 0.05).mean() > 0.9
    assert (with_some["blend_p_a"][30:] == without["blend_p_a"][30:]).all()
    # The run's own test pairs have no verdicts either: the same numbers.
    own = pq.read_table(run / "blend/test.parquet").to_pandas()
    np.testing.assert_allclose(without["blend_p_a"], own["p_a"], atol=1e-12)


def test_votes_of_a_run_with_judges_are_converted_with_its_margins(finished, tmp_path):
    _, run, _, _ = finished
    to = "convert.to=trl", f"convert.output={tmp_path}/votes.jsonl", "convert.margins=true"
    done = run_here("convert", run, *to, config=f"{run}/settings.json")
    assert done.returncode == 0, done.stderr
    assert '"margin"' in (tmp_path / "votes.jsonl").read_text()


def test_the_same_command_again_does_nothing_and_a_changed_table_redoes_the_judges(finished):
    config, run, judges, _ = finished
    again = run_here("pipeline", run, judges, config=str(config))
    assert " run\n" not in again.stdout
    priced = judges.replace("}]", ", cost_per_1000: 9}]")
    done = run_here("train_judges", run, priced, config=str(config))
    assert " run\n" not in done.stdout
    fewer = judges.replace("}]", ", only: [both]}]")
    done = run_here("blend", run, fewer, config=str(config))
    assert done.returncode == 2
    assert "judges was built with other settings: tables" in done.stderr
    assert run_here("train_judges", run, fewer, config=str(config)).returncode == 0
    done = run_here("blend", run, fewer, config=str(config))
    assert done.returncode == 0, done.stderr
    weights = json.loads((run / "blend/weights.json").read_text())
    assert weights["blender"]["models"] == ["linear", "rewards", "both"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("judges=[{path: nowhere.csv}]", "nowhere.csv"),
        (
            "judges=[{path: TABLE, only: [bad one]}]",
            "no verdict of 'bad one'. Fix: the judges are both, good one, noise.",
        ),
        ("judges=[{path: TABLE, format: long}]", "no verdict format 'long'"),
        ("judges=[{path: TABLE, cost_per_1000: {best: 1}}]", "a price of 'best', which has no verdict"),
    ],
)
def test_wrong_settings_are_exit_2_with_their_reason(finished, settings, says):
    config, run, judges, _ = finished
    table = judges.partition("path: ")[2].partition("}")[0]
    done = run_here("train_judges", run, settings.replace("TABLE", table), config=str(config))
    assert done.returncode == 2
    assert says in done.stderr
