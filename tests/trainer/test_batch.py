from bertdata.data_set import DataSet
from tests.trainer.oracle import one_batch, slow_samples
from trainer.batch import IGNORED


def test_padded_batch_shows_what_was_stored(data_set: DataSet) -> None:
    oracle = slow_samples(data_set)
    batch = one_batch(data_set, batch_size=20, mask_set=2)
    for multiple, width in ((1, batch.max_seqlen), (8, -(-batch.max_seqlen // 8) * 8), (64, 64)):
        padded = batch.padded(pad_token_id=7, pad_to_multiple=multiple)
        for row, number in enumerate(batch.sample_ids.tolist()):
            sample = oracle[number][2]
            filling = width - len(sample["input"])
            labels = [IGNORED] * len(sample["input"])
            for position, label in zip(sample["positions"], sample["labels"], strict=True):
                labels[position] = label
            assert padded["input_ids"][row].tolist() == sample["input"] + [7] * filling
            assert padded["token_type_ids"][row].tolist() == sample["types"] + [0] * filling
            assert padded["attention_mask"][row].tolist() == [1] * len(sample["input"]) + [0] * filling
            assert padded["labels"][row].tolist() == labels + [IGNORED] * filling
            assert padded["next_sentence_label"][row] == sample["next"][0]
