"""What a shard, an index or a manifest may not say: each is told by its own message, at little cost, before it is used."""

import ast
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import bertdata
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.data_set import open_data_set
from bertdata.errors import ShardError
from bertdata.index import write_index
from bertdata.manifest import write_manifest
from bertdata.shard_reading import iter_blocks, read_block, read_field
from bertdata.shards import FIELDS, MAX_BLOCK_BYTES, block_name, encode_block, open_shard
from bertdata.storage import LocalFolder
from tests.bertdata.hostile import edit_header, edit_npy, index_bytes, members_of, run_limited
from tests.bertdata.small_builds import build, write_jsonl
from tests.corpus import iter_texts

NAME = "train-00000-00000"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file):
    """A data set of a few blocks of 30 samples, with two mask sets."""
    folder = tmp_path_factory.mktemp("tiny")
    options = BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer_file)),
        pairs=PairOptions(max_seq_length=32, dupe_factor=1),
        masks=MaskOptions(num_mask_sets=2),
        shards=ShardOptions(num_shards=1, block_size=30),
        max_seq_lengths=(32,),
    )
    return build(folder / "shards", write_jsonl(folder / "texts.jsonl", iter_texts(10)), options=options)


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def shard_of(folder):
    return folder / "train-00000-of-00001.tar"


def place_of(path, field):
    """Returns where the tar header of a field of the first block lies."""
    return next(member.offset for member in members_of(path) if member.name == f"{NAME}.{field}.npy")


def header_edits():
    yield "symbolic link", "is a symbolic link", 156, b"2/etc/passwd"
    yield "hard link", "is a hard link", 156, b"1" + b"train-00000-00000.tokens.npy"
    yield "device", "is a device", 156, b"3"
    yield "folder", "is a folder", 156, b"5"
    yield "pipe", "is a pipe", 156, b"6"
    yield "sparse file", "is a sparse file", 156, b"S"
    yield "pax header", "is an extended header", 156, b"x"
    yield "GNU long name", "is a long name", 156, b"L"
    yield "unknown type", "of type b'V'", 156, b"V"
    yield "link name of a plain file", "says more than a name and a size", 157, b"x"
    yield "owner", "says more than a name and a size", 265, b"root"
    yield "prefix", "says more than a name and a size", 345, b"/etc"
    yield "GNU magic", "says more than a name and a size", 257, b"ustar  \0"
    yield "no magic", "no tar header where one belongs", 257, b"xxxxx"
    yield "negative size", "instead of eleven octal digits", 124, b"\xff" * 12
    yield "base-256 size", "instead of eleven octal digits", 124, b"\x80" + b"\xff" * 11
    yield "signed size", "instead of eleven octal digits", 124, b"-0000000100\0"
    yield "size of 8 GiB", "reaches past byte", 124, b"77777777777\0"
    yield "overlap", "bytes do not hold an array", 124, b"00000000200\0"
    yield "path", "has another name than", 0, b"../../../etc/passwd\0"
    yield "pickle", "has another name than", 0, b"train-00000-00000.tokens.pkl\0"
    yield "not ASCII", "has another name than", 0, b"\xff\xfe"
    yield "another field", "found member .* belongs", 0, b"train-00000-00000.passwords.npy\0"
    yield "another block", "found member train-00000-00009", 0, b"train-00000-00009"


@pytest.mark.parametrize(("kind", "message", "start", "value"), list(header_edits()), ids=lambda value: str(value)[:30])
def test_tar_header_of_another_kind_is_refused(copy, kind, message, start, value):
    path = shard_of(copy)
    place = place_of(path, "segment_b")
    path.write_bytes(edit_header(path.read_bytes(), place, start=start, value=value))
    with pytest.raises(ShardError, match=message):
        list(iter_blocks(path))


