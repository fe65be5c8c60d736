"""What jobs ask for: all of it is stated, fits on the nodes of every cluster file, and is refused where it cannot."""

import ast

import pytest
import ray

from core.errors import InputError
from core.resources import (
    NODE_TYPES,
    Request,
    count_fitting,
    fit_at_once,
    fits,
    request_table,
    require_capacity,
    resource_requests,
)
from core.settings.loader import load_settings
from tests.helpers.cluster_files import AWS, GCP, KUBERAY, may_come
from tests.helpers.commands import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PACKAGES = ["core", "votes", "featurize", "train", "tune", "infer", "report", "ray_jobs"]
# Every place in the code that asks Ray for something else than no or one CPU, and the request that states it.
STATED = {
    "infer/scoring/vllm_engine.py: placement_group_config={'bundles': bundles_per_engine(llm)}": "engine_request",
    "featurize/families/embeddings.py: num_cpus=settings.cpus_per_worker": "family_requests",
    "featurize/families/embeddings.py: num_gpus=settings.gpus_per_worker or None": "family_requests",
    "infer/scoring/capacity.py: placement_group(bundles)": "engine_request",
    "core/ray_session.py: num_cpus=int(elsewhere)": "one",
    "core/shards.py: num_cpus=cpus": "process_request, or one",
    "infer/encoders.py: num_cpus=encoder.cpus_per_worker": "workers_request",
    "infer/encoders.py: num_gpus=encoder.gpus_per_worker or None": "workers_request",
    "core/placement.py: placement_group([{'CPU': cpus}] * bundles)": "fold_request",
    "train/finetune/fold_trainer.py: resources_per_worker=worker_resources(settings)": "workers_request",
    "tune/search.py: tune.with_resources(..., {'CPU': job.recipe.settings.cpus_per_worker})": "process_request",
}
ASKING = {"num_cpus", "num_gpus", "memory", "resources_per_worker", "placement_group_config"}


def settings_of(path, *overrides):
    return load_settings(path.read_text(encoding="utf-8"), path.name, list(overrides))


def asked_for(path):
    """The places in a file that ask Ray for resources, but for those that ask for no or one CPU."""
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg in ASKING and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value in (0, 1)
            ):
                yield f"{name}: {keyword.arg}={ast.unparse(keyword.value)}"
        called = ast.unparse(node.func)
        if called == "placement_group":
            yield f"{name}: {ast.unparse(node)}"
        if called.endswith("with_resources"):
            yield f"{name}: {called}(..., {ast.unparse(node.args[1])})"


def test_whatever_the_code_asks_for_is_stated():
    found = {place for package in PACKAGES for path in (ROOT / package).rglob("*.py") for place in asked_for(path)}
    assert found == set(STATED)


@pytest.mark.parametrize("cluster", [AWS, GCP, KUBERAY], ids=lambda path: path.name)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_job_of_every_configuration_fits_on_the_nodes_of_every_cluster(config, cluster):
    types = may_come(cluster)
    for request in resource_requests(settings_of(config)):
        assert fits(request, [], types), f"{request.job}: {request.what} needs {request}"


@pytest.mark.parametrize("cluster", [AWS, GCP, KUBERAY], ids=lambda path: path.name)
def test_what_no_node_has_does_not_fit(cluster):
    types = may_come(cluster)
    asks = settings_of(ROOT / "configs/demo.yaml", "boosters.lightgbm.cpus_per_worker=17")
    assert [each.what for each in resource_requests(asks) if not fits(each, [], types)] == [
        "lightgbm: a fold",
        "lightgbm: a shard",
    ]
    without_gpus = [(node, count) for node, count in types if "GPU" not in node]
    lacking = [
        each.what
        for each in resource_requests(settings_of(ROOT / "configs/llm.yaml"))
        if not fits(each, [], without_gpus)
    ]
    assert lacking == [
        "gemma-lora: a fold's workers",
        "llama-lora: a fold's workers",
        "gemma: an engine",
        "llama: an engine",
    ]


def test_requests_are_those_of_the_settings():
    demo = settings_of(
        ROOT / "configs/demo.yaml",
        "boosters.lightgbm.cpus_per_worker=2",
        "boosters.lightgbm.num_workers=3",
        "tune=[{booster: lightgbm}]",
        "llms.gemma.gpus_per_worker=2",
        "llms.gemma.cpus_per_worker=5",
    )
    stated = {(each.job, each.what): (dict(each.bundle), each.count) for each in resource_requests(demo)}
    assert stated["train_boosters", "lightgbm: a fold"] == ({"CPU": 2}, 3)
    assert stated["tune", "lightgbm: a trial"] == ({"CPU": 2}, 1)
    assert stated["predict", "lightgbm: a shard"] == ({"CPU": 2}, 1)
    assert stated["score_llm", "gemma: an engine"] == ({"CPU": 3, "GPU": 1}, 2)
    assert stated["score_llm", "llama: an engine"] == ({"CPU": 1}, 1)
    assert {job for job, _ in stated} == {
        "ingest", "featurize", "tune", "train_boosters", "score_llm", "blend", "report", "predict",
    }  # fmt: skip
    encoder = settings_of(
        ROOT / "configs/encoder.yaml",
        "finetune.encoders.deberta.num_workers=4",
        "finetune.encoders.deberta.cpus_per_worker=2",
    )
    stated = {(each.job, each.what): (dict(each.bundle), each.count) for each in resource_requests(encoder)}
    assert stated["train_encoder", "deberta: a fold's workers"] == ({"CPU": 2, "GPU": 1}, 4)


