"""Chats to tokens by a chat template, with a loss on the answers alone.

A chat is a list of messages, {"role": ..., "content": ...}. The template, in Jinja, is the tokenizer's own
(`chat_template` of tokenizer_config.json, or chat_template.jinja beside it) or a file. Where the answers stand is found
by rendering the beginnings of a chat: what an assistant's message adds to the prompt before it is an answer, its end
mark included. A token without a loss is kept as its complement, ~id, which is negative.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import numpy as np

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.corpus import Tokenizer
from longlode.corpus.encoding import guarded

TEMPLATE_NAME = "chat_template.jinja"
ANSWER_ROLE = "assistant"


class ChatTokenizer:
    """A tokenizer of chats, each given as the JSON of its messages. Picklable, for worker processes."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """Args: template, in Jinja, as of transformers. Raises: ConfigError for one that is not valid."""
        self.words, self.template = tokenizer, template
        self.vocab_size, self.eos_id = tokenizer.vocab_size, tokenizer.eos_id
        self.fingerprint = fingerprint([tokenizer.fingerprint, "chat", template])
        _compiled(template)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, and the template beside them."""
        self.words.save(folder)
        (folder / TEMPLATE_NAME).write_text(self.template, encoding="utf-8")

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode chats, each to int32 `[n]`: ids of the answers, complements (~id) of all other tokens.

        As in transformers, text that spells a special token is that token. The end of text that follows every document
        has a loss as well: it is the end of the last answer.
        Raises: InputError for text that is no chat, or one that the template refuses.
        """
        return [self._encode(_messages(text)) for text in texts]

    def _encode(self, messages: list[dict[str, Any]]) -> np.ndarray:
        whole, spans = self._render(messages)
        inner = _special(self.words)
        found = guarded(inner.encode, whole, add_special_tokens=False)
        ids = np.array(found.ids, dtype=np.int32)
        if not len(ids):
            return ids
        begin, end = np.array(found.offsets, dtype=np.int64).T
        is_answer = np.zeros(len(ids), dtype=bool)
        for start, stop in spans:
            # A token that reaches into what is no answer is none: the prompt asks for it.
            is_answer |= (begin >= start) & (end <= stop)
        return np.where(is_answer, ids, ~ids)

    def _render(self, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        """Render a chat; return it and where its answers stand, in characters."""
        whole, spans = self._text(messages), []
        for number, message in enumerate(messages):
            if message["role"] != ANSWER_ROLE:
                continue
            prompt = self._text(messages[:number], add_generation_prompt=True)
            until = self._text(messages[: number + 1])
            if not (whole.startswith(until) and until.startswith(prompt)):
                raise InputError(
                    f"the chat template does not add message {number + 1} at the end of what stands before it, so that "
                    "its place is not known; expected a template that renders a chat message by message"
                )
            spans.append((len(prompt), len(until)))
        return whole, spans

    def _text(self, messages: list[dict[str, Any]], add_generation_prompt: bool = False) -> str:
        names = {
            name: self.words.decode([self.eos_id])
            for name in ("eos_token", "bos_token")
            if self.eos_id is not None
        }
        try:
            return _compiled(self.template).render(
                messages=messages, add_generation_prompt=add_generation_prompt, **names
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise InputError(f"the chat template refuses the chat: {error}") from None


def find_template(folder: Path | None, given: str | Path | None) -> str:
    """Return the chat template: a file, or the one in a tokenizer's folder.

    Raises: InputError where there is none.
    """
    paths = [Path(given)] if given is not None else [] if folder is None else [folder / TEMPLATE_NAME]
    for path in paths:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    config = None if given is not None or folder is None else folder / "tokenizer_config.json"
    if config is not None and config.is_file():
        found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((one["template"] for one in found if one.get("name") == "default"), None)
        if isinstance(found, str):
            return found
    where = paths[0] if paths else "the tokenizer"
    raise InputError(
        f"{where} has no chat template. Name a file with a Jinja template (--chat-template), or a tokenizer that "
        "has one."
    )


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    # Blocks leave no line ends, as in transformers, for which templates are written; a sandbox, as they are data.
    world = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    world.globals["raise_exception"] = _refuse
    world.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
    try:
        return world.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"the chat template is not valid Jinja: {error}.") from None


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=2)
def _special(tokenizer: Tokenizer) -> Any:
    """Copy the inner tokenizer, to one that knows special tokens in a text."""
    inner = type(tokenizer.inner).from_str(tokenizer.inner.to_str())
    inner.no_truncation()
    inner.no_padding()
    inner.encode_special_tokens = False
    return inner


def _messages(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    is_chat = isinstance(found, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and "content" in one for one in found
    )
    if not is_chat or not found:
        raise InputError('this is no chat; expected a list of messages, [{"role": ..., "content": ...}, ...]')
    return found