def test_tar_header_with_a_false_checksum_is_refused(copy):
    path = shard_of(copy)
    data = bytearray(path.read_bytes())
    data[place_of(path, "segment_b") + 148 : place_of(path, "segment_b") + 154] = b"000000"
    path.write_bytes(data)
    with pytest.raises(ShardError, match="has checksum .*, but says"):
        list(iter_blocks(path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (30,), }", "unexpected array header"),
        ("{'descr': '>u2', 'fortran_order': False, 'shape': (30,), }", "unexpected array header"),
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (30,), }", "unexpected array header"),
        ("{'descr': '|u1', 'fortran_order': True, 'shape': (30,), }", "unexpected array header"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }", "unexpected array header"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "unexpected array header"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 30, 1), }", "unexpected array header"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 50 + ",), }", "unexpected array header"),
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999,), }",
            r"30 bytes do not hold .*\(9999999999,\)",
        ),
        ("{'descr': '<u8', 'fortran_order': False, 'shape': (4294967296, 536870912), }", "30 bytes do not hold"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 0), }", "30 bytes do not hold"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 30), }", "do not fit each other"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (15,), }", "do not fit each other"),
        ("__import__('os').abort()", "unexpected array header"),
    ],
)
def test_array_header_of_another_kind_is_refused(copy, header, message):
    path = shard_of(copy)
    path.write_bytes(edit_npy(path.read_bytes(), place_of(path, "segment_b"), header))
    with pytest.raises(ShardError, match=message):
        list(iter_blocks(path))


def test_array_header_longer_than_the_member_is_refused(copy):
    path = shard_of(copy)
    data, place = bytearray(path.read_bytes()), place_of(path, "segment_b")
    data[place + 520 : place + 522] = b"\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ShardError, match="unexpected array header"):
        list(iter_blocks(path))


def changed(block, field, place, value):
    values = getattr(block, field).copy()
    values[place] = value
    return {field: values}


BLOCK_EDITS = {
    "offsets fall": ("token_offsets do not ascend", lambda b: changed(b, "token_offsets", 1, 2**32 - 1)),
    "empty sample": ("token_offsets do not ascend", lambda b: changed(b, "token_offsets", 1, 0)),
    "first offset": ("do not fit each other", lambda b: changed(b, "token_offsets", 0, 1)),
    "last offset": ("do not fit each other", lambda b: changed(b, "token_offsets", -1, 2**32 - 1)),
    "segment_b 0": ("segment_b lies outside", lambda b: changed(b, "segment_b", 3, 0)),
    "segment_b 255": ("segment_b lies outside", lambda b: changed(b, "segment_b", 3, 255)),
    "label": ("next_sentence_label is neither", lambda b: changed(b, "next_sentence_label", 0, 2)),
    "position beyond": ("mask_positions lie outside", lambda b: changed(b, "mask_positions", -1, 255)),
    "position of [CLS]": ("mask_positions lie outside", lambda b: changed(b, "mask_positions", 0, 0)),
    "position of [SEP]": (
        "mask_positions lie outside",
        lambda b: changed(b, "mask_positions", 0, b.lengths[b.num_predictions[:, 0] > 0][0] - 1),
    ),
    "count": ("do not fit each other", lambda b: changed(b, "num_predictions", (0, 0), 255)),
    "no samples": ("do not fit each other", lambda b: {name: getattr(b, name)[:0] for name in FIELDS}),
    "one key each": ("do not fit each other", lambda b: {"document_keys": b.document_keys[:, :1].copy()}),
    "keys of 32 bits": ("dtypes are not those", lambda b: {"document_keys": b.document_keys.astype("<u4")}),
    "counts of 64 bits": ("dtypes are not those", lambda b: {"num_predictions": b.num_predictions.astype("<u8")}),
    "tokens of 8 bits": ("dtypes are not those", lambda b: {"tokens": b.tokens.astype("u1")}),
    "positions of 16 bits": ("dtypes are not those", lambda b: {"segment_b": b.segment_b.astype("<u2")}),
    "a long sample": (
        "longer than positions of uint8",
        lambda b: {
            "tokens": np.concatenate([b.tokens, np.full(300, 7, "<u2")]),
            **changed(b, "token_offsets", -1, len(b.tokens) + 300),
        },
    ),
}


@pytest.mark.parametrize("kind", BLOCK_EDITS)
def test_block_that_leads_out_of_itself_is_refused(tiny, tmp_path, kind):
    message, edit = BLOCK_EDITS[kind]
    block = next(iter_blocks(shard_of(tiny)))
    path = tmp_path / "train-00000-of-00001.tar"
    path.write_bytes(encode_block(dataclasses.replace(block, **edit(block)), name=NAME) + bytes(1024))
    with pytest.raises(ShardError, match=message):
        list(iter_blocks(path))


