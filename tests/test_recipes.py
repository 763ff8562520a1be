"""Recipes: the fit of the coherence score on rows of known make, the starter's shuffled copies and second stage."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from longlode.corpus import Document, Unreadable, in_heldout
from longlode.mining.coherence.features import read_weights
from longlode.train import Recipe, build_model
from recipes import make_coherence
from recipes.make_starter import (
    FAR_RECIPE,
    PASSAGE_CHARS,
    RECIPE,
    with_new_layers,
    with_shuffled_copies,
)

FEATURES = make_coherence.TEXT + make_coherence.ORDER + make_coherence.SEAMS


def made_rows(lengths, num=60):
    """Rows whose `order` tells at the first length, and whose `far_rare_60` tells at the others."""
    rng = np.random.default_rng(0)
    for length in lengths:
        telling = "order" if length == lengths[0] else "far_rare_60"
        for number in range(num):
            label = ("coherent", "glued", "shuffled")[number % 3]
            features = dict(zip(FEATURES, rng.normal(size=len(FEATURES)), strict=True))
            features[telling] += 3.0 if label == "coherent" else -3.0
            yield length, label, "book", features | {"length": float(np.log(length))}


def test_the_fit_writes_weights_that_tell_at_each_length_what_tells_there(tmp_path):
    rows = list(made_rows(make_coherence.LENGTHS))
    result = make_coherence.fit(rows)
    (tmp_path / "weights.json").write_text(json.dumps(result))
    (tmp_path / "words.tsv").write_text("9\t-\n8\tthe\n")
    weights = read_weights(tmp_path / "weights.json", tmp_path / "words.tsv")
    assert weights.lengths == make_coherence.LENGTHS
    right = [(weights.log_odds(row[3]) > 0) == (row[1] == "coherent") for row in rows]
    assert np.mean(right) > 0.95
    moved = [weights.log_odds(row[3] | {"length": float(np.log(row[0] ** -1 * 2**27))}) for row in rows]
    swapped = [(value > 0) == (row[1] == "coherent") for value, row in zip(moved, rows, strict=True)]
    assert np.mean(swapped) < np.mean(right) - 0.1, "weights of another length must do worse"


def test_every_label_length_and_domain_counts_alike():
    rows = [(4096, "coherent", "book", {})] * 6 + [(4096, "coherent", "code", {})] * 2
    rows += [(4096, "glued", "book", {})] * 3 + [(4096, "lists", "list", {})]
    counts = make_coherence.balance(rows)
    assert counts[:6].sum() == pytest.approx(counts[6:8].sum()) == pytest.approx(0.5)
    assert counts[8:11].sum() == pytest.approx(counts[11]) == pytest.approx(0.5)


def test_shuffled_copies_hold_the_words_of_documents_that_are_trained_on():
    texts = {str(number): " ".join(f"w{number}-{k}" for k in range(900)) for number in range(12)}
    items = [Document(name, text, "s", "f", 0) for name, text in texts.items()]
    items.insert(3, Unreadable("bad", "s", "f", 0, "failed", "torn", 1))
    found = list(with_shuffled_copies(iter(items), 2, 0.5))
    counts = Counter(item.id for item in found)
    assert {name: counts[name] for name in texts} == {
        name: 1 if in_heldout(name, 0.5) else 3 for name in texts
    }
    assert {counts[name] for name in texts} == {1, 3}
    assert counts["bad"] == 1
    of_one = next([i.text for i in found if i.id == name] for name in texts if counts[name] == 3)
    assert of_one[0] == texts[next(name for name in texts if counts[name] == 3)]
    assert len(set(of_one)) == 3, "each copy in an order of its own"
    assert Counter(of_one[0].split()) == Counter(of_one[1].split()) == Counter(of_one[2].split())
    passages = of_one[1].split("\n")
    assert all(passage in of_one[0] for passage in passages)
    assert max(map(len, passages)) < PASSAGE_CHARS + 20
    assert list(with_shuffled_copies(iter(items), 0, 0.5)) == items


def test_the_second_stage_begins_as_the_first_ended(tmp_path):
    """New layers add nothing yet; the old ones have their weights, in their order."""
    head = {"mixer": "ngram_head", "block": "mixer"}
    new = {"mixer": "ngram_head", "block": "mixer"}
    sizes = {
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 32,
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }
    recipes = [
        Recipe.model_validate(
            {"model": sizes | {"layers": layers}, "data": {"length": 8, "batch_size": 1}, "run": {"steps": 1}}
        )
        for layers in (
            ["delta_net", "delta_net"],
            [new, "delta_net", new, "delta_net"],
            ["delta_net", "ngram_head", "delta_net"],
            [new, "delta_net"],
        )
    ]
    first = build_model(recipes[0], 40)
    first.model.norm.weight.data.uniform_(0.5, 2)
    grown, text = with_new_layers(first, recipes[1]), torch.randint(40, (2, 30))
    torch.testing.assert_close(grown(text).logits, first(text).logits, rtol=0, atol=0)
    grown(text, labels=text).loss.backward()
    head = grown.model.layers[2].attn
    assert head.match_proj.weight.grad.abs().max() > 0
    assert head.own_proj.weight.grad.abs().max() > 0
    with pytest.raises(AssertionError, match="random weights"):
        with_new_layers(first, recipes[2])
    with pytest.raises(AssertionError, match="leaves out"):
        with_new_layers(first, recipes[3])


def test_the_recipes_of_the_starter_fit_each_other():
    first, far = Recipe.load(RECIPE), Recipe.load(FAR_RECIPE)
    shared = {"hidden_size", "num_heads", "intermediate_size", "tie_word_embeddings"}
    assert first.model.model_dump(include=shared) == far.model.model_dump(include=shared)
    assert first.data.heldout_fraction == far.data.heldout_fraction
    with_new_layers(build_model(first, 60), far)
