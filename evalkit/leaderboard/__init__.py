"""Published tables of records: append-only in, tables and pages out. No torch."""