def rewrite(folder, blocks, *, num_samples_off=0):
    """Writes the training shard anew, with index and manifest."""
    manifest = open_data_set(folder).manifest
    entries = []
    for name, own in ((manifest.shards[0].name, blocks), (manifest.shards[1].name, None)):
        own = list(iter_blocks(folder / name)) if own is None else own
        with open_shard(LocalFolder(folder), name) as writer:
            for number, block in enumerate(own):
                writer.add(block, name=block_name("train", 0, number))
        entries.append(writer.entries)
    entries[0][0] = dataclasses.replace(entries[0][0], num_samples=entries[0][0].num_samples + num_samples_off)
    write_index(folder, entries)
    totals = {
        name: sum(getattr(entry, name) for entry in entries[0]) for name in ("num_samples", "num_tokens", "num_bytes")
    }
    totals["num_bytes"] += 1024
    shard = dataclasses.replace(manifest.shards[0], num_blocks=len(blocks), **totals)
    write_manifest(folder, dataclasses.replace(manifest, shards=(shard, *manifest.shards[1:])))


def as_type(block, names, dtype):
    return {name: getattr(block, name).astype(dtype) for name in names.split()}


FOREIGN_BLOCKS = {
    "token": ("a token beyond the", lambda b: changed(b, "tokens", 5, 65535)),
    "mask token": ("a token beyond the", lambda b: changed(b, "mask_tokens", 0, 65535)),
    "wide tokens": ("tokens are not uint16", lambda b: as_type(b, "tokens mask_tokens", "<u4")),
    "wide positions": (
        "positions are not uint8",
        lambda b: as_type(b, "segment_b num_predictions mask_positions", "<u2"),
    ),
    "third mask set": (
        "has not 2 mask sets",
        lambda b: {"num_predictions": np.pad(b.num_predictions, ((0, 0), (0, 1)))},
    ),
    "long sample": (
        "a sample of more than 32 tokens",
        lambda b: {
            "tokens": np.concatenate([b.tokens, np.full(40, 7, "<u2")]),
            **changed(b, "token_offsets", -1, len(b.tokens) + 40),
        },
    ),
}


@pytest.mark.parametrize("kind", FOREIGN_BLOCKS)
def test_block_of_another_data_set_is_refused(copy, kind):
    message, edit = FOREIGN_BLOCKS[kind]
    first, *others = iter_blocks(shard_of(copy))
    rewrite(copy, [dataclasses.replace(first, **edit(first)), *others])
    data_set = open_data_set(copy)
    blocks = data_set.blocks("train")
    data_set.read(blocks, 1)
    with pytest.raises(ShardError, match=message):
        data_set.read(blocks, 0)


def test_block_of_another_size_than_the_index_says_is_refused(copy):
    rewrite(copy, list(iter_blocks(shard_of(copy))), num_samples_off=1)
    data_set = open_data_set(copy)
    with pytest.raises(ShardError, match="has not the 31 samples of the index"):
        data_set.read(data_set.blocks("train"), 0)


def test_segment_b_where_there_is_none_is_refused(copy):
    manifest = open_data_set(copy).manifest
    pairs = manifest.options["pairs"] | {"next_sentence": "none"}
    write_manifest(copy, dataclasses.replace(manifest, options=manifest.options | {"pairs": pairs}))
    data_set = open_data_set(copy)
    with pytest.raises(ShardError, match="a sample of two segments"):
        data_set.read(data_set.blocks("train"), 0)


def test_blocks_are_read_only_within_the_file(tiny):
    path = shard_of(tiny)
    num_bytes = path.stat().st_size
    for offset, length, message in [
        (-1, 512, "no block has"),
        (0, -1, "no block has"),
        (0, MAX_BLOCK_BYTES + 1, "no block has"),
        (0, 2**60, "no block has"),
        (2**62, 512, "truncated"),
        (num_bytes - 511, 512, "truncated"),
    ]:
        with pytest.raises(ShardError, match=message):
            read_block(path, offset=offset, num_bytes=length, crc32=0)
        with pytest.raises(ShardError, match=message):
            read_field(path, offset=offset, num_bytes=length, field="segment_b")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-1024] + b"x" * 1024, "no end of the archive"),
        (lambda data: data[:-512], "no end of the archive"),
        (lambda data: data + bytes(512), "no tar header|end"),
        (lambda data: data[:-1024] + data[:512] + bytes(1024), "reaches past byte"),
        (lambda data: data[512:], "no tar header"),
        (lambda _: b"", "0 blocks, but no end"),
    ],
)
def test_shard_that_does_not_end_as_it_should_is_refused(copy, edit, message):
    path = shard_of(copy)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ShardError, match=message):
        list(iter_blocks(path))


