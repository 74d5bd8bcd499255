"""BERT with the head of a task instead of those of pre-training: one linear layer, as fine-tuning leaves it.

Modules and parameters carry the names of transformers' BertForSequenceClassification, BertForTokenClassification and
BertForQuestionAnswering. Suffixes of tensor names as in `trainer.model`, and L for labels.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainer.attention import layout_of
from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.model import Bert

__all__ = ["TaskModel"]


class TaskModel(nn.Module):
    """BERT that scores L labels.

    Args:
        options: The shape.
        head: Name of the head's layer.
        num_labels: L.
        of_tokens: Whether each token is scored, or each sample, from its [CLS] token.
    """

    def __init__(self, options: ModelOptions, *, head: str, num_labels: int, of_tokens: bool) -> None:
        super().__init__()
        self.bert = Bert(options, activation_checkpointing=False)
        self.add_module(head, nn.Linear(options.hidden_size, num_labels))
        self._head, self._of_tokens = head, of_tokens

    def forward(self, batch: Batch) -> Tensor:
        """Returns scores: [T, L] of tokens, [B, L] of samples."""
        layout = layout_of(batch)
        rows_B = None if self._of_tokens else batch.cu_seqlens[:-1].long()
        hidden_RH = self.bert.encoder(self.bert.embeddings(batch, layout), layout, rows_B)
        if not self._of_tokens:
            hidden_RH = self.bert.pooler(hidden_RH)
        scores_RL: Tensor = self.get_submodule(self._head)(hidden_RH)
        return scores_RL
