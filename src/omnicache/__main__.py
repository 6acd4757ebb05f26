"""``python -m omnicache``: the command line."""

from omnicache.cli import main

if __name__ == "__main__":
    main()