def index_edits():
    for name, value, message in [
        ("shard", -1, "shards are not in order"),
        ("shard", 2, "shards are not in order"),
        ("shard", 1, "which is not where the one before it ends|shards are not in order"),
        ("offset", -512, "block 0 has offset -512"),
        ("offset", 2**60, "block 0 has offset 1152921504606846976"),
        ("offset", 512, "block 0 has offset 512"),
        ("num_bytes", 0, "block 0 has num_bytes 0"),
        ("num_bytes", -(2**63), "block 0 has num_bytes -9223372036854775808"),
        ("num_bytes", 2**60, "block 0 has num_bytes 1152921504606846976"),
        ("num_bytes", 4096, "block 1 has offset .* not where the one before it ends"),
        ("num_samples", 0, "block 0 has num_samples 0"),
        ("num_samples", 2**63 - 1, "block 0 has num_samples"),
        ("num_samples", 7, "has num_samples .* by the index, .* by the manifest"),
        ("num_tokens", -1, "block 0 has num_tokens -1"),
        ("num_tokens", 7, "has num_tokens .* by the index, .* by the manifest"),
    ]:
        yield f"{name} {value}", message, lambda rows, name=name, value=value: {**rows, name: [value, *rows[name][1:]]}
    yield "row missing", "not where the one before it ends", lambda rows: {name: rows[name][1:] for name in rows}
    yield "last row missing", "num_blocks", lambda rows: {name: rows[name][:-1] for name in rows}
    yield "row twice", "not where", lambda rows: {name: [rows[name][0], *rows[name]] for name in rows}
    yield "null", "missing values", lambda rows: {**rows, "crc32": [None, *rows["crc32"][1:]]}


@pytest.mark.parametrize(("kind", "message", "edit"), list(index_edits()), ids=lambda value: str(value)[:30])
def test_index_that_does_not_fill_the_shards_is_refused(copy, kind, message, edit):
    path = copy / "index.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    path.write_bytes(index_bytes(pa.table(edit(table.to_pydict()), schema=table.schema)))
    with pytest.raises(ShardError, match=message):
        open_data_set(copy)


INDEX_FORMS = {
    "zstd": ("it is compressed", lambda table: index_bytes(table, compression="zstd")),
    "lz4": ("it is compressed", lambda table: index_bytes(table, compression="lz4")),
    "column missing": ("its columns are", lambda table: index_bytes(table.drop_columns("crc32"))),
    "column added": ("its columns are", lambda table: index_bytes(table.append_column("x", table["crc32"]))),
    "other order": ("its columns are", lambda table: index_bytes(table.select(table.column_names[::-1]))),
    "other type": ("shard int64", lambda table: index_bytes(table.set_column(0, "shard", table["offset"]))),
    "dictionary": (
        "shard dictionary",
        lambda table: index_bytes(table.set_column(0, "shard", table["shard"].dictionary_encode())),
    ),
    "lists": (
        "shard list",
        lambda table: index_bytes(table.set_column(0, "shard", pa.array([[0]] * len(table)))),
    ),
    "cut": ("cut off or no Arrow file", lambda table: index_bytes(table)[:-1]),
    "cut in the middle": ("cannot be read as a block index", lambda table: index_bytes(table)[:900] + b"ARROW1"),
    "empty": ("cut off or no Arrow file", lambda _: b""),
    "no messages": ("it has no columns", lambda _: b"ARROW1\0\0\xff\xff\xff\xff\0\0\0\0ARROW1"),
}


@pytest.mark.parametrize("kind", INDEX_FORMS)
def test_index_of_another_form_is_refused(copy, kind):
    message, write = INDEX_FORMS[kind]
    path = copy / "index.arrow"
    path.write_bytes(write(pa.ipc.open_file(path.read_bytes()).read_all()))
    with pytest.raises(ShardError, match=message):
        open_data_set(copy)


