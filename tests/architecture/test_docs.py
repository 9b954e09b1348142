"""The generated page of metrics is what the registry says, and links within the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.systems import SYSTEMS
from evalkit.metric_catalogue import metric_facts
from evalkit.metrics import METRICS
from evalkit.record import RunRecord
from evalkit.reporting.metrics_page import metrics_page
from evalkit.reporting.models_page import models_page

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_metrics_is_not_stale():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == metrics_page(metric_facts()), "evalkit list metrics --format md > docs/metrics.md"


def test_the_page_names_every_metric_once():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (.+)$", page, flags=re.MULTILINE)) == list(METRICS)


def test_the_page_of_models_is_not_stale():
    folder = ROOT / "leaderboards" / "cifar10-jpeg" / "records"
    records = [RunRecord.read(path) for path in sorted(folder.glob("*.json"))]
    page = models_page(list(GENERATOR_FACTS.values()), LAYOUTS, SYSTEMS, records)
    assert (ROOT / "docs" / "models.md").read_text(encoding="utf-8") == page, (
        "evalkit list models --format md --records leaderboards/cifar10-jpeg/records > docs/models.md"
    )


def test_every_model_that_serves_a_system_exists_and_every_native_system_names_one():
    named = {system.model for system in SYSTEMS if system.model}
    assert named <= set(GENERATOR_FACTS)
    assert [system.name for system in SYSTEMS if "native" in system.services and not system.model] == []
    read = {layout for facts in GENERATOR_FACTS.values() for layout in facts.layouts}
    assert set(LAYOUTS) - read == {"guided-diffusion-classifier"}  # no generator: `inspect` tells what it is
    assert read <= set(LAYOUTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target
