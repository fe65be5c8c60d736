"""Read chat messages and transcripts as rounds of one prompt and one answer.

A system turn is part of the prompt of its round. Tool turns are part of the answer. Images and files become a marker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from votes.comparison import InvalidRow, TurnTexts

_ROLES: Final = {
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("assistant", "model", "bot", "gpt", "ai", "chatbot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "ipython", "tool_response", "observation"), "tool"),
}
_TEXT_BLOCKS: Final = ("text", "input_text", "output_text", "refusal", "thinking", "reasoning")
_CALLS: Final = ("tool_use", "tool_call", "tool_result", "function_call", "functionCall", "functionResponse")
_CONTENTS: Final = ("content", "text", "parts", "value")
_SPEAKER: Final = re.compile(r"(?:^|\n\n)(Human|Assistant|System):[ \t]?")


class Message(NamedTuple):
    """One turn: who speaks (user, assistant, system, tool), the text, and how many images or files were left out."""

    role: str
    text: str | None
    attachments: int = 0


class Rounds(NamedTuple):
    """A conversation: the prompts and the answers, one of each for a round; the last answer may be missing."""

    prompts: TurnTexts
    answers: TurnTexts
    attachments: int


def read_messages(value: Any) -> list[Message] | None:  # noqa: ANN401 - a cell of any format
    """Return the messages of a list of {role, content}, {from, value} or [role, content]; None if it is no such list.

    Raises InvalidRow for an unknown role or content.
    """
    if not isinstance(value, list | tuple) or not value:
        return None
    messages = []
    for item in value:
        if isinstance(item, dict) and "role" in item:
            messages.append(Message(_role(item["role"]), *_read_message(item)))
        elif isinstance(item, dict) and "from" in item and "value" in item:
            messages.append(Message(_role(item["from"]), *read_content(item["value"])))
        elif isinstance(item, list | tuple) and len(item) == 2 and str(item[0]).lower() in _ROLES:
            messages.append(Message(_role(item[0]), *read_content(item[1])))
        else:
            return None
    return messages


def _read_message(item: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return the text of a message, with its calls of tools, and the number of its images and files."""
    content = item.get("content")
    if content and "tool_calls" not in item and "function_call" not in item:  # nearly all
        return read_content(content)
    name = next((name for name in _CONTENTS if item.get(name) is not None), None)
    calls = [item[name] for name in ("tool_calls", "function_call") if item.get(name)]
    if name is None and not calls and not any(name in item for name in _CONTENTS):
        raise InvalidRow("a message has no content")
    text, attachments = read_content(None if name is None else item[name])
    written = [json.dumps(call, ensure_ascii=False, default=str) for call in calls]
    return ("\n".join([text, *written] if text else written) if written else text), attachments


def read_content(content: Any) -> tuple[str | None, int]:  # noqa: ANN401 - a cell of any format
    """Return a message's text and the number of its images and files. Text blocks are joined. Raises InvalidRow."""
    if content is None or isinstance(content, str):
        return content, 0
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):  # as an arena has it
        block = content[0]
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            return block["text"], 0
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list | tuple):
        raise InvalidRow("a message's content is neither text nor a list of blocks")
    parts: list[str] = []
    attachments = 0
    for block in content:
        if block is None:
            continue
        if isinstance(block, str):
            parts.append(block)
            continue
        if not isinstance(block, dict):
            raise InvalidRow("a message's content is neither text nor a list of blocks")
        key = next((key for key in ("text", "refusal", "thinking", "reasoning") if key in block), None)
        kind = str(block.get("type") or ("text" if key else next(iter(block), "text")))
        if kind in _TEXT_BLOCKS:
            if key is None:
                raise InvalidRow(f"a block of the type {kind} has no text")
            text = block[key].get("value") if isinstance(block[key], dict) else block[key]
            if text is not None:
                parts.append(str(text))
        elif kind in _CALLS:
            parts.append(json.dumps(block, ensure_ascii=False, default=str))
        else:
            parts.append("[image]" if "image" in kind else f"[{kind.removeprefix('input_').removesuffix('_url')}]")
            attachments += 1
    return ("\n".join(parts) if parts else None), attachments


def read_transcript(text: str) -> list[Message] | None:
    """Return the messages of a transcript with lines "Human:" and "Assistant:"; None if it is no transcript."""
    marks = list(_SPEAKER.finditer(text))
    if not marks or text[: marks[0].start()].strip() or not any(mark[1] == "Human" for mark in marks):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        Message(_ROLES[mark[1].lower()], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    ]


def to_rounds(messages: Sequence[Message]) -> Rounds:
    """Return the rounds of a conversation. Messages of one speaker in a row are one turn."""
    prompts: list[list[str | None]] = []
    answers: list[list[str | None]] = []
    for message in messages:
        asks = message.role in ("user", "system")
        if asks and len(prompts) == len(answers):
            prompts.append([])
        if not asks and len(prompts) == len(answers) + 1:
            answers.append([])
        elif not asks and not prompts:  # it begins with an answer
            prompts.append([])
            answers.append([])
        (prompts if asks else answers)[-1].append(message.text)
    attachments = sum(message.attachments for message in messages)
    return Rounds([_join(turn) for turn in prompts], [_join(turn) for turn in answers], attachments)


def _join(parts: Sequence[str | None]) -> str | None:
    texts = [part for part in parts if part is not None]
    return "\n\n".join(texts) if texts or not parts else None


def _role(name: Any) -> str:  # noqa: ANN401 - a cell of any format
    role = _ROLES.get(str(name).strip().lower())
    if role is None:
        raise InvalidRow(f"unknown role {str(name)[:40]!r} in a conversation")
    return role
