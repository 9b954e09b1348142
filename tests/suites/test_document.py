"""What a suite file may say, and how it says what is wrong and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import UsageError
from evalkit.suites import Flag, bundled_suites, cells_of, find_suite, read_suite

FLAGS = {
    flag.key: flag
    for flag in (
        Flag(key="ckpt", option="--ckpt", place="path"),
        Flag(key="images", option="--images", place="path"),
        Flag(key="reference", option="--reference", place="name-or-path"),
        Flag(key="metrics", option="--metrics", kind="list"),
        Flag(key="num_samples", option="--num-samples"),
        Flag(key="guidance", option="--guidance"),
        Flag(key="weights", option="--weights", kind="repeated", place="pair"),
        Flag(key="loud", option="--loud", kind="switch"),
    )
}


@pytest.fixture
def written(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_suite(path, FLAGS)

    return write


def commands(suite):
    return [" ".join(cell.arguments) for cell in cells_of(suite)]


def test_rows_protocols_and_seeds_multiply_in_the_order_of_the_file(written):
    suite = written(
        'protocols = ["pixels", "embedded"]\nseeds = [0, 3]\n'
        '[[model]]\nname = "cgan"\n[[model]]\nname = "vae"\n'
    )
    assert suite.name == "mine"
    assert commands(suite) == [
        f"--model {model} --protocol {protocol} --seed {seed}"
        for model in ("cgan", "vae")
        for protocol in ("pixels", "embedded")
        for seed in (0, 3)
    ]


def test_a_row_overrides_the_defaults_and_flags_keep_one_order(written):
    suite = written(
        '[defaults]\nnum_samples = 16\nmetrics = ["kd", "fd"]\n'
        '[[model]]\nname = "cgan"\n'
        '[[model]]\nname = "cgan"\nguidance = 3\nnum_samples = 8\nas = "cgan-3"\nseeds = [7]\n'
        'protocols = ["auto"]\n'
    )
    assert commands(suite) == [
        "--model cgan --metrics kd,fd --num-samples 16 --protocol embedded --seed 0",
        "--model cgan --metrics kd,fd --num-samples 8 --guidance 3 --name cgan-3 --protocol auto --seed 7",
    ]


def test_values_become_words_of_the_command(written):
    suite = written(
        '[[model]]\nname = "vae"\nguidance = -1.5\nloud = true\nmetrics = "kd"\nweights = ["ema"]\n'
        '[[model]]\nname = "cgan"\nloud = false\n'
    )
    assert commands(suite) == [
        "--model vae --metrics kd --guidance=-1.5 --weights ema --loud --protocol embedded --seed 0",
        "--model cgan --protocol embedded --seed 0",
    ]


def test_paths_are_relative_to_the_file_and_names_stay_names(written, tmp_path):
    for name in ("x.pt", "w.pth", "real.npz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "samples").mkdir()
    suite = written(
        '[defaults]\nreference = "real.npz"\n'
        '[[model]]\nname = "ddpm"\nckpt = "x.pt"\nweights = ["inception-v3=w.pth"]\n'
        '[[model]]\nimages = "samples"\nreference = "cifar10-jpeg-train"\n'
        '[[model]]\nname = "hub-model"\nckpt = "hub:a/b@main"\n'
    )
    first, *others = commands(suite)
    assert first == (
        f"--model ddpm --ckpt {tmp_path}/x.pt --reference {tmp_path}/real.npz "
        f"--weights inception-v3={tmp_path}/w.pth --protocol embedded --seed 0"
    )
    assert others == [
        f"--images {tmp_path}/samples --reference cifar10-jpeg-train --protocol embedded --seed 0",
        f"--model hub-model --ckpt hub:a/b@main --reference {tmp_path}/real.npz --protocol embedded --seed 0",
    ]
    assert [row.name for row in suite.rows] == ["ddpm", "samples", "hub-model"]


ROW = '[[model]]\nname = "cgan"\n'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("name =", "cannot be read as TOML", None),
        (b"\xff", "cannot be read as TOML", None),
        ("", "[[model]]: there is no row", 'name = "ddpm"'),
        ("model = 3", "[[model]]: there is no row", 'name = "ddpm"'),
        ('models = ["x"]\n' + ROW, "unknown key 'models'", "did you mean 'model'?"),
        ("seed = 3\n" + ROW, "unknown key 'seed'", "did you mean 'seeds'?"),
        ("[defaults]\nnum_sample = 3\n" + ROW, "[defaults]: unknown key 'num_sample'", "mean 'num_samples'?"),
        (
            "[defaults]\ndevice = 'cpu'\n" + ROW,
            "[defaults]: unknown key 'device'",
            "--device of `evalkit suite`",
        ),
        (ROW + "guidence = 3\n", "[[model]] 1 (cgan): unknown key 'guidence'", "did you mean 'guidance'?"),
        (ROW + "seed = 3\n", "[[model]] 1 (cgan): unknown key 'seed'", "seeds = [0, 1, 2]"),
        (ROW + 'protocol = "x"\n', "unknown key 'protocol'", 'protocols = ["embedded"]'),
        (ROW + ROW, "[[model]] 1 (cgan): two rows are called 'cgan'", "as ="),
        (ROW + 'as = "=1+1"\n', "as '=1+1' is not an identifier", "start with a letter"),
        ('name = "a/../../b"\n' + ROW, "name: must not lead out of the folder of runs", None),
        (ROW + 'as = ""\n', "must be text without control characters", None),
        (ROW + "guidance = nan\n", "[[model]] 1 (cgan) guidance: must be a finite number", None),
        (ROW + "guidance = true\n", "guidance: must be text or a number, not True", None),
        (ROW + "guidance = [1]\n", "guidance: must be text or a number, not [1]", None),
        (ROW + 'guidance = "1\\u0000"\n', "without control characters", None),
        (ROW + "loud = 1\n", "loud: is true or false, not 1", None),
        (
            ROW + 'ckpt = "gone.pt"\n',
            "[[model]] 1 (cgan) ckpt: no file or folder at",
            "relative to this file",
        ),
        (ROW + 'weights = ["x=gone.pt"]\n', "no file or folder at", "relative to this file"),
        ("[[model]]\nckpt = 'x'\n", "[[model]] 1: names no subject", "images ="),
        ("[[model]]\nname = 3\n", "[[model]] 1 name: must be text, not 3", None),
        ("model = [1]\n", "[[model]] 1: must be a table, not 1", None),
        ("defaults = 1\n" + ROW, "[defaults]: must be a table, not 1", None),
        (
            'protocols = ["embeded"]\n' + ROW,
            "protocols: unknown protocol 'embeded'",
            "did you mean 'embedded'?",
        ),
        ("protocols = []\n" + ROW, "protocols: must be a list of at least one protocol, not []", None),
        ('protocols = "embedded"\n' + ROW, "must be a list of at least one protocol", None),
        ("seeds = [0, 0]\n" + ROW, "seeds: seed 0 stands there twice", None),
        ("seeds = [-1]\n" + ROW, "a seed is a whole number from 0 on, not -1", None),
        ("seeds = [true]\n" + ROW, "a seed is a whole number from 0 on, not True", None),
        (ROW + "seeds = [0.5]\n", "[[model]] 1 (cgan): a seed is a whole number from 0 on, not 0.5", None),
        ('name = "a b"\n' + ROW, "name 'a b' is not an identifier", "start with a letter"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, message, hint):
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as error:
        cells_of(read_suite(path, FLAGS))
    assert str(path) in error.value.message
    assert message in error.value.message
    assert hint is None or hint in (error.value.hint or "")


def test_two_rows_that_differ_only_in_their_names_are_refused(tmp_path):
    text = '[[model]]\nname = "vae"\nas = "one"\n[[model]]\nname = "vae"\nas = "two"\n'
    with pytest.raises(UsageError, match=r"\(two\): would measure the same as one · embedded · seed 0"):
        cells_of(read_suite_of(tmp_path, text))


def read_suite_of(folder: Path, text: str):
    path = folder / "two.toml"
    path.write_text(text)
    return read_suite(path, FLAGS)


def test_a_suite_is_found_by_its_file_or_its_bundled_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_suite("cifar10-jpeg") == bundled_suites()["cifar10-jpeg"]
    (tmp_path / "mine.toml").write_text(ROW)
    assert find_suite("mine.toml") == Path("mine.toml")
    with pytest.raises(UsageError, match="no suite called 'cifar10'") as error:
        find_suite("cifar10")
    assert error.value.hint == "did you mean 'cifar10-jpeg'?"
    with pytest.raises(UsageError, match=r"no suite file at other\.toml"):
        find_suite("other.toml")


def test_a_folder_is_not_a_suite_file(tmp_path):
    with pytest.raises(UsageError, match="no suite file at"):
        find_suite(str(tmp_path))


class TestKeys:
    """A key stands for everything that can move a cell's numbers."""

    def key(self, folder, text):
        (cell,) = cells_of(read_suite_of(folder, text))
        return cell.key

    def test_is_the_same_wherever_the_file_is_read_from(self, tmp_path, monkeypatch):
        (tmp_path / "x.pt").write_bytes(b"1")
        text = ROW + 'ckpt = "x.pt"\n'
        here = self.key(tmp_path, text)
        monkeypatch.chdir(tmp_path)
        (cell,) = cells_of(read_suite(Path("two.toml"), FLAGS))
        assert cell.key == here

    @pytest.mark.parametrize(
        "more", ["guidance = 2\n", "seeds = [1]\n", 'protocols = ["pixels"]\n', 'as = "b"\n', "loud = true\n"]
    )
    def test_changes_with_every_setting(self, tmp_path, more):
        assert self.key(tmp_path, ROW) != self.key(tmp_path, ROW + more)

    def test_changes_with_the_bytes_of_a_checkpoint(self, tmp_path):
        from evalkit.suites.cells import _digest

        text = ROW + 'ckpt = "x.pt"\n'
        (tmp_path / "x.pt").write_bytes(b"1")
        before = self.key(tmp_path, text)
        (tmp_path / "x.pt").write_bytes(b"2")
        _digest.cache_clear()  # one process digests a file once
        assert self.key(tmp_path, text) != before

    def test_changes_with_the_files_of_a_folder(self, tmp_path):
        from evalkit.suites.cells import _digest

        text = '[[model]]\nimages = "s"\n'
        (tmp_path / "s").mkdir()
        before = self.key(tmp_path, text)
        (tmp_path / "s" / "a.png").write_bytes(b"1")
        _digest.cache_clear()
        assert self.key(tmp_path, text) != before


@settings(max_examples=40)  # each reads a file
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["guidance", "num_samples"]), st.integers(-1000, 1000), max_size=2),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
)
def test_every_row_has_every_seed_once_and_all_keys_differ(tmp_path_factory, rows, seeds):
    text = f"seeds = {seeds}\n"
    for number, row in enumerate(rows):
        text += f'[[model]]\nname = "row{number}"\n'
        text += "".join(f"{key} = {value}\n" for key, value in row.items())
    cells = cells_of(read_suite_of(tmp_path_factory.mktemp("suite"), text))
    assert [(cell.row, cell.seed) for cell in cells] == [
        (f"row{n}", s) for n in range(len(rows)) for s in seeds
    ]
    assert len({cell.key for cell in cells}) == len(cells)
