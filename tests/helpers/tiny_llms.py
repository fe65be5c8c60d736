"""Tiny random decoders in transformers' own files, with a head for A, B and tie or as models that write."""

from pathlib import Path

from featurize.tokens.packing import Packer, save_packing

SENTENCES = [
    "How do I sort a list in Python?",
    "Use sorted(values), which returns a new list; values.sort() sorts in place.",
    "Prompt: which answer is better? Response A: the first. Response B: the second.",
]
MAX_TOKENS = 512


CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[model]\n{% endif %}"
)


def make_checkpoint(
    folder: Path, architecture: str, kind: str = "ForSequenceClassification", head_dim: int = 32
) -> str:
    """A random model, with a head of three classes or none, whose probabilities differ a lot between records."""
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=350, special_tokens=["<s>", "<pad>"], show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", pad_token="<pad>", chat_template=CHAT
    )
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": head_dim,
        "max_position_embeddings": 1024,
        "num_labels": 3,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }
    if architecture == "Gemma2":  # its layers alternate between a window and the whole text: let the window matter
        config |= {"sliding_window": 64, "query_pre_attn_scalar": 32}
    torch.manual_seed(0)
    model_config = getattr(transformers, f"{architecture}Config")(**config)
    model = getattr(transformers, f"{architecture}{kind}")(model_config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_packing(Packer(tokenizer, MAX_TOKENS), folder)
    return str(folder)


# A scoring mode in a plugin's file: a judge with a question and answers of its own.
BALLOT = '''
from core.registry import MODES
from infer.scoring.modes.judge import Judge


@MODES.register
class Ballot(Judge):
    """Ask for a vote."""

    name = "ballot"
    summary = "A judge that votes X, Y or Z."
    question = "\\n\\nVote X for Response A, Y for Response B, Z for neither."
    answers = ("X", "Y", "Z")
'''
