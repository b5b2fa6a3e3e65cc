"""Numbers and wiring of the runs; nothing here computes."""
