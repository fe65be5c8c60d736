"""The report job: its numbers, what it leaves, and texts that would break a careless page."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core import cli
from core.stage import Stage
from core.storage import Folder
from infer.ensemble.fit import BLEND_NAMES
from metrics.baselines import class_prior_baseline
from ray_jobs.blend import blend
from ray_jobs.ingest import ingest
from ray_jobs.report import report
from tests.helpers.browser import CHROMIUM, DRIVER, browser
from tests.helpers.page import read_page, value_at
from tests.helpers.votes import COLUMNS, vote, write_votes
from votes import predictions
from votes.records import Records

pytestmark = pytest.mark.usefixtures("ray_cluster")

SCRIPT = (
    "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">{{ 7 * 7 }}</details>"
)
ARABIC = "ما هي عاصمة فرنسا؟ ‮ reversed"
LONG = "a long line without end " * 1500
HOSTILE = {
    3: {"prompt": json.dumps([SCRIPT]), "response_a": json.dumps([SCRIPT, ""])},
    4: {"response_b": json.dumps([ARABIC]), "model_a": "<b>m&1</b>", "id": "</td>'\"&"},
    5: {"response_a": json.dumps([LONG]), "response_b": json.dumps(["x" * 3000])},
    6: {"prompt": r'["half a pair: \ud83d and \u0000 \u001b"]', "response_a": "[null, null]"},
}
COPIES = {80: 20, 81: 21}  # these records are those with A and B exchanged


@pytest.fixture(scope="module")
def made(tmp_path_factory, ray_cluster):
    """The folder of a run with hostile and copied records, two models' predictions and an analyzed blend."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "config.yaml").write_text(
        f"run: {folder}/run\n"
        f"data: {{folds: 3, shard_rows: 40, test: {folder}/test.csv, train: ["
        f"{{name: mine, path: {folder}/train.csv}}, {{name: others, path: {folder}/others.csv, weight: 0.5}}]}}\n"
        "boosters: [{name: good, engine: lightgbm, num_workers: 3}, "
        "{name: poor, engine: xgboost, swap: none}]\n"
        "finetune: {encoders: [{name: partly, folds: [0], num_workers: 2}]}\n"
        "llms: [{name: asked, mode: judge, checkpoint: m/m, cascade: {model: good, share: 0.3}}]\n"
        "tune: [{booster: good, folds: 2}]\n"
        "blend: {preset: {good: 3}, length_debias: true}\n"
    )
    rows = [vote(n, **HOSTILE.get(n, {})) for n in range(90)]
    for copy, original in COPIES.items():
        rows[copy] |= {"prompt": rows[original]["prompt"], "response_a": rows[original]["response_b"]}
        rows[copy] |= {"response_b": rows[original]["response_a"]}
    write_votes(folder / "train.csv", [*rows, vote(99, winner_tie="maybe")])
    write_votes(folder / "others.csv", [vote(300)])
    write_votes(folder / "test.csv", [vote(200), rows[7]], [COLUMNS[0], *COLUMNS[3:6]])
    assert job(folder, ingest) == 0
    predict(folder, "good", 1.0)
    predict(folder, "poor", 0.1, lean=0.3)
    predict(folder, "partly", 0.5, folds=[0])
    ask(folder)
    leave_what_training_leaves(Folder(f"{folder}/run"))
    assert job(folder, blend) == 0
    assert job(folder, report) == 0
    return folder


def job(folder, work, *overrides):
    arguments = ["--config", f"{folder}/config.yaml"]
    for override in overrides:
        arguments += ["--set", override]
    return cli.main(cli.Job(work.__name__, None, work), arguments)


def predict(folder, model, sharpness, lean=0.0, folds=(0, 1, 2)):
    """Predictions that lean towards the vote by `sharpness`, and away from it for hostile records; `lean` is A's."""
    place = Folder(f"{folder}/run/records")
    records = Records(place, place.read_json("manifest.json"))
    target = Folder(f"{folder}/run/predictions/{model}")
    stage = Stage(model, target, {"sharpness": sharpness}, {"records": records.fingerprint})
    rng = np.random.default_rng(list(model.encode()))
    for split in ("train", "test"):
        table = records.read(split, ["id", "label", "fold"] if split == "train" else ["id"])
        values = rng.dirichlet([4, 4, 4], size=len(table))
        if split == "train":
            labels = table["label"].to_numpy()
            values += sharpness * np.eye(3)[labels]
            for row in HOSTILE:
                values[row] = 0.02 + np.eye(3)[(labels[row] + 1) % 3]
        values[:, 0] += lean
        values /= values.sum(axis=1, keepdims=True)
        if split == "train":
            there = np.isin(table["fold"].to_numpy(), folds)
            ids, fold_of = table["id"].filter(pa.array(there)), table["fold"].to_numpy()[there]
            target.write_table("train.parquet", predictions.predictions_table(ids, values[there], fold_of))
        else:
            target.write_table("test.parquet", predictions.predictions_table(table["id"], values))
    position = {"records": 90, "flip_rate": 0.25, "first_share": 0.625} if model == "poor" else None
    stage.commit(rows={}, metrics={"core_seconds": 36.0, "gpu_seconds": 0.0, "position": position})


