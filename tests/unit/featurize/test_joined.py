"""Families of numbers that are joined to records: verdicts of judges, and numbers from the user's tables."""

import json

import numpy as np
import pyarrow as pa
import pytest

from core.errors import InputError
from core.filesystems import list_input_files
from core.registry import FAMILIES
from core.run import Run
from core.settings.features import FeatureTable
from core.settings.loader import load_settings
from core.stage import SCHEMA_VERSION
from core.storage import Folder
from featurize import external
from featurize.blocks import swap_columns
from featurize.external import find_external_file, make_external, require_external
from featurize.joined import JoinedFamily
from featurize.outputs import plan_outputs
from votes.readers.rows import ReadOptions
from votes.records import Records
from votes.verdicts import stage as verdict_stage
from votes.verdicts.join import Trained
from votes.verdicts.stage import make_verdicts

IDS = ["1", "2", "3", "4"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs the work of workers in this process."""
    for module in (external, verdict_stage):
        monkeypatch.setattr(module, "run_on_worker", lambda run, function, *arguments: function(*arguments))


def run_with(tmp_path, settings="", name="run", splits=("train",), ids=IDS):
    """A run with records that have ids and models alone."""
    folder = Folder(str(tmp_path / name))
    shards = {}
    for split in splits:
        for number, part in enumerate((ids[:3], ids[3:])):
            table = {"id": part if split == "train" else [f"new{one}" for one in part]}
            models = {"model_a": [f"m{one}" for one in part], "model_b": ["n"] * len(part)}
            file = f"{split}/part-{number:05d}.parquet"
            (folder / "records").write_table(file, pa.table({**table, **models}))
            shards[file] = len(part)
    manifest = {
        "rows": {split: len(ids) for split in splits},
        "shards": shards,
        "inputs": {},
        "settings": {},
        "schema_version": SCHEMA_VERSION,
        "fingerprint": "records",
    }
    return Run(load_settings(f"run: {folder.uri}\n{settings}", "test")), Records(folder / "records", manifest)


def write(tmp_path, content, name="table.csv"):
    (tmp_path / name).write_text(content)
    return tmp_path / name


def numbers(tmp_path, content, settings="", **others):
    """The columns of a table, by name."""
    table = write(tmp_path, content)
    run, records = run_with(tmp_path, f"features: [{{path: {table}{settings}}}]", **others)
    make_external(run, records)
    return matrix(run, records, "external")


def matrix(run, records, name, split="train"):
    family: JoinedFamily = FAMILIES.get(name)
    fitted = json.loads(json.dumps(family.fit_columns(run, records)))
    values = family.matrix(run, split, records.rows(split), fitted)
    columns = family.columns(fitted)
    assert values.shape == (records.rows(split), len(columns))
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.family == name and column.unit and column.description for column in columns)
    permutation, signs = swap_columns(columns)
    return {column.name: values[:, n].tolist() for n, column in enumerate(columns)}, values, permutation, signs


def test_the_two_sides_of_a_number_have_the_views_of_text_features(tmp_path):
    columns, *_ = numbers(tmp_path, "id,reward_a,reward_b,cosine\n2,1,4,0.5\n1,3,-1,0.25\n3,2,2,\n")
    assert columns == {
        "external_reward_a": [3, 1, 2, 0],
        "external_reward_b": [-1, 4, 2, 0],
        "external_reward_difference": [4, -3, 0, 0],
        "external_reward_ratio": pytest.approx([4 / 5, -3 / 6, 0, 0]),
        "external_reward_missing_pair": [0, 0, 0, 1],
        "external_cosine_pair": [0.25, 0.5, 0, 0],
        "external_cosine_missing_pair": [0, 0, 1, 1],
    }


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("{r: [reward_a, left_b]}", {"external_r_a": [3, 1, 2, 0], "external_r_difference": [2, 0, 1, 0]}),
        ("{r: {difference: reward_a}}", {"external_r_difference": [3, 1, 2, 0]}),
        ("{r: reward_a}", {"external_r_pair": [3, 1, 2, 0]}),
        ("[reward_a]", {"external_reward_a_pair": [3, 1, 2, 0]}),
    ],
)
def test_columns_are_named_by_the_settings(tmp_path, columns, expected):
    content = "uid,reward_a,left_b,id\n2,1,1,x\n1,3,1,x\n3,2,1,x\n"
    named, *_ = numbers(tmp_path, content, f", id: uid, columns: {columns}")
    assert expected.items() <= named.items()


def test_rows_that_do_not_join_are_quarantined_with_their_reasons(tmp_path):
    content = "id,x,y\n1,1,1\n1,2,1\n9,1,1\n2,high,1\n3,inf,1\n4,,1\n,1,1\n"
    table = write(tmp_path, content)
    run, records = run_with(tmp_path, f"features: [{{path: {table}}}]")
    result = make_external(run, records)
    rows = (run.folder / "external").read_table("quarantine.parquet").to_pylist()
    assert {row["row"]: row["reason"] for row in rows} == {
        2: "another row has this id",
        3: "no record has this id or these texts",
        4: "x is not a finite number: 'high'",
        5: "x is not a finite number: 'inf'",
        7: "missing id",
    }
    assert json.loads(rows[1]["raw"]) == {"id": "9", "x": "1", "y": "1"}
    assert result.manifest["rows"] == {"train": 2, "quarantine": 5}
    assert any("such as 9" in note for note in result.notes)
    columns, *_ = matrix(run, records, "external")
    assert columns["external_x_pair"] == [1, 0, 0, 0]
    assert columns["external_x_missing_pair"] == [0, 1, 1, 1]
    assert columns["external_y_missing_pair"] == [0, 1, 1, 0]


def test_models_in_the_other_order_exchange_the_numbers(tmp_path):
    content = "id,model_a,model_b,x_a,x_b,d\n1,m1,n,1,2,3\n2,n,m2,1,2,3\n3,n,m9,1,2,3\n"
    columns, *_ = numbers(tmp_path, content, ", columns: {x: [x_a, x_b], d: {difference: d}}")
    assert columns["external_x_a"] == [1, 2, 0, 0]
    assert columns["external_d_difference"] == [3, -3, 0, 0]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("id,x\n1,1\n", ", columns: [z]", "no column 'z'"),
        ("name,x\n1,1\n", "", "no column with an id"),
        ("id,text\n1,good\n", "", "no column with numbers"),
    ],
)
def test_a_table_without_its_columns_is_refused(tmp_path, content, settings, message):
    with pytest.raises(InputError, match=message):
        numbers(tmp_path, content, settings)


@pytest.mark.parametrize("columns", ["{x: {a: x}}", "{x: {a: x, pair: x}}", "[x, x]", "{}", "[]"])
def test_settings_name_both_sides_or_none(tmp_path, columns):
    with pytest.raises(InputError):
        run_with(tmp_path, f"features: [{{path: t.csv, columns: {columns}}}]")


def test_tables_name_the_family(tmp_path):
    default, _ = run_with(tmp_path, "features: [{path: t.csv}]")
    assert default.settings.featurize.names[-1] == "external"
    some, _ = run_with(tmp_path, "features: [{path: t.csv}]\nfeaturize: {families: [external, length]}")
    assert some.settings.featurize.names == ["external", "length"]
    again = load_settings(some.settings.model_dump_json(), "again")
    assert again == some.settings
    without, _ = run_with(tmp_path)
    assert "external" not in without.settings.featurize.names


def test_new_pairs_have_the_columns_of_training(tmp_path):
    table = write(tmp_path, "id,x,y_a,y_b\n1,1,2,3\n")
    trained, records = run_with(tmp_path, f"features: [{{path: {table}}}]")
    make_external(trained, records)
    fitted = FAMILIES.get("external").fit_columns(trained, records)

    manifest = require_external(trained)
    finished = Trained.of(records, trained.settings.features, manifest), manifest["metrics"]["columns"]

    def values(content):
        table = write(tmp_path, content, "new.csv")
        new, pairs = run_with(tmp_path, f"features: [{{path: {table}}}]", "new", ("test",))
        make_external(new, pairs, *finished)
        return FAMILIES.get("external").matrix(new, "test", 4, fitted)

    expected = np.array([[0, 1, 2, 3, -1, -1 / 6, 0], [0, 1, 0, 0, 0, 0, 1]], np.float32)
    assert (values("id,y_b,y_a,x,z\nnew1,3,2,,7\n")[:2] == expected).all()
    with pytest.raises(InputError, match="'y_a', 'y_b'"):
        values("id,x\nnew1,3\n")
    new, pairs = run_with(tmp_path, "", "none", ("test",))
    make_external(new, pairs, *finished)
    nothing = FAMILIES.get("external").matrix(new, "test", 4, fitted)
    assert nothing.tolist() == [[0, 1, 0, 0, 0, 0, 1]] * 4
    digests = FAMILIES.get("external").joined_digests
    assert digests(new)["train"] == digests(trained)["train"]


def test_ids_of_a_runs_own_table_are_not_those_of_new_pairs(tmp_path):
    """New pairs without ids are numbered, as training records may be."""
    trained, records = run_with(tmp_path, f"features: [{{path: {write(tmp_path, 'id,x')}}}]", ids=["new1", *IDS[1:]])
    write(tmp_path, "id,x\nnew1,1\nnew2,1\n")
    make_external(trained, records)
    manifest = require_external(trained)
    finished = Trained.of(records, trained.settings.features, manifest), manifest["metrics"]["columns"]

    def joined(name, settings):
        new, pairs = run_with(tmp_path, settings, name, ("test",))
        make_external(new, pairs, *finished)
        return (new.folder / "external").read_table("test.parquet")["x_pair"].to_pylist()

    assert joined("same", f"features: [{{path: {tmp_path / 'table.csv'}}}]") == [None, 1, None, None]
    other = write(tmp_path, "id,x\nnew1,1\nnew2,1\n", "other.csv")
    assert joined("other", f"features: [{{path: {other}}}]") == [1, 1, None, None]


def test_files_depend_on_the_numbers_of_their_split_alone(tmp_path):
    def digests(content):
        table = write(tmp_path, content)
        run, records = run_with(tmp_path, f"features: [{{path: {table}}}]", splits=("train", "test"))
        make_external(run, records)
        return FAMILIES.get("external").joined_digests(run)

    first = digests("id,x\n1,1\nnew1,1\n")
    assert digests("id,x\nnew1,1\n1,1.0\n") == first
    changed = digests("id,x\n1,1\nnew1,2\n")
    assert (changed["train"] == first["train"], changed["test"] == first["test"]) == (True, False)
    changed = digests("id,x\n1,2\nnew1,1\n")
    assert (changed["train"] == first["train"], changed["test"] == first["test"]) == (False, True)


def test_files_of_new_pairs_depend_on_what_was_joined_in_training(tmp_path, monkeypatch):
    run, records = run_with(
        tmp_path, "features: [{path: t.csv}]\nfeaturize: {families: [external]}", splits=("train", "test")
    )

    def fingerprints(train, test):
        monkeypatch.setattr(JoinedFamily, "joined_digests", lambda family, run: {"train": train, "test": test})
        (output,) = plan_outputs(run, records)
        return output.fingerprint, output.by_split["train"], output.by_split["test"]

    first = fingerprints("1", "1")
    assert [a == b for a, b in zip(first, fingerprints("1", "2"), strict=True)] == [True, True, False]
    assert [a == b for a, b in zip(first, fingerprints("2", "1"), strict=True)] == [False, False, False]


def verdicts(tmp_path, content, name="run"):
    table = write(tmp_path, content, f"{name}.csv")
    run, records = run_with(tmp_path, f"judges: [{{path: {table}}}]\nfeaturize: {{families: [judges]}}", name)
    make_verdicts(run, records)
    return matrix(run, records, "judges")


VERDICTS = """id,judge,order,verdict
1,g,ab,A
1,g,ba,A
2,g,ab,A
2,g,ba,B
3,g,ab,tie
4,h,ba,B
"""


def test_verdicts_are_columns_of_their_judge(tmp_path):
    columns, *_ = verdicts(tmp_path, VERDICTS)
    assert columns["judges_g_side_difference"] == [2, 0, 0, 0]
    assert columns["judges_g_shown_first_difference"] == [0, 0, 0, 0]
    assert columns["judges_h_shown_first_difference"] == [0, 0, 0, -1]
    assert columns["judges_g_agreed_side_difference"] == [1, 0, 0, 0]
    assert columns["judges_g_ties_pair"] == [0, 0, 1, 0]
    assert columns["judges_g_chose_first_pair"] == [0, 2, 0, 0]
    assert columns["judges_g_disagreement_pair"] == [0, 1, 0, 0]
    assert columns["judges_g_single_pair"] == [0, 0, 1, 0]
    assert columns["judges_g_missing_pair"] == [0, 0, 0, 1]
    assert columns["judges_h_side_difference"] == [0, 0, 0, -1]
    assert columns["judges_h_missing_pair"] == [1, 1, 1, 0]


def test_exchanged_verdicts_are_exchanged_columns(tmp_path):
    _, values, permutation, signs = verdicts(tmp_path, VERDICTS)
    swapped = VERDICTS.translate(str.maketrans("AB", "BA")).replace("ab", "xx").replace("ba", "ab").replace("xx", "ba")
    _, exchanged, *_ = verdicts(tmp_path, swapped, "swapped")
    assert (values[:, permutation] * signs == exchanged).all()


def test_exchanged_numbers_are_exchanged_columns(tmp_path):
    settings = ", columns: {x: [x_a, x_b], d: {difference: d}, c: c}"
    _, values, permutation, signs = numbers(tmp_path, "id,x_a,x_b,d,c\n1,1,2,3,4\n2,-1,0,2,1\n", settings)
    _, exchanged, *_ = numbers(tmp_path, "id,x_b,x_a,d,c\n1,1,2,-3,4\n2,-1,0,-2,1\n", settings, name="swapped")
    assert (values[:, permutation] * signs == exchanged).all()


def test_the_family_of_verdicts_needs_tables(tmp_path):
    run, records = run_with(tmp_path, "featurize: {families: [judges]}")
    with pytest.raises(InputError, match="no tables of verdicts"):
        make_verdicts(run, records)


def test_columns_of_most_numbers_are_numeric(tmp_path):
    path = write(tmp_path, "id,x,t\n1,1,a\n2,-,b\n3,2,1\n")
    (file,) = list_input_files(str(path), (".csv",))
    table = FeatureTable(path=str(path))
    assert find_external_file(file, table, ReadOptions()).columns == {"x": {"pair": "x"}}
