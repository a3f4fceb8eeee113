"""hmsdr: a disaster-recovery playbook that runs.

The packages below are rooms with one-way doors, see ``docs/architecture.md``; import-linter keeps them so.
"""

__version__ = "0.1.0"
