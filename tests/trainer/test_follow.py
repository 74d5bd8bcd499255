"""The numbers of a followed sample, against transformers on the exported model and against the trainer's own loss."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.blocks import Sample, iter_samples
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from bertdata.shard_reading import iter_blocks
from tests.trainer.followed import build_wiki, export, make_model, write_wiki
from trainer.follow_answer import answer_sample, make_batch
from trainer.follow_model import load_model
from trainer.follow_trace import answer_per_layer, trace_sample
from trainer.metrics import pretraining_sums
from trainer.model import BertForPreTraining


class Followed(NamedTuple):
    """A data set, a model for it, the folder that it was exported to, and what transformers makes of the folder."""

    data_set: DataSet
    model: BertForPreTraining
    folder: Path
    reference: HfBertForPreTraining
    samples: list[Sample]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, small_options: BuildOptions) -> Followed:
    folder = tmp_path_factory.mktemp("followed")
    data_set = build_wiki(folder, write_wiki(folder), small_options)
    exported = export(make_model(data_set), folder / "hf", data_set=data_set)
    loaded = load_model(exported, data_set=data_set)
    assert (loaded.step, loaded.warnings) == (None, ())
    reference = HfBertForPreTraining.from_pretrained(exported, attn_implementation="eager").eval()
    shard = next(shard.name for shard in data_set.manifest.shards if shard.split == "train")
    samples = [sample for block in iter_blocks(data_set.folder / shard) for sample in iter_samples(block)]
    chosen = [next(one for one in samples if one.next_sentence_label == label) for label in (0, 1)]
    return Followed(data_set, loaded.model, exported, reference, chosen)


@torch.no_grad()
def say(followed: Followed, sample: Sample, mask_set: int) -> Any:
    """What transformers makes of a sample, from lists made here."""
    positions, shown = sample.mask_sets[mask_set]
    seen, labels = list(sample.tokens), [-100] * len(sample.tokens)
    for position, token in zip(positions, shown, strict=True):
        seen[position], labels[position] = token, sample.tokens[position]
    return followed.reference(
        input_ids=torch.tensor([seen]),
        token_type_ids=torch.tensor([sample.segment_ids]),
        labels=torch.tensor([labels]),
        next_sentence_label=torch.tensor([sample.next_sentence_label]),
        output_hidden_states=True,
        output_attentions=True,
    )


@pytest.mark.parametrize("label", [0, 1])
def test_trace_is_what_transformers_computes(followed: Followed, label: int) -> None:
    sample = followed.samples[label]
    trace = trace_sample(followed.model, make_batch(sample, mask_set=1))
    outputs = say(followed, sample, 1)
    assert len(trace.hidden) == len(outputs.hidden_states) == 4
    for found, wanted in zip(trace.hidden, outputs.hidden_states, strict=True):
        torch.testing.assert_close(found, wanted[0], rtol=1e-4, atol=1e-5)
    for found, wanted in zip(trace.attention, outputs.attentions, strict=True):
        torch.testing.assert_close(found, wanted[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_embeddings_are_rows_of_the_tables_and_normalized_they_go_into_the_first_layer(followed: Followed) -> None:
    sample = followed.samples[0]
    batch = make_batch(sample, mask_set=0)
    trace = trace_sample(followed.model, batch)
    tables = followed.reference.bert.embeddings
    for position, (token, segment) in enumerate(zip(batch.token_ids.tolist(), sample.segment_ids, strict=True)):
        assert torch.equal(trace.words_SH[position], tables.word_embeddings.weight[token])
        assert torch.equal(trace.segments_SH[position], tables.token_type_embeddings.weight[segment])
        assert torch.equal(trace.positions_SH[position], tables.position_embeddings.weight[position])
    added = trace.words_SH + trace.segments_SH + trace.positions_SH
    torch.testing.assert_close(trace.sum_SH, added)
    centred = added - added.mean(-1, keepdim=True)
    normalized = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    norm = tables.LayerNorm
    torch.testing.assert_close(trace.hidden[0], normalized * norm.weight + norm.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("mask_set", [0, 2])
def test_answer_is_what_transformers_says(followed: Followed, label: int, mask_set: int) -> None:
    sample = followed.samples[label]
    answer = answer_sample(followed.model, sample, mask_set=mask_set)
    outputs = say(followed, sample, mask_set)
    positions, shown = sample.mask_sets[mask_set]
    assert [(one.position, one.shown) for one in answer.predictions] == list(zip(positions, shown, strict=True))
    for one in answer.predictions:
        probabilities = outputs.prediction_logits[0, one.position].double().softmax(-1)
        truth = sample.tokens[one.position]
        assert one.truth.token == truth
        assert one.truth.probability == pytest.approx(float(probabilities[truth]), rel=1e-4)
        assert one.rank == 1 + int((probabilities > probabilities[truth]).sum())
        best = probabilities.argsort(descending=True)[:5].tolist()
        assert [guess.token for guess in one.guesses] == best
        assert [guess.probability for guess in one.guesses] == pytest.approx(probabilities[best].tolist(), rel=1e-4)
        assert one.loss == pytest.approx(-math.log(one.truth.probability))
    assert answer.next_sentence == pytest.approx(outputs.seq_relationship_logits[0].tolist(), rel=1e-4, abs=1e-5)
    wanted = outputs.seq_relationship_logits[0].softmax(-1).tolist()
    assert answer.next_sentence_probabilities == pytest.approx(wanted, rel=1e-4)
    assert answer.loss == pytest.approx(float(outputs.loss), rel=1e-5)


@pytest.mark.parametrize("label", [0, 1])
@torch.no_grad()
def test_losses_are_those_of_training(followed: Followed, label: int) -> None:
    sample = followed.samples[label]
    answer = answer_sample(followed.model, sample, mask_set=0)
    batch = make_batch(sample, mask_set=0)
    mlm_loss, nsp_loss, sums = pretraining_sums(followed.model(batch), batch)
    assert answer.mlm_loss == pytest.approx(float(mlm_loss) / len(answer.predictions), rel=1e-5)
    assert answer.nsp_loss == pytest.approx(float(nsp_loss), rel=1e-5)
    assert sum(one.rank == 1 for one in answer.predictions) == int(sums[1])


def test_last_layer_answers_as_the_model_does_and_earlier_ones_through_the_same_head(followed: Followed) -> None:
    sample = followed.samples[0]
    trace = trace_sample(followed.model, make_batch(sample, mask_set=0))
    wanted = answer_sample(followed.model, sample, mask_set=0).predictions[0]
    found = answer_per_layer(
        followed.model, trace.hidden, position=wanted.position, token=wanted.truth.token, num_guesses=5
    )
    assert [one.layer for one in found] == [0, 1, 2, 3]
    assert [guess.token for guess in found[-1].guesses] == [guess.token for guess in wanted.guesses]
    assert found[-1].truth == pytest.approx(wanted.truth.probability, rel=1e-4)
    assert found[0].similarity == pytest.approx(1)
    states = say(followed, sample, 0).hidden_states
    for one, state in zip(found, states, strict=True):
        vector = state[0, wanted.position]
        with torch.no_grad():
            probabilities = followed.reference.cls.predictions(vector).softmax(-1)
        assert one.truth == pytest.approx(float(probabilities[wanted.truth.token]), rel=1e-3)
        cosine = torch.cosine_similarity(vector, states[0][0, wanted.position], dim=0)
        assert one.similarity == pytest.approx(float(cosine), abs=1e-5)


def test_batch_is_the_sample_with_the_mask_set_put_in(followed: Followed) -> None:
    sample = Sample(
        tokens=[2, 7, 8, 3, 9, 3],
        segment_ids=[0, 0, 0, 0, 1, 1],
        next_sentence_label=1,
        document_keys=(1, 2),
        mask_sets=[([1], [4]), ([2, 4], [4, 11])],
    )
    batch = make_batch(sample, mask_set=1)
    assert batch.token_ids.tolist() == [2, 7, 4, 3, 11, 3]
    assert batch.mask_rows.tolist() == [2, 4]
    assert batch.mask_labels.tolist() == [8, 9]
    assert (batch.cu_seqlens.tolist(), batch.max_seqlen) == ([0, 6], 6)
    assert batch.next_sentence_labels.tolist() == [1]
    assert sample.tokens == [2, 7, 8, 3, 9, 3]


def test_model_that_does_not_fit_is_refused(followed: Followed, data_set: DataSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="^MODEL .*nothing is not there"):
        load_model(tmp_path / "nothing", data_set=followed.data_set)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"^MODEL .*no checkpoints and no config\.json"):
        load_model(tmp_path / "empty", data_set=followed.data_set)
    with pytest.raises(TrainingError, match="vocabulary"):
        load_model(followed.folder, data_set=data_set)
    other = export(make_model(data_set), tmp_path / "hf", data_set=data_set)
    with pytest.raises(TrainingError, match="vocabulary"):
        load_model(other, data_set=followed.data_set)
    manifest = followed.data_set.manifest
    pairs = manifest.options["pairs"] | {"max_seq_length": 65}
    options = manifest.options | {"pairs": pairs, "max_seq_lengths": [65]}
    longer = dataclasses.replace(followed.data_set, manifest=dataclasses.replace(manifest, options=options))
    with pytest.raises(TrainingError, match="the model of MODEL .* has 64 positions"):
        load_model(followed.folder, data_set=longer)
