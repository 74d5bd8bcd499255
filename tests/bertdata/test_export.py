"""Exported rows against `read_samples`, read back by pyarrow, pandas and datasets, and through a model."""

import dataclasses
import json
import shutil

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.errors import ConfigError, OutputError, ShardError
from bertdata.export import export_data_set
from bertdata.wordpiece import load_tokenizer, new_bert_tokenizer
from tests.bertdata.small_builds import build, write_jsonl
from tests.corpus import iter_texts
from tests.trainer.oracle import masks_of, one_batch
from trainer.config import ModelOptions
from trainer.export import export_model
from trainer.metrics import pretraining_sums
from trainer.model import build_model
from trainer.reader import BlockReader

KINDS = {
    "balanced": {},
    "google": {"next_sentence": "google"},
    "sop": {"next_sentence": "sop"},
    "none": {"next_sentence": "none"},
    "long": {"max_seq_length": 300},
    "large vocabulary": {"vocab_size": 70_000},
    "drawn": {"num_mask_sets": 0},
}


def make_options(tokenizer, folder, *, next_sentence="balanced", max_seq_length=64, vocab_size=None, num_mask_sets=3):
    if vocab_size is not None:
        vocab = load_tokenizer(tokenizer).get_vocab()
        vocab |= {f"filler{number}": number for number in range(len(vocab), vocab_size)}
        last = vocab_size - 1  # a frequent word has an id that takes 17 bits
        vocab[f"filler{last}"], vocab["the"] = vocab["the"], last
        tokenizer = folder / "tokenizer.json"
        new_bert_tokenizer(vocab, lowercase=True, strip_accents=True).save(str(tokenizer))
    return BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer)),
        pairs=PairOptions(max_seq_length=max_seq_length, next_sentence=next_sentence, dupe_factor=1),
        masks=MaskOptions(num_mask_sets=num_mask_sets),
        shards=ShardOptions(num_shards=2, block_size=40),
        max_seq_lengths=(max_seq_length,),
    )


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory, tokenizer_file):
    """A data set of each mode, length and width of ids."""
    folder = tmp_path_factory.mktemp("kinds")
    options = make_options(tokenizer_file, folder, **KINDS[request.param])
    return build(folder / "shards", write_jsonl(folder / "a.jsonl", iter_texts(250)), options=options)


def segment_b(sample):
    return sample.segment_ids.index(1) if 1 in sample.segment_ids else len(sample.tokens)


def stored_row(data_set, sample):
    return {
        "tokens": sample.tokens,
        "segment_b": segment_b(sample),
        "next_sentence_label": sample.next_sentence_label,
        "document_keys": list(sample.document_keys),
        "mask_positions": [positions for positions, _ in sample.mask_sets],
        "mask_tokens": [tokens for _, tokens in sample.mask_sets],
        **forced_column(data_set, sample),
    }


def forced_column(data_set, sample):
    is_google = data_set.manifest.options["pairs"]["next_sentence"] == "google"
    return {"label_forced": sample.label_forced} if is_google else {}


def model_row(data_set, sample, mask_set):
    shown = dict(zip(*mask_set, strict=True))
    return {
        "input_ids": [shown.get(position, token) for position, token in enumerate(sample.tokens)],
        "token_type_ids": sample.segment_ids,
        "labels": [token if position in shown else -100 for position, token in enumerate(sample.tokens)],
        "next_sentence_label": sample.next_sentence_label,
        "document_keys": list(sample.document_keys),
        **forced_column(data_set, sample),
    }


def drawn_set(data_set, number):
    """What the trainer's loader shows of every training sample, in their order."""
    reader = BlockReader([data_set], split="train")
    return masks_of(reader, range(reader.num_samples), mask_set=number)


