"""What each stage trains on, towards which targets, and what it leaves behind."""
