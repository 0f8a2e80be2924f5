"""Benchmarks: this server beside a bare MLX loop and the other servers, all measured in one run."""
