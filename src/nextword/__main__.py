"""Run the command line as `python -m nextword`."""

from nextword.cli import main

if __name__ == "__main__":
    main()
