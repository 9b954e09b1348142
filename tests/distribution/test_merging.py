"""Parts of a run, brought together, are the run: to the last bit, whoever computed what and when."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit import strict_json
from evalkit.console import Silent
from evalkit.distribution.manifest import PartManifest
from evalkit.distribution.merging import merge
from evalkit.distribution.parts import compute
from evalkit.errors import InvalidInputError, NothingMeasuredError, TemporaryError
from evalkit.evaluate import run
from evalkit.extraction import Interrupted
from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.shards import Part, ShardLayout, ShardResult, ShardStore, read_state


def _part(request: ScoreRequest, index: int, count: int) -> PartManifest:
    manifest = compute(request, console=Silent(), part=Part(index, count)).manifest
    manifest.write(request.out)
    return manifest


def _parts(request: ScoreRequest, count: int) -> list[ScoreRequest]:
    """Compute each part in a folder of its own."""
    requests = [replace(request, out=request.out / f"part-{index}") for index in range(count)]
    for index, one in enumerate(requests):
        _part(one, index, count)
    return requests


def _merged(requests: list[ScoreRequest], out) -> RunRecord:
    (record,) = merge([request.out for request in requests], out, console=Silent())
    return record


@pytest.fixture
def nothing_is_drawn(monkeypatch):
    """From here on."""

    def forbid() -> None:
        def fail(*_args, **_kwargs):
            raise AssertionError("an image was drawn")

        monkeypatch.setattr(GaussianTiles, "generate", fail)

    return forbid


# 130 images are 17 shards, the last of 2 images; 40 are 5 shards, so that 7 parts leave two empty.
@pytest.mark.parametrize(("images", "count"), [(130, 1), (130, 2), (130, 3), (40, 7)])
def test_parts_are_the_run_to_the_last_bit(asked, judged, nothing_is_drawn, tmp_path, images, count):
    request = asked("whole", num_samples=images)
    whole = run(request, console=Silent())
    requests = _parts(asked("parts", num_samples=images), count)
    nothing_is_drawn()
    record = _merged(requests, tmp_path / "merged")
    assert record.status == "complete"
    assert judged(record) == judged(whole)
    assert record.performance[0].images == images
    assert RunRecord.read(tmp_path / "merged" / f"{record.run_id}.json") == record


def test_the_order_of_folders_moves_nothing(asked, judged, tmp_path):
    requests = _parts(asked(num_samples=40), 3)
    records = [
        judged(_merged(list(order), tmp_path / f"merged-{number}"))
        for number, order in enumerate(itertools.permutations(requests))
    ]
    assert all(record == records[0] for record in records)


def test_standard_runs_agree_to_float32_rounding(asked, tmp_path):
    whole = run(asked("whole", strict=False), console=Silent())
    requests = _parts(asked("parts", strict=False, batch_size=5), 3)
    record = _merged(requests, tmp_path / "merged")
    assert record.protocol.fingerprint == whole.protocol.fingerprint
    for ours, theirs in zip(record.results, whole.results, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-5)


def test_a_part_that_was_stopped_in_the_middle_goes_on(asked, judged, tmp_path):
    whole = run(asked("whole"), console=Silent())
    requests = _parts(asked("parts"), 2)
    shutil.rmtree(requests[1].out / "parts")
    state = requests[1].out / "state"
    own = next(folder for folder in state.iterdir() if len(list(folder.glob("*.safetensors"))) == 8)
    for path in sorted(own.glob("*.safetensors"))[3:]:
        path.unlink()
    batches = iter(range(100))
    with pytest.raises(Interrupted):
        compute(
            requests[1], console=Silent(), part=Part(1, 2),
            stop=lambda: signal.SIGTERM if next(batches) == 2 else 0,
        )  # fmt: skip
    with pytest.raises(NothingMeasuredError):
        _merged(requests, tmp_path / "merged")
    _part(requests[1], 1, 2)
    assert judged(_merged(requests, tmp_path / "merged")) == judged(whole)


def test_parts_in_one_folder_are_scored_where_they_lie(asked, judged):
    request = asked("shared")
    for index in (2, 0, 1):
        _part(request, index, 3)
    whole = run(asked("whole"), console=Silent())
    (record,) = merge([request.out], request.out, console=Silent())
    assert judged(record) == judged(whole)
    # And without a merge: the whole run finds every shard.
    assert judged(run(request, console=Silent())) == judged(whole)


def test_missing_shards_are_listed_with_who_owes_them(asked, tmp_path):
    requests = _parts(asked(), 3)
    with pytest.raises(NothingMeasuredError) as caught:
        merge([requests[0].out, requests[2].out], tmp_path / "merged", console=Silent())
    assert caught.value.exit_code == 5
    assert "6 of 17 shards are missing: 1 (images 8..15), 4 (images 32..39)" in caught.value.message
    assert "part 2/3 owes 1, 4, 7, 10, 13, 16" in str(caught.value.hint)
    assert not list((tmp_path / "merged").glob("*.json"))


def test_a_damaged_shard_is_a_missing_one(asked, tmp_path):
    requests = _parts(asked(), 2)
    path = next(path for path in requests[1].out.glob("state/*-8/000003-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        NothingMeasuredError, match=r"1 of 17 shards are missing: 3 \(images 24..31\)"
    ) as caught:
        _merged(requests, tmp_path / "merged")
    assert "was damaged" in str(caught.value.hint)
    _part(requests[1], 1, 2)
    assert _merged(requests, tmp_path / "merged").status == "complete"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "sampling.seeds.base is 0 and 1"),
        ({"num_samples": 131}, "inputs.found is 130 and 131"),
        ({"metrics": ("fd",)}, "protocol.metrics is"),
        ({"strict": False}, "determinism is strict and standard"),
        ({"name": "other"}, "model.id is evalkit.generators.toy:make and other"),
    ],
)
def test_parts_of_another_run_are_refused(asked, tmp_path, changes, named):
    _part(asked("a"), 0, 2)
    _part(asked("b", **changes), 1, 2)
    with pytest.raises(InvalidInputError, match="of different runs") as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", console=Silent())
    assert named in caught.value.message
    assert caught.value.exit_code == 6


def test_a_part_computed_against_other_real_images_is_refused(asked, real, tmp_path):
    other = tmp_path / "other.npz"
    with np.load(real) as arrays:
        np.savez(other, **{name: array[:200] for name, array in arrays.items()})
    _part(asked("a"), 0, 2)
    _part(asked("b", reference=str(other)), 1, 2)
    with pytest.raises(InvalidInputError, match="references"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", console=Silent())


def test_a_reference_that_was_changed_before_the_merge_is_refused(asked, real, tmp_path):
    mine = tmp_path / "mine.npz"
    shutil.copy(real, mine)
    requests = _parts(asked(reference=str(mine)), 2)
    with np.load(real) as arrays:
        np.savez(mine, **{name: array[::-1] for name, array in arrays.items()})
    with pytest.raises((InvalidInputError, NothingMeasuredError)):
        _merged(requests, tmp_path / "merged")


def test_real_images_are_not_extracted_by_a_merge(asked, tmp_path):
    requests = _parts(asked(num_samples=40), 2)
    for request in requests:
        for path in request.out.glob("state/*-16/000002-*.safetensors"):
            path.unlink()
    with pytest.raises(
        NothingMeasuredError, match=r"1 of 19 shards are missing: 2 \(images 32..47\)"
    ) as caught:
        _merged(requests, tmp_path / "merged")
    assert "evalkit reference build" in str(caught.value.hint)


def test_two_runs_in_one_folder_are_two_records(asked):
    for seed, index in itertools.product((0, 1), (0, 1)):
        _part(asked("shared", num_samples=40, seed=seed), index, 2)
    out = asked("shared").out
    records = merge([out], out, console=Silent())
    assert sorted(record.sampling.seeds.base for record in records) == [0, 1]


def test_a_shard_given_twice(asked, judged, tmp_path):
    """Computed again (other times, the same features) it is taken; with other features refused."""
    requests = _parts(asked(num_samples=40), 2)
    again = asked("again", num_samples=40)
    _part(again, 1, 2)
    twice = [*requests, again]
    expected = judged(_merged(requests, tmp_path / "merged"))
    assert judged(_merged(twice, tmp_path / "merged-twice")) == expected
    _change_features(again)
    with pytest.raises(InvalidInputError, match="shard 3 is given twice, with different content"):
        _merged(twice, tmp_path / "refused")


def test_a_shard_given_twice_with_one_more_head_is_taken_with_it(asked, judged, tmp_path):
    """One part was computed before for a run of more metrics: its file has what the other has, and more."""
    requests = _parts(asked(num_samples=40), 2)
    expected = judged(_merged(requests, tmp_path / "merged"))
    again = asked("again", num_samples=40)
    _part(again, 1, 2)
    richer = _replace_shard(again, lambda features: {**features, "more": features["thumbnail"] * 2})
    for number, order in enumerate(([*requests, again], [again, *requests])):
        out = tmp_path / f"twice-{number}"
        assert judged(_merged(order, out)) == expected
        assert [path.name for path in out.glob("state/*-8/000003-*")] == [richer]
    assert judged(_merged(requests, tmp_path / "twice-0")) == expected
    assert [path.name for path in (tmp_path / "twice-0").glob("state/*-8/000003-*")] == [richer]
    other = _replace_shard(again, lambda features: {"more": features["more"]})
    assert other != richer
    with pytest.raises(InvalidInputError, match="shard 3 is given twice, with different content"):
        _merged([*requests, again], tmp_path / "refused")


def test_a_shard_that_was_computed_again_with_one_more_head_is_not_missing(asked, judged, tmp_path):
    requests = _parts(asked(num_samples=40), 2)
    expected = judged(_merged(requests, tmp_path / "merged"))
    for path in requests[1].out.glob("state/*-8/000003-*.safetensors"):
        result, _ = ShardStore(path.parent).read(3, 8)
        more = {**result.features, "more": result.features["thumbnail"] * 2}
        ShardStore(path.parent).write(3, ShardResult(more, result.facts))
        assert not path.exists()
    assert judged(_merged(requests, tmp_path / "again")) == expected


def test_a_damaged_copy_of_a_shard_that_is_given_twice_is_left_out(asked, judged, tmp_path):
    requests = _parts(asked(num_samples=40), 2)
    expected = judged(_merged(requests, tmp_path / "merged"))
    again = asked("again", num_samples=40)
    _part(again, 1, 2)
    (path,) = again.out.glob("state/*-8/000003-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    for number, order in enumerate(([*requests, again], [again, *requests])):
        assert judged(_merged(order, tmp_path / f"twice-{number}")) == expected


def test_what_was_merged_is_left_alone_until_its_parts_change(asked, tmp_path):
    request = asked("shared", num_samples=40)
    for index in (0, 1):
        _part(request, index, 2)
    told, written = Telling(), []

    def merged(**flags):
        (record,) = merge([request.out], request.out, console=told, written=written.append, **flags)
        return record

    first = merged()
    _part(request, 1, 2)  # finds its shards, and writes its manifest again
    assert merged() == first == written[0]
    assert len(written) == 1
    assert told.notes[-1].endswith(
        f"is merged already, as {first.run_id}: left alone (--again scores it anew)"
    )
    assert len(list(request.out.glob("*.json"))) == 1
    again = merged(before=lambda _parts: None)
    assert again.run_id != first.run_id
    assert merged() == again
    _part(replace(request, fresh=True), 1, 2)
    assert merged().run_id not in {first.run_id, again.run_id}
    for path in request.out.glob("*.json"):
        path.unlink()
    assert merged() == written[-1]
    assert len(written) == 4


@pytest.mark.parametrize("text", ["{", '{"schema": "evalkit.merged/1"}', "[]"])
def test_a_note_of_a_merge_that_cannot_be_read_is_none(asked, text):
    request = asked("shared", num_samples=40)
    _part(request, 0, 1)
    (first,) = merge([request.out], request.out, console=Silent())
    (note,) = request.out.glob("parts/*-merged.json")
    note.write_text(text)
    (second,) = merge([request.out], request.out, console=Silent())
    assert second.run_id != first.run_id


class Telling(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def _change_features(request: ScoreRequest) -> None:
    """As a machine with other kernels might."""
    _replace_shard(request, lambda features: {k: v + 1e-7 for k, v in features.items()})


def _replace_shard(request: ScoreRequest, change, facts=lambda facts: facts) -> str:
    """Replace shard 3 by another whole one; return the name of its file."""
    (path,) = request.out.glob("state/*-8/000003-*.safetensors")
    result = read_state(path)
    store = ShardStore(path.parent)
    changed = replace(result, features=change(dict(result.features)), facts=facts(dict(result.facts)))
    written = store.write(3, changed)
    for manifest in (request.out / "parts").glob("*.json"):
        manifest.write_text(manifest.read_text().replace(path.name, written.name))
    return written.name


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda features: features, lambda facts: {key: facts[key] for key in facts if key != "sizes"}),
        (lambda features: features, lambda facts: {**facts, "sizes": [[16]]}),
        (lambda features: features, lambda facts: {**facts, "threads": [1]}),
        (lambda features: features, lambda facts: {**facts, "images": "8"}),
        (lambda features: features, lambda facts: {**facts, "read_seconds": [None]}),
        (lambda features: features, lambda facts: {**facts, "labels": [0]}),
        (lambda features: {k: v * np.float32("nan") for k, v in features.items()}, lambda facts: facts),
    ],
)
def test_a_shard_that_was_made_up_is_none(asked, judged, tmp_path, change, facts):
    """Its name is the digest of its content, and still it is not what a pass writes."""
    request = asked("shared", num_samples=40)
    whole = run(request, console=Silent())
    _part(request, 0, 1)
    name = _replace_shard(request, change, facts)
    with pytest.raises(NothingMeasuredError, match=r"1 of 5 shards are missing: 3 \(images 24..31\)"):
        merge([request.out], tmp_path / "merged", console=Silent())
    assert judged(run(request, console=Silent())) == judged(whole)
    assert name not in {path.name for path in request.out.glob("state/*-8/*")}


def test_a_model_that_is_gone_is_not_missed(asked, judged, tmp_path, monkeypatch):
    """The merge needs neither the model nor its code."""
    module = tmp_path / "passing_by.py"
    module.write_text(
        "from evalkit.generators.toy import GaussianTiles\ndef make():\n    return GaussianTiles()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    requests = _parts(asked(model="passing_by:make", num_samples=40), 2)
    module.unlink()
    monkeypatch.delitem(sys.modules, "passing_by")
    assert _merged(requests, tmp_path / "merged").model.id == "passing_by:make"


def test_fresh_parts_forget_their_own_shards_only(asked, monkeypatch):
    request = asked("shared", num_samples=40)
    for index in (0, 1):
        _part(request, index, 2)
    (folder,) = (path for path in (request.out / "state").iterdir() if len(list(path.glob("*-*.s*"))) == 5)
    before = {path.name for path in folder.glob("*.safetensors")}
    drawn = []
    original = GaussianTiles.generate
    monkeypatch.setattr(GaussianTiles, "generate", lambda *a, **k: drawn.append(1) or original(*a, **k))
    _part(replace(request, fresh=True), 1, 2)
    after = {path.name for path in folder.glob("*.safetensors")}
    assert drawn
    assert {name[:6] for name in before & after} >= {"000000", "000002", "000004"}
    assert {name[:6] for name in after} == {f"{shard:06d}" for shard in range(5)}


def test_the_same_part_twice_at_once_is_refused_and_others_are_not(asked):
    request = asked("shared", num_samples=40)
    _part(request, 0, 2)
    (folder,) = (path for path in (request.out / "state").iterdir() if len(list(path.glob("*-*.s*"))) == 3)
    with ShardStore(folder).exclusive(Part(1, 2)):
        _part(request, 0, 2)
        with pytest.raises(
            TemporaryError, match=r"another evalkit run works on .*process [0-9]+ on"
        ) as caught:
            _part(request, 1, 2)
        assert caught.value.exit_code == 75
        with pytest.raises(TemporaryError):
            run(request, console=Silent())
    _part(request, 1, 2)


@given(count=st.integers(1, 100_000), parts=st.integers(1, 40))
@settings(deadline=None)
def test_all_parts_are_every_shard_once(count, parts):
    layout = ShardLayout(count)
    taken = [shard for index in range(parts) for shard in layout.shards_of(Part(index, parts))]
    assert sorted(taken) == list(range(layout.shards))
    assert all(Part(shard % parts, parts).owns(shard) for shard in taken)


def test_labels_probes_and_several_networks(judged, tmp_path):
    """Everything that a record may hold goes through the parts, the rows of probes included."""
    request = ScoreRequest(
        model="cgan",
        protocol="embedded",
        metrics=("fd", "accuracy@pooled", "intra-fd", "ppl:pd-efficientnet-lite0", "vendi:pixels"),
        params={"ppl": {"space": "z"}, "accuracy": {"classifier": "cifar10"}},
        report_at=5000,
        num_samples=24,
        strict=True,
        out=tmp_path / "whole",
    )
    whole = run(request, console=Silent())
    record = _merged(_parts(replace(request, out=tmp_path / "parts"), 2), tmp_path / "merged")
    assert judged(record) == judged(whole)
    assert len(record.results) == 5


def test_files_of_images_with_classes(judged, tmp_path):
    """A folder of classes that is judged has labels and names; a random subset of it is cut into parts."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    request = ScoreRequest(
        images=tmp_path / "photos", reference=str(tmp_path / "photos"), protocol="pixels",
        metrics=("fd", "intra-fd"), num_samples=40, strict=True, out=tmp_path / "whole",
    )  # fmt: skip
    whole = run(request, console=Silent())
    requests = _parts(replace(request, out=tmp_path / "parts"), 3)
    assert judged(_merged(requests, tmp_path / "merged")) == judged(whole)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, real) -> PartManifest:
    request = ScoreRequest(
        model="evalkit.generators.toy:make", protocol="pixels", reference=str(real), num_samples=40,
        out=tmp_path_factory.mktemp("manifest"), command=("evalkit", "score", "--model", "x"),
    )  # fmt: skip
    return compute(request, console=Silent(), part=Part(0, 2)).manifest


