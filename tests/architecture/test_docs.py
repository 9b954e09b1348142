"""The generated page of metrics is what the registry says, and links within the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evalkit.metric_catalogue import metric_facts
from evalkit.metrics import METRICS
from evalkit.reporting.metrics_page import metrics_page

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_metrics_is_not_stale():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == metrics_page(metric_facts()), "evalkit list metrics --format md > docs/metrics.md"


def test_the_page_names_every_metric_once():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (.+)$", page, flags=re.MULTILINE)) == list(METRICS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target
