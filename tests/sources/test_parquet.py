"""Parquet tables: columns, labels, class names, row groups."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.errors import InvalidInputError
from evalkit.sources import open_source, parquet


@pytest.fixture
def encoded(encode):
    return [encode(np.full((2, 2, 3), value, np.uint8)) for value in range(6)]


@pytest.fixture
def save(tmp_path):
    def write(columns, **options):
        metadata = options.pop("metadata", None)
        path = tmp_path / "set.parquet"
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, **options)
        return path

    return write


def values(source):
    return source.read(np.arange(len(source))).images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("group", [1, 4, 100])
def test_plain_binary_column_in_row_order(save, encoded, kind, group):
    source = open_source(save({"anything": pa.array(encoded, kind), "text": ["a"] * 6}, row_group_size=group))
    assert values(source) == list(range(6))
    assert source.read(np.arange(6)).labels is None
    assert source.name_of(5) == "row 5"


def test_struct_column_labels_and_class_names(save, encoded):
    image = [{"bytes": data, "path": "x"} for data in encoded]
    columns = {"thumbnail": encoded, "image": image, "label": pa.array([2, 1, 0] * 2, pa.int8())}
    source = open_source(save(columns, metadata={"classes": json.dumps(["a", "b", "c"])}))
    assert source.read(np.array([0, 5])).labels.tolist() == [2, 0]
    assert source.class_names == ("a", "b", "c")


def test_class_names_of_hugging_face(save, encoded):
    features = {"info": {"features": {"label": {"names": ["x", "y"], "_type": "ClassLabel"}}}}
    columns = {"image": encoded, "label": [0, 1] * 3}
    assert open_source(save(columns, metadata={"huggingface": json.dumps(features)})).class_names == (
        "x",
        "y",
    )


@pytest.mark.parametrize(
    "metadata", [{"classes": "{"}, {"classes": "[1]"}, {"huggingface": "[]"}, {"other": "1"}]
)
def test_metadata_that_names_no_classes(save, encoded, metadata):
    assert open_source(save({"image": encoded}, metadata=metadata)).class_names is None


def test_text_labels_are_no_labels(save, encoded):
    assert open_source(save({"image": encoded, "label": list("abcdef")})).read(np.arange(2)).labels is None


@pytest.mark.parametrize("labels", [[0, None, 1, 1, 1, 1], [0, -1, 1, 1, 1, 1]])
def test_unusable_labels_are_refused(save, encoded, labels):
    with pytest.raises(InvalidInputError, match="label"):
        open_source(save({"image": encoded, "label": labels}))


def test_no_clear_image_column_is_refused(save, encoded):
    for columns in ({"text": ["a"]}, {"one": encoded, "two": encoded}, {"image": [{"path": "a.png"}]}):
        with pytest.raises(InvalidInputError, match="clearly the images"):
            open_source(save(columns))


def test_null_images_are_offenders(save, encoded):
    image = [{"bytes": None, "path": "a.png"}, {"bytes": encoded[1], "path": None}, None]
    source = open_source(save({"image": image}))
    assert [bad.name for bad in source.check()] == ["row 0", "row 2"]


def test_row_groups_are_read_once_in_sequence_and_few_are_kept(save, encoded, monkeypatch):
    source = open_source(save({"image": encoded}, row_group_size=2))
    read = []
    unpack = parquet.ParquetTable._unpack_group
    monkeypatch.setattr(
        parquet.ParquetTable,
        "_unpack_group",
        lambda self, group: (read.append(group), unpack(self, group))[1],
    )
    for index in range(6):
        source.read(np.array([index]))
    assert read == [0, 1, 2]
    source.read(np.array([5, 0, 4, 1]))
    assert read == [0, 1, 2, 0]
    assert len(source._container._cache) == 2


def test_a_row_group_that_unpacks_to_too_much_is_refused(save, encoded, monkeypatch):
    """A dictionary page repeats one value for next to nothing."""
    source = open_source(save({"image": [encoded[0]] * 1000}))
    monkeypatch.setattr(parquet, "_MAX_GROUP_BYTES", 100 * len(encoded[0]))
    with pytest.raises(InvalidInputError, match="unpacks"):
        source.read(np.array([0]))


def test_corrupt_row_group_is_refused(save, encoded):
    path = save({"image": encoded}, compression="gzip", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(InvalidInputError):
        source.read(np.arange(6))
