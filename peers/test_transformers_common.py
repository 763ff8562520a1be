"""transformers' common tests: models, configs and training, from its source distribution, a row per stack."""

import unittest
from typing import Any

import pytest
import torch
from transformers.models.auto import modeling_auto

from longlode.models import (
    LonglodeConfig,
    LonglodeForCausalLM,
    LonglodeForSequenceClassification,
    LonglodeForTokenClassification,
    LonglodeModel,
)
from peers import tiny, upstream

modeling = upstream.mixins("test_modeling_common")
configuration = upstream.mixins("test_configuration_common")
generation = upstream.mixins("generation.test_utils")
training = upstream.mixins("test_training_mixin")

PACKAGES = ("transformers",)


@pytest.fixture(autouse=True, scope="module")
def _named_in_transformers():
    """Put longlode's classes into the tables by which transformers' tests tell a head from another.

    A model of transformers itself stands in them by its folder's name; what is registered from outside does not.
    """
    tables = {
        "MODEL_MAPPING_NAMES": "LonglodeModel",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "LonglodeForCausalLM",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "LonglodeForSequenceClassification",
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "LonglodeForTokenClassification",
    }
    with pytest.MonkeyPatch.context() as patch:
        for table, name in tables.items():
            patch.setitem(getattr(modeling_auto, table), LonglodeConfig.model_type, name)
        yield


class Tester:
    """What transformers' mixins ask of a model's tester: sizes, a config, inputs."""

    base_model_class = LonglodeModel
    causal_lm_class = LonglodeForCausalLM
    batch_size = 5
    seq_length = 11
    is_training = True

    def __init__(self, parent: unittest.TestCase, mixers: str, settings: dict[str, Any]) -> None:
        self.parent, self.mixers, self.settings = parent, mixers, settings
        # What the mixins read from here instead of from the config.
        self.hidden_size, self.num_hidden_layers = 32, len(mixers)
        self.num_attention_heads = 2

    def get_config(self) -> LonglodeConfig:
        # Tokens 1 to 19 are text in TrainingTesterMixin, and `generate` takes padding in a prompt for padding.
        return tiny.config(self.mixers, vocab_size=99, pad_token_id=98, **self.settings)

    def prepare_config_and_inputs_for_common(self) -> tuple[LonglodeConfig, dict[str, Any]]:
        shape = (self.batch_size, self.seq_length)
        return self.get_config(), {
            "input_ids": torch.randint(1, 98, shape),
            "attention_mask": torch.ones(shape, dtype=torch.long),
        }


class Common(
    modeling.ModelTesterMixin,
    generation.GenerationTesterMixin,
    training.TrainingTesterMixin,
):
    """The tests of one stack; a subclass names it."""

    mixers: str
    settings: dict[str, Any] = {}  # noqa: RUF012
    all_model_classes = (
        LonglodeModel,
        LonglodeForCausalLM,
        LonglodeForSequenceClassification,
        LonglodeForTokenClassification,
    )
    # transformers' tests ask every layer for attention, which D, G, L, C and M have not; test_generate asks S and A.
    has_attentions = False
    model_tester = None

    def setUp(self) -> None:
        self.model_tester = Tester(self, self.mixers, self.settings)
        self.config_tester = configuration.ConfigTester(self, config_class=LonglodeConfig, hidden_size=32)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    @unittest.skipIf(
        "generation.test_utils" in upstream.NOT_SHIPPED,
        "the source distribution has no generation mixin; test_generate.py is ours",
    )
    def test_generation_tester_mixin_inheritance(self) -> None:
        super().test_generation_tester_mixin_inheritance()


class TestDS(Common, unittest.TestCase):
    mixers = row = "DS"


class TestDD(Common, unittest.TestCase):
    mixers = row = "DD"


class TestCL(Common, unittest.TestCase):
    mixers = row = "CL"


class TestGA(Common, unittest.TestCase):
    mixers = row = "GA"


class TestGSTied(Common, unittest.TestCase):
    mixers, row = "GS", "GS, tied embeddings"
    settings = {"tie_word_embeddings": True}  # noqa: RUF012


class TestMA(Common, unittest.TestCase):
    mixers = row = "MA"


class TestAA(Common, unittest.TestCase):
    mixers = row = "AA"
    has_attentions = True

    @unittest.skip("reads `_attn_implementation` in the config of every layer; a mixer's config is its own")
    def test_sdpa_can_dispatch_non_composite_models(self) -> None:
        """transformers looks for SDPA layers in an eager model by the layers' names and configs."""
