"""Chats: rendered as transformers renders them, with a loss on the answers and on nothing else."""

import itertools
import json

import numpy as np
import pytest
import tokenizers

import longlode
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer, train_bpe
from longlode.packing import batches, open_shards
from longlode.packing.chat import ChatTokenizer

TEMPLATE = """{%- for message in messages %}
<|{{ message['role'] }}|>
{{ message['content'] | trim }}
<|end|>
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""
CHATS = [
    [
        ("system", "be short"),
        ("user", "the fox?"),
        ("assistant", "it runs."),
        ("user", "why"),
        ("assistant", "hounds!"),
    ],
    [("user", "<|end|> in a question"), ("assistant", "caf\u00e9 \u65e5\u672c <|endoftext|> ok")],
    [("user", "no answer yet")],
]


def messages(chat):
    return [{"role": role, "content": content} for role, content in chat]


@pytest.fixture(scope="module")
def words():
    plain = train_bpe(["the quick brown fox runs away, hounds! be short. it why <|user|>\n"] * 20, 300)
    inner = tokenizers.Tokenizer.from_str(plain.inner.to_str())
    inner.add_special_tokens(["<|user|>", "<|assistant|>", "<|end|>"])
    return Tokenizer(inner, {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE})


@pytest.fixture
def folder(tmp_path, words):
    words.save(tmp_path / "words")
    lines = [json.dumps({"id": f"c{i}", "messages": messages(chat)}) for i, chat in enumerate(CHATS)]
    lines += ['{"id": "bad", "messages": [{"who": 1}]}', '{"id": "text", "messages": "plain text"}']
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    return tmp_path


def packed(folder, name="out", **options):
    options = {"tokenizer": folder / "words", "length": 16, "chat": "messages"} | options
    return longlode.pack(folder / "chats.jsonl", folder / name, **options)


def expected(words, chat):
    """Pieces of the chat by hand, each with whether it is an answer."""
    pieces = []
    for role, content in chat:
        is_answer = role == "assistant"
        pieces += [(f"<|{role}|>\n", False), (f"{content}\n<|end|>\n", is_answer)]
    return pieces


def test_answers_alone_have_a_loss(folder, words):
    summary = packed(folder)
    assert (summary["num_documents"], summary["num_failed"]) == (3, 2)
    shards = open_shards(folder / "out", verify=True)
    assert shards.has_loss_mask
    inner = tokenizers.Tokenizer.from_str(words.inner.to_str())
    inner.encode_special_tokens = False
    for number, chat in enumerate(CHATS):
        pieces = expected(words, chat)
        found = shards.tokens(number)
        whole = inner.encode("".join(text for text, _ in pieces)).ids
        assert found.tolist() == [*whole, words.eos_id]
        learned = shards.has_loss(number)
        answers = "".join(text for text, is_answer in pieces if is_answer)
        assert inner.decode(found[learned].tolist(), skip_special_tokens=False) == (
            answers + "<|endoftext|>" if answers else ""
        )
        assert learned[-1] == (chat[-1][0] == "assistant")


def test_it_is_what_transformers_renders(folder, words):
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoTokenizer.from_pretrained(folder / "words")
    chats = ChatTokenizer(words, TEMPLATE)
    for chat in CHATS:
        found = chats.tokens([json.dumps(messages(chat))])[0]
        ids = other.apply_chat_template(messages(chat), tokenize=True, return_dict=False)
        assert np.where(found < 0, ~found, found).tolist() == ids


@pytest.mark.parametrize("packer", ["best_fit", "masked"])
def test_batches_ask_for_answers_alone(folder, words, packer):
    packed(folder)
    shards = open_shards(folder / "out")
    learned, after = set(), {}
    for document in range(3):
        ids, has_loss = shards.tokens(document).tolist(), shards.has_loss(document).tolist()
        for t, (this, following) in enumerate(itertools.pairwise(ids)):
            after[document, t] = (this, following if has_loss[t + 1] else -100)
        learned.add(sum(has_loss[1:]))
    batch = next(batches(shards, length=256, batch_size=1, seed=0, packer=packer, packed=True))
    edges = batch.cu_seqlens.tolist()
    totals = []
    for start, stop in itertools.pairwise(edges):
        labels, weights = (
            batch.labels[0, start:stop],
            None if batch.weights is None else batch.weights[0, start:stop],
        )
        pairs = list(zip(batch.tokens[0, start:stop].tolist(), labels.tolist(), strict=True))
        assert pairs[:-1] in [
            [pair for (d, _), pair in after.items() if d == document] for document in range(3)
        ]
        if weights is not None and (labels != -100).any():
            totals.append(weights[labels != -100].sum())
    assert {int((batch.labels[0, a:b] != -100).sum()) for a, b in itertools.pairwise(edges)} == learned
    assert packer == "best_fit" or totals == pytest.approx([totals[0]] * 2, rel=0.1)


def test_a_template_from_a_file_and_templates_that_cannot_be(folder, words):
    (folder / "own.jinja").write_text(TEMPLATE.replace("<|end|>", "<END>"))
    assert (
        packed(folder, "own", chat_template=folder / "own.jinja")["fingerprint"]
        != packed(folder)["fingerprint"]
    )
    assert (folder / "own" / "tokenizer" / "chat_template.jinja").read_text() == (
        folder / "own.jinja"
    ).read_text()
    (folder / "words" / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    with pytest.raises(InputError, match="no chat template"):
        packed(folder, "none")
    with pytest.raises(ConfigError, match="not valid Jinja"):
        ChatTokenizer(words, "{% for")
    first_only = (
        "{{ messages[0]['content'] }}{% if messages[1:] %}{{ raise_exception('only one') }}{% endif %}"
    )
    with pytest.raises(InputError, match="only one"):
        ChatTokenizer(words, first_only).tokens([json.dumps(messages(CHATS[1]))])
    backwards = "{% for m in messages[::-1] %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="place is not known"):
        ChatTokenizer(words, backwards).tokens([json.dumps(messages(CHATS[1]))])
