import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bertdata.index import INDEX, write_index
from bertdata.shards import BlockEntry

COLUMNS = {
    "shard": pa.int32(),
    "offset": pa.int64(),
    "num_bytes": pa.int64(),
    "num_samples": pa.int64(),
    "num_tokens": pa.int64(),
    "crc32": pa.uint32(),
}


def entries():
    count = st.integers(0, 2**63 - 1)
    return st.builds(
        BlockEntry, offset=count, num_bytes=count, num_samples=count, num_tokens=count, crc32=st.integers(0, 2**32 - 1)
    )


def encode_rows(rows):
    """The index as an Arrow file, made of rows by Arrow itself."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema(COLUMNS)) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=pa.schema(COLUMNS)))
    return sink.getvalue().to_pybytes()


@given(shards=st.lists(st.lists(entries(), max_size=4), max_size=5))
def test_index_has_the_bytes_of_its_rows(tmp_path_factory, shards):
    folder = tmp_path_factory.getbasetemp()
    write_index(folder, iter(shards))
    names = list(COLUMNS)[1:]
    rows = [
        {"shard": number} | {name: getattr(block, name) for name in names}
        for number, blocks in enumerate(shards)
        for block in blocks
    ]
    assert (folder / INDEX).read_bytes() == encode_rows(rows)
