"""Independent float64 NumPy oracles, written with loops from the equations."""
