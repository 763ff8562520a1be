"""Heads that put a class on a text or on every token, as transformers makes them, on our backbone."""

from transformers.modeling_layers import GenericForSequenceClassification, GenericForTokenClassification

from longlode.models.lm import LonglodePreTrainedModel


class LonglodeForSequenceClassification(GenericForSequenceClassification, LonglodePreTrainedModel):
    """A linear layer on the last real token of each row; `config.num_labels` classes (1: regression).

    Rows of different length need `config.pad_token_id`, by which the last real token is found.
    """

    accepts_loss_kwargs = False  # transformers' loss of classes takes no num_items_in_batch


class LonglodeForTokenClassification(GenericForTokenClassification, LonglodePreTrainedModel):
    """A linear layer on every token, which has read what stands before it; `config.num_labels` classes."""

    accepts_loss_kwargs = False
