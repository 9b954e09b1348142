"""Self-contained HTML pages: one file, no network, complete without JavaScript. No torch."""
