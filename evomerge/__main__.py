"""``python -m evomerge``: the same as the console script."""

from evomerge.cli.main import main

main()
