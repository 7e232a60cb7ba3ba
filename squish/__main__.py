"""`python -m squish`: the same program as `squish`."""

from squish.cli import main

if __name__ == "__main__":
    main()