def test_a_manifest_reads_back_as_it_was_written(manifest, tmp_path):
    assert PartManifest.read(manifest.write(tmp_path)) == manifest


def test_secrets_are_not_written_down(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijk")
    monkeypatch.setenv("CACHE_KEY", manifest.request.protocol)
    secret = replace(
        manifest.request, reference="https://me:pass@host/x", command=("--token", "hf_abcdefghijk")
    )
    path = replace(manifest, request=secret).write(tmp_path)
    assert PartManifest.read(path).identity == manifest.identity  # a short value may be a name by chance
    text = path.read_text()
    assert "hf_abcdefghijk" not in text
    assert "me:pass" not in text


def test_the_command_of_a_merged_record_is_that_of_one_process(asked, tmp_path):
    command = ("evalkit", "score", "--shard", "1/1", "--model", "x", "--shard=1/1")
    requests = _parts(asked(num_samples=40, command=command), 1)
    assert _merged(requests, tmp_path / "merged").command == ("evalkit", "score", "--model", "x")


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "state/../x",
        "state/ab/000001-" + "0" * 31 + ".safetensors",
        "state/ab/x",
    ],
)
def test_a_manifest_leads_to_shards_and_nowhere_else(manifest, path):
    data = strict_json.encode_object(manifest)
    data["files"] = [{"path": path, "shard": 0}]
    with pytest.raises(InvalidInputError, match="no state file"):
        PartManifest.from_json(data)


@given(data=st.data())
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_manifest_with_a_fault_is_refused_cleanly(manifest, data):
    """One value somewhere in it becomes another: it is read, or refused by name."""
    document = json.loads(strict_json.dumps(manifest.to_json()))
    node, key = document, "schema"
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or data.draw(st.booleans()):
            break
        node = node[key]
    if isinstance(node, dict | list) and len(node):
        node[key] = data.draw(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(max_size=5),
                st.just([]),
                st.just({}),
            )
        )
    with suppress(InvalidInputError):
        PartManifest.from_json(document).plan.plan()