def ask(folder):
    """What a language model behind a cascade leaves, the best of all but for one record in its quarantine."""
    predict(folder, "asked", 2.0)
    target = Folder(f"{folder}/run/predictions/asked")
    table = target.read_table("train.parquet")
    (lost,) = table.slice(10, 1)["id"].to_pylist()
    target.write_table("train.parquet", pa.concat_tables([table.slice(0, 10), table.slice(11)]))
    row = {"split": "train", "id": lost, "reason": "VLLMValidationError: <b>4097</b> tokens", "replaced": False}
    target.write_table(predictions.QUARANTINE_FILE, pa.Table.from_pylist([row]))
    points = [{"share": 0.0, "log_loss": 1.05, "seconds": 0.0}, {"share": 0.3, "log_loss": 1.01, "seconds": 21.5}]
    counts = {"requests": 184, "distinct_requests": 182, "records_in_both_orders": 92, "tokens": 12345, "failed": 1}
    metrics = {
        **counts,
        "core_seconds": 21.5,
        "gpu_seconds": 0.0,
        "position": {"records": 92, "flip_rate": 0.125, "first_share": 0.55},
        "cascade": {"model": "good", "share": 0.3, "points": points},
    }
    records = target.read_json("manifest.json")["inputs"]
    Stage("score_llm/asked", target, {}, records).commit(rows={}, metrics=metrics)


def leave_what_training_leaves(run):
    """Importances, a search, a study of sources, a training curve and a catalog, as the jobs write them."""
    shares = {"length": 0.5, "words": 0.2, "vocabulary": 0.15, "entities": 0.1, "style": 0.03, "tone": 0.02}
    importance = {"feature": [f"{name}_1" for name in shares], "family": list(shares)}
    shap = [10 * share for share in shares.values()]
    table = pa.table({**importance, "gain_share": list(shares.values()), "shap": shap})
    (run / "models/good").write_table("importance.parquet", table)
    trials = "trial,log_loss,rounds,stopped,seconds,at\n0,1.02,40,0,3.5,3.5\n1,1.05,20,1,1.5,5.25\n"
    (run / "tune/good").write_bytes("trials.csv", trials.encode())
    best = {"parameters": {"learning_rate": 0.05, "num_leaves": 7, "boosting": "gbdt"}, "log_loss": 1.02}
    Stage("tune/good", run / "tune/good", {}).commit({"train": 90}, metrics={"best": best})
    source = {"weight": 0.5, "rows": 1, "gain": -0.001, "ci95": [-0.003, 0.002], "used_in_folds": 0}
    Stage("sources", run / "sources", {}).commit({}, metrics={"sources": {"others": source}})
    history = [{"loss": 1.1, "stage": 0}, {"loss": 1.08, "stage": 0, "held_out_log_loss": 1.09}]
    (run / "models/partly/fold-0").write_json("history.json", history)
    Stage("train_encoder/partly", run / "models/partly", {}).commit({}, metrics={"core_seconds": 14.0})
    entry = {"family": "length", "feature": "chars", "view": "a", "unit": "up to 9", "description": "of 1 text"}
    Stage("featurize", run / "features", {}).commit({}, extra={"catalogue": [entry, {**entry, "columns": 4}]})


def metrics_of(folder):
    return json.loads((folder / "run/report/metrics.json").read_text())


def page_of(folder):
    return (folder / "run/report/index.html").read_text(encoding="utf-8")


def test_every_number_of_the_page_stands_in_metrics_json(made):
    metrics, page = metrics_of(made), read_page(page_of(made))
    assert len(page.numbers) > 500
    for number in page.numbers:
        value = value_at(metrics, number.key)
        shown = format(value, number.form)
        assert number.text == (shown if isinstance(value, str) else shown.replace("-", "−")), number
    assert page.unmarked == []
    sections = {number.key.split("/")[1] for number in page.numbers}
    assert sections == set(metrics)  # every part of the file is shown
    assert any(number.key.startswith("/blend/analysis/fallbacks/0/") for number in page.numbers)