SHARD = ("shards", 0)
MANIFEST_EDITS = [
    ((*SHARD, "name"), "../train-00000-of-00001.tar", "shard '../train-00000-of-00001.tar' is in none of the folders"),
    ((*SHARD, "name"), "/train-00000-of-00001.tar", "in none of the folders"),
    ((*SHARD, "name"), "x/../train-00000-of-00001.tar", "in none of the folders"),
    ((*SHARD, "name"), "x\0/train-00000-of-00001.tar", "in none of the folders"),
    ((*SHARD, "name"), "/etc/passwd", "a shard is named '/etc/passwd'"),
    (("merged_from",), ["../x"], "merged_from: 0 is '../x', not an object"),
    ((*SHARD, "name"), "train-00000-of-00001.tar\0", "a shard is named"),
    ((*SHARD, "name"), "train-00000-of-00001.tar\n", "a shard is named"),
    ((*SHARD, "name"), "train-٠٠٠٠٠-of-00001.tar", "a shard is named"),
    ((*SHARD, "name"), "eval-00000-of-00001.tar", "said to be of split 'train'"),
    ((*SHARD, "name"), 5, "shards: 0: name is 5, not str"),
    ((*SHARD, "split"), "test", "said to be of split 'test'"),
    ((*SHARD, "num_samples"), -1, "'num_samples' is -1"),
    ((*SHARD, "num_samples"), 2**70, "'num_samples' is"),
    ((*SHARD, "num_samples"), 1.0, "num_samples is 1.0, not int"),
    ((*SHARD, "num_samples"), True, "num_samples is True, not int"),
    ((*SHARD, "num_bytes"), "7", "num_bytes is '7', not int"),
    ((*SHARD, "num_blocks"), 99, "has num_blocks .* by the index, 99 by the manifest"),
    ((*SHARD, "num_bytes"), 2**60, "has num_bytes .* by the index"),
    ((*SHARD, "sha256"), "0" * 63, "64 hex digits"),
    ((*SHARD, "sha256"), "G" * 64, "64 hex digits"),
    (SHARD, None, "shards: 0 is None, not an object"),
    (("shards",), {}, "shards is {}, not tuple"),
    (("shards",), [], "do not belong together"),
    (("tokenizer",), [], "tokenizer is \\[\\], not an object"),
    (("tokenizer", "vocab_size"), 0, "vocab_size is 0"),
    (("tokenizer", "vocab_size"), 2**40, "vocab_size is 1099511627776"),
    (("tokenizer", "token_dtype"), "uint32", "ids need uint16"),
    (("tokenizer", "token_dtype"), "object", "ids need uint16"),
    (("tokenizer", "sha256"), "0" * 64, "not the tokenizer that the shards were built with"),
    (("tokenizer", "roles"), {"pad": 0}, "roles are"),
    (("tokenizer", "roles", "mask"), 10**6, "roles are"),
    (("tokenizer", "roles", "mask"), -1, "roles are"),
    (("options",), {}, "options has no"),
    (("options",), "x" * 10**6, "options is 'xxx"),
    (("options", "pairs"), {}, "options: pairs has no"),
    (("options", "pairs", "max_seq_length"), "32", "max_seq_length is '32', not int"),
    (("options", "pairs", "max_seq_length"), 7, "it must be between 8 and 65,535"),
    (("options", "pairs", "max_seq_length"), 64, "max_seq_lengths is not 64 alone"),
    (("options", "pairs", "next_sentence"), "random", "next_sentence is 'random', not"),
    (("options", "pairs", "short_seq_prob"), float("nan"), "short-seq-prob is nan"),
    (("options", "masks", "num_mask_sets"), 2.5, "num_mask_sets is 2.5, not int"),
    (("options", "masks", "num_mask_sets"), 256, "num-mask-sets is 256"),
    (("options", "masks", "spans"), True, "fields that this release does not know"),
    (("options", "seed"), -1, "--seed is -1"),
    (("counts",), {"samples": -1}, "counts: 'samples' is -1"),
    (("counts",), {"samples": "many"}, "counts: 'samples' is 'many', not int"),
    (("languages",), {"en": None}, "languages: 'en' is None"),
    (("inputs",), [{"name": 5, "bytes": 0}], "an input is"),
    (("versions",), {"python": 3.11}, "versions: 'python' is 3.11, not str"),
    (("files", "../x"), "0" * 64, "'../x' is no name of a file"),
    (("files", "index.arrow"), "0", "64 hex digits"),
    (("format_version",), "1", "format version '1'; this release reads"),
    (("format_version",), [[]], "format version"),
]


