import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from tests.trainer.oracle import one_batch
from tests.trainer.references import hf_model, small_options
from trainer.attention import Layout, attend, layout_of, put_rows, take_rows
from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.export import hf_config, hf_weights
from trainer.metrics import pretraining_sums
from trainer.model import BertForPreTraining, build_model
from trainer.weight_files import put_weights, rename_weights

OPTIONS = small_options(hidden_dropout_prob=0.0)


@pytest.fixture
def batch(data_set: DataSet) -> Batch:
    return one_batch(data_set, batch_size=12)


def mean_loss(model: BertForPreTraining, batch: Batch) -> torch.Tensor:
    mlm_loss, nsp_loss, _ = pretraining_sums(model(batch), batch)
    return mlm_loss / len(batch.mask_labels) + nsp_loss / batch.num_samples


def test_model_equals_transformers(batch: Batch) -> None:
    model = build_model(OPTIONS, seed=1)
    other = hf_model(OPTIONS, hf_weights(model))
    assert batch.max_seqlen > int(batch.cu_seqlens.diff().min())  # there is padding

    expected = other(**batch.padded(pad_token_id=0))
    outputs = model(batch)
    masked = expected.prediction_logits.flatten(0, 1)[layout_of(batch).padded_rows[batch.mask_rows]]
    torch.testing.assert_close(outputs.mlm_logits[:, :120], masked, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.nsp_logits, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)

    torch.testing.assert_close(mean_loss(model, batch), expected.loss, rtol=1e-5, atol=0)

    # In float64, because some gradients are 0 but for rounding: attention does not change with the bias of its keys.
    model, other = model.double(), other.double()
    expected = other(**batch.padded(pad_token_id=0))
    mean_loss(model, batch).backward()
    expected.loss.backward()
    gradients = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        wanted, found = gradients[name].grad, parameter.grad
        found = found[:120] if name.endswith("word_embeddings.weight") else found
        assert (found - wanted).norm() <= 1e-5 * float(wanted.norm()) + 1e-12, name


def test_model_takes_the_weights_of_transformers(batch: Batch) -> None:
    torch.manual_seed(5)
    other = HfBertForPreTraining(BertConfig(**hf_config(OPTIONS, pad_token_id=0))).eval()
    model = build_model(OPTIONS, seed=2)
    put_weights(model, rename_weights(other.state_dict(), own=model.state_dict())[0])
    with torch.no_grad():
        expected = other(**batch.padded(pad_token_id=0)).prediction_logits.flatten(0, 1)[
            layout_of(batch).padded_rows[batch.mask_rows]
        ]
        torch.testing.assert_close(model(batch).mlm_logits[:, :120], expected, rtol=1e-5, atol=1e-5)


def test_mlm_head_on_masked_positions_equals_the_full_head(batch: Batch) -> None:
    model = build_model(OPTIONS, seed=1)
    everywhere = batch._replace(mask_rows=torch.arange(len(batch.token_ids)))
    torch.testing.assert_close(model(batch).mlm_logits, model(everywhere).mlm_logits[batch.mask_rows])


def test_model_padding_of_the_vocabulary_never_counts(batch: Batch) -> None:
    model = build_model(OPTIONS)
    logits = model(batch).mlm_logits
    assert logits.shape == (len(batch.mask_labels), 128)
    assert torch.isneginf(logits[:, 120:]).all()
    mean_loss(model, batch).backward()
    gradient = model.bert.embeddings.word_embeddings.weight.grad
    assert gradient is not None
    assert not gradient[120:].any()
    assert torch.isfinite(gradient).all()


def test_attention_of_full_samples_equals_that_of_padded_ones() -> None:
    torch.manual_seed(1)
    qkv = torch.randn(3 * 8, 3, 2, 4)
    position_ids, ends = torch.arange(8).repeat(3), torch.tensor([0, 8, 16, 24], dtype=torch.int32)
    full = attend(qkv, Layout(position_ids, torch.arange(24), ends, 8))
    rows = torch.arange(24) + torch.arange(3).repeat_interleave(8) * 2
    padded = attend(qkv, Layout(position_ids, rows, ends, 10))
    torch.testing.assert_close(full, padded)


def test_model_samples_do_not_see_each_other(batch: Batch) -> None:
    model = build_model(OPTIONS)
    start = int(batch.cu_seqlens[-2])
    changed = batch._replace(token_ids=torch.where(torch.arange(len(batch.token_ids)) >= start, 7, batch.token_ids))
    nsp_before, nsp_after = model(batch).nsp_logits, model(changed).nsp_logits
    assert torch.equal(nsp_before[:-1], nsp_after[:-1])
    assert not torch.equal(nsp_before[-1], nsp_after[-1])


def test_model_without_next_sentence_leaves_its_head_alone(batch: Batch) -> None:
    model = build_model(OPTIONS, next_sentence=False)
    outputs = model(batch)
    assert outputs.nsp_logits is None
    pretraining_sums(outputs, batch)[0].backward()
    assert model.bert.pooler.dense.weight.grad is None
    assert set(hf_weights(model)) == set(hf_weights(build_model(OPTIONS)))


def test_model_initial_weights_depend_on_the_seed_alone() -> None:
    first = build_model(OPTIONS, seed=4)
    torch.rand(3)
    again, other = build_model(OPTIONS, seed=4), build_model(OPTIONS, seed=5)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.bert.pooler.dense.weight, other.bert.pooler.dense.weight)
    assert abs(float(first.bert.embeddings.word_embeddings.weight.detach().std()) - 0.3) < 0.02


def test_take_and_put_rows_have_the_gradients_of_indexing() -> None:
    index = torch.tensor([3, 0, 5])
    rows = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(take_rows(rows, index), rows[index])
    assert torch.autograd.gradcheck(lambda values: take_rows(values, index), rows)
    few = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(put_rows(few, index, 6)[index], few)
    assert torch.autograd.gradcheck(lambda values: put_rows(values, index, 6), few)


def test_model_overfits_one_batch(batch: Batch) -> None:
    model = build_model(ModelOptions.of_size("tiny", vocab_size=120, hidden_dropout_prob=0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = mean_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_pretraining_sums_count_what_is_right(batch: Batch) -> None:
    model = build_model(OPTIONS)
    with torch.no_grad():
        outputs = model(batch)
    sums = pretraining_sums(outputs, batch)[2].tolist()
    predicted = outputs.mlm_logits.argmax(-1) == batch.mask_labels
    assert sums[1] == int(predicted.sum())
    assert sums[2] == len(batch.mask_labels)
    assert sums[4] == int((outputs.nsp_logits.argmax(-1) == batch.next_sentence_labels).sum())
    assert sums[5:] == [batch.num_samples, len(batch.token_ids)]
    assert sums[0] == pytest.approx(float(F.cross_entropy(outputs.mlm_logits, batch.mask_labels, reduction="sum")))