def test_a_dry_run_tells_them():
    lines = request_table(settings_of(ROOT / "configs/llm.yaml")).splitlines()
    assert [line.split() for line in lines if "gemma: an engine" in line] == [
        ["score_llm", "gemma:", "an", "engine", "1", "CPU", "and", "1", "GPU"]
    ]


@pytest.mark.parametrize(
    ("bundle", "count", "nodes", "to_come", "fit"),
    [
        ({"CPU": 2}, 1, [{"CPU": 2}], [], True),
        ({"CPU": 2}, 1, [{"CPU": 1}, {"CPU": 1}], [], False),
        ({"CPU": 2}, 3, [{"CPU": 4}, {"CPU": 3}], [], True),
        ({"CPU": 2}, 4, [{"CPU": 4}, {"CPU": 3}], [], False),
        ({"CPU": 2}, 4, [{"CPU": 4}, {"CPU": 3}], [({"CPU": 2}, 4)], True),
        ({"CPU": 2}, 4, [{"CPU": 4}, {"CPU": 3}], [({"CPU": 2}, 3)], False),  # the two may be among the three
        ({"CPU": 2}, 4, [], [({"CPU": 2}, 1), ({"CPU": 6}, 1)], True),
        ({"CPU": 2, "GPU": 1}, 1, [{"CPU": 8}], [({"CPU": 1, "GPU": 1}, 9)], False),
        ({"CPU": 2, "GPU": 1}, 1, [{"CPU": 0, "GPU": 0}], [({"CPU": 2, "GPU": 1}, 1)], True),
    ],
)
def test_each_part_needs_one_node(bundle, count, nodes, to_come, fit):
    assert fits(Request("job", "work", bundle, count), nodes, to_come) is fit


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for the cluster that Ray is connected to: a head without CPUs and a worker with four."""
    nodes = [{"Alive": True, "Resources": {"node:head": 1.0}}, {"Alive": True, "Resources": {"CPU": 4.0}}]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(NODE_TYPES, raising=False)
    return monkeypatch


FOLD = Request("train_boosters", "lightgbm: a fold", {"CPU": 8}, key="boosters.lightgbm.cpus_per_worker")
ENGINE = Request("score_llm", "gemma: an engine", {"CPU": 1, "GPU": 1}, key="llms.gemma")


def test_what_a_cluster_that_cannot_grow_lacks_is_refused(cluster):
    require_capacity(Request("train_boosters", "lightgbm: a fold", {"CPU": 4}))
    with pytest.raises(InputError) as refused:
        require_capacity(FOLD)
    assert str(refused.value) == (
        "boosters.lightgbm.cpus_per_worker: needs 8 CPUs, but on this cluster the largest node has 4 CPUs. "
        "Fix: lower it, or use a larger cluster."
    )


def test_what_the_autoscaler_may_add_is_waited_for(cluster):
    cluster.setenv("RAY_ADDRESS", "auto")
    cluster.setenv(NODE_TYPES, '[[{"CPU": 16}, 4], [{"CPU": 8, "GPU": 1}, 2]]')
    require_capacity(FOLD)
    require_capacity(ENGINE)


def test_what_not_even_the_autoscaler_has_is_refused(cluster):
    cluster.setenv("RAY_ADDRESS", "auto")
    cluster.setenv(NODE_TYPES, '[[{"CPU": 16}, 4]]')
    require_capacity(FOLD)
    with pytest.raises(
        InputError, match=r"needs 1 CPU and 1 GPU, but .* 16 CPUs and 0 GPUs, even when fully scaled up"
    ):
        require_capacity(ENGINE)


def test_where_nobody_knows_what_may_come_the_job_says_what_is_missing_and_waits(cluster, capsys):
    cluster.setenv("RAY_ADDRESS", "auto")
    require_capacity(ENGINE)
    said = capsys.readouterr().err
    assert "gemma: an engine needs 1 CPU and 1 GPU, but the largest node has 4 CPUs and 0 GPUs" in said
    assert "waiting for more nodes, or stop it and lower llms.gemma" in said


def test_as_many_at_once_as_there_is_room_for_or_may_come(cluster):
    pair = Request("train_encoder", "deberta: a fold's workers", {"CPU": 1}, count=2)
    assert count_fitting(pair, 10) == 2
    assert count_fitting(pair, 1) == 1
    assert count_fitting(Request("train_encoder", "deberta: a fold's workers", {"CPU": 3}), 10) == 1
    cluster.setenv(NODE_TYPES, '[[{"CPU": 16}, 1]]')
    assert count_fitting(pair, 10) == 8
    assert count_fitting(pair, 5) == 5
    # Such nodes do not come: one that waits for what there is.
    assert count_fitting(Request("train_encoder", "deberta: a fold's workers", {"CPU": 1, "GPU": 1}), 10) == 1


def test_different_things_are_at_once_where_there_is_room_for_all_of_them(cluster):
    one, pair, two, large = (
        Request("score_llm", "an engine", {"CPU": cpus}, count) for cpus, count in ((1, 1), (1, 2), (2, 1), (3, 1))
    )
    assert fit_at_once([pair, pair])
    assert fit_at_once([one, large])
    assert not fit_at_once([pair, large])
    cluster.setenv(NODE_TYPES, '[[{"CPU": 4}, 2]]')
    assert fit_at_once([pair, large, large])
    assert not fit_at_once([large, two, large]), "eight CPUs, but on two nodes"
