"""One library a file, each run in processes of its own as `benchmarks/protocol.py` says."""
