"""``python -m hmsdr``: the same as the ``hmsdr`` command."""

from hmsdr.cli.main import main

main()