@pytest.mark.parametrize(("place", "value", "message"), MANIFEST_EDITS)
def test_manifest_that_says_what_cannot_be_is_refused(copy, place, value, message):
    path = copy / "manifest.json"
    values = json.loads(path.read_bytes())
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ShardError, match=message) as error:
        open_data_set(copy)
    assert len(str(error.value)) < 1000


def test_manifest_without_any_one_field_is_refused(tiny, tmp_path):
    values = json.loads((tiny / "manifest.json").read_bytes())
    options = values["options"]
    holders = [
        values,
        values["tokenizer"],
        values["shards"][0],
        options,
        *(options[name] for name in ("pairs", "masks")),
    ]
    for name in ("tokenizer.json", "index.arrow"):
        shutil.copy(tiny / name, tmp_path)
    for holder in holders:
        for key in list(holder):
            kept = holder.pop(key)
            (tmp_path / "manifest.json").write_text(json.dumps(values))
            with pytest.raises(ShardError, match=f"has no .*{key}|format version None"):
                open_data_set(tmp_path)
            holder[key] = kept


@pytest.mark.parametrize(("name", "value"), [("vocab_size", 9999), ("mask", 5)])
def test_vocabulary_of_another_tokenizer_is_refused(copy, name, value):
    manifest = open_data_set(copy).manifest
    roles = manifest.tokenizer.roles | ({name: value} if name == "mask" else {})
    size = value if name == "vocab_size" else manifest.tokenizer.vocab_size
    tokenizer = dataclasses.replace(manifest.tokenizer, vocab_size=size, roles=roles)
    write_manifest(copy, dataclasses.replace(manifest, tokenizer=tokenizer))
    with pytest.raises(ShardError, match="but the manifest says"):
        open_data_set(copy).load_vocabulary()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": "/etc"}, "must be a relative path"),
        ({"path": ""}, "must be a relative path"),
        ({"path": "a\0b"}, "must be a relative path"),
        ({"path": "\ud800"}, "must be a relative path"),
        ({"path": "x" * 300}, "cannot be read .File name too long"),
        ({"options": {}}, "options has no"),
        ({"inputs": [{}]}, "an input is"),
    ],
)
def test_origin_that_cannot_be_is_refused(copy, changed, message):
    path = copy / "manifest.json"
    values = json.loads(path.read_bytes())
    origin = {name: values[name] for name in ("build", "options", "versions", "inputs")}
    values["merged_from"] = [origin | {"path": ".", "fingerprint": "x"} | changed]
    if "path" in changed:
        for shard in values["shards"]:
            shard["name"] = f"{changed['path']}/{shard['name']}"
    path.write_text(json.dumps(values))
    with pytest.raises(ShardError, match=message):
        open_data_set(copy)


def test_manifest_that_names_a_shard_twice_is_refused(copy):
    path = copy / "manifest.json"
    values = json.loads(path.read_bytes())
    values["shards"][1] = values["shards"][0]
    path.write_text(json.dumps(values))
    with pytest.raises(ShardError, match="a shard is named twice"):
        open_data_set(copy)


def _sparse(path):
    """Makes a file of a terabyte, none of which is on the disk."""
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 1 << 40)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path):
    path.unlink()
    path.mkdir()


def _nested(path):
    path.write_bytes(b"[" * 10**6)


def _digits(path):
    path.write_bytes(b'{"format_version": ' + b"9" * 10**6 + b"}")


def _bomb(path):
    """Writes an index of a few KB that unpacks to 190 MB."""
    schema = pa.ipc.open_file(path.read_bytes()).schema
    zeros = np.zeros(5_000_000, dtype=np.int64)
    path.write_bytes(
        index_bytes(pa.table([pa.array(zeros).cast(field.type) for field in schema], schema), compression="zstd")
    )
    assert path.stat().st_size < 100_000


def _terabyte_member(path):
    data = edit_header(path.read_bytes(), 0, start=124, value=b"77777777777\0")
    path.write_bytes(data)
    os.truncate(path, 1 << 40)


