"""``python -m evalkit.cli``."""

from evalkit.cli.main import main

main()
