"""Tables and pages from run records. Reads JSON only, never torch."""