COSTLY = [
    ("manifest.json", _sparse, "1,099,511,627,776 bytes"),
    ("manifest.json", _pipe, "no plain file"),
    ("manifest.json", _endless, "no plain file"),
    ("manifest.json", _folder, "no plain file"),
    ("manifest.json", _nested, "no manifest of a data set"),
    ("manifest.json", _digits, "no manifest of a data set"),
    ("index.arrow", _sparse, "1,099,511,627,776 bytes"),
    ("index.arrow", _pipe, "no plain file"),
    ("index.arrow", _endless, "no plain file"),
    ("index.arrow", _bomb, "it is compressed"),
    ("tokenizer.json", _sparse, "1,099,511,627,776 bytes"),
    ("tokenizer.json", _endless, "no plain file"),
    ("tokenizer.json", _pipe, "no plain file"),
    ("statistics.json", _sparse, "1,099,511,627,776 bytes"),
    ("statistics.json", _pipe, "no plain file"),
    ("statistics.json", _nested, "cannot be read as statistics"),
    ("train-00000-of-00001.tar", _pipe, "no plain file"),
    ("train-00000-of-00001.tar", _endless, "no plain file"),
    ("train-00000-of-00001.tar", _folder, "no plain file"),
    ("train-00000-of-00001.tar", _terabyte_member, "reaches past byte 1073741824"),
    ("train-00000-of-00001.tar", _sparse, "no tar header"),
]


def test_costly_files_are_refused_in_little_memory(tiny, tmp_path):
    """What would take all memory, or wait for ever, is opened by a process that has 128 MB to spare."""
    paths = []
    for number, (name, make, _) in enumerate(COSTLY):
        folder = shutil.copytree(tiny, tmp_path / f"{number:02d}")
        make(folder / name)
        paths.append(folder / name if name.endswith(".tar") else folder)
    errors = run_limited("read", *paths)
    for (name, make, message), error in zip(COSTLY, errors, strict=True):
        assert error.startswith("ShardError: "), (name, make.__name__, error)
        assert message in error, (name, make.__name__, error)


def test_limit_of_memory_is_one(tiny, tmp_path):
    """The same process cannot read what takes more than it has: what the test above says is not said of any process."""
    folder = shutil.copytree(tiny, tmp_path / "large")
    (folder / "manifest.json").write_bytes(b"[" + b"[]," * 4_000_000 + b"[]]")
    (error,) = run_limited("read", folder)
    assert error.startswith("MemoryError")


def test_block_beyond_the_limit_is_not_written(monkeypatch, tiny):
    block = next(iter_blocks(shard_of(tiny)))
    monkeypatch.setattr(bertdata.shards, "MAX_BLOCK_BYTES", 4096)
    with pytest.raises(ShardError, match="it may have 4,096. Give a smaller --block-size"):
        encode_block(block, name=NAME)


UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


@pytest.mark.parametrize("path", sorted(Path(bertdata.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_nothing_is_unpickled(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not UNSAFE & {name.split(".")[0] for name in names}, ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            if ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert any(ast.unparse(keyword) == "allow_pickle=False" for keyword in node.keywords), ast.unparse(node)
        elif isinstance(node, ast.Name):
            assert node.id not in ("eval", "exec"), path


KINDS = ("shard", "index", "manifest", "statistics")


def check_fuzz(folder, kinds, numbers, *, num_messages):
    found = run_limited("fuzz", folder, ",".join(kinds), numbers.start, numbers.stop)
    for kind in kinds:
        outcomes = found[kind]["outcomes"]
        assert set(outcomes) <= {"read", "refused", "unchanged"}
        assert sum(outcomes.values()) == len(numbers)
        assert outcomes["refused"] > 0.6 * len(numbers), (kind, outcomes)
        assert outcomes["read"] > 0, (kind, outcomes)  # harmless changes are not refused
        assert len(found[kind]["messages"]) >= num_messages, found[kind]


def test_random_damage_ends_in_an_error_or_a_clean_read(tiny):
    check_fuzz(tiny, KINDS, range(60), num_messages=8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_ends_in_an_error_or_a_clean_read_often(tiny, kind):
    check_fuzz(tiny, [kind], range(60, 1_060), num_messages=12)
