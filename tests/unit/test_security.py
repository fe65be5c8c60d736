"""What SECURITY.md promises: hostile files run nothing, write nowhere else, and no secret is left behind."""

import ast
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.errors import InputError
from core.settings.loader import load_settings
from core.storage import Folder
from infer.scoring.checkpoint_checks import check_checkpoint
from tests.helpers.commands import ROOT

PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")
)
PLUGINS = ROOT / "core/registry.py"  # it runs the file of --plugin, which no settings file can name
RUN_ANYTHING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MARK = "ran.txt"


def nodes() -> list[tuple[Path, ast.AST]]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_nothing_that_is_read_can_be_code():
    assert {"core", "votes", "train", "infer", "ray_jobs"} <= set(PACKAGES)
    found = []
    for path, node in nodes():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{path}: {name}" for name in names if name.partition(".")[0] in RUN_ANYTHING]
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            unsafe = (
                called(node) in ("eval", "exec", "torch.load", "os.system", "Word2Vec.load", "pd.read_pickle")
                or (called(node) == "yaml.load" and given.get("Loader") != "_StrictLoader")
                or given.get("allow_pickle", "False") != "False"
                or given.get("trust_remote_code", "False") != "False"
                or given.get("shell", "False") != "False"
            )
            unsafe = unsafe and (path, called(node)) != (PLUGINS, "exec")
            found += [f"{path}:{node.lineno}: {ast.unparse(node)}"] if unsafe else []
            if called(node).endswith(".from_pretrained") and "Auto" in called(node):
                safe = "trust_remote_code" in given or given.get(None) in ("SAFE_LOADING", "options")
                safe = safe or any(
                    word.arg is None and ast.unparse(word.value) == "SAFE_LOADING" for word in node.keywords
                )
                found += [] if safe else [f"{path}:{node.lineno}: may fetch code: {ast.unparse(node)}"]
    assert found == []


def test_settings_are_data(tmp_path):
    for tag in (
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{tmp_path / MARK}]]",
        f"!!python/object/apply:os.system ['touch {tmp_path / MARK}']",
    ):
        with pytest.raises(InputError):
            load_settings(f"run: {tag}", "c.yaml")
        with pytest.raises(InputError):
            load_settings("run: x", "c.yaml", [f"seed={tag}"])
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    "text",
    [
        "finetune: {encoders: [{name: ../../x}]}",
        "llms: [{name: a/b, checkpoint: m}]",
        "boosters: [{name: ../x, engine: lightgbm}]",
        "data: {train: [{name: .., path: a.csv}]}",
        "llms: [{name: '', checkpoint: m}]",
    ],
)
def test_names_cannot_lead_out_of_the_run(text):
    with pytest.raises(InputError, match="name"):
        load_settings(f"run: r\n{text}", "c.yaml")


SECRET = "wJalr/K7MDENG"  # half of all secrets of AWS hold a slash


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIA:{SECRET}@bucket/x",
        "s3://AKIA:12/wJalr@bucket/x",
        f"s3://bucket/x?secret_key={SECRET}",
        f"gs://bucket/x?region=eu&session_token={SECRET}",
        f"s3://bucket/x?endpoint_override=http://AKIA:{SECRET}@minio:9000",
    ],
)
@pytest.mark.parametrize("setting", ["run", "data.train", "llms.0.checkpoint", "llms.misspelt.checkpoint", "llms.0=[x"])
def test_a_key_in_a_uri_is_refused_and_not_repeated(uri, setting, tmp_path, capsys):
    line = ["--config", str(ROOT / "configs/demo.yaml"), "--set", f"run={tmp_path}", "--set", f"{setting}={uri}"]
    assert cli.main(cli.Job("pipeline", None, lambda run: []), line) == 2
    said = capsys.readouterr()
    assert "the URI contains a key" in said.err
    for part in ("wJalr", "AKIA", "MDENG"):
        assert part not in said.err + said.out


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a:b/c@d?region=eu-west-1", "gs://anonymous@bucket/x", "hdfs://host:9000/x", "/data/a@b.csv"]
)
def test_other_places_are_no_keys(uri):
    assert load_settings(f"run: {uri}", "c.yaml").run == uri


class _Mark:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture
def model(tmp_path) -> Path:
    """A sequence classifier whose weights are a pickle that leaves a mark when it is read."""
    pytest.importorskip("transformers", reason="encoders are an extra")
    from tests.helpers.tiny_models import tiny_model

    folder = tiny_model(tmp_path / "model", "deberta-v2")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Mark(tmp_path / MARK)))
    return folder


def test_pickled_weights_are_refused_and_not_read(model, tmp_path):
    from tests.helpers.tiny_models import encoder_settings
    from train.finetune.networks import load_network

    with pytest.raises(InputError, match="safetensors"):
        load_network(str(model), encoder_settings(), seed=0)
    with pytest.raises(InputError, match="safetensors"):
        check_checkpoint(str(model), 90)
    assert not (tmp_path / MARK).exists()


def test_a_models_own_code_is_refused_and_not_run(model, tmp_path):
    from train.finetune.networks import load_config

    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "of_its_own", "auto_map": {"AutoConfig": "code.Config"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / MARK)!r}).touch()\n")
    with pytest.raises(InputError):
        load_config(str(model))
    assert not (tmp_path / MARK).exists()


def test_a_pickled_adapter_is_refused_and_not_read(model, tmp_path):
    from infer.scoring.modes.classify import Classify
    from train.finetune.adapters import merge_adapter

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "target_modules": ["query"]}')
    shutil.copy(model / "pytorch_model.bin", adapter / "adapter_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        merge_adapter(str(model), str(adapter), tmp_path / "merged", Classify().load_model)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("name", ["../stolen", "train/../../stolen", "/tmp/stolen"])
def test_names_from_manifests_and_listings_lead_nowhere_else(name, tmp_path):
    folder = Folder(str(tmp_path / "run"))
    (tmp_path / "stolen").write_text("{}")
    for use in (folder.read_json, folder.read_table, folder.delete, lambda name: folder.write_bytes(name, b"")):
        with pytest.raises(InputError, match="is outside the folder"):
            use(name)
    assert (tmp_path / "stolen").read_text() == "{}"
