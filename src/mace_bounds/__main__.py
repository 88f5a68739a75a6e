"""``python -m mace_bounds``: the command line."""

from mace_bounds.cli import main

if __name__ == "__main__":
    main()
