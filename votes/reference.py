"""Generate the reference of vote formats, docs/formats.md, from the registries.

Run as: python -m votes.reference > docs/formats.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.registry import EXPORTS, FORMATS, VERDICT_FORMATS
from votes.export import VoteExport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from votes.format import VoteFormat
    from votes.verdicts.verdict import VerdictFormat

_PACKAGES = ("votes.formats.", "votes.exports.", "votes.verdicts.formats.")
_TEXT = """# Vote formats

`data.train` and `data.test` name a file, a folder, a glob or a URI. The format is recognized by the columns or
keys, never by the file's name. The log and `records/manifest.json` name it. `--set data.format=NAME` forces one.

Files are CSV (`,`, `;`, tab or `|`), JSON Lines, JSON or Parquet, plain or compressed (`.gz`, `.zst`). JSON is a
list of objects, an object with one list inside, or a table as pandas writes it. UTF-8 is expected, UTF-16 and
UTF-32 with a byte order mark are recognized, `data.encoding` names any other encoding.

{table}

Pairs to score need the columns of the texts alone.

## Any other table

`data.columns` names the columns. A list is a path of keys and positions inside a column:

```yaml
data:
  train: labels.jsonl
  columns:
    prompt: question
    response_a: [answers, 0]
    response_b: [answers, 1]
    winner: {{column: label, map: {{1: a, 2: b, 0: tie}}}}
    voter: annotator
```

`id`, `pair_id`, `voter`, `time`, `model_a`, `model_b` and `language` are optional. Without `map` a winner is `A`,
`model_a`, `left`, `tie`, `both_bad` and so on, in any spelling.

## How texts are read

- A text is a list of turns (JSON, or as Python and NumPy write lists), chat messages, or plain text. The kind is
  decided for the whole file, by most of its rows: one answer of a plain-text file may start like a list.
  `data.text_format` forces it.
- Messages become rounds. A system turn is part of its round's prompt, tool turns are part of the answer. Text
  blocks are joined. Images and files become a marker such as `[image]`, and the manifest counts them.
- Transcripts with `Human:` and `Assistant:` are split into turns.
- Where a format names the better answer first, A and B are drawn by a hash of the texts. A fixed order would teach
  the answer.
- A ranked list gives its pairs: all of them, or those that `data.pairs` names.

## How votes are read

- Rows with one `pair_id` are votes on one pair. So are rows of known voters with the same texts, rows with the
  same id and texts, and rows without an id with the same texts. The votes of a pair become one record with vote
  counts. Who voted stays in `records/voters/`. A pair that a row shows in the other order counts with its sides
  exchanged. One id with different texts ends the job.
- Shares that sum to 1 are a soft vote. A graded preference of strength s on a scale to m is (1 + |s|/m) / 2 for its
  side, the rest is a tie.
- `both_bad` counts as a tie unless `data.outcomes` names it. The log says so.

## Judges' verdicts

A table of `judges` is recognized by its columns, too. `judges.N.format` forces a format, `judges.N.columns` maps any
other table. Every format of votes above is read as well: its voters are the judges. In annotated pairs
the annotators that are not human are judges, in Label Studio the models of `predictions`.

{verdicts}

- A verdict is the name of a winner, one of `A>>B`, `A>B`, `A=B`, `B>A`, `B>>A`, probabilities, a preference from 1 (A)
  to 2 (B), or a score of each answer.
- Verdicts and scores name the record's own A and B, in whichever order the judge saw them. `order` (`ab` or `ba`) says
  which order that was; without it the order is unknown, and the position has no effect.
- Rows join by the texts where a table has them, else by the id. Where a table names the models of both answers in the
  other order than the record, its sides are exchanged.
- What is no verdict, joins no record, or is a second verdict of a judge on a pair in the same order goes to
  `judges/quarantine.parquet`, with its reason.

## Votes for other tools

`tiebreak convert --config FILE --set data.train=VOTES --set convert.to=trl --set convert.output=FILE` writes votes of
any format above in one of these shapes. What a shape cannot hold, such as a tie among chosen and rejected answers, is
counted and named.

{exports}

`convert.margins=true` adds ln P(chosen) / P(rejected) of the run's blend, out-of-fold, to trl; no other shape has a
place for it. It is negative where the blend prefers the rejected answer.
`convert.min_margin` leaves out the pairs about which the blend is less sure.
"""


def formats_page() -> str:
    """Return the page."""
    return _TEXT.format(
        table=_table("format", FORMATS), verdicts=_table("format", VERDICT_FORMATS), exports=_table("shape", EXPORTS)
    )


def _table(head: str, members: Iterable[VoteFormat | VoteExport | VerdictFormat]) -> str:
    are_exports = head == "shape"
    rows = [f"| {head} |{' file |' * are_exports} what it is | columns or keys |", f"|{'---|' * (3 + are_exports)}"]
    for member in sorted(members, key=lambda member: member.name):
        if not type(member).__module__.startswith(_PACKAGES):  # a plugin's
            continue
        title, _, columns = member.summary.partition(": ")
        ending = f" `{member.ending}` |" if isinstance(member, VoteExport) else ""
        rows.append(f"| `{member.name}` |{ending} {title} | {columns} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(formats_page(), end="")