def read_rows(folder, split):
    return [row for path in sorted(folder.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_of_all_mask_sets_are_the_samples(folder, tmp_path, split):
    data_set = bertdata.open_data_set(folder)
    paths = export_data_set(folder, out=tmp_path, mask_set=None, splits=[split])
    assert [path.stem for path in paths] == [
        shard.name.removesuffix(".tar") for shard in data_set.manifest.shards if shard.split == split
    ]
    wanted = [stored_row(data_set, sample) for sample in bertdata.read_samples(folder, split=split)]
    assert len(wanted) > 10
    assert read_rows(tmp_path, split) == wanted
    schema = pq.read_schema(paths[0])
    block = data_set.read(data_set.blocks(split), 0)
    assert schema.field("tokens").type == pa.list_(pa.from_numpy_dtype(block.tokens.dtype))
    assert schema.field("segment_b").type == pa.from_numpy_dtype(block.segment_b.dtype)
    assert schema.field("mask_positions").type == pa.list_(pa.list_(pa.from_numpy_dtype(block.mask_positions.dtype)))
    assert schema.field("document_keys").type == pa.list_(pa.uint64(), 2)


def test_rows_of_one_mask_set_are_what_the_trainer_shows(folder, tmp_path):
    data_set = bertdata.open_data_set(folder)
    export_data_set(folder, out=tmp_path, mask_set=2, splits=["train"])
    samples = list(bertdata.read_samples(folder))
    wanted = [model_row(data_set, *pair) for pair in zip(samples, drawn_set(data_set, 2), strict=True)]
    assert read_rows(tmp_path, "train") == wanted
    if samples[0].mask_sets:
        assert wanted == [model_row(data_set, sample, sample.mask_sets[2]) for sample in samples]


@pytest.fixture(scope="module")
def exported(small_data_set, tmp_path_factory):
    """An export of both kinds: all mask sets, and the second one."""
    out = tmp_path_factory.mktemp("exported")
    export_data_set(small_data_set, out=out / "all", mask_set=None)
    export_data_set(small_data_set, out=out / "1", mask_set=1)
    return out


def wanted_rows(small_data_set, kind, split):
    data_set, samples = bertdata.open_data_set(small_data_set), bertdata.read_samples(small_data_set, split=split)
    if kind == "all":
        return [stored_row(data_set, sample) for sample in samples]
    return [model_row(data_set, sample, sample.mask_sets[1]) for sample in samples]


@pytest.mark.parametrize("kind", ["all", "1"])
def test_datasets_reads_every_field(small_data_set, exported, tmp_path, kind):
    found = datasets.load_dataset("parquet", data_dir=str(exported / kind), cache_dir=str(tmp_path))
    assert sorted(found) == ["test", "train"]  # as datasets calls files named eval
    for name, split in (("train", "train"), ("test", "eval")):
        assert found[name].to_list() == wanted_rows(small_data_set, kind, split)


@pytest.mark.parametrize("kind", ["all", "1"])
def test_pandas_reads_every_field(small_data_set, exported, kind):
    paths = sorted((exported / kind).glob("train-*.parquet"))
    found = pandas.concat([pandas.read_parquet(path) for path in paths])
    wanted = wanted_rows(small_data_set, kind, "train")
    assert list(found.columns) == list(wanted[0])
    for name in found.columns:
        for value, row in zip(found[name], wanted, strict=True):
            if name.startswith("mask_"):
                assert [one.tolist() for one in value] == row[name]
            else:
                assert np.asarray(value).tolist() == row[name]


def test_padded_rows_give_transformers_the_loss_of_the_trainer(small_data_set, exported, tmp_path):
    data_set = bertdata.open_data_set(small_data_set)
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    vocab_size = data_set.manifest.tokenizer.vocab_size
    model = build_model(ModelOptions(vocab_size=vocab_size, initializer_range=0.3, **shape), seed=3).eval()
    export_model(model, tmp_path / "hf", tokenizer_folder=exported / "1", pad_token_id=0)

    batch = one_batch(data_set, batch_size=9, mask_set=1)
    with torch.no_grad():
        mlm_loss, nsp_loss, _ = pretraining_sums(model(batch), batch)
    wanted = mlm_loss / len(batch.mask_rows) + nsp_loss / batch.num_samples

    rows = read_rows(exported / "1", "train")
    chosen = [rows[number] for number in batch.sample_ids.tolist()]
    padding = {"input_ids": 0, "token_type_ids": 0, "labels": -100}
    inputs = {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row[name]) for row in chosen], batch_first=True, padding_value=value
        )
        for name, value in padding.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in chosen])
    inputs["attention_mask"] = (torch.arange(inputs["labels"].shape[1]) < lengths[:, None]).long()
    inputs["next_sentence_label"] = torch.tensor([row["next_sentence_label"] for row in chosen])
    with torch.no_grad():
        found = transformers.BertForPreTraining.from_pretrained(tmp_path / "hf").eval()(**inputs).loss
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=1e-5, atol=1e-5)


