"""Repairs of vllm-mlx that its paths through here still need, each with its reason and a test of the defect."""