def test_models_are_scored_side_by_side(made):
    metrics, page = metrics_of(made), page_of(made)
    named = {**metrics["baselines"], **metrics["models"], **metrics["blend"]["variants"]}
    models = {"good", "poor", "partly", "asked"}
    assert set(named) == {"uniform", "class prior", "length only", *BLEND_NAMES} | models
    assert metrics["models"]["partly"]["folds"] == [0]
    assert metrics["models"]["partly"]["cost"] == {"core_seconds": 50.0, "gpu_seconds": 0.0}
    assert metrics["models"]["asked"]["records"] == 89
    del named["partly"], named["asked"]  # on fewer records than the others
    for values in named.values():
        assert f">{values['oof_log_loss']:.4f}<" in page
        assert values["ci95"][0] - 1e-9 <= values["oof_log_loss"] <= values["ci95"][1] + 1e-9
        by_vote = sum(values["log_loss_by_vote"][label] * count for label, count in metrics["labels"].items())
        assert np.isclose(by_vote / metrics["rows"], values["oof_log_loss"])
    assert metrics["blend"]["oof_log_loss"] == metrics["blend"]["variants"]["learned"]["oof_log_loss"]
    assert np.isclose(metrics["baselines"]["uniform"]["oof_log_loss"], np.log(3))
    assert metrics["models"]["good"]["cost"] == {"core_seconds": 36.0, "gpu_seconds": 0.0}
    summary = metrics["summary"]
    assert summary["best_model"] == "asked"
    assert summary["best_model_lacks"] == 1
    with_prior = 89 * metrics["models"]["asked"]["oof_log_loss"] + loss_of_the_lost(made)
    assert np.isclose(summary["over_best_model"]["gain"], with_prior / 90 - metrics["blend"]["oof_log_loss"])
    assert "asked (not all records)" in page
    assert "<b>Warning: <bdi data-text>asked</bdi> may have been trained on these votes.</b>" in page


def loss_of_the_lost(made):
    """Log loss of the class prior on the record that `asked` does not predict."""
    place = Folder(f"{made}/run/records")
    votes = Records(place, place.read_json("manifest.json")).votes()
    return -np.log(class_prior_baseline(votes)[10, votes.labels[10]])


def test_slices_calibration_and_bias_count_every_record(made):
    metrics = metrics_of(made)
    by: dict[str, int] = {}
    for each in metrics["slices"]:
        by[each["by"]] = by.get(each["by"], 0) + each["rows"]
    assert {by[name] for name in ("turns", "length", "language", "code", "vote")} == {90}
    models = {each["slice"]: each["rows"] for each in metrics["slices"] if each["by"] == "model"}
    assert models == {"m1": 89, "m2": 90}  # and not the one name of a single record
    of_votes = [each for each in metrics["slices"] if each["by"] == "vote"]
    mean = sum(each["rows"] * each["oof_log_loss"] for each in of_votes) / 90
    assert np.isclose(mean, metrics["blend"]["oof_log_loss"])
    for bins in metrics["calibration"]["reliability"].values():
        assert sum(each["count"] for each in bins) == 90
    confusion = metrics["calibration"]["confusion"]
    assert {vote: sum(row.values()) for vote, row in confusion.items()} == metrics["labels"]
    assert sum(each["count"] for each in metrics["bias"]["length"]) == 90
    position = metrics["bias"]["position"]["predicted"]
    assert position["poor"]["lean_ci95"][0] > 0
    assert position["poor"]["exchange"] == {"records": 90, "flip_rate": 0.25, "first_share": 0.625}
    assert position["good"]["exchange"] is None
    assert position["asked"]["exchange"]["flip_rate"] == 0.125
    assert position["good"]["lean"] < position["poor"]["lean"]
    both = {name: each["both_orders"] for name, each in position.items()}
    judges = metrics["judges"]  # an LLM that judges is one of them; no table has any
    assert set(judges) == {"good", "poor", "partly", "asked", "blend"}
    assert judges["asked"]["position"] == position["asked"]["exchange"]
    assert judges["asked"]["kind"] == "model"
    assert both == {"good": True, "poor": False, "partly": True, "asked": True, "blend": False}
    style = {each["feature"]: each for each in metrics["bias"]["style"]}
    assert set(style) == {"length", "position"}  # no answer has headers, lists or bold
    assert style["length"]["votes_ci95"][0] > 0  # these votes go to the longer answer


