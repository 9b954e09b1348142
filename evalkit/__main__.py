"""``python -m evalkit``, and ``torchrun -m evalkit``."""

from evalkit.cli.main import main

main()
