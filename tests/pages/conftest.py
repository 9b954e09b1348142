"""Boards made by hand from the published records, and one Chromium a module to look at pages with."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evalkit.leaderboard.facts import Board, BoardInfo, Entry, Group
from evalkit.record import RunRecord

HEADLINE = "kd:efficientnet-lite0"
_RECORDS = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg" / "records"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu"]

MakeBoard = Callable[[Sequence[Entry]], Board]


@pytest.fixture(scope="session")
def records() -> tuple[RunRecord, ...]:
    """The records of the bundled models, by model id."""
    found = (RunRecord.read(path) for path in _RECORDS.glob("*.json"))
    latest = {record.model.id: record for record in sorted(found, key=lambda record: record.run_id)}
    return tuple(latest[name] for name in sorted(latest))


@pytest.fixture(scope="session")
def make_board() -> MakeBoard:
    """A board of one group, its entries best first, ranked without ties."""

    def make(entries: Sequence[Entry]) -> Board:
        ordered = sorted(
            entries, key=lambda entry: (headline(entry) is None, headline(entry) or 0, entry.name)
        )
        ranked = tuple(
            entry if headline(entry) is None else replace(entry, ranks=(place, place))
            for place, entry in enumerate(ordered, start=1)
        )
        info = BoardInfo(
            name="small", title="Small generators", description="Of a few\n\nmillion parameters."
        )
        fingerprint = ranked[0].record.protocol.fingerprint
        return Board(info=info, groups=(Group(fingerprint=fingerprint, headline=HEADLINE, entries=ranked),))

    return make


def headline(entry: Entry) -> float | None:
    return next((r.value for r in entry.record.results if r.metric == HEADLINE), None)


@pytest.fixture(scope="session")
def entries(records: Sequence[RunRecord]) -> tuple[Entry, ...]:
    """One entry a bundled model, with samples, and those on the Pareto front marked."""
    front = {"ddpm", "stylegan", "vae-mixture", "vae"}
    return tuple(
        Entry(
            record=record,
            name=record.model.id,
            pareto=record.model.id in front,
            grid=webp(seed),
            source_url="https://example.org/runs?a=1&b=2",
        )
        for seed, record in enumerate(records)
    )


@pytest.fixture(scope="session")
def board(entries: Sequence[Entry], make_board: MakeBoard) -> Board:
    return make_board(entries)


@pytest.fixture(scope="session")
def many(records: Sequence[RunRecord]) -> Callable[..., list[Entry]]:
    """Entries that differ wherever the runs of a real board do; ``metrics`` results each."""

    def make(count: int, metrics: int = 100) -> list[Entry]:
        draw = random.Random(5)
        return [_variation(records[i % len(records)], i, metrics, draw) for i in range(count)]

    return make


def _variation(record: RunRecord, number: int, metrics: int, draw: random.Random) -> Entry:
    name = f"org-{number % 37}/model-{number:05d}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    results = tuple(replace(r, value=r.value * draw.uniform(0.5, 2)) for r in record.results[:metrics])
    speeds = tuple(
        replace(p, throughput=p.throughput * draw.uniform(0.5, 2), warmup_seconds=draw.random())
        for p in record.performance
    )
    command = (
        f"evalkit score --model {name} --ckpt checkpoints/{name}.safetensors --seed 0 --out runs".split()
    )
    changed = replace(
        record,
        run_id=f"20261122T{number:06d}.000000Z-{digest[:8]}",
        model=replace(record.model, id=name, sha256=digest, n_params=draw.randrange(10**6, 10**9)),
        results=results,
        performance=speeds,
        command=tuple(command),
    )
    return Entry(record=changed, name=name, pareto=number < 12)


def webp(seed: int) -> bytes:
    """A small grid of coloured squares."""
    colours = random.Random(seed).randbytes(4 * 4 * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", (4, 4), colours).resize((128, 96), Image.Resampling.NEAREST).save(stream, "WEBP")
    return stream.getvalue()


@dataclass
class Visit:
    """An open page, with everything that it asked for and complained of since it was opened."""

    page: Any
    address: str
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def quiet(self) -> bool:
        """Whether nothing but the file itself was asked for, and nothing went wrong."""
        outside = [one for one in self.requests if one != self.address and not one.startswith("data:")]
        return not outside and not self.messages


# Playwright runs one driver a thread: a browser that outlived its module would be in the way of others.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright")
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(_BROWSERS)} is installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """Open HTML text as a file, in a browser context with the options given."""
    contexts = []

    def open_page(html: str, **options: object) -> Visit:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        seen = Visit(page, file.as_uri())
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.messages.append(message.text))
        page.on("pageerror", lambda error: seen.messages.append(str(error)))
        page.on("dialog", lambda dialog: (seen.messages.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(seen.address)
        return seen

    yield open_page
    for context in contexts:
        context.close()
