"""The two standard sentences of stage 1 (Endo-CLIP, section 2.2)."""

POLYPS = "This is a colon with polyps."
BACKGROUND = "This is a normal background."
SENTENCES = (BACKGROUND, POLYPS)  # a patient's label is the row
