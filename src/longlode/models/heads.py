"""Classification heads for texts and tokens, as in transformers, on the longlode backbone."""

from transformers.modeling_layers import GenericForSequenceClassification, GenericForTokenClassification

from longlode.models.lm import LonglodePreTrainedModel


class LonglodeForSequenceClassification(GenericForSequenceClassification, LonglodePreTrainedModel):
    """A linear layer on the last real token of each row; `config.num_labels` classes (1: regression).

    Rows of different lengths need `config.pad_token_id` to find the last real token.
    """

    accepts_loss_kwargs = False  # transformers' classification loss has no num_items_in_batch


class LonglodeForTokenClassification(GenericForTokenClassification, LonglodePreTrainedModel):
    """A linear layer on every token, after reading the tokens before it; `config.num_labels` classes."""

    accepts_loss_kwargs = False