def test_duplicates_and_quarantine_are_counted(made):
    data = metrics_of(made)["data"]
    assert data["rows"] == {"train": 90, "test": 2, "source-others": 1, "quarantine": 1}
    assert sum(each["rows"] for each in data["quarantine"]) == 1
    found = data["duplicates"]
    assert found["exact"] == {"train": 4, "test_in_train": 1}
    assert found["near"]["train"] >= 4
    assert found["near"]["test_in_train"] >= 1
    assert found["without"][0]["rows"] == 90 - found["near"]["train"] + found["near"]["clusters"]


def test_hostile_texts_are_shown_as_text(made):
    text = page_of(made)
    page = read_page(text)
    assert "script" not in page.tags
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert "img" not in page.tags
    assert page.addresses
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    worst = metrics_of(made)["worst"]
    assert {each["row"] for each in worst[: len(HOSTILE)]} == set(HOSTILE)
    assert all(np.isclose(each["loss"], -np.log(each["probabilities"][each["vote"]])) for each in worst)
    assert "&lt;script&gt;document.title" in text
    assert "{{ 7 * 7 }}" in text
    assert ARABIC in text
    assert LONG in text  # the whole of it, folded away
    assert "half a pair: \ufffd and \ufffd \ufffd" in text
    assert not re.search("[\ud800-\udfff\x00\x1b]", text)
    assert "<i>null</i>" in text
    texts = re.findall(r'<(?:div|span) class="text[^>]*>', text)
    assert len(texts) >= 3 * len(worst)
    assert all('dir="auto"' in tag for tag in texts)


def test_every_figure_has_a_title_axes_and_a_text_instead(made):
    text = page_of(made)
    page = read_page(text)
    figures = page.figures
    # Losses, gains, three reliability diagrams, length, judges, style, slices, families, a search, a curve, timeline.
    assert len(figures) == 13
    for title, described in figures:
        assert len(page.labels[title]) > 20
        assert any(map(str.isdigit, page.labels[described]))  # what the picture shows, in numbers
    assert len(page.labels) == 1 + 2 * len(figures)  # and the page's own title
    drawn = re.findall(r'<svg viewBox="0 0 400.*?</svg>', text, re.DOTALL)
    assert len(drawn) == len(figures)
    assert all('class="axis"' in svg and 'class="tick"' in svg for svg in drawn)


def test_the_blend_is_reported_as_it_was_submitted_and_columns_are_made_once(made):
    columns = {path: path.stat().st_mtime_ns for path in (made / "run/report/columns").rglob("*.parquet")}
    assert len(columns) == 4
    assert job(made, report, "ray.cpus=2") == 0
    assert metrics_of(made)["blend"]["submission"] == "learned"
    assert {path: path.stat().st_mtime_ns for path in columns} == columns
    assert job(made, report) == 0


def test_a_blend_of_other_predictions_is_not_reported(made, capsys):
    assert job(made, report, "blend.length_debias=false") == 2
    assert "blend was built with other settings: length_debias" in capsys.readouterr().err
    manifest = made / "run/predictions/poor/manifest.json"
    before = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(before), "fingerprint": "another"}))
    try:
        assert job(made, report) == 2
        assert "blend was built with other inputs: poor" in capsys.readouterr().err
    finally:
        manifest.write_text(before)


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
def test_the_page_in_a_browser(made, tmp_path):
    """No script of a record runs, nothing is asked for, and no screen has to be scrolled sideways."""
    page = made / "run/report/index.html"
    with browser(tmp_path) as chromium:
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                chromium.open(page, width, scheme=scheme)
                chromium.run("document.querySelectorAll('details').forEach(each => each.open = true)")
                shown = chromium.run(
                    "return [document.title, document.documentElement.scrollWidth, window.innerWidth,"
                    " getComputedStyle(document.body).backgroundColor]"
                )
                assert shown[0] == "Tiebreak report"
                assert shown[1] <= shown[2] == width
                assert shown[3] == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
                assert chromium.logged("browser") == []
                assert set(chromium.requests()) <= {Path(page).as_uri(), "data:,"}
        chromium.open(page, 390)
        reversed_text = (
            "return [...document.querySelectorAll('[dir=auto]')].map(each => getComputedStyle(each).direction)"
        )
        assert "rtl" in chromium.run(reversed_text)
