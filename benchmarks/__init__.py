"""Speed, memory and quality beside the peers', in one run: `python -m benchmarks --help`."""
