"""The loop and what it stands on: state, optimizer, sharding, checkpoints, metrics."""