def test_export_goes_on_where_it_stopped(small_data_set, exported, tmp_path):
    out = shutil.copytree(exported / "1", tmp_path / "out")
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    lost = out / "train-00001-of-00003.parquet"
    lost.unlink()
    (out / f"{lost.name}.123.tmp").write_bytes(b"half a file")
    before = {path: path.stat().st_ino for path in out.glob("*.parquet")}
    export_data_set(small_data_set, out=out, mask_set=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert {path: path.stat().st_ino for path in before} == before


def test_processes_write_the_same_files(small_data_set, exported, tmp_path):
    export_data_set(small_data_set, out=tmp_path, mask_set=1, num_workers=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in (exported / "1").iterdir()
    }


def test_another_export_is_refused_or_replaced(small_data_set, exported, tmp_path):
    out = shutil.copytree(exported / "all", tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputError, match="holds another export: .*mask set all, not .*mask set 1; .*--overwrite"):
        export_data_set(small_data_set, out=out, mask_set=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_data_set(small_data_set, out=out, mask_set=1, splits=["eval"], overwrite=True)
    assert not list(out.glob("train-*.parquet"))
    assert read_rows(out, "eval") == wanted_rows(small_data_set, "1", "eval")
    assert (out / "notes.txt").read_text() == "mine"


def test_drawn_masks_of_other_options_are_another_export(jsonl_file, small_options, tmp_path):
    """Shards without mask sets are the same bytes whatever the share of masks; what an export draws is not."""
    options = dataclasses.replace(small_options, masks=MaskOptions(num_mask_sets=0))
    copy = build(tmp_path / "shards", jsonl_file, options=options)
    path = copy / "manifest.json"
    export_data_set(copy, out=tmp_path / "out", mask_set=0, splits=["eval"])
    values = json.loads(path.read_text())
    values["options"]["masks"]["masked_lm_prob"] = 0.3
    path.write_text(json.dumps(values))
    with pytest.raises(OutputError, match="holds another export"):
        export_data_set(copy, out=tmp_path / "out", mask_set=0, splits=["eval"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_left_alone(small_data_set, tmp_path, overwrite):
    path = tmp_path / "train-00000-of-00003.parquet"
    pq.write_table(pa.table({"text": ["mine"]}), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"train-00000-of-00003\.parquet is no file of bertdata export"):
        export_data_set(small_data_set, out=tmp_path, mask_set=0, overwrite=overwrite)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_damaged_file_is_written_again(small_data_set, tmp_path):
    paths = export_data_set(small_data_set, out=tmp_path, mask_set=0)
    before = paths[1].read_bytes()
    paths[1].write_bytes(before[:-100])
    with pytest.raises(OutputError, match="is damaged; --overwrite writes it again"):
        export_data_set(small_data_set, out=tmp_path, mask_set=0)
    export_data_set(small_data_set, out=tmp_path, mask_set=0, overwrite=True)
    assert paths[1].read_bytes() == before


def test_output_must_not_be_a_data_set_or_another_tokenizer(small_data_set, tmp_path):
    with pytest.raises(OutputError, match="holds a data set; give the export a folder of its own"):
        export_data_set(small_data_set, out=small_data_set, mask_set=0)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match=r"tokenizer\.json is not the one of"):
        export_data_set(small_data_set, out=tmp_path, mask_set=0)
    assert (tmp_path / "tokenizer.json").read_text() == "{}"


def test_unknown_mask_sets_and_missing_splits_are_errors(small_data_set, tmp_path):
    with pytest.raises(ConfigError, match="--mask-set is 2; this data set has the sets 0 to 1, or give all"):
        export_data_set(small_data_set, out=tmp_path / "out", mask_set=2)
    with pytest.raises(ShardError, match="has no other shards to export"):
        export_data_set(small_data_set, out=tmp_path / "out", mask_set=0, splits=["other"])
    assert not (tmp_path / "out").exists()


def test_damaged_block_leaves_no_file(small_data_set, tmp_path):
    copy = shutil.copytree(small_data_set, tmp_path / "copy")
    shard = copy / "eval-00000-of-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-5000] + bytes(5000))
    with pytest.raises(ShardError, match=r"eval-00000-of-00001\.tar.*CRC-32"):
        export_data_set(copy, out=tmp_path / "out", mask_set=0, splits=["eval"])
    assert not list((tmp_path / "out").glob("*.parquet*"))


def test_full_disk_is_an_error(small_data_set, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OutputError, match=r"\.parquet cannot be written .*No space left.*run the same command again"):
        export_data_set(small_data_set, out=tmp_path, mask_set=0)
    assert not list(tmp_path.glob("*.parquet*"))


def test_row_groups_are_of_some_blocks(small_data_set, tmp_path, monkeypatch):
    monkeypatch.setattr("bertdata.export._ROW_GROUP_ROWS", 250)
    (path, *_) = export_data_set(small_data_set, out=tmp_path, mask_set=None, splits=["train"])
    metadata = pq.read_metadata(path)
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert rows[:-1] == [300] * (metadata.num_rows // 300)  # blocks of 100 samples


def test_command_exports_and_says_what(small_data_set, tmp_path):
    arguments = ["export", str(small_data_set), "--out", str(tmp_path / "out"), "--num-workers", "1"]
    result = CliRunner().invoke(main, [*arguments, "--mask-set", "1", "--split", "eval"])
    assert result.exit_code == 0, result.output
    num_samples = bertdata.open_data_set(small_data_set).manifest.num_samples("eval")
    assert f"rows     {num_samples:,}\n" in result.stdout
    assert "input_ids, token_type_ids, labels, next_sentence_label, document_keys" in result.stdout
    assert "exporting" in result.stderr
    refused = CliRunner().invoke(main, [*arguments, "--mask-set", "first"])
    assert refused.exit_code == 2
    assert "'first' is neither the number of a mask set, from 0 on, nor all" in " ".join(refused.stderr.split())


def test_data_set_without_mask_sets_warns(tmp_path, tokenizer_file):
    options = make_options(tokenizer_file, tmp_path, num_mask_sets=0)
    folder = build(tmp_path / "shards", write_jsonl(tmp_path / "a.jsonl", iter_texts(130)), options=options)
    result = CliRunner().invoke(main, ["export", str(folder), "--out", str(tmp_path / "out"), "--num-workers", "1"])
    assert result.exit_code == 0, result.output
    assert "stores no mask sets, so their columns hold empty lists; --mask-set 0 draws one" in result.stderr
